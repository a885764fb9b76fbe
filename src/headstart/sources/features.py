"""Features: a dataset's images through a source to its layers, computed once and kept in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.data.images.prepare import batches
from headstart.errors import UnknownLayerError, nearest
from headstart.graph import build
from headstart.graph import run as runtime
from headstart.graph.pooling import JOIN, n_features, read
from headstart.records import Array, Images, Source
from headstart.sources.sharded import READ, Recipe, augmented, shard_rows, worth_sharing
from headstart.system.cache import Cache, NullCache
from headstart.system.drafts import Draft
from headstart.system.progress import SILENT, Progress, with_progress
from headstart.system.runners import LOCAL, Runner

__all__ = ["PLAIN", "AugmentedCopy", "Extraction", "Place", "extract", "extract_all", "feature_graph"]

_FORMAT = 2  # increase it when the same key would give other numbers

Place = tuple[str, str]
"""Where features are read: a layer, or several joined by ``+``, and a pooling."""


@dataclass(frozen=True)
class Extraction:
    """How features are computed, for any dataset.

    ``cache`` is read first and keeps what was computed; ``runtime`` executes the graph; ``precision`` None is
    the source's own, and ``int8`` is for workflows, which make the source in it (`sources.precision`). ``runner`` is
    where images are decoded and run. A copy in another process computes there, and stores nothing.
    """

    cache: Cache | None = None
    runtime: str = "openvino"
    precision: str | None = None
    progress: Progress = SILENT
    runner: Runner = LOCAL

    def __reduce__(self) -> tuple[type[Extraction], tuple[None, str, str | None]]:
        return Extraction, (None, self.runtime, self.precision)


PLAIN = Extraction()


@dataclass(frozen=True)
class AugmentedCopy:
    """Augmented copy ``number`` of every image: the augmentation and its seed."""

    augmentation: Augmentation
    seed: int
    number: int

    @property
    def parts(self) -> dict[str, Any]:
        """Plain values for a cache key."""
        return {"operations": self.augmentation.parts()["operations"], "seed": self.seed, "copy": self.number}


def extract(
    dataset: Dataset,
    source: Source,
    *,
    layer: str | None = None,
    pooling: str = "flat",
    copy: AugmentedCopy | None = None,
    options: Extraction = PLAIN,
) -> Array:
    """Features of every image of a dataset, read at one layer.

    Parameters
    ----------
    dataset : Dataset
        Its images are prepared for the source's input.
    source : Source
        The network.
    layer : str, optional
        Where to read, or several joined, such as ``stage4+stage5``. Default: the source's default layer.
    pooling : {'flat', 'avg', 'grid2'}, default='flat'
        How feature maps become a row; see ``graph.pooling``.
    copy : AugmentedCopy, optional
        Read an augmented copy of every image. Default: the images themselves.
    options : Extraction, optional
        Cache, runtime and precision.

    Returns
    -------
    ndarray of shape (n_images, n_features), float32
        Memory-mapped and read-only when there is a cache.

    Raises
    ------
    UnknownLayerError
        If the source has no such layer.
    SettingError
        If pooling, runtime or precision is unknown.

    Notes
    -----
    Labels play no part: two datasets of the same images share their features.
    """
    place = (source.default_layer if layer is None else layer, pooling)
    return extract_all(dataset, source, [place], copy=copy, options=options)[0]


def extract_all(
    dataset: Dataset,
    source: Source,
    places: Sequence[Place],
    *,
    copy: AugmentedCopy | None = None,
    options: Extraction = PLAIN,
) -> list[Array]:
    """As `extract`, read at several places in one pass; one array for each place.

    Rows are written as they are computed, so memory does not grow with the number of images, and an interrupted run
    continues where it stopped: at most the batches in flight are computed again.
    """
    for layer in (part for joined, _ in places for part in joined.split(JOIN)):
        if layer not in source.layers:
            raise UnknownLayerError(
                f"layer {layer!r} is unknown, expected one of source {source.name!r}, {nearest(layer, source.layers)}"
            )
    store = _store(options)
    keys = [_parts(dataset, source, place, copy, options) for place in places]
    found = {place: store.get(parts) for place, parts in zip(places, keys, strict=True)}
    missing = {place: parts for place, parts in zip(places, keys, strict=True) if found[place] is None}
    if missing:
        found |= _computed(dataset, source, missing, store, copy, options)
    return [rows for place in places if (rows := found[place]) is not None]


def _store(options: Extraction) -> Cache:
    return NullCache() if options.cache is None else options.cache


def _parts(
    dataset: Dataset, source: Source, place: Place, copy: AugmentedCopy | None, options: Extraction
) -> dict[str, Any]:
    """The cache key: everything that the numbers depend on."""
    return {
        "format": _FORMAT,
        "images": dataset.images.fingerprint,
        "source": source.fingerprint,
        "tap": place[0],
        "pooling": place[1],
        "policy": source.input.policy,
        "runtime": options.runtime,
        "precision": runtime.resolve_precision(_precision(source, options), options.runtime),
        **_preparation(dataset, source),
        **({} if copy is None else {"copy": copy.parts}),
    }


def _preparation(dataset: Dataset, source: Source) -> dict[str, int]:
    """The version of the preparation, which decides on the pixels of files only; the first one had no entry."""
    # images of one shape are in memory; to ask for their pixels might decode them
    is_first = source.input.version == 1 or dataset.images.image_shape is not None
    return {} if is_first else {"preparation": source.input.version}


def _precision(source: Source, options: Extraction) -> str:
    """As the options say; of a source in int8 always that, because its graph is in 8 bits."""
    return source.precision if source.precision == runtime.INT8 else options.precision or source.precision


def _computed(
    dataset: Dataset,
    source: Source,
    missing: Mapping[Place, Mapping[str, Any]],
    store: Cache,
    copy: AugmentedCopy | None,
    options: Extraction,
) -> dict[Place, Array]:
    """Run the source once over the images that some draft still lacks."""
    n_images = len(dataset)
    drafts: dict[Place, Draft] = {}
    try:
        for place, parts in missing.items():
            layers = place[0].split(JOIN)
            width = sum(n_features(source.layers[layer], place[1]) for layer in layers)
            drafts[place] = store.draft(parts, (n_images, width))
        done = min(draft.n_done for draft in drafts.values())
        if done < n_images:
            for rows in _rows(dataset, source, missing, done, copy, options):
                for draft, values in zip(drafts.values(), rows, strict=True):
                    draft.write(done, values)
                done += len(rows[0])
        assert done == n_images, f"{done} images of {n_images} were read"
        return {place: draft.finish() for place, draft in drafts.items()}
    finally:
        for draft in drafts.values():
            draft.close()


def _rows(
    dataset: Dataset,
    source: Source,
    missing: Mapping[Place, Mapping[str, Any]],
    done: int,
    copy: AugmentedCopy | None,
    options: Extraction,
) -> Iterator[tuple[Array, ...]]:
    """Features of the images from ``done`` on at every place, in order, computed here or by workers."""
    graph, precision = feature_graph(source, list(missing)), _precision(source, options)
    if worth_sharing(options.runner, len(dataset) - done):
        recipe = Recipe(
            graph.SerializeToString(), source.input, options.runtime, precision, source.batch_size, copy
        )
        return shard_rows(
            dataset,
            done,
            recipe,
            options.runner,
            store=_store(options),
            parts=list(missing.values()),
            task=_task(dataset, copy),
            progress=options.progress,
        )
    executable = runtime.compile_graph(
        graph, runtime=options.runtime, precision=precision, batch_size=source.batch_size
    )
    pixels = _pixels(dataset, source, copy, done)
    return executable.stream(
        with_progress(pixels, len(dataset), _task(dataset, copy), options.progress, done)
    )


def _task(dataset: Dataset, copy: AugmentedCopy | None) -> str:
    return f"features of {dataset.name}" + ("" if copy is None else f", augmented copy {copy.number + 1}")


def _pixels(dataset: Dataset, source: Source, copy: AugmentedCopy | None, first: int) -> Iterator[Images]:
    """Prepared batches from image ``first`` on, augmented for a copy."""
    rest = dataset if first == 0 else dataset.subset(np.arange(first, len(dataset)))
    return augmented(batches(rest, source.input, READ), copy, first)


def feature_graph(source: Source, places: Sequence[Place]) -> onnx.ModelProto:
    """The source cut at its layers and pooled: one output (n, n_features) for each place."""
    # cut first: above a layer there may be nodes with the names of the pooling
    layers = list(dict.fromkeys(layer for joined, _ in places for layer in joined.split(JOIN)))
    builder = build.GraphBuilder(build.with_outputs(onnx.ModelProto.FromString(source.graph), layers))
    return builder.model([read(builder, source.layers, layer, pooling) for layer, pooling in places])
