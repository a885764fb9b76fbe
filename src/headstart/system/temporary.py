"""Temporary folders of one process: removed at its end, and after a kill by the next process that makes one."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headstart.system.lock import locks_exist, try_lock

__all__ = ["own_folder", "sweep"]

_OWNER = ".owner"
_OLD_S = 3600.0  # after which a folder without an owner's file is nobody's


@contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """A new temporary folder for the duration of the block; folders of this prefix whose owner died are removed.

    Only the user may look into it. An OSError where it cannot be made.
    """
    sweep(prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        owner = os.open(folder / f"{_OWNER}.new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if locks_exist():
                try_lock(owner)  # held until this process ends, however it ends
                (folder / f"{_OWNER}.new").rename(folder / _OWNER)  # only now may others try the lock
            yield folder
        finally:
            os.close(owner)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(prefix: str) -> None:
    """Remove the temporary folders of this prefix whose owners are dead; without locks nobody can know."""
    if not locks_exist():
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):
            if _is_ours(folder) and _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    about = folder.lstat()
    return stat.S_ISDIR(about.st_mode) and (not hasattr(os, "getuid") or about.st_uid == os.getuid())


def _is_abandoned(folder: Path) -> bool:
    try:
        owner = os.open(folder / _OWNER, os.O_RDWR)
    except FileNotFoundError:  # killed before it had one, or just begun
        return time.time() - folder.stat().st_mtime > _OLD_S
    try:
        return try_lock(owner) is True
    finally:
        os.close(owner)
