"""Sources ``timm:NAME``, ``timm:local-dir:PATH`` and ``random:timm:NAME``: networks of the timm collection.

They differ in where the weights come from; torch and timm are imported only when no graph is cached.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headstart.data.dataset import Dataset
from headstart.records import Source
from headstart.sources.image_network import network_source, source_like
from headstart.sources.kind import SourceKind
from headstart.sources.networks import native_input
from headstart.sources.timm.store import find_network
from headstart.system.optional import require

__all__ = ["RANDOM_TIMM", "TIMM", "TIMM_FOLDER"]


def _open_pretrained(name: str, *, dataset: Dataset | None, seed: int, size_px: int | None) -> Source:
    network = find_network(name.removeprefix(TIMM.prefix), size_px=size_px)
    kind = TIMM_FOLDER if TIMM_FOLDER.matches(name) else TIMM
    return replace(network_source(network, _native(dataset), name), kind=kind.prefix)


def _open_random(name: str, *, dataset: Dataset | None, seed: int, size_px: int | None) -> Source:
    network = find_network(
        name.removeprefix(RANDOM_TIMM.prefix), pretrained=False, seed=seed, size_px=size_px
    )
    return replace(network_source(network, _native(dataset), name), kind=RANDOM_TIMM.prefix)


def _native(dataset: Dataset | None) -> Any:
    return native_input(dataset) if dataset and dataset.images.image_shape else None


def _body(source: Source, layer: str) -> Any:
    require("timm", extra="train", for_=f"fine-tuning source {source.name!r}")
    from headstart.sources.timm.body import timm_body

    body = timm_body(source, layer)
    return replace(body, finished=lambda module: source_like(body.finished(module), source))


def _redraw(source: Source, dataset: Dataset | None, seed: int, size_px: int | None) -> Source:
    return _open_random(f"random:{source.name}", dataset=dataset, seed=seed, size_px=size_px)


TIMM = SourceKind(
    "timm:",
    {
        "timm:NAME": "a network of timm with pretrained weights, such as timm:resnet50; "
        "find one: headstart sources list PATTERN"
    },
    _open_pretrained,
    body=_body,
    redraw=_redraw,
    takes_size=True,
    large=True,
    fixed=True,
)
TIMM_FOLDER = replace(
    TIMM,
    prefix="timm:local-dir:",
    names={"timm:local-dir:PATH": "a network of timm from a folder with config.json and model.safetensors"},
)
RANDOM_TIMM = SourceKind(
    "random:timm:",
    {"random:timm:NAME": "a network of timm with random weights, frozen: a control"},
    _open_random,
    takes_size=True,
)
