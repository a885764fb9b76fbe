"""Folders written completely or not at all, and exchanged with their elder in one step where the system can."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

from headstart.errors import HeadstartError, SettingError, UnwritableError
from headstart.system.exchange import try_exchange
from headstart.system.files import check_place, sync, writing
from headstart.system.leftovers import OLD, held, leftovers_of, new_folder, sweep, temporary_name

__all__ = ["atomic_folder", "read_stable"]

T = TypeVar("T")

_WAIT_S = 30.0  # for another writer, which holds the lock while it exchanges two folders: milliseconds
_PATIENCE_S = 10.0  # of a reader beside writers; an attempt takes milliseconds
_PAUSE_S = 0.01
_OVERTAKEN = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY)
"""Of a rename when another writer has just moved the target away, or has made it."""


@contextmanager
def atomic_folder(
    path: str | os.PathLike[str], *, marker: str, may_hold: Sequence[str] = ()
) -> Iterator[Path]:
    """Yield a temporary folder to write into, and move it to ``path`` when everything is written.

    An older folder at ``path`` is replaced if it holds the file ``marker`` and otherwise only files of the
    new folder or of ``may_hold`` (files that a new result may lack); if not, SettingError. Of several writers
    the last one wins. What killed writers left is removed. UnwritableError, an OSError, names the file.
    """
    check_place(path, marker=marker)
    target = Path(path).absolute()  # "." has no name to derive a temporary one from
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        with new_folder(target) as temporary:
            try:
                yield temporary
                for file in temporary.iterdir():
                    sync(file)
                sync(temporary)
            except OSError as error:
                raise _at_target(error, temporary, Path(path)) from error
            _put(temporary, target, {*may_hold, *(one.name for one in temporary.iterdir())})
        sync(target.parent)


def _at_target(error: OSError, temporary: Path, target: Path) -> OSError:
    """The error with the name that the file would have had."""
    name = error.filename
    if not isinstance(name, str) or not Path(name).is_relative_to(temporary):
        return error
    return UnwritableError.of(str(target / Path(name).relative_to(temporary)), error)


def _put(temporary: Path, target: Path, names: set[str]) -> None:
    """Move the new folder to its place; an older one is then at ``temporary``, or removed."""
    until = monotonic() + _WAIT_S
    while True:
        try:
            if not target.exists():
                temporary.rename(target)
                return
            with held(target) as mine:
                if mine:
                    _replace(temporary, target, names)
                    return
        except OSError as error:
            if error.errno not in _OVERTAKEN or monotonic() > until:
                raise
        if monotonic() > until:
            raise SettingError(
                f"{str(target)!r} is being written by another process, expected it to end within {_WAIT_S:.0f} s; "
                "wait for it or choose another folder"
            )
        sleep(_PAUSE_S)


def _replace(temporary: Path, target: Path, names: set[str]) -> None:
    """Exchange the two folders, unless a file of the user's would be lost."""
    _refuse_foreign_files(target, target, names)
    if not try_exchange(temporary, target):
        _swap(temporary, target)
        return
    try:
        _refuse_foreign_files(temporary, target, names)  # one may have come until the exchange
    except SettingError:
        try_exchange(temporary, target)
        raise


def _refuse_foreign_files(folder: Path, target: Path, names: set[str]) -> None:
    """Raise SettingError if the older folder holds files that are no part of a result."""
    foreign = sorted({one.name for one in folder.iterdir()} - names)
    if foreign:
        raise SettingError(
            f"{str(target)!r} holds {foreign[0]!r}, which is no part of an older result, expected a folder "
            "without it; move it away or choose another folder"
        )


def _swap(temporary: Path, target: Path) -> None:
    """The same in two steps; `sweep` puts the old folder back where a process was killed between them."""
    aside = temporary_name(target, OLD)
    target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def read_stable(folder: Path, read: Callable[[], T]) -> T:
    """What ``read`` returns of a folder; read again if it failed and the folder was replaced meanwhile."""
    until = monotonic() + _PATIENCE_S
    while True:
        before = _identity(folder)
        try:
            return read()
        except HeadstartError:
            replaced = _identity(folder) != before or (before is None and any(leftovers_of(folder, OLD)))
            if not replaced or monotonic() > until:
                raise
        sleep(_PAUSE_S)


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """What another folder at the same path has not; None where there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
