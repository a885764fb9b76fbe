"""Images in the cells of a table: ``label,pixel0,...,pixel783``, or a column of pixels separated by spaces."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.names import natural_order, split_name
from headstart.data.stores import ArrayImages
from headstart.errors import DataError

__all__ = ["has_pixels", "pixel_dataset", "shaped"]

_PIXEL = re.compile(r"(?:pixel|px|p)?_?(\d+)|(\d+)x(\d+)")
_FEWEST = 16
_LABELS = ("label", "class", "emotion", "target", "y")


def has_pixels(columns: Mapping[str, Sequence[str]]) -> bool:
    """Whether a table holds images rather than their paths."""
    return len(_pixel_columns(columns)) >= _FEWEST or "pixels" in columns


def pixel_dataset(table: Path, columns: Mapping[str, Sequence[str]], numbers: Sequence[int]) -> Dataset:
    """Grey or colour images of equal sides from the cells of a table; DataError if they fit no such shape."""
    names = _pixel_columns(columns)
    others = [name for name in columns if name not in names and name != "pixels"]
    label = next((name for name in _LABELS if name in others), others[0] if len(others) == 1 else None)
    if label is None:
        raise DataError(
            f"table {str(table)!r} has pixels and the columns {', '.join(others) or 'nothing'} else, expected a "
            "column label; add it, or give the table that has labels"
        )
    rows = [cell.split() for cell in columns["pixels"]] if "pixels" in columns else None
    if rows is None:
        rows = [list(row) for row in zip(*(columns[name] for name in names), strict=True)]
    values = _values(table, rows, numbers)
    splits = [split_name(cell) for cell in columns.get("usage", columns.get("split", ()))]
    labels = np.array([_whole(cell) for cell in columns[label]], np.str_)
    return Dataset(
        table.stem,
        ArrayImages(shaped(values, f"table {str(table)!r}")),
        labels,
        natural_order(np.unique(labels).tolist()),
        splits=np.array(splits, np.str_) if splits and all(splits) else None,
    )


def shaped(values: NDArray[np.uint8], what: str) -> NDArray[np.uint8]:
    """Rows of pixels (n_images, n_values) as images; DataError unless a side fits 1 or 3 channels."""
    n_values = values.shape[1]
    for channels in (1, 3):
        side = isqrt(n_values // channels)
        if side * side * channels == n_values and side > 1:
            return values.reshape(len(values), side, side, channels)
    raise DataError(
        f"{what} has {n_values} pixels for each image, expected a square grey or colour image; save images as files"
    )


def _pixel_columns(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Columns of pixels in the order of their numbers, whatever their order in the table."""
    found = [(match, name) for name in columns if (match := _PIXEL.fullmatch(name))]
    return [
        name for _, name in sorted(found, key=lambda one: [int(part) for part in one[0].groups() if part])
    ]


def _values(table: Path, rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> NDArray[np.uint8]:
    for row, cells in zip(numbers, rows, strict=True):
        if len(cells) != len(rows[0]):
            raise DataError(
                f"row {row} of {str(table)!r} has {len(cells)} pixels, expected {len(rows[0])} as in the first row; "
                "write every image at one size"
            )
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise DataError(
            f"table {str(table)!r} has a pixel that is no number ({error}), expected whole numbers from 0 to 255; "
            "correct it"
        ) from error
    if not (
        np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255 and (values % 1 == 0).all()
    ):
        raise DataError(
            f"table {str(table)!r} has pixels from {values.min():g} to {values.max():g}, expected whole numbers from "
            "0 to 255; scale them"
        )
    return values.astype(np.uint8)


def _whole(cell: str) -> str:
    """A label without the zeros of a float: 3.0 is 3."""
    return cell.removesuffix(".0") if re.fullmatch(r"-?\d+\.0", cell) else cell
