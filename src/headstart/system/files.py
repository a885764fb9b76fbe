"""Files and folders written completely or not at all: unique temporary name, fsync, rename."""

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
    """Write a file completely or not at all, text as UTF-8; an OSError leaves an older file untouched."""
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
    """SettingError if a file, or a non-empty folder without ``marker``, is in the way of a new folder."""
    target = Path(path)
    if target.exists() and not (target / marker).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise SettingError(
            f"{str(target)!r} exists and holds no {marker}, expected a new or empty folder; choose another"
        )
    existing = next(place for place in (target, *target.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise SettingError(f"{str(existing)!r} is a file, expected a folder to write to; choose another")


@contextmanager
def atomic_folder(
    path: str | os.PathLike[str], *, marker: str, may_hold: Sequence[str] = ()
) -> Iterator[Path]:
    """Yield a temporary folder to write into, and move it to ``path`` when everything is written.

    An older folder at ``path`` is replaced if it holds the file ``marker`` and otherwise only files of the new
    folder or of ``may_hold`` (files that a new result may lack); if not, SettingError.
    """
    check_place(path, marker=marker)
    target = Path(path).absolute()  # "." has no name to derive a temporary one from
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.part")
    temporary.mkdir()
    try:
        yield temporary
        _refuse_foreign_files(target, {*may_hold, *(one.name for one in temporary.iterdir())})
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        _swap(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_foreign_files(target: Path, names: set[str]) -> None:
    """Raise SettingError if the older folder holds files that are no part of a result."""
    foreign = sorted({one.name for one in target.iterdir()} - names) if target.exists() else []
    if foreign:
        raise SettingError(
            f"{str(target)!r} holds {foreign[0]!r}, which is no part of an older result, expected a folder "
            "without it; move it away or choose another folder"
        )


def _swap(temporary: Path, target: Path) -> None:
    """Put the new folder in place; the old one is removed only after that."""
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
