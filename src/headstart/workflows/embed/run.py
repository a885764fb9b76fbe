"""Runs an embedding: check what is there, then compute and write the shards that are missing."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.embedded.images import image_digests
from headstart.data.embedded.parts import Part, Rows, is_part, part_names, write_part
from headstart.data.embedded.record import EmbeddedData, EmbeddedSource, FeatureRecord, Shard
from headstart.errors import DataError, SettingError
from headstart.graph.pooling import JOIN, n_features
from headstart.records import Array, Source
from headstart.sources.features import PLAIN, Extraction, extract_all
from headstart.sources.precision import INT8, calibrated_on, check_saved, int8_ranges, precise, with_ranges
from headstart.strategies.assemble import versions
from headstart.strategies.places import Probe, places_of
from headstart.system.cache import NullCache
from headstart.system.optional import check_installed
from headstart.system.progress import Progress
from headstart.workflows.embed.request import EmbedRequest

__all__ = ["Embedded", "run_embed"]

_PART = re.compile(r"part-\d{5,}\.parquet")
_DEFAULT = EmbedRequest()


@dataclass(frozen=True)
class Embedded:
    """What was written: ``output`` is a file or a folder of ``files``, of which ``n_kept`` were there already."""

    output: Path
    files: tuple[Path, ...]
    n_kept: int
    record: FeatureRecord
    skipped: tuple[tuple[str, str], ...]


def run_embed(
    source: Source,
    dataset: Dataset,
    output: str | Path,
    request: EmbedRequest = _DEFAULT,
    *,
    options: Extraction = PLAIN,
) -> Embedded:
    """Write the features of every image to a Parquet file, or shard by shard to a folder of such files.

    Parameters
    ----------
    source : Source
        Frozen.
    dataset : Dataset
        All of its images, whatever their split.
    output : str or path
        A file if it ends in ``.parquet`` and all images are one shard; else a folder.
    request : EmbedRequest, optional
        Layer, pooling, type of the vectors, and images per file.
    options : Extraction, optional
        Runtime, precision (fp32, or int8 calibrated on at most 100 of the images) and progress. The cache is not
        used, so that nothing is stored twice.

    Returns
    -------
    Embedded
        Files that were there from an interrupted run of the same request are kept.

    Raises
    ------
    SettingError
        If the precision or pooling is unknown, or the output is anything else than files of this request.
    DataError
        If features are not finite, or float16 cannot hold them.
    UnknownLayerError
        If the source has no such layer.
    MissingExtraError
        If pyarrow is not installed.
    UnwritableError
        If a file cannot be written; those before it stay.

    Notes
    -----
    Memory holds one shard of features: by default 65,536 rows.
    """
    check_installed("pyarrow", extra="tables", for_="features as a table")
    check_saved(options.precision)
    options = replace(options, cache=NullCache())
    place = places_of(source, Probe(request.layer, request.pooling))[2].place
    files = _targets(Path(output), len(dataset), request.shard_size)
    _check_output(Path(output), files)
    for name in [name for name, number in dataset.counts().items() if not number]:
        options.progress.remark(f"headstart: class {name!r} has no image, so the table has no row of it")
    note, ready, options = _ready(source, dataset, request, options)
    record = _record(note, ready, dataset, place, request, options)
    done = [path.exists() for path in files]
    for number, path in enumerate(files):
        if done[number]:
            _check_part(path, record.of_shard(number), dataset)
    for number, path in enumerate(files):
        if not done[number]:
            _write(path, record.of_shard(number), ready, dataset, options)
    return Embedded(Path(output), files, sum(done), record, dataset.skipped)


def _targets(output: Path, n_images: int, shard_size: int) -> tuple[Path, ...]:
    """The files to write."""
    n_shards = -(-n_images // shard_size)
    if n_shards == 1 and output.suffix.lower() == ".parquet" and not output.is_dir():
        return (output,)
    return tuple(output / name for name in part_names(n_shards))


def _check_output(output: Path, files: Sequence[Path]) -> None:
    """SettingError if the output holds anything but files of features."""
    if not output.exists():
        above = next(place for place in output.absolute().parents if place.exists())
        if not above.is_dir():
            raise SettingError(
                f"{str(above)!r} is a file, expected a folder to write {output.name!r} to; choose another"
            )
        return
    if output.is_dir():
        there = sorted(one.name for one in output.iterdir() if not one.name.startswith("."))
        other = [name for name in there if not _PART.fullmatch(name)]
        known = {path.name for path in files}
        extra = [name for name in there if name not in known]
        if other:
            raise SettingError(
                f"folder {str(output)!r} holds {other[0]!r}, expected an empty folder, or one that headstart embed "
                "began; choose another"
            )
        if extra:
            raise SettingError(
                f"folder {str(output)!r} holds {extra[0]!r}, expected at most {len(files)} parts for this data and "
                "shard size; give the same as before, or choose another folder"
            )
    elif output != files[0]:
        raise SettingError(
            f"{str(output)!r} is a file, expected a folder for the parts; choose another, or delete it"
        )
    elif not is_part(output):
        raise SettingError(
            f"{str(output)!r} exists and is no file of features, expected a new name; choose another"
        )


def _ready(
    source: Source, dataset: Dataset, request: EmbedRequest, options: Extraction
) -> tuple[EmbeddedSource, Source, Extraction]:
    """How the source is opened again, the source in its precision, and the options to run it."""
    note = EmbeddedSource(
        source.name,
        source.fingerprint,
        source.precision,
        source.input.policy,
        source.input.version,
        request.seed,
        request.size_px,
    )
    if options.precision == INT8 and source.precision != INT8:
        options.progress.step("calibrate the network", 0, 0)
        ranges, text = int8_ranges(source, dataset, options), calibrated_on(dataset)
        made = with_ranges(source, ranges, text)
        packed = base64.b64encode(np.ascontiguousarray(ranges, np.float32).tobytes()).decode()
        note = replace(note, fingerprint=made.fingerprint, precision=INT8, ranges=packed, calibrated_on=text)
        return note, made, replace(options, precision=None)
    ready = precise(source, lambda: dataset, options)
    return note, ready.source, replace(ready.options, precision="fp32")


def _record(
    note: EmbeddedSource,
    source: Source,
    dataset: Dataset,
    place: tuple[str, str],
    request: EmbedRequest,
    options: Extraction,
) -> FeatureRecord:
    """The record of the first file."""
    images = dataset.images
    layers = [layer for layer in place[0].split(JOIN) if layer in source.layers]
    first = FeatureRecord(
        note,
        *place,
        options.runtime,
        "float16" if request.float16 else "float32",
        max(1, sum(n_features(source.layers[layer], place[1]) for layer in layers)),
        EmbeddedData(
            dataset.name,
            images.fingerprint,
            len(dataset),
            dataset.classes,
            images.image_shape,
            images.depth_bits,
        ),
        Shard(0, 0, 0, request.shard_size),
        versions()["headstart"],
    )
    return first.of_shard(0)


def _check_part(path: Path, record: FeatureRecord, dataset: Dataset) -> None:
    """SettingError unless a file is what this request would write, by its record, digests and labels."""
    part = Part(path)
    differences = record.differences(part.record)
    if part.record.shard != record.shard and not differences:
        differences = [f"shard number ({record.shard.number} and {part.record.shard.number})"]
    if differences:
        raise SettingError(
            f"{str(path)!r} is of another request: {', '.join(differences)} differ, expected the same; give the same "
            "as before, or choose another output"
        )
    rows, some = part.rows(), _shard(dataset, record)
    if not np.array_equal(rows.digests, image_digests(some.images)):
        raise SettingError(
            f"{str(path)!r} has other images than {dataset.name!r}, expected the same in the same order; choose "
            "another output"
        )
    for name, ours, theirs in (
        ("labels", some.labels, rows.labels),
        ("splits", some.splits, rows.splits),
        ("groups", some.groups, rows.groups),
    ):
        if not _same(ours, theirs):
            raise SettingError(
                f"{str(path)!r} has other {name} than {dataset.name!r}, expected the same; choose another output, or "
                "delete it to compute it again"
            )


def _same(ours: NDArray[np.str_] | None, theirs: NDArray[np.str_] | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return np.array_equal(ours, theirs)


def _shard(dataset: Dataset, record: FeatureRecord) -> Dataset:
    first = record.shard.first
    return dataset.subset(np.arange(first, first + record.shard.n_images))


def _write(path: Path, record: FeatureRecord, source: Source, dataset: Dataset, options: Extraction) -> None:
    """Compute a shard and write its file."""
    some, first = _shard(dataset, record), record.shard.first
    told = replace(options, progress=_Whole(options.progress, first, len(dataset)))
    vectors = extract_all(some, source, [record.place], options=told)[0]
    names = [dataset.images.image_name(first + place) for place in range(len(some))]
    _check_vectors(vectors, names, record)
    rows = Rows(
        np.array(names, np.object_), some.labels, some.splits, some.groups, image_digests(some.images)
    )
    write_part(path, record, rows, vectors)


def _check_vectors(vectors: Array, names: Sequence[str], record: FeatureRecord) -> None:
    """DataError if features are not finite, or float16 cannot hold them."""
    most = float(np.finfo(record.dtype).max)
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~(np.abs(vectors).max(axis=1) <= most))
    if not len(wrong):
        return
    largest = float(np.abs(vectors[wrong[0]]).max())
    what = f"reach {largest:,.0f}, more than float16 holds" if np.isfinite(largest) else "are not finite"
    advice = "write float32" if np.isfinite(largest) else "read another layer, or leave the image out"
    raise DataError(
        f"features of {names[wrong[0]]!r} at {record.layer!r} {what}, expected numbers up to {most:,.0f}; {advice}"
    )


class _Whole:
    """Shows the progress of a shard as that of all images."""

    def __init__(self, progress: Progress, first: int, total: int) -> None:
        self._progress, self._first, self._total = progress, first, total

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Count from the first image of the dataset."""
        self._progress.step(task, self._first + done if total else 0, self._total if total else 0, note)

    def remark(self, text: str) -> None:
        """Show a sentence that stays on the screen."""
        self._progress.remark(text)
