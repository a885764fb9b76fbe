"""Sources ``random:NETWORK`` and ``random:PATH``: a frozen network with random weights, as a control."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.graph import layers
from headstart.models.model import open_model
from headstart.networks.engines.numpy_engine import initial_weights
from headstart.networks.specs import ARCHITECTURES, architecture
from headstart.records import NetworkSpec, Source
from headstart.sources.kind import SourceKind
from headstart.sources.networks import native_input, network_body, spec_source

__all__ = ["RANDOM", "random_source"]


def random_source(spec: NetworkSpec, seed: int) -> Source:
    """A network with random weights, named ``random:NETWORK``."""
    weights = initial_weights(spec, seed + 1_000)  # never those that training starts from
    source = spec_source(f"random:{spec.name}", spec, layers.network_graph(spec, weights), weights)
    return replace(source, kind=RANDOM.prefix)


def _open(name: str, *, dataset: Dataset | None, seed: int, size_px: int | None) -> Source | None:
    rest = name.removeprefix(RANDOM.prefix)
    if rest in ARCHITECTURES:
        dataset = dataset or load("digits")
        return random_source(architecture(rest, native_input(dataset), max(2, len(dataset.classes))), seed)
    if rest and Path(rest).is_dir():  # Path("") is the current folder
        network = open_model(rest).manifest.network
        return None if network is None else random_source(network, seed)
    return None


RANDOM = SourceKind(
    "random:",
    {f"random:{name}": f"network {name} with random weights, frozen: a control" for name in ARCHITECTURES},
    _open,
    body=network_body,
)
