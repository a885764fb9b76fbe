"""The source ``drawings``, bundled with headstart; ``drawings.md`` says what it was trained on."""

from __future__ import annotations

from dataclasses import replace

from headstart.data.dataset import Dataset
from headstart.graph import layers
from headstart.records import Source
from headstart.sources.drawings.network import drawings_network
from headstart.sources.kind import SourceKind
from headstart.sources.networks import network_body, spec_source

__all__ = ["DRAWINGS"]


def _open(name: str, *, dataset: Dataset | None, seed: int, size_px: int | None) -> Source:
    spec, weights = drawings_network()
    source = spec_source(name, spec, layers.network_graph(spec, weights), weights)
    licence = {"licence": "MIT", "licence from": "headstart, which trained it (drawings.md)"}
    notes = {**licence, "trained on": "Omniglot (218 characters, none Greek)"}
    return replace(source, notes=notes, kind=DRAWINGS.prefix)


DRAWINGS = SourceKind(
    "drawings",
    {"drawings": "a small network for drawings and handwriting, bundled"},
    _open,
    body=network_body,
    fixed=True,
)
