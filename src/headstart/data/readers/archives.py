"""Archives of images (.zip, .tar, .tar.gz): unpacked once into the cache, by content, then read as a folder."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from headstart.data.readers.download import cache_folder, fetch
from headstart.errors import BrokenDataError, DataError
from headstart.system.leftovers import new_folder, sweep

__all__ = ["ARCHIVES", "is_address", "unpacked", "unpacked_from"]

_ADDRESS = re.compile(r"https?://.+", re.IGNORECASE)
_DONE = ".unpacked"
_CHUNK_BYTES = 1024**2
_RATIO, _ALLOWANCE_BYTES = 100, 1024**3
"""An archive may hold this many times its own size, and this much more: images hardly compress."""
_MOST_FILES = 20_000_000


def unpacked(archive: Path) -> Path:
    """The folder of an archive's files; BrokenDataError if it cannot be read, DataError if it is unsafe."""
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    home = cache_folder().parent / "archives" / digest.hexdigest()[:32]
    if not (home / _DONE).is_file():
        home.parent.mkdir(parents=True, exist_ok=True)
        sweep(home)  # what killed runs left
        with _explained(archive), new_folder(home) as draft:
            _unpack(archive, draft / _stem(archive))
            (draft / _DONE).touch()
            _move(draft, home)
    return home / _stem(archive)


def _move(draft: Path, home: Path) -> None:
    """Put unpacked files in place; another process may have been faster."""
    try:
        draft.rename(home)
    except OSError:
        if not (home / _DONE).is_file():
            raise


def unpacked_from(address: str) -> Path:
    """The folder of an archive on the network, fetched once; ``#sha256=...`` at its end is verified."""
    url, _, fragment = address.partition("#")
    sha256 = fragment.removeprefix("sha256=").lower()
    if fragment and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise DataError(
            f"address {address!r} ends in {fragment!r}, expected #sha256= and 64 hexadecimal digits; correct it"
        )
    name = PurePosixPath(url.partition("?")[0]).name
    if not any(name.lower().endswith(ending) for ending in ARCHIVES):
        raise DataError(
            f"address {url!r} names no archive, expected one that ends in {', '.join(ARCHIVES)}; give that, or a "
            "folder or table on this machine"
        )
    return unpacked(fetch(url, name, sha256 or None))


def is_address(text: str) -> bool:
    """Whether this is an address on the network."""
    return _ADDRESS.match(text) is not None


def _stem(archive: Path) -> str:
    ending = next((one for one in ARCHIVES if archive.name.lower().endswith(one)), "")
    return archive.name[: len(archive.name) - len(ending)] or "archive"


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenDataError(
            f"archive {str(archive)!r} cannot be unpacked ({reason}), expected a whole archive without a password; "
            "fetch it again, or unpack it yourself and give the folder"
        ) from error


def _unpack(archive: Path, target: Path) -> None:
    most_bytes = _RATIO * archive.stat().st_size + _ALLOWANCE_BYTES
    free_bytes = shutil.disk_usage(target.parent).free
    ending = next(one for one in ARCHIVES if archive.name.lower().endswith(one))
    n_bytes = 0
    target.mkdir()
    for number, (name, size_bytes, copy) in enumerate(ARCHIVES[ending](archive)):
        n_bytes += size_bytes
        if n_bytes > most_bytes or number > _MOST_FILES:
            raise DataError(
                f"archive {str(archive)!r} holds far more than its size, expected at most {_RATIO} times as much; "
                "unpack it yourself and give the folder"
            )
        if n_bytes > free_bytes:
            raise DataError(
                f"archive {str(archive)!r} holds more than the {free_bytes:,} bytes that are free in the cache, "
                "expected room for it; free some, or set HEADSTART_CACHE to another disk"
            )
        place = target / _safe(archive, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            copy(file, size_bytes)


def _safe(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or (path.parts and ":" in path.parts[0]):
        raise DataError(
            f"archive {str(archive)!r} holds {name!r}, expected names below its own folder; do not trust this archive"
        )
    return path


Members = Iterator[tuple[str, int, Callable[[IO[bytes], int], None]]]
"""Name and size in bytes of each file, and a function that writes that many bytes of it."""


def _zip_members(archive: Path) -> Members:
    with zipfile.ZipFile(archive) as box:
        for info in box.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not info.is_dir() and kind in (0, stat.S_IFREG):
                yield info.filename, info.file_size, partial(_copy_zip, box, info)


def _copy_zip(box: zipfile.ZipFile, info: zipfile.ZipInfo, target: IO[bytes], size_bytes: int) -> None:
    with box.open(info) as file:
        _copy(file, target, size_bytes)


def _tar_members(archive: Path) -> Members:
    with tarfile.open(archive) as box:
        for info in box:
            file = box.extractfile(info) if info.isreg() else None
            if file is not None:
                yield info.name, info.size, partial(_copy, file)


def _copy(file: IO[bytes], target: IO[bytes], size_bytes: int) -> None:
    """Copy as many bytes as were announced: a lying header cannot fill the disk."""
    while size_bytes > 0 and (chunk := file.read(min(_CHUNK_BYTES, size_bytes))):
        target.write(chunk)
        size_bytes -= len(chunk)


ARCHIVES: Mapping[str, Callable[[Path], Members]] = {
    ".zip": _zip_members,
    ".tar": _tar_members,
    ".tar.gz": _tar_members,
    ".tgz": _tar_members,
    ".tar.bz2": _tar_members,
    ".tar.xz": _tar_members,
}
"""The reader of each file name ending."""
