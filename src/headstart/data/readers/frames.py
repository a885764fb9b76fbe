"""Datasets from Python objects: a data frame, or pairs of an image and its label. Imports no library of these."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.given import decoded_store
from headstart.data.images.inputs import is_table, local_path
from headstart.data.names import natural_order, shown, split_name
from headstart.data.readers.columns import column_roles
from headstart.data.readers.files import ImageFile, read_files
from headstart.errors import DataError, MissingDataError

__all__ = ["read_objects"]


def read_objects(given: Any, *, split: str | None = None, strict: bool = False) -> Dataset:
    """A dataset from a data frame with a path and a label in every row, or from pairs (image, label).

    Images are paths, relative to the working directory, or anything else that `one_image` reads. DataError if it
    is neither, or a label is missing.
    """
    if isinstance(given, Dataset):
        whole = given
    elif is_table(given):
        whole = _from_table(given, strict=strict)
    elif isinstance(given, Iterable) and not isinstance(given, dict | set | frozenset | bytes | bytearray):
        whole = _from_pairs(given, strict=strict)
    else:
        raise DataError(
            f"data is {_kind(given)}, expected a name, a path, a data frame with the columns path and label, or a "
            "list of (path, label); convert it to one of these"
        )
    return whole if split is None else whole.split(split)


def _from_table(table: Any, *, strict: bool) -> Dataset:
    spelled = {str(name).strip().lower(): name for name in _names(table)}
    roles = column_roles("data frame", list(spelled))
    lacking = [role for role in ("path", "label") if role not in roles]
    if lacking:
        raise DataError(
            f"data frame has the columns {shown(map(str, _names(table)))}, expected path and label; "
            f"rename the columns of {' and '.join(lacking)}"
        )
    columns = {role: _cells(table, spelled[name]) for role, name in roles.items()}
    for role in ("split", "group"):
        for row, cell in enumerate(columns.get(role, [])):
            columns[role][row] = _label(cell, row, role)
            if role == "split" and split_name(columns[role][row]) is None:
                raise DataError(
                    f"row {row} has split {cell!r}, expected train, val or test; rename the split, or the "
                    f"column {spelled[roles[role]]!r} if it is something else"
                )
    return _dataset("data frame", columns, strict=strict)


def _names(table: Any) -> list[Any]:
    return list(table.column_names if hasattr(table, "column_names") else table.columns)


def _cells(table: Any, name: Any) -> list[Any]:
    column = table[name]
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column)


def _from_pairs(pairs: Iterable[Any], *, strict: bool) -> Dataset:
    rows = pairs.tolist() if isinstance(pairs, np.ndarray) else list(pairs)
    if not rows:
        raise DataError("data is empty, expected at least one (path, label); check where it comes from")
    for place, row in enumerate(rows):
        if not isinstance(row, tuple | list) or len(row) != 2:
            raise DataError(
                f"item {place} of data is {_kind(row)}, expected a pair (path, label); "
                "pass a list of pairs, such as list(zip(paths, labels))"
            )
    columns = {"path": [row[0] for row in rows], "label": [row[1] for row in rows]}
    return _dataset("list", columns, strict=strict)


def _dataset(name: str, columns: dict[str, list[Any]], *, strict: bool) -> Dataset:
    images = columns["path"]
    if not images:
        raise DataError(f"{name} has no rows, expected at least one; check where it comes from")
    labels = [_label(cell, row, "label") for row, cell in enumerate(columns["label"])]
    splits, groups = columns.get("split"), columns.get("group")
    if all(isinstance(image, str | os.PathLike) for image in images):
        n_rows = len(images)
        files = [
            ImageFile(_path(image, row), label, split, group)
            for row, (image, label, split, group) in enumerate(
                zip(images, labels, splits or [None] * n_rows, groups or [None] * n_rows, strict=True)
            )
        ]
        absent = [file.path for file in files if not file.path.exists()]
        if absent:
            raise MissingDataError(
                f"image {str(absent[0])!r} does not exist, {len(absent)} of {len(files)} missing, expected every "
                f"file of the {name}; correct the paths, which are relative to {os.getcwd()!r}"
            )
        return read_files(name, files, [], [], strict=strict)
    return Dataset(
        name,
        decoded_store(images),
        np.array(labels, dtype=np.str_),
        natural_order(labels),
        None if groups is None else np.array(groups, dtype=np.str_),
        None if splits is None else np.array(splits, dtype=np.str_),
    )


def _path(image: str | os.PathLike[str], row: int) -> Path:
    if not os.fspath(image):
        raise DataError(
            f"path of row {row} is empty, expected the path of an image; fill it in, or drop the row"
        )
    return local_path(image, f"path of row {row}")


def _label(cell: Any, row: int, role: str) -> str:
    """A name or a whole number as a name; missing cells are NaN, None or empty."""
    if isinstance(cell, str) and cell.strip():
        return cell.strip()
    if isinstance(cell, bool | int | np.integer | np.bool_):
        return str(cell)
    if getattr(cell, "ndim", None) == 0 and hasattr(cell, "item"):  # of a tensor
        return _label(cell.item(), row, role)
    empty = cell is None or isinstance(cell, str) or _is_missing(cell)
    what = "is missing" if empty else f"is {cell!r} ({type(cell).__name__})"
    advice = "fill it in, or drop the row" if empty else "convert labels with .astype(int) or .astype(str)"
    raise DataError(f"{role} of row {row} {what}, expected a name or a whole number; {advice}")


def _is_missing(cell: Any) -> bool:
    """Whether a cell is NaN, NaT or NA, which are not equal to themselves."""
    try:
        return not cell == cell  # noqa: PLR0124 (NA has no truth, NaT no other test)
    except TypeError:
        return True
    except ValueError:  # an array
        return False


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, str | os.PathLike):
        return repr(os.fspath(value))
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{size}"
