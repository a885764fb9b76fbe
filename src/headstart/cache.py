"""Arrays stored under the fingerprints they depend on: computed once, kept until space runs out.

In: a mapping of what an array depends on. Out: the array, memory-mapped. Imports errors and atomic.
Must not know what the arrays mean. Called by features.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from headstart.atomic import write_atomic
from headstart.errors import CacheError, SettingError

__all__ = ["Cache", "Entry", "FolderCache", "NullCache", "cache_root", "default_cache", "key_of"]

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


class Cache(Protocol):
    """What features need of a cache."""

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """The array stored under these parts, read-only, or None."""
        ...

    def put(self, parts: Parts, array: NDArray[Any]) -> NDArray[Any]:
        """Store an array and give it back."""
        ...


class NullCache:
    """Stores nothing: the caller never has to ask whether there is a cache."""

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """Nothing is ever found."""
        return None

    def put(self, parts: Parts, array: NDArray[Any]) -> NDArray[Any]:
        """The array itself."""
        return array


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
    ...     _ = cache.put({"of": "ones"}, np.ones(3))
    ...     found = cache.get({"of": "ones"}).tolist()
    >>> found
    [1.0, 1.0, 1.0]
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

    def put(self, parts: Parts, array: NDArray[Any]) -> NDArray[Any]:
        """Store an array and give the stored one back.

        Raises
        ------
        CacheError
            If the folder cannot be written.
        """
        key = key_of(parts)
        path = self._array(key)
        temporary = path.with_name(f"{key}.{uuid4().hex}.part")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            write_atomic(path.with_suffix(".json"), json.dumps({"parts": dict(parts), "shape": array.shape}))
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):  # nothing to remove where even the folder cannot be made
                temporary.unlink()
            raise CacheError(
                f"cache {str(self.root)!r} cannot be written ({error.strerror}), need space and permission; "
                "set HEADSTART_CACHE to another folder, or use --no-cache"
            ) from error
        except BaseException:  # interrupted, or what no file can hold
            temporary.unlink(missing_ok=True)
            raise
        self._shrink(keep=key)
        return array

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
        """Remove everything stored; how many arrays that was."""
        entries = self.entries()
        for entry in entries:
            self._remove(entry)
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
            f"HEADSTART_CACHE_LIMIT_GB is {text!r}, need a number of gigabytes above 0; unset it for 20"
        )
    return FolderCache(cache_root() / "features", int(limit * 2**30))
