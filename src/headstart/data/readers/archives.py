"""Archives of images (.zip, .tar, .tar.gz): unpacked once into the cache, by content, then read as a folder."""

from __future__ import annotations

import errno
import hashlib
import json
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from headstart.data.readers.download import cache_folder, fetch
from headstart.data.readers.files import Skipped
from headstart.errors import BrokenDataError, DataError
from headstart.system.leftovers import new_folder, sweep

__all__ = ["ARCHIVES", "is_address", "stem_of", "unpacked", "unpacked_from"]

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Endings of the names of archives."""

_ADDRESS = re.compile(r"https?://.+", re.IGNORECASE)
_DONE = ".unpacked"
_CHUNK_BYTES = 1024**2
_RATIO, _ALLOWANCE_BYTES = 100, 1024**3
"""An archive may hold this many times its own size, and this much more: images hardly compress."""
_MOST_FILES = 20_000_000
_SHOWN = 80  # characters of a name in a message
_TORN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
_IMPOSSIBLE = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}


def unpacked(archive: Path) -> tuple[Path, list[Skipped]]:
    """The folder of an archive's files, and members that are none; BrokenDataError if it cannot be read.

    DataError if it is unsafe. Whatever the archive is called now, the folder has the name that it had first.
    """
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    home = cache_folder().parent / "archives" / digest.hexdigest()[:32]
    if not (home / _DONE).is_file():
        home.parent.mkdir(parents=True, exist_ok=True)
        sweep(home)  # what killed runs left
        with _explained(archive), new_folder(home) as draft:
            skipped = _unpack(archive, draft / _stem(archive))
            (draft / _DONE).write_text(json.dumps(skipped))
            _move(draft, home)
    folder = next(one for one in home.iterdir() if one.name != _DONE)
    return folder, [
        (f"{archive}/{name}", reason) for name, reason in json.loads((home / _DONE).read_text() or "[]")
    ]


def _move(draft: Path, home: Path) -> None:
    """Put unpacked files in place; another process may have been faster."""
    try:
        draft.rename(home)
    except OSError:
        if not (home / _DONE).is_file():
            raise


def unpacked_from(address: str) -> tuple[Path, list[Skipped]]:
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


def stem_of(archive: str) -> str:
    """The name of an archive, or of one at an address, without its ending."""
    return _stem(Path(PurePosixPath(archive.partition("#")[0].partition("?")[0]).name))


def is_address(text: str) -> bool:
    """Whether this is an address on the network."""
    return _ADDRESS.match(text) is not None


def _stem(archive: Path) -> str:
    ending = next((one for one in ARCHIVES if archive.name.lower().endswith(one)), "")
    return archive.name[: len(archive.name) - len(ending)] or "archive"


def _reason(error: Exception) -> str:
    if "password required" in str(error):
        return "it is encrypted"
    return str(error).splitlines()[0].rstrip(":") if str(error) else type(error).__name__


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except _TORN as error:
        reason = _reason(error)
        raise BrokenDataError(
            f"archive {str(archive)!r} cannot be unpacked ({reason}), expected a whole archive without a password; "
            "fetch it again, or unpack it yourself and give the folder"
        ) from error


def _unpack(archive: Path, target: Path) -> list[Skipped]:
    """Write the files of an archive into a new folder; names and reasons of members that are no files."""
    most_bytes = _RATIO * archive.stat().st_size + _ALLOWANCE_BYTES
    free_bytes = shutil.disk_usage(target.parent).free
    n_bytes, skipped = 0, []
    target.mkdir()
    is_zip = zipfile.is_zipfile(archive) or (
        archive.suffix.lower() == ".zip" and not tarfile.is_tarfile(archive)
    )
    members = _zip_members if is_zip else _tar_members  # by content, since a name may be wrong
    for number, (name, size_bytes, copy) in enumerate(members(archive)):
        if copy is None:
            skipped.append(
                (name, "it is a link in an archive, which is not followed; put the file into the archive")
            )
            continue
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
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as file:
                copy(file, size_bytes)
        except OSError as error:
            if error.errno not in _IMPOSSIBLE:
                raise
            raise BrokenDataError(
                f"archive {str(archive)!r} holds {name[:_SHOWN]!r}, which cannot be a file here ({error.strerror}), "
                "expected names that can be unpacked; rename it and pack the archive again"
            ) from error
    return skipped


def _safe(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or (path.parts and ":" in path.parts[0]):
        raise DataError(
            f"archive {str(archive)!r} holds {name!r}, expected names below its own folder; do not trust this archive"
        )
    return path


Members = Iterator[tuple[str, int, Callable[[IO[bytes], int], None] | None]]
"""Name and size in bytes of each file, and a function that writes that many bytes of it; None for a link."""


def _zip_members(archive: Path) -> Members:
    with zipfile.ZipFile(archive) as box:
        for info in box.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                yield info.filename, 0, None
            elif not info.is_dir() and kind in (0, stat.S_IFREG):
                yield info.filename, info.file_size, partial(_copy_zip, box, info)


def _copy_zip(box: zipfile.ZipFile, info: zipfile.ZipInfo, target: IO[bytes], size_bytes: int) -> None:
    with box.open(info) as file:
        _copy(file, target, size_bytes)


def _tar_members(archive: Path) -> Members:
    with tarfile.open(archive) as box:
        for info in box:
            if info.issym():
                yield info.name, 0, None
            elif info.isreg() or info.islnk():
                yield _tar_member(box, info)
        assert box.fileobj is not None, "an open archive has a file"
        box.fileobj.seek(box.offset)
        if box.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile ends there as if it were the end
            raise tarfile.ReadError("a header is damaged")


def _tar_member(
    box: tarfile.TarFile, info: tarfile.TarInfo
) -> tuple[str, int, Callable[[IO[bytes], int], None] | None]:
    """A file, or a file that is stored under another name of it, a hard link."""
    try:
        stored = box.getmember(info.linkname) if info.islnk() else info
        file = box.extractfile(stored) if stored.isreg() else None
    except KeyError:
        file = None
    return (info.name, 0, None) if file is None else (info.name, stored.size, partial(_copy, file))


def _copy(file: IO[bytes], target: IO[bytes], size_bytes: int) -> None:
    """Copy as many bytes as were announced: a lying header cannot fill the disk."""
    while size_bytes > 0 and (chunk := file.read(min(_CHUNK_BYTES, size_bytes))):
        target.write(chunk)
        size_bytes -= len(chunk)
