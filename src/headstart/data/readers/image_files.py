"""The image files that paths mean: files, folders, globs, and lists on standard input. None is decoded here."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from headstart.data.readers.files import fault_of, is_folder, is_system
from headstart.errors import MissingDataError

__all__ = ["OtherFiles", "count_images", "find_images"]


@dataclass
class OtherFiles:
    """Files in folders that are not images: how many, the first one, and why it is none."""

    n_files: int = 0
    first: str = ""
    reason: str = ""

    def note(self, path: str, reason: str) -> None:
        """Count a file."""
        if not self.n_files:
            self.first, self.reason = path, reason
        self.n_files += 1


def find_images(patterns: Sequence[str], others: OtherFiles | None = None) -> Iterator[str]:
    """Stream the image files that paths name: files, folders, globs, or ``-`` for paths on stdin, one a line.

    In the given order, a folder's in the order of names, each file once. A folder that cannot be listed is
    yielded itself, to be reported as unreadable. MissingDataError if a folder or glob contains no image. A single
    folder is listed in flat memory; several paths, a glob or a list cost about 100 bytes an image. Files of a
    folder are images by extension or by content; hidden ones are ignored, all others are counted in ``others``.
    """
    others = OtherFiles() if others is None else others
    stream = (path for pattern in patterns for path in _matches(pattern, others))
    return stream if len(patterns) == 1 and Path(patterns[0]).is_dir() else _unique(stream)


def count_images(patterns: Sequence[str]) -> int:
    """How many images `find_images` will find, at most; those listed on stdin are not counted."""
    others = OtherFiles()
    return sum(1 for pattern in patterns if pattern != "-" for _ in _matches(pattern, others))


def _unique(paths: Iterable[str]) -> Iterator[str]:
    seen = set()
    for path in paths:
        key = blake2b(os.fsencode(path), digest_size=16).digest()
        if key not in seen:
            seen.add(key)
            yield path


def _matches(pattern: str, others: OtherFiles) -> Iterator[str]:
    if pattern == "-":
        yield from (str(Path(line)) for line in _listed() if line)
    elif Path(pattern).is_dir():
        yield from _at_least_one(_images_below(str(Path(pattern)), others, set()), pattern)
    elif glob.has_magic(pattern) and not Path(pattern).exists():
        matches = sorted(glob.glob(pattern, recursive=True))
        yield from _at_least_one((str(Path(found)) for found in matches if Path(found).is_file()), pattern)
    else:
        yield str(Path(pattern))


def _listed() -> Iterator[str]:
    """Lines of stdin; as bytes where possible, because a file name may be in no encoding."""
    lines = getattr(sys.stdin, "buffer", sys.stdin)
    for line in lines:
        yield (os.fsdecode(line) if isinstance(line, bytes) else line).strip()


def _images_below(folder: str, others: OtherFiles, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Images below a folder in sorted order; every folder once, however many links lead to it."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            kept = {entry.name: is_folder(entry) for entry in entries if not is_system(entry.name)}
    except OSError:
        yield folder  # reading it as an image reports the reason
        return
    folders = {name for name, leads_on in kept.items() if leads_on}
    names = sorted(kept, reverse=True)
    del kept
    while names:  # from the end, so that memory shrinks while a large folder is read
        name = names.pop()
        path = name if folder == os.curdir else os.path.join(folder, name)
        if name in folders:
            yield from _images_below(path, others, seen)
        elif (reason := fault_of(Path(path))) is None:
            yield path
        else:
            others.note(path, reason)


def _at_least_one(paths: Iterator[str], pattern: str) -> Iterator[str]:
    first = next(paths, None)
    if first is None:
        raise MissingDataError(
            f"{pattern!r} contains no image, expected an image file, or a folder or glob with images; check the path"
        )
    yield first
    yield from paths
