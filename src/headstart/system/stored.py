"""What the cache folder holds: every entry with its files, and how they are removed; what it means is others' matter.

Features are listed by `cache`; here are exported graphs (two files under a key) and trained networks (a folder).
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.system.array_file import DamagedError
from headstart.system.checked import read_checked
from headstart.system.leftovers import held, temporary_name

__all__ = ["CacheEntry", "Stored", "stored_beside", "within_limit"]

_GRAPH = re.compile(r"\.?([0-9a-f]{64})\.(onnx|json)(\.[0-9a-f]{32}\.part)?")
_NETWORK = re.compile(r"\.?([0-9a-f]{32})(\.[0-9a-f]{32}\.(part|old))?")
_DONE = {"onnx", "json"}
_NOTE = "curve.json"  # of a network; written last
_SOON_S = 60.0  # between the two files of a graph

Parts = Mapping[str, Any]


@dataclass(frozen=True)
class CacheEntry:
    """A part of the cache: its key, what it depends on, its shape, its size, and the time of its last use.

    ``state`` is ``complete``, ``unfinished`` (a later run continues it), ``being written`` or ``unusable``
    (damaged, or a leftover). ``kind`` is ``features``, ``graph`` (a network exported for features) or ``network``
    (trained by us). Only complete features have parts and a shape. The time is Unix time.
    """

    key: str
    parts: Parts
    shape: tuple[int, ...]
    size_bytes: int
    used_at: float
    state: str = "complete"
    kind: str = "features"


@dataclass(frozen=True)
class Stored:
    """An entry and its files; the first decides whether it is complete, and is removed first."""

    entry: CacheEntry
    paths: tuple[Path, ...]

    def remove(self) -> bool:
        """Delete it, whole folders in one step for readers; False if a process has begun to write it."""
        with held(self.paths[0]) as mine:
            if not mine and self.paths[0].exists():
                return False
            for path in self.paths:
                if path.is_dir():
                    shutil.rmtree(path if path.name.startswith(".") else path.rename(temporary_name(path)))
                else:
                    path.unlink(missing_ok=True)
        return True


def stored_beside(root: Path) -> Iterator[Stored]:
    """Exported graphs and trained networks in a cache folder, with what killed runs left of them."""
    yield from _graphs(root / "graphs")
    yield from _networks(root / "networks")


def within_limit(found: Iterable[Stored], limit_bytes: int) -> Iterator[Stored]:
    """What must be removed: unusable entries, and of the others the least recently used beyond the limit."""
    total = 0
    for one in sorted(found, key=lambda one: -one.entry.used_at):
        usable = one.entry.state != "unusable"
        total += one.entry.size_bytes if usable else 0
        if one.entry.state != "being written" and (total > limit_bytes or not usable):
            yield one


def _graphs(folder: Path) -> Iterator[Stored]:
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in folder.glob("*"):
        name = _GRAPH.fullmatch(path.name)
        if name is None:
            continue
        if name[3]:
            yield from _leftover(path, name[1], "graph")
        else:
            files[name[1]][name[2]] = path
    for key, group in files.items():
        paths = tuple(group[one] for one in sorted(group))  # the description first
        with suppress(OSError):
            status = [path.stat() for path in paths]
            size, used = sum(one.st_size for one in status), max(one.st_mtime for one in status)
            parts = _about(group["json"]) if set(group) == _DONE else None
            new = time.time() - used < _SOON_S and set(group) == {"onnx"}
            state = "complete" if parts is not None else "being written" if new else "unusable"
            yield Stored(CacheEntry(key, parts or {}, (), size, used, state, "graph"), paths)


def _about(path: Path) -> Parts | None:
    try:
        about = read_checked(path)
    except DamagedError:
        return None
    return {"network": str(about["name"])} if isinstance(about, dict) and "name" in about else None


def _networks(folder: Path) -> Iterator[Stored]:
    for path in folder.glob("*"):
        name = _NETWORK.fullmatch(path.name)
        if name is None or not path.is_dir():
            continue
        if name[2]:
            yield from _leftover(path, name[1], "network")
            continue
        with suppress(OSError):
            note = path / _NOTE
            complete = note.is_file()
            used = (note if complete else path).stat().st_mtime
            state = "complete" if complete else "unusable"
            yield Stored(CacheEntry(name[1], {}, (), _size(path), used, state, "network"), (path,))


def _leftover(path: Path, key: str, kind: str) -> Iterator[Stored]:
    with suppress(OSError), held(path) as mine:
        state = "unusable" if mine else "being written"
        yield Stored(CacheEntry(key, {}, (), _size(path), path.stat().st_mtime, state, kind), (path,))


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(os.path.getsize(one) for one in path.rglob("*") if one.is_file())
