"""A dataset through a source to its layers, once: features, computed by the runtime and kept in the cache.

In: Dataset, Source, layers. Out: float32 rows in the order of the images.
Must not import a training framework. Called by strategies, study and the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation, augment
from headstart.data.images.prepare import batches
from headstart.errors import UnknownLayerError, nearest
from headstart.graph import build
from headstart.graph import run as runtime
from headstart.graph.pooling import JOIN, n_features, read
from headstart.records import Array, Images, Source
from headstart.system.cache import Cache, Draft, NullCache
from headstart.system.progress import SILENT, Progress, with_progress

__all__ = ["PLAIN", "AugmentedCopy", "Extraction", "Place", "extract", "extract_all", "feature_graph"]

_READ = 64  # images read at a time
_FORMAT = 2  # raise it when the same parts would give other numbers

Place = tuple[str, str]
"""Where features are read: a layer, or several joined by ``+``, and a pooling."""


@dataclass(frozen=True)
class Extraction:
    """How features are computed, whatever they are of.

    ``cache`` is looked into first and keeps what was computed; ``runtime`` executes the graph;
    ``precision`` None is the source's own.
    """

    cache: Cache | None = None
    runtime: str = "openvino"
    precision: str | None = None
    progress: Progress = SILENT


PLAIN = Extraction()


@dataclass(frozen=True)
class AugmentedCopy:
    """One augmented view of every image: what is done, from which seed, and which of the views it is."""

    augmentation: Augmentation
    seed: int
    number: int

    @property
    def parts(self) -> dict[str, Any]:
        """Plain values for a cache key."""
        return {"operations": self.augmentation.parts()["operations"], "seed": self.seed, "view": self.number}


def extract(
    dataset: Dataset,
    source: Source,
    *,
    layer: str | None = None,
    pooling: str = "flat",
    view: AugmentedCopy | None = None,
    options: Extraction = PLAIN,
) -> Array:
    """Features of every image of a dataset, read at one place.

    Parameters
    ----------
    dataset : Dataset
        Its images are prepared as the source's input asks.
    source : Source
        What computes them.
    layer : str, optional
        Where to read, or several such as ``stage4+stage5``. Default: the source's own choice.
    pooling : {'flat', 'avg', 'grid2'}, default='flat'
        How maps become a row; see ``graph.build.pool``.
    view : View, optional
        Read an augmented view of every image. Default: the images themselves.
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
    Labels do not enter: two views of the same images share their features.
    """
    place = (source.default_layer if layer is None else layer, pooling)
    return extract_all(dataset, source, [place], view=view, options=options)[0]


def extract_all(
    dataset: Dataset,
    source: Source,
    places: Sequence[Place],
    *,
    view: AugmentedCopy | None = None,
    options: Extraction = PLAIN,
) -> list[Array]:
    """Features of every image of a dataset, read at several places in one pass.

    Parameters
    ----------
    dataset, source, view, options
        As in `extract`.
    places : sequence of (layer, pooling)
        Where to read.

    Returns
    -------
    list of ndarray of shape (n_images, n_features), float32
        One for each place.

    Raises
    ------
    UnknownLayerError, SettingError
        As in `extract`.

    Notes
    -----
    Rows are written as they come, so memory does not grow with the number of images. A run that was
    interrupted goes on where it stopped: at most the batches in flight are computed again.
    """
    for layer in (part for joined, _ in places for part in joined.split(JOIN)):
        if layer not in source.layers:
            raise UnknownLayerError(
                f"layer {layer!r} is unknown, expected one of source {source.name!r}, {nearest(layer, source.layers)}"
            )
    store = NullCache() if options.cache is None else options.cache
    keys = [_parts(dataset, source, place, view, options) for place in places]
    found = {place: store.get(parts) for place, parts in zip(places, keys, strict=True)}
    missing = {place: parts for place, parts in zip(places, keys, strict=True) if found[place] is None}
    if missing:
        found |= _computed(dataset, source, missing, store, view, options)
    return [rows for place in places if (rows := found[place]) is not None]


def _parts(
    dataset: Dataset, source: Source, place: Place, view: AugmentedCopy | None, options: Extraction
) -> dict[str, Any]:
    """All that the numbers depend on."""
    return {
        "format": _FORMAT,
        "images": dataset.images.fingerprint,
        "source": source.fingerprint,
        "tap": place[0],
        "pooling": place[1],
        "policy": source.input.policy,
        "runtime": options.runtime,
        "precision": runtime.resolve_precision(options.precision or source.precision, options.runtime),
        **({} if view is None else {"view": view.parts}),
    }


def _computed(
    dataset: Dataset,
    source: Source,
    missing: Mapping[Place, Mapping[str, Any]],
    store: Cache,
    view: AugmentedCopy | None,
    options: Extraction,
) -> dict[Place, Array]:
    """Run the source once over the images that some draft still lacks."""
    executable = runtime.compile_graph(
        feature_graph(source, list(missing)),
        runtime=options.runtime,
        precision=options.precision or source.precision,
        batch_size=source.batch_size,
    )
    n_images = len(dataset)
    drafts: dict[Place, Draft] = {}
    try:
        for place, parts in missing.items():
            layers = place[0].split(JOIN)
            width = sum(n_features(source.layers[layer], place[1]) for layer in layers)
            drafts[place] = store.draft(parts, (n_images, width))
        done = min(draft.n_done for draft in drafts.values())
        if done < n_images:
            stream = with_progress(
                _pixels(dataset, source, view, done), n_images, _task(dataset, view), options.progress, done
            )
            for rows in executable.stream(stream):
                for draft, values in zip(drafts.values(), rows, strict=True):
                    draft.write(done, values)
                done += len(rows[0])
        assert done == n_images, f"{done} images of {n_images} were read"
        return {place: draft.finish() for place, draft in drafts.items()}
    finally:
        for draft in drafts.values():
            draft.close()


def _task(dataset: Dataset, view: AugmentedCopy | None) -> str:
    return f"features of {dataset.name}" + ("" if view is None else f", view {view.number + 1}")


def _pixels(dataset: Dataset, source: Source, view: AugmentedCopy | None, first: int) -> Iterator[Images]:
    """Prepared batches from some image on, augmented where a view is wanted."""
    rest = dataset if first == 0 else dataset.subset(np.arange(first, len(dataset)))
    for batch in batches(rest, source.input, _READ):
        indices = np.arange(first, first + len(batch))
        first += len(batch)
        if view is None:
            yield batch
        else:
            yield augment(batch, view.augmentation, seed=view.seed, indices=indices, view=view.number)


def feature_graph(source: Source, places: Sequence[Place]) -> onnx.ModelProto:
    """The source cut at its layers, pooled to one row per image.

    Parameters
    ----------
    source : Source
        What to cut.
    places : sequence of (layer, pooling)
        Where, and how maps become rows; see ``graph.build.pool``.

    Returns
    -------
    onnx.ModelProto
        One output for each place, (n, n_features).
    """
    # cut first: above a layer may lie a pooling of ours, with the same names
    layers = list(dict.fromkeys(layer for joined, _ in places for layer in joined.split(JOIN)))
    builder = build.GraphBuilder(build.with_outputs(onnx.ModelProto.FromString(source.graph), layers))
    return builder.model([read(builder, source.layers, layer, pooling) for layer, pooling in places])
