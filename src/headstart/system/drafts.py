"""Arrays while they are being written, row by row, to a file or in memory.

An interrupted run leaves its rows in ``KEY.draft`` and their checksums in ``KEY.sums``; the next run of the same
continues them.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from headstart.errors import CacheError
from headstart.system.array_file import Note, RowSums, ending, header, rows_of
from headstart.system.lock import is_at, locks_exist, try_lock

__all__ = ["CacheWarning", "Draft", "FileDraft", "MemoryDraft", "reason", "warn"]

Parts = Mapping[str, Any]
Shape = tuple[int, int]


class CacheWarning(UserWarning):
    """A part of the cache is damaged or cannot be written; the result is not affected."""


class Draft(Protocol):
    """An unfinished array, written row by row; rows of an interrupted run are kept."""

    n_done: int

    def write(self, first: int, rows: NDArray[np.float32]) -> None:
        """Append rows, of which the first is row ``first`` of the array; rows written before are skipped."""
        ...

    def finish(self) -> NDArray[np.float32]:
        """The complete array; from now on `Cache.get` finds it."""
        ...

    def close(self) -> None:
        """Stop here; a later draft of the same array continues after the last row written."""
        ...


class MemoryDraft(Draft):
    """An array in memory; ``n_done`` rows of it are there."""

    def __init__(self, array: NDArray[np.float32], n_done: int = 0) -> None:
        self._array, self.n_done = array, n_done

    def write(self, first: int, rows: NDArray[np.float32]) -> None:
        """Copy rows into the array."""
        self._array[first : first + len(rows)] = rows
        self.n_done = first + len(rows)

    def finish(self) -> NDArray[np.float32]:
        """The array."""
        return self._array

    def close(self) -> None:
        """Nothing is kept."""


class FileDraft(Draft):
    """Rows appended to a file, which gets the name ``final`` when all are there; OSError if it cannot be made.

    Nothing stays in memory, and of an interrupted run only checked rows are used again. ``on_end`` gets the path
    of the complete file. Where writing fails, ``on_failure`` gets the error, and the array continues in memory.
    """

    def __init__(
        self,
        final: Path,
        parts: Parts,
        shape: Shape,
        *,
        on_end: Callable[[Path], None],
        on_failure: Callable[[OSError], None],
    ) -> None:
        self._final, self._parts, self._shape = final, parts, shape
        self._on_end, self._on_failure = on_end, on_failure
        self._path, self._file = self._final.with_suffix(".draft"), _locked(self._final.with_suffix(".draft"))
        shared = self._file is not None
        while self._file is None:  # another process writes it: use a file that is lost if interrupted
            self._path = self._final.with_name(f"{self._final.stem}.{uuid4().hex}.draft")
            self._file = _opened(self._path)
        self._sums = RowSums(shape, self._path.with_suffix(".sums") if shared else None)
        self._shared, self.n_done = shared, 0
        self._memory: MemoryDraft | None = None
        self._first, self._row_bytes = header(shape), 4 * shape[1]
        try:
            self._resume()
        except BaseException:
            self.close()
            raise

    def _resume(self) -> None:
        if self._file.read(len(self._first)) != self._first:
            self._sums.remove()
            self._file.seek(0)
            self._file.truncate()
            _write(self._file, self._first)
        self.n_done, damaged = self._sums.resume(self._file)
        self._file.truncate(self._end)
        if damaged:
            warn(
                f"unfinished features in {str(self._path)!r} are damaged after row {self.n_done}: "
                "the rest is computed again"
            )

    @property
    def _end(self) -> int:
        return len(self._first) + self.n_done * self._row_bytes

    def write(self, first: int, rows: NDArray[np.float32]) -> None:
        """Append rows and their checksum."""
        new = np.ascontiguousarray(rows[max(0, self.n_done - first) :], np.float32)
        if not len(new):
            return
        if self._memory is None:
            try:  # unbuffered, so that nothing is lost if the process is killed
                self._file.seek(self._end)
                _write(self._file, new.data.cast("B"))
                self._sums.add(new.data.cast("B"), self.n_done + len(new))
                self.n_done += len(new)
                return
            except OSError as error:
                self._memory = self._in_memory(error)
        self._memory.write(self.n_done, new)
        self.n_done += len(new)

    def finish(self) -> NDArray[np.float32]:
        """Add the checksum, sync the file, and move it to its final name."""
        assert self.n_done == self._shape[0], f"{self.n_done} rows of {self._shape[0]} were written"
        try:
            if self._memory is None:
                try:
                    return self._stored()
                except OSError as error:
                    self._memory = self._in_memory(error)
            return self._memory.finish()
        finally:
            self.close()

    def _stored(self) -> NDArray[np.float32]:
        self._file.seek(self._end)
        _write(self._file, ending(Note(self._parts, self._shape, self._sums.checksum)))
        os.fsync(self._file.fileno())
        self._sums.remove()
        if os.name == "nt":  # which cannot rename open files; elsewhere the lock is held until the rename
            self._file.close()
        self._path.replace(self._final)
        if os.name == "nt":
            self._file = self._final.open("rb")
        rows = rows_of(self._file, self._shape)
        self._on_end(self._final)
        return rows

    def _in_memory(self, error: OSError) -> MemoryDraft:
        """The rows so far, read back; the file is deleted, because the disk may be full."""
        self._on_failure(error)
        rows = np.empty(self._shape, np.float32)
        self._file.seek(len(self._first))
        done = rows[: self.n_done].reshape(-1).data.cast("B")
        n_read = 0
        while n_read < len(done) and (n_new := self._file.readinto(done[n_read:])):
            n_read += n_new
        if n_read < len(done) or zlib.crc32(done, zlib.crc32(self._first)) != self._sums.checksum:
            raise CacheError(
                f"cache {str(self._final.parent)!r} lost features that were written to it ({reason(error)}), "
                "expected space on its disk; free some, set HEADSTART_CACHE to another folder, or use --no-cache"
            ) from error
        with suppress(OSError):
            self._sums.remove()
            self._path.unlink(missing_ok=True)
        return MemoryDraft(rows, self.n_done)

    def close(self) -> None:
        """Keep what was written for a later run, if it can find it."""
        self._sums.close()
        if not self._file.closed:
            if (not self._shared or not self.n_done) and is_at(self._file, self._path):
                with suppress(OSError):
                    self._sums.remove()
                    self._path.unlink()
            self._file.close()


def _write(file: IO[bytes], data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _locked(path: Path) -> Any:
    """The file, open, if no other process writes it; None if one does, or locks are not to be had."""
    file = _opened(path) if locks_exist() else None
    if file is not None and not try_lock(file):
        file.close()
        return None
    return file


def _opened(path: Path) -> Any:
    """The file, open and locked where there are locks; None if another process writes or has removed it."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
    if try_lock(file) is not False and is_at(file, path):
        return file
    file.close()
    return None


def reason(error: Exception) -> str:
    """What happened, without number and path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def warn(text: str) -> None:
    """Warn from one line of code, so that Python shows the same text once."""
    warnings.warn(text, CacheWarning, stacklevel=1)
