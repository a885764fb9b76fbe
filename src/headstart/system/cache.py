"""Arrays stored under the fingerprints of what they depend on; the least recently used are removed first.

The cache does not know what the arrays mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.errors import CacheError, SettingError
from headstart.system.array_file import DamagedError, read_matrix, read_note
from headstart.system.drafts import Draft, FileDraft, MemoryDraft, reason, warn
from headstart.system.lock import try_lock
from headstart.system.stored import CacheEntry, Stored, stored_beside, within_limit

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
_LOOK_S = 60.0  # other processes write, too
_KEPT = 0.95  # of the limit, where it was exceeded
_FORGOTTEN_S = 86_400.0  # where locks do not exist, a file untouched for a day has no writer
# an array, its unfinished rows with their checksums, and what older versions wrote
_OURS = re.compile(r"\.?([0-9a-f]{64})(\.[0-9a-f]{32})?\.(npy|draft|sums|json|json\.[0-9a-f]{32}\.part)")
Parts = Mapping[str, Any]
Shape = tuple[int, int]


def cache_root() -> Path:
    """The folder of everything that may be deleted: ``$HEADSTART_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("HEADSTART_CACHE")
    if chosen:
        return Path(os.path.expanduser(chosen))
    from platformdirs import user_cache_path

    return user_cache_path("headstart", appauthor=False)


def key_of(parts: Parts) -> str:
    """The hex SHA-256 of a mapping of plain values, independent of its order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Cache(Protocol):
    """What feature extraction uses of a cache."""

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """The array stored under these parts, read-only, or None."""
        ...

    def draft(self, parts: Parts, shape: Shape) -> Draft:
        """Begin or continue a float32 array of this shape."""
        ...

    def discard(self, parts: Parts) -> None:
        """Remove the array that is stored under these parts, if there is one."""
        ...


class NullCache:
    """A cache that stores nothing."""

    def get(self, parts: Parts) -> NDArray[Any] | None:
        """None, always."""
        return None

    def draft(self, parts: Parts, shape: Shape) -> Draft:
        """An array in memory."""
        return MemoryDraft(np.empty(shape, np.float32))

    def discard(self, parts: Parts) -> None:
        """Nothing is stored."""


class FolderCache:
    """A folder of ``KEY.npy`` arrays, each with a checksum, which is verified when the array is read.

    After a write, the least recently used arrays are removed until the rest fits into ``limit_bytes``. An
    array gets its name only when it is complete, so any number of processes may read and write the same
    folder. An array that is damaged counts as absent, and where the folder cannot be written, new arrays
    are kept in memory; a `drafts.CacheWarning` says so. Reading costs one pass over the file. ``beside`` is a folder
    whose graphs and networks count in the limit, too, and are listed and cleared with the features.

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

    def __init__(
        self,
        root: str | os.PathLike[str],
        limit_bytes: int = _DEFAULT_LIMIT_BYTES,
        *,
        beside: Path | None = None,
    ) -> None:
        self.root, self.limit_bytes, self._beside = Path(root), limit_bytes, beside
        self._free_bytes, self._until_s = 0, 0.0

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
                on_end=self.keep_limit,
                on_failure=self._warn_unwritable,
            )
        except OSError as error:
            self._warn_unwritable(error)
            return MemoryDraft(np.empty(shape, np.float32))

    def discard(self, parts: Parts) -> None:
        """Remove an array, if it is there and can be removed."""
        with suppress(OSError):
            self._array(key_of(parts)).unlink()

    def _warn_unwritable(self, error: OSError) -> None:
        warn(
            f"cache {str(self.root)!r} cannot be written ({reason(error)}): new features are kept in memory "
            "and computed again next time; set HEADSTART_CACHE to another folder"
        )

    def entries(self) -> list[CacheEntry]:
        """All arrays, drafts and leftovers, and what is beside them, the most recently used first."""
        return sorted((one.entry for one in self._listed()), key=lambda entry: -entry.used_at)

    def clear(self) -> list[CacheEntry]:
        """Remove all but what another process is writing; returns what was removed.

        CacheError if the folder cannot be written.
        """
        removed = []
        for one in self._listed():
            try:
                if one.entry.state != "being written" and one.remove():
                    removed.append(one.entry)
            except OSError as error:
                raise CacheError(
                    f"cache {str(one.paths[0].parent)!r} cannot be cleared ({reason(error)}), expected permission to "
                    f"delete {one.paths[0].name}; change the permissions of the folder"
                ) from error
        return removed

    def keep_limit(self, new: Path) -> None:
        """Remove leftovers of dead processes, then the least recently used until the limit is kept; never ``new``.

        All files are looked at once a minute, or when half of what was free has been written: with 370 arrays a look
        takes 30 ms, and a study writes 700. A full cache is left a little below the limit, for the same reason.
        """
        self._free_bytes -= _size(new)
        if self._free_bytes > 0 and time.monotonic() < self._until_s:
            return
        found = list(self._listed())
        kept_bytes = sum(one.entry.size_bytes for one in found)
        full = kept_bytes > self.limit_bytes
        for one in within_limit(found, int(_KEPT * self.limit_bytes) if full else self.limit_bytes):
            if new not in one.paths:
                with suppress(OSError):
                    kept_bytes -= one.entry.size_bytes if one.remove() else 0
        self._free_bytes = (self.limit_bytes - kept_bytes) // 2
        self._until_s = time.monotonic() + _LOOK_S

    def _array(self, key: str) -> Path:
        return self.root / f"{key}.npy"

    def _listed(self) -> Iterator[Stored]:
        """Every file of ours with its entry; checksums belong to their drafts."""
        for path in self.root.glob("*"):
            name = _OURS.fullmatch(path.name)
            if name is None or (path.suffix == ".sums" and path.with_suffix(".draft").exists()):
                continue
            try:
                status, about = path.stat(), _described(path)
                sums = (path.with_suffix(".sums"),) if path.suffix == ".draft" else ()
                size = status.st_size + sum(map(_size, sums))
            except OSError:  # removed meanwhile
                continue
            yield Stored(CacheEntry(name[1], *about[:2], size, status.st_mtime, about[2]), (path, *sums))
        if self._beside is not None:
            yield from stored_beside(self._beside)


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


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def default_cache() -> FolderCache:
    """The user's feature cache, with the graphs and networks beside it.

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
    return FolderCache(cache_root() / "features", int(limit * 2**30), beside=cache_root())
