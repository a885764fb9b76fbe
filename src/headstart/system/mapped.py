"""Reads matrices part by part, so that those in memory-mapped files do not stay in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["parts_of"]

_KEPT_BYTES = 2**26  # of a mapped file, which stay in memory after they were read


def parts_of(rows: NDArray[Any], n_each: int) -> Iterator[slice]:
    """Slices of so many rows each; pages of a read-only mapped file are released when 64 MiB of them were read.

    They would else count as this process's memory until the system takes them back. They can be read again.

    >>> [(part.start, part.stop) for part in parts_of(np.zeros((5, 2)), 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    mapped, n_read = _mapped(rows), 0
    for start in range(0, len(rows), n_each):
        here = slice(start, min(start + n_each, len(rows)))
        yield here
        n_read += rows[here].nbytes
        if mapped is not None and (n_read >= _KEPT_BYTES or here.stop == len(rows)):
            mapped.madvise(mmap.MADV_DONTNEED)
            n_read = 0


def _mapped(rows: NDArray[Any]) -> mmap.mmap | None:
    """The read-only map of a file that an array shows; None for others, and where pages cannot be released."""
    one: Any = rows
    while isinstance(one, np.ndarray):
        if isinstance(one, np.memmap) and one.mode != "r":
            return None  # of a private copy, changes would be lost
        one = one.base
    return one if isinstance(one, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") else None
