"""Writes that either happen whole or not at all: unique temporary name, fsync, rename.

In: a path and bytes, or a folder to fill. Out: the path. Imports nothing of ours but errors.
Called by whatever writes a file a user may keep.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from headstart.errors import SettingError

__all__ = ["atomic_folder", "check_place", "write_atomic"]


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : path
        File to write; its folder is made if need be.
    content : bytes or str
        Text is written as UTF-8.

    Returns
    -------
    Path
        The path written.

    Raises
    ------
    OSError
        If the disk refuses; the old file, if any, is then untouched.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target


def check_place(path: str | os.PathLike[str], *, marker: str) -> None:
    """Find out whether a folder may be written here, before the work that it is for.

    Parameters
    ----------
    path : path
        Where the folder will stand.
    marker : str
        File name that tells a folder of ours from anybody else's.

    Raises
    ------
    SettingError
        If a file, or a folder that is not ours, is in the way.
    """
    target = Path(path)
    if target.exists() and not (target / marker).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise SettingError(
            f"{str(target)!r} exists and holds no {marker}, expected a new or empty folder; choose another"
        )
    standing = next(place for place in (target, *target.absolute().parents) if place.exists())
    if not standing.is_dir():
        raise SettingError(f"{str(standing)!r} is a file, expected a folder to write to; choose another")


@contextmanager
def atomic_folder(
    path: str | os.PathLike[str], *, marker: str, may_hold: Sequence[str] = ()
) -> Iterator[Path]:
    """Fill a folder beside its place and move it there when all is written.

    Parameters
    ----------
    path : path
        Where the folder will stand. An older one is replaced if it holds ``marker``.
    marker : str
        File name that tells a folder of ours from anybody else's.
    may_hold : sequence of str, optional
        Files of an older result that a new one may lack; they go with it.

    Yields
    ------
    Path
        A temporary folder to write into.

    Raises
    ------
    SettingError
        If something that is not ours is in the way.
    """
    check_place(path, marker=marker)
    target = Path(path).absolute()  # "." has no name to put a temporary one beside
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.part")
    temporary.mkdir()
    try:
        yield temporary
        _spare_what_is_not_ours(target, {*may_hold, *(one.name for one in temporary.iterdir())})
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        _swap(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _spare_what_is_not_ours(target: Path, names: set[str]) -> None:
    """An older folder of ours holds the same files; any other would be lost with it."""
    strange = sorted({one.name for one in target.iterdir()} - names) if target.exists() else []
    if strange:
        raise SettingError(
            f"{str(target)!r} holds {strange[0]!r}, which is no part of an older result, expected a folder "
            "without; move it away or choose another folder"
        )


def _swap(temporary: Path, target: Path) -> None:
    """Put the new folder in place; the old one waits aside until it stands."""
    if not target.exists():
        temporary.rename(target)
        return
    aside = target.with_name(f".{target.name}.{uuid4().hex}.old")
    target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside)
