"""What is kept of a file from the only time that it is read: its look, and its pixels as a network takes them.

Prepared pixels lie in a temporary file without a name, so memory does not grow with the number of images.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.looks import Look
from headstart.records import InputSpec

__all__ = ["KeptFile", "PreparedRows", "Row", "preparation_of"]

_LIMIT_BYTES = 4 * 2**30  # 28,000 photos of 224 px
_SHARE_OF_DISK = 0.25  # of the free space


class PreparedRows:
    """Prepared images in a temporary file that ends with the process, up to 4 GB or a quarter of the free space."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # open as long as an image refers to it
        weakref.finalize(self, self._file.close)
        free = shutil.disk_usage(tempfile.gettempdir()).free
        self._left = min(_LIMIT_BYTES, int(_SHARE_OF_DISK * free)) if limit_bytes is None else limit_bytes
        self._end, self._lock = 0, Lock()

    def add(self, pixels: NDArray[np.uint8]) -> Row | None:
        """Keep an image; None where there is no space left."""
        with self._lock:
            if pixels.nbytes > self._left:
                return None
            try:
                self._file.seek(self._end)
                is_whole = self._file.write(pixels.tobytes()) == pixels.nbytes
            except OSError:
                is_whole = False
            if not is_whole:  # the disk is full
                self._left = 0
                return None
            row = Row(self, self._end, pixels.shape)
            self._left -= pixels.nbytes
            self._end += pixels.nbytes
            return row

    def read(self, first: int, n_bytes: int) -> bytes:
        """Bytes that were kept before."""
        if hasattr(os, "pread"):  # a forked process shares the position in the file, but not the lock
            return os.pread(self._file.fileno(), n_bytes, first)
        with self._lock:
            self._file.seek(first)
            return self._file.read(n_bytes)


@dataclass(frozen=True)
class Row:
    """Where one prepared image lies."""

    rows: PreparedRows
    first: int
    shape: tuple[int, ...]

    def read(self) -> NDArray[np.uint8]:
        """The image, in new memory."""
        n_bytes = int(np.prod(self.shape))
        return np.frombuffer(bytearray(self.rows.read(self.first, n_bytes)), np.uint8).reshape(self.shape)


@dataclass(frozen=True)
class KeptFile:
    """What is known of one file. A copy in another process has its look alone."""

    look: Look | None = None
    prepared: Mapping[InputSpec, Row] = field(default_factory=dict)

    def __reduce__(self) -> tuple[type[KeptFile], tuple[Look | None]]:
        return KeptFile, (self.look,)


def preparation_of(spec: InputSpec) -> InputSpec:
    """What of an input decides on the prepared pixels of a file of 8 bits."""
    return replace(spec, mean=(0.0,), std=(1.0,), depth_bits=None)
