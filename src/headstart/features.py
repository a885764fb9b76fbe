"""A dataset through a source to a tap, once: features, computed by the runtime and kept in the cache.

In: Dataset, Source, tap. Out: float32 rows in the order of the images.
Must not import a training framework. Called by strategies, study and the command line.
"""

from __future__ import annotations

import onnx

from headstart.cache import Cache, NullCache
from headstart.data.dataset import Dataset
from headstart.errors import UnknownTapError, nearest
from headstart.graph import build, runtime
from headstart.imaging.prepare import batches
from headstart.progress import SILENT, Progress, told
from headstart.records import Array, Source

__all__ = ["extract", "feature_graph"]

_BATCH = 64
_FORMAT = 1  # raise it when the same parts would give other numbers


def extract(
    dataset: Dataset,
    source: Source,
    *,
    tap: str | None = None,
    pooling: str = "flat",
    cache: Cache | None = None,
    runtime_name: str = "openvino",
    precision: str | None = None,
    progress: Progress = SILENT,
) -> Array:
    """Features of every image of a dataset.

    Parameters
    ----------
    dataset : Dataset
        Its images are prepared as the source's input asks.
    source : Source
        What computes them.
    tap : str, optional
        Where to read. Default: the source's own choice.
    pooling : {'flat', 'avg', 'grid2'}, default='flat'
        How maps become a row; see ``graph.build.pool``.
    cache : Cache, optional
        Where to look first and to keep what was computed. Default: none.
    runtime_name : {'openvino', 'onnxruntime'}, default='openvino'
        What executes the graph.
    precision : {'auto', 'fp32', 'bf16'}, optional
        Default: the source's.
    progress : Progress, optional
        Told about images done.

    Returns
    -------
    ndarray of shape (n_images, n_features), float32
        Read-only when it comes from the cache.

    Raises
    ------
    UnknownTapError
        If the source has no such tap.
    SettingError
        If pooling, runtime or precision is unknown.

    Notes
    -----
    Labels do not enter: two views of the same images share their features.
    """
    tap = source.default_tap if tap is None else tap
    resolved = runtime.resolve_precision(precision or source.precision, runtime_name)
    parts = {
        "format": _FORMAT,
        "images": dataset.images.fingerprint,
        "source": source.fingerprint,
        "tap": tap,
        "pooling": pooling,
        "policy": source.input.policy,
        "runtime": runtime_name,
        "precision": resolved,
    }
    store = NullCache() if cache is None else cache
    found = store.get(parts)
    if found is not None:
        return found
    graph = feature_graph(source, tap, pooling)
    executable = runtime.compile_graph(graph, runtime=runtime_name, precision=resolved, batch_size=_BATCH)
    stream = told(
        batches(dataset, source.input, _BATCH), len(dataset), f"features of {dataset.name}", progress
    )
    return store.put(parts, executable.run(stream, len(dataset)))


def feature_graph(source: Source, tap: str, pooling: str) -> onnx.ModelProto:
    """The source cut at a tap, pooled to one row per image.

    Parameters
    ----------
    source : Source
        What to cut.
    tap : str
        One of its taps.
    pooling : str
        See ``graph.build.pool``.

    Returns
    -------
    onnx.ModelProto
        One output, (n, n_features).

    Raises
    ------
    UnknownTapError
        If the source has no such tap.
    """
    if tap not in source.taps:
        raise UnknownTapError(
            f"tap {tap!r} is unknown, need one of source {source.name!r}, {nearest(tap, source.taps)}"
        )
    # cut first: above the tap may lie a pooling of ours, with the same names
    builder = build.GraphBuilder(build.with_outputs(onnx.ModelProto.FromString(source.graph), [tap]))
    return builder.model([build.pool(builder, tap, source.taps[tap], pooling)])
