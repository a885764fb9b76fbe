"""Arrays stored under the fingerprints they depend on: computed once, kept until space runs out.

In: a mapping of what an array depends on. Out: the array, memory-mapped. Imports errors and atomic.
Must not know what the arrays mean. Called by features.
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

__all__ = ["Cache", "Draft", "Entry", "FolderCache", "NullCache", "cache_root", "default_cache", "key_of"]

_DEFAULT_LIMIT_BYTES = 20 * 2**30
Parts = Mapping[str, Any]


def cache_root() -> Path:
    """Folder of everything that may be deleted: ``$HEADSTART_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("HEADSTART_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("headstart", appauthor=False)


def key_of(parts: Parts) -> str:
    """The hex SHA-256 of a mapping of plain values, whatever its order.

    Examples
    --------
    >>> key_of({"a": 1, "b": "x"}) == key_of({"b": "x", "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One stored array: its key, what it depends on, its size and when it was last used."""

    key: str
    parts: Parts
    shape: tuple[int, ...]
    size_bytes: int
    used_at: float


class Draft(Protocol):
    """An array on its way: rows are appended, and those of an interrupted run are still there."""

    n_done: int

    def write(self, first: int, rows: NDArray[np.float32]) -> None:
        """Append rows that begin at row ``first``; those already there are passed over."""
        ...

    def finish(self) -> NDArray[np.float32]:
        """The whole array, from now on found by `Cache.get`."""
        ...

    def close(self) -> None:
        """Stop here; a later draft of the same array goes on from the last row written."""
        ...


class Cache(Protocol):
    """What features need of a cache."""

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """The array stored under these parts, read-only, or None."""
        ...

    def draft(self, parts: Parts, shape: tuple[int, int]) -> Draft:
        """Begin, or go on with, a float32 array of this shape."""
        ...


class NullCache:
    """Stores nothing: the caller never has to ask whether there is a cache."""

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """Nothing is ever found."""
        return None

    def draft(self, parts: Parts, shape: tuple[int, int]) -> Draft:
        """An array in memory."""
        return _MemoryDraft(np.empty(shape, np.float32))


class _MemoryDraft:
    def __init__(self, array: NDArray[np.float32]) -> None:
        self._array, self.n_done = array, 0

    def write(self, first: int, rows: NDArray[np.float32]) -> None:
        """Copy the rows into place."""
        self._array[first : first + len(rows)] = rows
        self.n_done = first + len(rows)

    def finish(self) -> NDArray[np.float32]:
        """The array itself."""
        return self._array

    def close(self) -> None:
        """Nothing was kept."""


class FolderCache:
    """A folder of ``KEY.npy`` arrays, each with a ``KEY.json`` that says what it is.

    Parameters
    ----------
    root : path
        Made when first written to.
    limit_bytes : int, default=20 GiB
        After a write, the arrays unused for longest are removed until the rest fits.

    Notes
    -----
    An array appears under its name only when it is whole, so any number of processes may read and
    write one folder. An array that cannot be read (a full disk, a hand that edited) counts as absent.

    Examples
    --------
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
            os.utime(path)  # used just now: the last to be removed
        except (OSError, ValueError, EOFError):
            return None
        return array

    def draft(self, parts: Parts, shape: tuple[int, int]) -> Draft:
        """Begin, or go on with, a float32 array of this shape.

        Raises
        ------
        CacheError
            If the folder cannot be written.
        """
        key = key_of(parts)
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            return _FileDraft(self, parts, self._array(key).with_suffix(".draft"), shape)

    def adopt(self, parts: Parts, written: Path, shape: tuple[int, ...]) -> NDArray[Any]:
        """Take a whole ``.npy`` file into the folder under its name, and give the array.

        Raises
        ------
        CacheError
            If the folder cannot be written.
        """
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

    def entries(self) -> list[Entry]:
        """Everything stored, the last used first."""
        found = []
        for path in self.root.glob("*.npy"):
            try:
                note = json.loads(path.with_suffix(".json").read_text())
                parts, shape, status = dict(note["parts"]), tuple(note["shape"]), path.stat()
            except (OSError, ValueError, KeyError, TypeError):  # half written, or a hand that edited
                continue
            found.append(Entry(path.stem, parts, shape, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: -entry.used_at)

    def clear(self) -> int:
        """Remove everything stored, drafts too; how many arrays that was."""
        entries = self.entries()
        for entry in entries:
            self._remove(entry)
        for draft in self.root.glob("*.draft"):
            draft.unlink(missing_ok=True)
        return len(entries)

    def _array(self, key: str) -> Path:
        return self.root / f"{key}.npy"

    def _remove(self, entry: Entry) -> None:
        self._array(entry.key).unlink(missing_ok=True)
        self._array(entry.key).with_suffix(".json").unlink(missing_ok=True)

    def _shrink(self, keep: str) -> None:
        total = 0
        for entry in self.entries():
            total += entry.size_bytes
            if total > self.limit_bytes and entry.key != keep:
                self._remove(entry)


class _FileDraft:
    """Rows appended to a ``.npy`` file: no page of it stays in memory, and its length says how far it is."""

    def __init__(self, cache: FolderCache, parts: Parts, path: Path, shape: tuple[int, int]) -> None:
        self._cache, self._parts, self._shape = cache, parts, shape
        self._path, self._file = path, _locked(path)
        if self._file is None:  # another process is at it: write one of our own, to be lost if interrupted
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
        """Append the rows that are not there yet."""
        new = np.ascontiguousarray(rows[max(0, self.n_done - first) :], np.float32)
        if not len(new):
            return
        with self._cache._writing():
            self._file.seek(self._start + self.n_done * self._row_bytes)
            self._file.write(new.data)
            self._file.flush()  # to the system, so that a kill loses nothing
        self.n_done += len(new)

    def finish(self) -> NDArray[np.float32]:
        """Sync, close, and put the file in its place."""
        assert self.n_done == self._shape[0], f"{self.n_done} rows of {self._shape[0]} were written"
        try:
            with self._cache._writing():
                os.fsync(self._file.fileno())
            return self._cache.adopt(self._parts, self._path, self._shape)
        finally:
            self.close()

    def close(self) -> None:
        """Leave the rows for whoever goes on."""
        self._file.close()


def _header(shape: tuple[int, int]) -> bytes:
    """What a ``.npy`` file of float32 rows begins with."""
    file = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()


def _locked(path: Path) -> Any:
    """The file, open, if no other process writes it; None if one does, or locks are not to be had."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows
        return None
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # else it was finished meanwhile
            return file
    except OSError:
        pass
    file.close()
    return None


def default_cache() -> FolderCache:
    """The user's feature cache; its limit is ``$HEADSTART_CACHE_LIMIT_GB`` (gigabytes, default 20).

    Raises
    ------
    SettingError
        If the limit is not a finite number above 0.
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
