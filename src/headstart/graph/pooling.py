"""Pooling in a graph: from the tensor of a layer to one row of features per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headstart.errors import SettingError, unknown
from headstart.graph.build import GraphBuilder

__all__ = ["JOIN", "POOLINGS", "n_features", "pool", "read"]

JOIN = "+"  # between layers whose features are concatenated
POOLINGS = ("avg", "flat", "grid2")


def pool(builder: GraphBuilder, layer: str, shape: Sequence[int], pooling: str) -> str:
    """Pool a layer, (n, *shape), to one row of features per image; a layer of rows passes unchanged.

    ``avg`` is the mean over positions, ``flat`` all values in (height, width, channel) order, ``grid2`` the
    means over a 2 x 2 grid. SettingError if the pooling is unknown.
    """
    if pooling not in POOLINGS:
        raise SettingError(unknown("pooling", pooling, POOLINGS))
    if len(shape) == 1:
        return layer
    name = f"{layer}.{pooling}"
    if builder.has(name):
        return name  # another combination of layers has pooled it already
    if pooling == "avg":
        axes = builder.constant("pool.axes", np.array([2, 3], np.int64))
        return builder.add("ReduceMean", layer, axes, name=name, keepdims=0)
    if pooling == "grid2":
        _, height, width = shape
        for axis, side in ((2, height), (3, width)):
            if side == 1:  # both halves are the same row or column
                layer = builder.add("Concat", layer, layer, name=f"{name}.twice{axis}", axis=axis)
        # windows of half the side; an odd middle counts in both, as adaptive pooling does
        kernel, strides = [-(-height // 2), -(-width // 2)], [max(1, height // 2), max(1, width // 2)]
        layer = builder.add("AveragePool", layer, name=f"{name}.cells", kernel_shape=kernel, strides=strides)
    rows = builder.add("Transpose", layer, name=f"{name}.last", perm=[0, 2, 3, 1])
    return builder.add("Flatten", rows, name=name, axis=1)


def read(builder: GraphBuilder, layers: Mapping[str, Sequence[int]], layer: str, pooling: str) -> str:
    """Pool a layer, or several joined by ``+`` such as ``stage4+stage5``, whose features are concatenated.

    ``layers`` maps names to shapes.
    """
    rows = [pool(builder, part, layers[part], pooling) for part in layer.split(JOIN)]
    name = f"{layer}.{pooling}"
    if len(rows) == 1:
        return rows[0]
    return name if builder.has(name) else builder.add("Concat", *rows, name=name, axis=1)


def n_features(shape: Sequence[int], pooling: str) -> int:
    """Number of values per image that `pool` makes of a layer.

    >>> n_features((512, 14, 14), "grid2"), n_features((64,), "flat")
    (2048, 64)
    """
    cells = {"avg": 1, "grid2": 4}.get(pooling)
    return int(np.prod(shape)) if len(shape) == 1 or cells is None else shape[0] * cells
