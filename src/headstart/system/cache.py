"""Arrays stored under the fingerprints of what they depend on; the least recently used are removed first.

The cache does not know what the arrays mean.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from headstart.errors import CacheError, SettingError
from headstart.system.files import write_atomic
from headstart.system.lock import is_at, locks_exist, try_lock

__all__ = [
    "Cache",
    "CacheEntry",
    "Draft",
    "FolderCache",
    "NullCache",
    "cache_root",
    "default_cache",
    "key_of",
]

_DEFAULT_LIMIT_BYTES = 20 * 2**30
Parts = Mapping[str, Any]


def cache_root() -> Path:
    """The folder of everything that may be deleted: ``$HEADSTART_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("HEADSTART_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("headstart", appauthor=False)


def key_of(parts: Parts) -> str:
    """The hex SHA-256 of a mapping of plain values, independent of its order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CacheEntry:
    """A stored array: its key, what it depends on, its size, and the time of its last use (Unix time)."""

    key: str
    parts: Parts
    shape: tuple[int, ...]
    size_bytes: int
    used_at: float


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


class Cache(Protocol):
    """What feature extraction uses of a cache."""

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """The array stored under these parts, read-only, or None."""
        ...

    def draft(self, parts: Parts, shape: tuple[int, int]) -> Draft:
        """Begin or continue a float32 array of this shape."""
        ...


class NullCache:
    """A cache that stores nothing."""

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """None, always."""
        return None

    def draft(self, parts: Parts, shape: tuple[int, int]) -> Draft:
        """An array in memory."""
        return _MemoryDraft(np.empty(shape, np.float32))


class _MemoryDraft:
    def __init__(self, array: NDArray[np.float32]) -> None:
        self._array, self.n_done = array, 0

    def write(self, first: int, rows: NDArray[np.float32]) -> None:
        self._array[first : first + len(rows)] = rows
        self.n_done = first + len(rows)

    def finish(self) -> NDArray[np.float32]:
        return self._array

    def close(self) -> None:
        """Nothing is kept."""


class FolderCache:
    """A folder of ``KEY.npy`` arrays, each with a ``KEY.json`` that describes it.

    After a write, the least recently used arrays are removed until the rest fits into ``limit_bytes``. An array
    gets its name only when it is complete, so any number of processes may read and write the same folder. An
    array that cannot be read counts as absent.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     cache = FolderCache(folder)
    ...     draft = cache.draft({"of": "ones"}, (2, 2))
    ...     draft.write(0, np.ones((2, 2), np.float32))
    ...     _ = draft.finish()
    ...     found = cache.get({"of": "ones"}).tolist()
    >>> found
    [[1.0, 1.0], [1.0, 1.0]]
    """

    def __init__(self, root: str | os.PathLike[str], limit_bytes: int = _DEFAULT_LIMIT_BYTES) -> None:
        self.root, self.limit_bytes = Path(root), limit_bytes

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """The array stored under these parts, memory-mapped and read-only, or None."""
        path = self._array(key_of(parts))
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path)  # the time of last use
        except (OSError, ValueError, EOFError):
            return None
        return array

    def draft(self, parts: Parts, shape: tuple[int, int]) -> Draft:
        """Begin or continue a float32 array; CacheError if the folder cannot be written."""
        key = key_of(parts)
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            return _FileDraft(self, parts, self._array(key).with_suffix(".draft"), shape)

    def adopt(self, parts: Parts, written: Path, shape: tuple[int, ...]) -> NDArray[Any]:
        """Move a complete ``.npy`` file into the folder and return its array; CacheError as in `draft`."""
        key = key_of(parts)
        with self._writing():
            write_atomic(
                self._array(key).with_suffix(".json"), json.dumps({"parts": dict(parts), "shape": shape})
            )
            written.replace(self._array(key))
            array: NDArray[Any] = np.load(self._array(key), mmap_mode="r", allow_pickle=False)
        self._shrink(keep=key)
        return array

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(
                f"cache {str(self.root)!r} cannot be written ({error.strerror}), "
                "expected space and permission; set HEADSTART_CACHE to another folder, or use --no-cache"
            ) from error

    def entries(self) -> list[CacheEntry]:
        """All stored arrays, the most recently used first."""
        found = []
        for path in self.root.glob("*.npy"):
            try:
                note = json.loads(path.with_suffix(".json").read_text())
                parts, shape, status = dict(note["parts"]), tuple(note["shape"]), path.stat()
            except (OSError, ValueError, KeyError, TypeError):  # half written, or edited by hand
                continue
            found.append(CacheEntry(path.stem, parts, shape, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: -entry.used_at)

    def clear(self) -> int:
        """Remove all arrays and drafts; returns the number of arrays."""
        entries = self.entries()
        for entry in entries:
            self._remove(entry)
        for draft in self.root.glob("*.draft"):
            draft.unlink(missing_ok=True)
        return len(entries)

    def _array(self, key: str) -> Path:
        return self.root / f"{key}.npy"

    def _remove(self, entry: CacheEntry) -> None:
        self._array(entry.key).unlink(missing_ok=True)
        self._array(entry.key).with_suffix(".json").unlink(missing_ok=True)

    def _shrink(self, keep: str) -> None:
        total = 0
        for entry in self.entries():
            total += entry.size_bytes
            if total > self.limit_bytes and entry.key != keep:
                self._remove(entry)


class _FileDraft:
    """Rows appended to a ``.npy`` file: nothing stays in memory, and its length shows how many are written."""

    def __init__(self, cache: FolderCache, parts: Parts, path: Path, shape: tuple[int, int]) -> None:
        self._cache, self._parts, self._shape = cache, parts, shape
        self._path, self._file = path, _locked(path)
        if self._file is None:  # another process writes it: use a file that is lost if interrupted
            self._path = path.with_name(f"{path.stem}.{uuid4().hex}.draft")
            self._file = self._path.open("w+b")
        header = _header(shape)
        self._start, self._row_bytes = len(header), 4 * shape[1]
        if self._file.read(len(header)) != header:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(header)
        length = self._file.seek(0, os.SEEK_END)
        self.n_done = min((length - self._start) // max(1, self._row_bytes), shape[0])

    def write(self, first: int, rows: NDArray[np.float32]) -> None:
        new = np.ascontiguousarray(rows[max(0, self.n_done - first) :], np.float32)
        if not len(new):
            return
        with self._cache._writing():
            self._file.seek(self._start + self.n_done * self._row_bytes)
            self._file.write(new.data)
            self._file.flush()  # to the operating system, so that nothing is lost if the process is killed
        self.n_done += len(new)

    def finish(self) -> NDArray[np.float32]:
        """Sync and close the file, and move it to its final name."""
        assert self.n_done == self._shape[0], f"{self.n_done} rows of {self._shape[0]} were written"
        try:
            with self._cache._writing():
                os.fsync(self._file.fileno())
            return self._cache.adopt(self._parts, self._path, self._shape)
        finally:
            self.close()

    def close(self) -> None:
        self._file.close()


def _header(shape: tuple[int, int]) -> bytes:
    """The first bytes of a ``.npy`` file of float32 rows."""
    file = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()


def _locked(path: Path) -> Any:
    """The file, open, if no other process writes it; None if one does, or locks are not to be had."""
    if not locks_exist():
        return None
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
    if try_lock(file) and is_at(file, path):  # else it was finished meanwhile
        return file
    file.close()
    return None


def default_cache() -> FolderCache:
    """The user's feature cache.

    Its limit is ``$HEADSTART_CACHE_LIMIT_GB`` (gigabytes, default 20); SettingError unless that is above 0.
    """
    text = os.environ.get("HEADSTART_CACHE_LIMIT_GB", "20")
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 < limit < float("inf"):
        raise SettingError(
            f"HEADSTART_CACHE_LIMIT_GB is {text!r}, expected a number of gigabytes above 0; unset it for 20"
        )
    return FolderCache(cache_root() / "features", int(limit * 2**30))
