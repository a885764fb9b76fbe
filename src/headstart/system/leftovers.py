"""Temporary files and folders: named after their target, locked while their writer lives, removed after its death."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from headstart.system.lock import is_at, try_lock

__all__ = ["OLD", "PART", "held", "leftovers_of", "new_file", "new_folder", "sweep", "temporary_name"]

PART = "part"
"""What is being written."""
OLD = "old"
"""What was moved aside to make room for it."""


def temporary_name(target: Path, kind: str = PART) -> Path:
    """A name that nobody else uses, hidden and next to the target, so that a rename stays in one file system."""
    return target.with_name(f".{target.name}.{uuid4().hex}.{kind}")


def leftovers_of(target: Path, kind: str = PART) -> Iterator[Path]:
    """Temporary files and folders of a target that exist now, of living and of dead writers."""
    pattern = re.compile(re.escape(f".{target.name}.") + rf"[0-9a-f]{{32}}\.{kind}")
    try:
        names = os.listdir(target.parent)
    except OSError:
        return
    yield from (target.parent / name for name in names if pattern.fullmatch(name))


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Lock a file or folder that exists; False if somebody else holds it or it is no longer at the path.

    True also where the platform has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    except OSError:  # Windows opens no folders, and some folders may not be read
        yield True
        return
    try:
        yield try_lock(descriptor) is not False and is_at(descriptor, path)
    finally:
        os.close(descriptor)


def new_file(target: Path) -> AbstractContextManager[Path]:
    """A temporary file of a target, locked until the end, when it is removed if it is still at its path."""
    return _new(target, lambda path: path.touch(exist_ok=False), lambda path: path.unlink(missing_ok=True))


def new_folder(target: Path) -> AbstractContextManager[Path]:
    """A temporary folder of a target, locked until the end, when what is then at its path is removed."""
    return _new(target, Path.mkdir, lambda path: shutil.rmtree(path, ignore_errors=True))


@contextmanager
def _new(target: Path, make: Callable[[Path], None], remove: Callable[[Path], None]) -> Iterator[Path]:
    while True:
        path = temporary_name(target)
        make(path)
        with held(path) as mine:
            if not mine:  # swept in the moment before it was locked
                continue
            try:
                yield path
                return
            finally:
                remove(path)


def sweep(target: Path) -> None:
    """Remove what dead writers of a target left; where they died between two renames, put the old folder back.

    What a living writer holds is spared, and everything where the platform has no locks.
    """
    for path in [*leftovers_of(target, OLD), *leftovers_of(target)]:
        with suppress(OSError), _dead(path) as is_dead:
            if not is_dead:
                continue
            if path.suffix == f".{OLD}" and not target.exists():
                path.rename(target)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@contextmanager
def _dead(path: Path) -> Iterator[bool]:
    """Whether nobody holds a leftover; it is locked meanwhile, so that a new writer takes another name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield try_lock(descriptor) is True and is_at(descriptor, path)
    finally:
        os.close(descriptor)
