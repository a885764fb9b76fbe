"""Where features of a network may be read: pairs of layer and pooling to select from."""

from __future__ import annotations

from collections.abc import Mapping

from headstart.graph.pooling import JOIN, n_features
from headstart.records import NetworkSpec

__all__ = ["Candidates", "saved_places", "small_network_places", "stage_places"]

Candidates = tuple[tuple[str, str], ...]

_LAST_STAGES = 5  # earlier stages detect edges only
_LAST_BLOCKS = 3
_FEW_FEATURES, _MOST_FEATURES = 64, 8_192
_MOST_SMALL = 4_096
_POOLINGS = ("flat", "grid2", "avg")


def stage_places(layers: Mapping[str, tuple[int, ...]]) -> Candidates:
    """Of a network for photos, by the shapes of its layers: rows neither too short to be informative nor too long.

    Its last stages, averaged and in a grid, the last two joined, and its rows (embedding, logits).
    """
    found = []
    maps = [layer for layer, shape in layers.items() if len(shape) > 1]
    joined = JOIN.join(maps[-2:]) if len(maps) > 1 else ""
    for layer in (*maps[-_LAST_STAGES:], *([joined] if joined else [])):
        width = sum(layers[part][0] for part in layer.split(JOIN))
        for pooling, cells in (("avg", 1), ("grid2", 4)):
            if _FEW_FEATURES <= width * cells <= _MOST_FEATURES:
                found.append((layer, pooling))
    return (*found, *((layer, "flat") for layer, shape in layers.items() if len(shape) == 1))


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
