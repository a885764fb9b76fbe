"""Files are looked at before they are read: a pipe would never end, a sparse file would fill the memory."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from headstart.data.images.decode import examined
from headstart.data.images.foreign import described
from headstart.data.images.turns import turn
from headstart.errors import BrokenDataError, MissingDataError

__all__ = ["LIMIT_BYTES", "ExaminedFile", "examine_file", "foreign_reason", "read_bytes", "read_head"]

LIMIT_BYTES = 2**30
"""Larger files are not read: 89 million pixels of 16 bits, the most that is decoded, fit without compression."""

_HEAD_BYTES = 4096
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PORTABLE = re.compile(rb"P[1-6]\s")

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# what fetches the target of a link
_FETCHED = ((".git/annex/", "fetch it with git annex get"), (".dvc/cache/", "fetch it with dvc pull"))


@dataclass(frozen=True)
class ExaminedFile:
    """SHA-256 of the content, why the file cannot be used, and its largest value if it has 16 bits."""

    digest: bytes
    fault: str | None
    largest: int | None = None


class _Unread(Exception):
    """A file that was not read, with the reason; ``missing`` if there is none."""

    def __init__(self, reason: str, advice: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.advice, self.missing = reason, advice, missing


def examine_file(path: Path) -> ExaminedFile:
    """Read and decode a file as a check; ``fault`` is the reason for ``skipped``, never an error.

    JPEG is decoded at a reduced scale.
    """
    try:
        data = _content(path)
    except _Unread as error:
        return ExaminedFile(b"", f"{error.reason}; {error.advice}")
    with turn():
        digest, found = hashlib.sha256(data).digest(), examined(data)
    return (
        ExaminedFile(digest, found) if isinstance(found, str) else ExaminedFile(digest, None, found.largest)
    )


def read_bytes(path: Path) -> bytes:
    """Read an image file; MissingDataError if it does not exist, BrokenDataError if it cannot or must not be read."""
    try:
        return _content(path)
    except _Unread as error:
        if error.missing:
            raise MissingDataError(
                f"image {str(path)!r} does not exist, expected a file; correct the path"
            ) from error
        raise BrokenDataError(
            f"image {str(path)!r} cannot be read ({error.reason}), expected a readable file; {error.advice}"
        ) from error


def read_head(path: Path, n_bytes: int) -> bytes:
    """The first bytes of a file; none if it cannot be read, which `read_bytes` reports."""
    try:
        return _content(path, n_bytes)
    except _Unread:
        return b""


def foreign_reason(path: Path) -> str | None:
    """Why a file is no image by its first bytes; None if it may be one."""
    try:
        head = _content(path, _HEAD_BYTES)
    except _Unread as error:
        return f"{error.reason}; {error.advice}"
    if head.startswith(_SIGNATURES) or head[8:12] == b"WEBP" or head[4:12] in (b"ftypavif", b"ftypavis"):
        return None
    return None if _PORTABLE.match(head) else described(head) or "it is not an image"


def _content(path: Path, n_bytes: int = LIMIT_BYTES) -> bytes:
    try:
        status = path.stat()
        for is_kind, name in _KINDS:
            if is_kind(status.st_mode):
                raise _Unread(f"it is {name}, not a file", "leave it out")
        if status.st_size > LIMIT_BYTES:
            raise _Unread(f"it has {status.st_size:,} bytes, more than {LIMIT_BYTES:,}", "leave it out")
        with path.open("rb") as file:
            return file.read(n_bytes)
    except FileNotFoundError as error:
        raise _absent(path) from error
    except OSError as error:
        raise _Unread(f"it cannot be opened: {error.strerror}", "check its permissions") from error


def _absent(path: Path) -> _Unread:
    """Why there is no file: the target of a link may be missing."""
    if not path.is_symlink():
        return _Unread("it does not exist", "correct the path", missing=True)
    target = os.readlink(path)
    advice = next((what for mark, what in _FETCHED if mark in target), "restore the file, or delete the link")
    return _Unread(f"it is a link to {target!r}, which does not exist", advice)
