"""Sources of features that are known already: opened again and compared, and a cache that finds the vectors."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.embedded.images import FeatureTable, table_of
from headstart.data.embedded.record import EmbeddedSource
from headstart.data.readable import has_pixels
from headstart.errors import HeadstartError, SettingError, SourceError
from headstart.graph.pooling import JOIN, POOLINGS, n_features
from headstart.records import Source
from headstart.sources.features import Extraction, extract
from headstart.sources.precision import INT8, with_ranges
from headstart.sources.registry import open_source
from headstart.system.cache import Cache, NullCache
from headstart.system.drafts import Draft

__all__ = ["KnownFeatures", "embedded_source", "with_known_features"]

_IN_MEMORY_BYTES = 2**30  # of vectors; more are memory-mapped, so that memory stays flat
_ROWS = 16_384
_COMPARED = 4  # images whose features are computed again
_TOLERANCE = (
    0.05  # of the largest value; float16 rounds by 0.0005, other processors by less than 0.01 in int8
)


def embedded_source(
    dataset: Dataset,
    given: str | Source | None = None,
    size_px: int | None = None,
    policy: str | None = None,
) -> Source | None:
    """The source that the features of a dataset were computed by; None if the dataset has images alone.

    By the recorded name, else as ``given``. SourceError if it cannot be opened, or is another one; SettingError for
    another size or policy.
    """
    table = table_of(dataset.images)
    if table is None:
        return None
    note = table.record.source
    for what, wanted, known in (("size", size_px, note.size_px), ("policy", policy, note.policy)):
        if wanted not in (None, known):
            raise SettingError(
                f"{what} is {wanted!r} for the features {table.name!r}, which were computed with {known!r}, expected "
                "the same; leave it out, or compute features with the other one"
            )
    name = given.name if isinstance(given, Source) else given or note.name
    try:
        source = given if isinstance(given, Source) else _opened(name, note, dataset)
    except HeadstartError as error:
        raise SourceError(
            f"source {name!r} of the features {table.name!r} cannot be opened ({error}), expected the source that "
            "they were computed by; name it before them if it has moved"
        ) from error
    if source.fingerprint != note.fingerprint:
        raise SourceError(
            f"source {name!r} has the fingerprint {source.fingerprint[:12]}, the features {table.name!r} were "
            f"computed by {note.name!r} with {note.fingerprint[:12]}, expected the same weights; compute the "
            "features again with headstart embed"
        )
    return source


def _opened(name: str, note: EmbeddedSource, dataset: Dataset) -> Source:
    source = open_source(name, dataset, note.seed, note.size_px, note.policy)
    if note.ranges is None or source.precision == INT8:
        return source
    try:
        values = np.frombuffer(base64.b64decode(note.ranges, validate=True), np.float32)
    except ValueError as error:
        raise SettingError(
            f"ranges of source {name!r} in int8 are malformed ({error}), expected base64 of float32; compute the "
            "features again"
        ) from error
    return with_ranges(source, values, note.calibrated_on or "")


class KnownFeatures:
    """A cache that takes the features of one source at one place from tables, and all others from another cache."""

    def __init__(self, tables: Sequence[FeatureTable], inner: Cache) -> None:
        self._tables, self._inner = tables, inner

    def get(self, parts: Mapping[str, Any]) -> NDArray[Any] | None:
        """The array stored under these parts, read-only, or None."""
        for table in self._tables:
            rows = table.rows_of(parts["images"]) if self._is_of(table, parts) else None
            if rows is not None:
                is_small = 4 * len(rows) * table.record.n_features <= _IN_MEMORY_BYTES
                return table.vectors(rows) if is_small else self._mapped(table, rows, parts)
        return self._inner.get(parts)

    def _mapped(self, table: FeatureTable, rows: NDArray[np.intp], parts: Mapping[str, Any]) -> NDArray[Any]:
        """Many rows, copied into the other cache piece by piece, where they are memory-mapped."""
        own = {**parts, "read from": table.state, "dtype": table.record.dtype}
        found = self._inner.get(own)
        if found is not None:
            return found
        draft = self._inner.draft(own, (len(rows), table.record.n_features))
        try:
            for first in range(draft.n_done, len(rows), _ROWS):
                draft.write(first, table.vectors(rows[first : first + _ROWS]))
            return draft.finish()
        finally:
            draft.close()

    def _is_of(self, table: FeatureTable, parts: Mapping[str, Any]) -> bool:
        record = table.record
        wanted = parts["source"], (parts["tap"], parts["pooling"]), parts["policy"]
        return "copy" not in parts and wanted == (
            record.source.fingerprint,
            record.place,
            record.source.policy,
        )

    def draft(self, parts: Mapping[str, Any], shape: tuple[int, int]) -> Draft:
        """Begin or continue a float32 array of this shape."""
        return self._inner.draft(parts, shape)

    def discard(self, parts: Mapping[str, Any]) -> None:
        """Remove an array that was computed; the tables stay."""
        self._inner.discard(parts)


def _check_same(source: Source, table: FeatureTable) -> None:
    """SourceError unless the features are of this source, its images prepared as now."""
    note, spec = table.record.source, source.input
    theirs = note.fingerprint[:12], note.policy, note.preparation
    ours = source.fingerprint[:12], spec.policy, spec.version
    if theirs != ours:
        raise SourceError(
            f"features {table.name!r} were computed by {note.name!r} ({theirs[0]}, policy {theirs[1]}, preparation "
            f"{theirs[2]}), expected those of source {source.name!r} ({ours[0]}, policy {ours[1]}, preparation "
            f"{ours[2]}); compute them again with headstart embed"
        )


def _check_values(source: Source, dataset: Dataset, options: Extraction) -> None:
    """SourceError if features of a few images are others than those computed now; nothing where there are no pixels.

    A head on vectors that somebody scaled or exchanged would be wrong on every image that the model predicts.
    """
    table = table_of(dataset.images)
    if table is None or not has_pixels(dataset.images):
        return
    some = dataset.subset(np.unique(np.linspace(0, len(dataset) - 1, _COMPARED).astype(np.intp)))
    rows = table.rows_of(some.images.fingerprint)
    assert rows is not None, "the table notes every fingerprint"
    known = table.vectors(rows)
    place, plain = table.record.place, replace(options, cache=None, precision=None)
    computed = extract(some, source, layer=place[0], pooling=place[1], options=plain)
    with np.errstate(invalid="ignore"):
        off = np.abs(known - computed).max(axis=1) / np.maximum(np.abs(computed).max(axis=1), 1e-6)
    wrong = np.flatnonzero(~(off <= _TOLERANCE))
    if len(wrong):
        name, share = some.images.image_name(int(wrong[0])), off[wrong[0]]
        raise SourceError(
            f"features {table.name!r} of {name!r} differ from those that source {source.name!r} computes of the "
            f"image now, by {share:.0%} of the largest value, expected at most {_TOLERANCE:.0%}; keep the column "
            "vector as it is, or compute the features again with headstart embed"
        )


def _check_width(source: Source, table: FeatureTable) -> None:
    """SourceError unless the vectors are as long as the layer's features."""
    record = table.record
    layers = record.layer.split(JOIN)
    there = all(layer in source.layers for layer in layers) and record.pooling in POOLINGS
    width = sum(n_features(source.layers[layer], record.pooling) for layer in layers) if there else 0
    if width != record.n_features:
        has = f"has {width:,} features there" if there else "has no such place"
        raise SourceError(
            f"features {table.name!r} have {record.n_features:,} values at {record.layer}, {record.pooling}, and "
            f"source {source.name!r} {has}, expected the same; compute them again with headstart embed"
        )


def with_known_features(
    source: Source, datasets: Sequence[Dataset], options: Extraction
) -> tuple[Extraction, tuple[str, str] | None]:
    """How features are computed, with those that are known taken from their tables; the layer and pooling of these.

    None for the place, and the options as they are, if no dataset has any. SourceError if tables are of another
    source, SettingError if they are of several places, or the options say another precision.
    """
    found = [one for one in (table_of(dataset.images) for dataset in datasets) if one is not None]
    tables = list(dict.fromkeys(found))
    if not tables:
        return options, None
    first = tables[0].record
    for table in tables:
        record = table.record
        _check_same(source, table)
        _check_width(source, table)
        if record.place != first.place:
            raise SettingError(
                f"features {table.name!r} were read at {', '.join(record.place)} and those of {tables[0].name!r} at "
                f"{', '.join(first.place)}, expected one layer and pooling; compute one of them again"
            )
    if options.precision not in (None, first.source.precision):
        raise SettingError(
            f"precision is {options.precision!r} for features in {first.source.precision}, expected the same; leave "
            "the precision out"
        )
    for dataset in datasets:
        _check_values(source, dataset, options)
    inner = NullCache() if options.cache is None else options.cache
    return replace(options, cache=KnownFeatures(tables, inner)), first.place
