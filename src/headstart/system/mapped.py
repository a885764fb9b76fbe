"""Large matrices: read part by part, and made in temporary files, so that they do not stay in memory."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import UnwritableError

__all__ = ["LARGE_VALUES", "in_floats", "joined", "parts_of", "taken"]

LARGE_VALUES = 2**27
"""Numbers in a matrix, 512 MiB in float32, above which it is read part by part and not copied into memory.

It is the same on every machine, so that the same data and seed give the same result everywhere."""
_KEPT_BYTES = 2**26  # of a mapped file, which stay in memory after they were read
_PART_VALUES = 2**23  # numbers in a part at the most: temporary copies in float64 are then 64 MiB
_COPIED = 8_192  # rows copied at a time
_PICKED = 1_024  # rows at indices read at a time: of a mapped file, 64 KiB around each are in memory then

Rows = NDArray[np.float32]


def parts_of(rows: NDArray[Any], n_each: int) -> Iterator[slice]:
    """Slices of so many rows each, fewer of wide rows; what was read of a mapped file does not stay in memory.

    Pages of a read-only mapped file are released when 64 MiB of them were read. They would else count as this
    process's memory until the system takes them back. They can be read again.

    >>> [(part.start, part.stop) for part in parts_of(np.zeros((5, 2)), 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    n_read, n_each = 0, min(n_each, max(1, _PART_VALUES // max(1, rows[:1].size)))
    for start in range(0, len(rows), n_each):
        here = slice(start, min(start + n_each, len(rows)))
        yield here
        n_read += rows[here].nbytes
        if n_read >= _KEPT_BYTES or here.stop == len(rows):
            _release(rows)
            n_read = 0


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several matrices, one after the other; large ones in a temporary file, memory-mapped."""
    if len(parts) == 1:
        return parts[0]
    if sum(one.size for one in parts) <= LARGE_VALUES:
        return np.concatenate(parts)
    return _written([(one, None) for one in parts])


def in_floats(rows: NDArray[Any]) -> Rows:
    """The rows in float32: themselves if they are, else a copy; large ones in a temporary file, memory-mapped."""
    if rows.dtype == np.float32 or rows.size <= LARGE_VALUES or rows.ndim != 2:
        return np.asarray(rows, np.float32)
    return _written([(rows, None)])


def taken(rows: Rows, indices: NDArray[np.intp]) -> Rows:
    """Some rows of a matrix: itself where these are all in order, many of them in a temporary file, memory-mapped."""
    if len(indices) == len(rows) and (indices == np.arange(len(rows))).all():
        return rows
    if len(indices) * rows.shape[1] > LARGE_VALUES:
        return _written([(rows, indices)])
    found = np.empty((len(indices), rows.shape[1]), rows.dtype)
    for here in parts_of(indices, _PICKED):
        found[here] = rows[indices[here]]
        _release(rows)
    return found


def _written(parts: Sequence[tuple[NDArray[Any], NDArray[np.intp] | None]]) -> Rows:
    """Rows, or those at indices, of several matrices in a file that is gone when the array is."""
    n_rows = sum(len(rows) if indices is None else len(indices) for rows, indices in parts)
    width = parts[0][0].shape[1]
    try:
        with tempfile.TemporaryFile(prefix="headstart-") as file:
            for rows, indices in parts:
                which, n_each = (rows, _COPIED) if indices is None else (indices, _PICKED)
                for here in parts_of(which, n_each):
                    some = rows[here] if indices is None else rows[indices[here]]
                    file.write(np.ascontiguousarray(some, np.float32).data)
                    _release(rows)
            file.flush()
            return np.memmap(file, np.float32, "r", shape=(n_rows, width))
    except OSError as error:
        raise UnwritableError.of(tempfile.gettempdir(), error) from error


def _release(rows: NDArray[Any]) -> None:
    """Let go of the pages of the read-only mapped file that an array shows, if it shows one."""
    one: Any = rows
    while isinstance(one, np.ndarray):
        if isinstance(one, np.memmap) and one.mode != "r":
            return  # of a private copy, changes would be lost
        one = one.base
    if isinstance(one, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        one.madvise(mmap.MADV_DONTNEED)
