"""Files written completely or not at all: unique temporary name, fsync, rename; a failure names the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.errors import HeadstartError, SettingError, UnwritableError
from headstart.system.leftovers import new_file, sweep

__all__ = ["atomic_file", "check_place", "sync", "utf8", "write_atomic", "write_file", "writing"]


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write a file completely or not at all, text as UTF-8.

    UnwritableError, an OSError, leaves an older file untouched. What a killed writer of this file left is removed.
    """
    with atomic_file(path) as temporary:
        write_file(temporary, content)
    return Path(path)


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write to, and move it to ``path`` when it is written; errors as `write_atomic`."""
    target = Path(path)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        with new_file(target) as temporary:
            yield temporary
            sync(temporary)
            temporary.replace(target)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file, text as `utf8`; an OSError has its name, which that of a full disk would lack."""
    data = utf8(content) if isinstance(content, str) else content
    try:
        with path.open("wb") as file:
            file.write(data)
    except OSError as error:
        error.filename = str(path)
        raise


def utf8(text: str) -> bytes:
    r"""Text in UTF-8; bytes of file names that are none are escaped, as JSON can read them again.

    >>> utf8("ant\udcff.jpg")
    b'ant\\udcff.jpg'
    """
    return text.encode(errors="backslashreplace")


def sync(path: Path) -> None:
    """Make sure that a file or a folder's list of names is on the disk; some systems cannot do it for folders."""
    with path.open("rb") if path.is_file() else _folder(path) as descriptor:
        if descriptor is not None:
            os.fsync(descriptor)


@contextmanager
def _folder(path: Path) -> Iterator[int | None]:
    """The descriptor of an open folder, or None on Windows."""
    if os.name == "nt":
        yield None
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError into UnwritableError, one sentence that names what cannot be written and why."""
    try:
        yield
    except (HeadstartError, BrokenPipeError):
        raise
    except OSError as error:
        raise UnwritableError.of(os.fspath(path), error) from error


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
