"""Where features of a network may be read: pairs of layer and pooling to select from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from headstart.graph.pooling import JOIN, n_features
from headstart.records import NetworkSpec

__all__ = ["CLASS_TOKEN", "Candidates", "saved_places", "small_network_places", "stage_places"]

Place = tuple[str, str]
Candidates = tuple[Place, ...]

CLASS_TOKEN = "cls"
"""Starts the names of layers that are the class token after a block of a transformer, such as ``cls12``."""

_TOKEN_LAYER = re.compile(rf"{CLASS_TOKEN}\d+")

_LAST_STAGES = 5  # earlier stages detect edges only
_LAST_BLOCKS = 3
_FEW_FEATURES, _MOST_FEATURES = 64, 8_192
_MOST_SMALL = 4_096
_POOLINGS = ("flat", "grid2", "avg")


def stage_places(layers: Mapping[str, tuple[int, ...]]) -> Candidates:
    """Of a network for photos, by the shapes of its layers: rows neither too short to be informative nor too long.

    Its last stages, averaged and in a grid, the last two joined, and its rows (embedding, logits); of a transformer
    with class tokens see `_token_places`.
    """
    maps = [layer for layer, shape in layers.items() if len(shape) > 1]
    tokens = [layer for layer in layers if _TOKEN_LAYER.fullmatch(layer)]
    if maps and tokens:
        found = _token_places(layers, maps, tokens)
    else:
        joined = [JOIN.join(maps[-2:])] if len(maps) > 1 else []
        found = [
            (layer, pooling) for layer in (*maps[-_LAST_STAGES:], *joined) for pooling in ("avg", "grid2")
        ]
    fitting = [
        (layer, pooling)
        for layer, pooling in found
        if _FEW_FEATURES <= _width(layers, layer, pooling) <= _MOST_FEATURES
    ]
    rows = [(layer, "flat") for layer, shape in layers.items() if len(shape) == 1 and layer not in tokens]
    return (*fitting, *rows)


def _token_places(
    layers: Mapping[str, tuple[int, ...]], maps: Sequence[str], tokens: Sequence[str]
) -> list[Place]:
    """The mean of the patch tokens of the last blocks, class tokens of the last blocks, and both side by side.

    A linear probe of DINOv2 reads the class tokens of the last one or four blocks, with or without the mean patch
    token of the last one (Oquab et al. 2024, arXiv:2304.07193, appendix B.3).
    """
    last, both = maps[-1], JOIN.join(tokens)
    found = [(layer, "avg") for layer in maps[-_LAST_STAGES:]]
    found += [(last, "grid2"), (JOIN.join(maps[-2:]), "avg")] if len(maps) > 1 else []
    found += [(both, "flat"), (f"{both}{JOIN}{last}", "avg")] if len(tokens) > 1 else []
    if "embedding" not in layers:
        found.append((tokens[-1], "flat"))
    return [*found, (f"{tokens[-1]}{JOIN}{last}", "avg")]


def _width(layers: Mapping[str, tuple[int, ...]], joined: str, pooling: str) -> int:
    return sum(n_features(layers[layer], pooling) for layer in joined.split(JOIN))


def saved_places(
    network: NetworkSpec | None, layers: Mapping[str, tuple[int, ...]], default: str
) -> Candidates:
    """Of a saved network.

    Where its layers are known by name and shape only, the default layer counts as the last, and small maps are also
    read flat.
    """
    if network is not None:
        return small_network_places(network, layers, default)
    ordered = {name: shape for name, shape in layers.items() if name != default}
    ordered |= {default: layers[default]} if default in layers else {}
    flat = [
        (layer, "flat")
        for layer, shape in ordered.items()
        if len(shape) > 1 and n_features(shape, "flat") <= _MOST_SMALL
    ]
    return (*flat, *stage_places(ordered))


def small_network_places(
    spec: NetworkSpec, layers: Mapping[str, tuple[int, ...]], default: str
) -> Candidates:
    """Of a network trained here: its default layer, and its last rectified layers in every pooling."""
    rectified = [layer.name for layer in spec.layers if layer.kind == "relu" and layer.name in layers]
    found = [(default, "flat")]
    for layer in rectified[-_LAST_BLOCKS:]:
        poolings = _POOLINGS if len(layers[layer]) > 1 else ("flat",)
        found += [
            (layer, pooling)
            for pooling in poolings
            if len(layers[layer]) == 1 or _FEW_FEATURES <= n_features(layers[layer], pooling) <= _MOST_SMALL
        ]
    return tuple(dict.fromkeys(found))
