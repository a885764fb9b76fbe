"""Arrays stored under the fingerprints of what they depend on; the least recently used are removed first.

The cache does not know what the arrays mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.errors import CacheError, SettingError
from headstart.system.array_file import DamagedError, read_matrix, read_note
from headstart.system.drafts import Draft, FileDraft, MemoryDraft, reason, warn
from headstart.system.lock import try_lock

__all__ = [
    "Cache",
    "CacheEntry",
    "FolderCache",
    "NullCache",
    "cache_root",
    "default_cache",
    "key_of",
]

_DEFAULT_LIMIT_BYTES = 20 * 2**30
_FORGOTTEN_S = 86_400.0  # where locks do not exist, a file untouched for a day has no writer
# an array, its unfinished rows with their checksums, and what older versions wrote
_OURS = re.compile(r"\.?([0-9a-f]{64})(\.[0-9a-f]{32})?\.(npy|draft|sums|json|json\.[0-9a-f]{32}\.part)")
Parts = Mapping[str, Any]
Shape = tuple[int, int]


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
    """A file of the cache: its key, what the array depends on, its shape, its size, and the time of its last use.

    ``state`` is ``complete``, ``unfinished`` (a later run continues it), ``being written`` or ``unusable``
    (damaged, or a leftover). Only a complete array has parts and a shape. The time is Unix time.
    """

    key: str
    parts: Parts
    shape: tuple[int, ...]
    size_bytes: int
    used_at: float
    state: str = "complete"


class Cache(Protocol):
    """What feature extraction uses of a cache."""

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """The array stored under these parts, read-only, or None."""
        ...

    def draft(self, parts: Parts, shape: Shape) -> Draft:
        """Begin or continue a float32 array of this shape."""
        ...


class NullCache:
    """A cache that stores nothing."""

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """None, always."""
        return None

    def draft(self, parts: Parts, shape: Shape) -> Draft:
        """An array in memory."""
        return MemoryDraft(np.empty(shape, np.float32))


class FolderCache:
    """A folder of ``KEY.npy`` arrays, each with a checksum, which is verified when the array is read.

    After a write, the least recently used arrays are removed until the rest fits into ``limit_bytes``. An
    array gets its name only when it is complete, so any number of processes may read and write the same
    folder. An array that is damaged counts as absent, and where the folder cannot be written, new arrays
    are kept in memory; a `drafts.CacheWarning` says so. Reading costs one pass over the file.

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
        key = key_of(parts)
        path = self._array(key)
        try:
            with path.open("rb") as file:
                note = read_note(file)
                if key_of(note.parts) != key:
                    raise DamagedError("it belongs to another name")
                array = read_matrix(file, note)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            warn(f"features in {str(path)!r} cannot be read ({reason(error)}): they are computed again")
            return None
        except DamagedError as error:
            # older versions kept no checksums, but such a file beside each array
            if not os.path.exists(path.with_suffix(".json")):
                warn(f"features in {str(path)!r} are damaged ({error}): they are computed again")
            return None
        with suppress(OSError):  # the folder may be read-only
            os.utime(path)  # the time of last use
        return array

    def draft(self, parts: Parts, shape: Shape) -> Draft:
        """Begin or continue a float32 array; in memory if the folder cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return FileDraft(
                self._array(key_of(parts)),
                parts,
                shape,
                on_end=self._shrink,
                on_failure=self._warn_unwritable,
            )
        except OSError as error:
            self._warn_unwritable(error)
            return MemoryDraft(np.empty(shape, np.float32))

    def _warn_unwritable(self, error: OSError) -> None:
        warn(
            f"cache {str(self.root)!r} cannot be written ({reason(error)}): new features are kept in memory "
            "and computed again next time; set HEADSTART_CACHE to another folder"
        )

    def entries(self) -> list[CacheEntry]:
        """All arrays, drafts and leftovers, the most recently used first."""
        return [entry for _, entry in self._listed()]

    def clear(self) -> list[CacheEntry]:
        """Remove all but what another process is writing; returns what was removed.

        CacheError if the folder cannot be written.
        """
        removed = []
        for path, entry in self._listed():
            try:
                if entry.state != "being written" and _removed(path):
                    removed.append(entry)
            except OSError as error:
                raise CacheError(
                    f"cache {str(self.root)!r} cannot be cleared ({reason(error)}), expected permission to "
                    f"delete {path.name}; change the permissions of the folder"
                ) from error
        return removed

    def _array(self, key: str) -> Path:
        return self.root / f"{key}.npy"

    def _listed(self) -> list[tuple[Path, CacheEntry]]:
        """Every file of ours with its entry, the most recently used first; checksums belong to their drafts."""
        found = []
        for path in self.root.glob("*"):
            name = _OURS.fullmatch(path.name)
            if name is None or (path.suffix == ".sums" and path.with_suffix(".draft").exists()):
                continue
            try:
                status, about = path.stat(), _described(path)
                size = status.st_size + (_size(path.with_suffix(".sums")) if path.suffix == ".draft" else 0)
            except OSError:  # removed meanwhile
                continue
            found.append((path, CacheEntry(name[1], *about[:2], size, status.st_mtime, about[2])))
        return sorted(found, key=lambda one: -one[1].used_at)

    def _shrink(self, keep: Path) -> None:
        """Remove leftovers of dead processes, then the least recently used until the limit is kept."""
        total = 0
        for path, entry in self._listed():
            usable = entry.state != "unusable"
            total += entry.size_bytes if usable else 0
            if path != keep and entry.state != "being written" and (total > self.limit_bytes or not usable):
                with suppress(OSError):
                    _removed(path)


def _described(path: Path) -> tuple[Parts, tuple[int, ...], str]:
    """What a file of the cache holds: parts, shape and state of its entry."""
    key = path.name[:64]
    if path.name == f"{key}.npy":
        try:
            with path.open("rb") as file:
                note = read_note(file)
            if key_of(note.parts) == key:
                return note.parts, note.shape, "complete"
        except DamagedError:
            pass
    elif path.suffix == ".draft":
        if _is_being_written(path):
            return {}, (), "being written"
        if path.name == f"{key}.draft" and path.with_suffix(".sums").exists():
            return {}, (), "unfinished"
    return {}, (), "unusable"


def _is_being_written(path: Path) -> bool:
    with path.open("rb") as file:
        taken = try_lock(file)
        return time.time() - path.stat().st_mtime < _FORGOTTEN_S if taken is None else not taken


def _removed(path: Path) -> bool:
    """Delete a file and its checksums, unless a process has begun to write it."""
    with ExitStack() as held:
        if path.suffix == ".draft":
            taken = try_lock(held.enter_context(path.open("rb")))
            if taken is False:
                return False
            if taken is None:
                held.close()  # Windows cannot delete open files
        path.unlink(missing_ok=True)
        if path.suffix == ".draft":
            path.with_suffix(".sums").unlink(missing_ok=True)
        return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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
