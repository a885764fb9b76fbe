"""What can be wrong with the columns of a dataset: all faults are collected, then reported together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.names import SPLITS, natural_order, shown, split_name
from headstart.errors import DataError, HeadstartError, ShapeError, nearest

__all__ = ["Fault", "column_faults", "label_faults", "plain_splits", "raise_faults", "split_faults"]

Fault = tuple[type[HeadstartError], str]


def raise_faults(faults: Sequence[Fault]) -> None:
    """Raise one error for all faults, of their class if they share one, else DataError.

    >>> raise_faults([(ShapeError, "a is 1, expected 2; add 1"), (ShapeError, "b is 3, expected 4; add 1")])
    Traceback (most recent call last):
        ...
    headstart.errors.ShapeError: a is 1, expected 2; add 1; also b is 3, expected 4; add 1
    """
    if not faults:
        return
    kind = faults[0][0] if len({kind for kind, _ in faults}) == 1 else DataError
    raise kind("; also ".join(sentence for _, sentence in faults))


def column_faults(name: str, column: NDArray[Any], n_images: int) -> list[Fault]:
    """Faults in the shape and dtype of one column."""
    faults: list[Fault] = []
    if column.ndim != 1:
        faults.append(
            (ShapeError, f"{name} has shape {column.shape}, expected ({n_images},); pass a 1-D array")
        )
    elif len(column) != n_images:
        message = f"{name} has {len(column)} entries, expected {n_images} to match images; pass one per image"
        faults.append((ShapeError, message))
    if column.dtype.kind != "U":
        advice = "from_arrays turns whole numbers into names"
        faults.append((DataError, f"{name} has dtype {column.dtype}, expected names (str); {advice}"))
    elif "" in column:
        advice = "fill them in, or drop these images"
        faults.append(
            (DataError, f"{name} has {(column == '').sum()} empty names, expected a name per image; {advice}")
        )
    return faults


def label_faults(labels: NDArray[Any], classes: Sequence[str]) -> list[Fault]:
    """Labels that are not among the classes, and repeated classes; another dtype is left to `column_faults`."""
    faults: list[Fault] = []
    if len(set(classes)) != len(classes):
        twice = natural_order(name for name in classes if list(classes).count(name) > 1)
        faults.append(
            (DataError, f"classes repeats {shown(twice)}, expected each name once; drop the repeats")
        )
    used = np.unique(labels).tolist() if labels.dtype.kind == "U" else []
    for name in [name for name in used if name and name not in classes][:5]:
        hint = f"expected one of them, {nearest(name, classes)}"
        faults.append((DataError, f"label {name!r} is not among the classes, {hint}; add it to classes"))
    return faults


def split_faults(splits: NDArray[Any]) -> list[Fault]:
    """Unknown splits, after `plain_splits`; another dtype is left to `column_faults`."""
    used = np.unique(splits).tolist() if splits.dtype.kind == "U" else []
    wrong = [name for name in used if name and name not in SPLITS]
    return [
        (DataError, f"split {name!r} is unknown, expected train, val or test; rename it")
        for name in wrong[:5]
    ]


def plain_splits(splits: NDArray[Any]) -> NDArray[Any]:
    """Replace synonyms of splits; unknown names are left to `split_faults`."""
    if splits.dtype.kind != "U":
        return splits
    names, inverse = np.unique(splits, return_inverse=True)
    return np.asarray([split_name(name) or name for name in names], dtype=np.str_)[inverse]
