"""A dataset from a file of features or a folder of such files: labels and digests now, vectors when they are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.embedded.found import found_images
from headstart.data.embedded.images import EmbeddedImages, FeatureTable
from headstart.data.embedded.parts import Part, Rows, is_part
from headstart.data.names import natural_order, shown, split_name
from headstart.errors import DataError, MissingDataError

__all__ = ["is_features", "read_features"]

_LOOKED_AT = 3  # files of a folder, of which one is enough to recognise it: the first may be damaged


def is_features(path: Path) -> bool:
    """Whether a path is a Parquet file of features, or a folder of such files."""
    if path.is_dir():
        return any(is_part(one) for one in sorted(path.glob("part-*.parquet"))[:_LOOKED_AT])
    return path.suffix.lower() == ".parquet" and path.is_file() and is_part(path)


def read_features(path: Path) -> Dataset:
    """The dataset whose features a file or folder holds.

    Its images have pixels where their files, or the named dataset, are as they were. DataError, BrokenDataError or
    MissingDataError if a file is damaged or missing, or if files are of different runs.
    """
    parts = _parts(path)
    rows = _joined(parts, [part.rows() for part in parts])
    record = parts[0].record
    images = found_images(record, rows, path.parent)
    table = FeatureTable(str(path), parts, rows.names, rows.digests)
    everyone = np.arange(len(rows.digests))
    return Dataset(
        record.data.name,
        EmbeddedImages(table, everyone, images),
        rows.labels,
        _classes(record.data.classes, rows.labels),
        rows.groups,
        rows.splits,
        remarks=_remarks(path, len(everyone), record.data.n_images),
    )


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.glob("*.parquet") if not one.name.startswith("."))


def _parts(path: Path) -> list[Part]:
    """The files in the order of their shards; DataError unless those of a folder are all those of one run."""
    parts = [Part(one) for one in (_files(path) if path.is_dir() else [path])]
    first = parts[0]
    for other in parts[1:]:
        differences = first.record.differences(other.record)
        if differences:
            raise DataError(
                f"features {str(first.path)!r} and {str(other.path)!r} differ in {', '.join(differences)}, expected "
                "files of one run; keep each run in a folder of its own"
            )
    by_number: dict[int, Part] = {}
    for part in parts:
        other = by_number.setdefault(part.record.shard.number, part)
        if other is not part:
            raise DataError(
                f"features {str(path)!r} hold shard {part.record.shard.number} twice, in {other.path.name!r} and in "
                f"{part.path.name!r}, expected each once; delete the copy"
            )
    missing = sorted(set(range(first.record.n_shards)) - set(by_number))
    if missing and path.is_dir():  # a single file may be part of them, or all of them written as one
        raise MissingDataError(
            f"features {str(path)!r} lack shard {shown([str(one) for one in missing])} of {first.record.n_shards}, "
            "expected all of them; run the same headstart embed again, which computes what is missing"
        )
    return [by_number[number] for number in sorted(by_number)]


def _joined(parts: list[Part], rows: list[Rows]) -> Rows:
    """The rows of all files; DataError if some have splits or groups and others none."""
    optional: dict[str, NDArray[np.str_] | None] = {}
    for name, columns in (("split", [one.splits for one in rows]), ("group", [one.groups for one in rows])):
        there = [column for column in columns if column is not None]
        if there and len(there) < len(columns):
            lacking = next(part for part, column in zip(parts, columns, strict=True) if column is None)
            raise DataError(
                f"features {str(lacking.path)!r} have no column {name}, which others have, expected it in all files "
                "or in none; add it, or drop it from the others"
            )
        optional[name] = np.concatenate(there) if there else None
    if not any(len(part) for part in parts):
        raise DataError(
            f"features {str(parts[0].path)!r} have no rows, expected at least one; compute them again"
        )
    return Rows(
        np.concatenate([one.names for one in rows]),
        np.concatenate([one.labels for one in rows]),
        _plain(optional["split"], parts[0]),
        optional["group"],
        np.concatenate([one.digests for one in rows]),
    )


def _plain(splits: NDArray[np.str_] | None, part: Part) -> NDArray[np.str_] | None:
    """Splits by their usual names."""
    if splits is None:
        return None
    names = {one: split_name(one) for one in np.unique(splits).tolist()}
    unknown = [one for one, name in names.items() if name is None]
    if unknown:
        raise DataError(
            f"features {str(part.path)!r} have the split {unknown[0]!r}, expected train, val or test; rename it"
        )
    return np.array([str(names[one]) for one in splits.tolist()], np.str_)


def _classes(recorded: tuple[str, ...], labels: NDArray[np.str_]) -> tuple[str, ...]:
    """The recorded classes that have images, in their order, and those that labels were changed to."""
    here = set(np.unique(labels).tolist())
    new = here - set(recorded)
    if new and recorded == natural_order(recorded):
        return natural_order(here)
    return (*(name for name in recorded if name in here), *natural_order(new))


def _remarks(path: Path, n_rows: int, n_images: int) -> tuple[str, ...]:
    """That rows were dropped or added."""
    if n_rows == n_images:
        return ()
    return (f"features {path.name!r} have {n_rows:,} rows, {n_images:,} were computed",)
