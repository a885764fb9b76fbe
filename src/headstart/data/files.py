"""Files are looked at before they are read: a pipe would never end, a sparse file would fill the memory."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.data.checks.duplicates import THUMB_PX
from headstart.data.checks.looks import look_at
from headstart.data.contents.protocol import Unread
from headstart.data.images.decode import examined
from headstart.data.images.fit import fit_again
from headstart.data.images.foreign import described
from headstart.data.images.reduced import Read
from headstart.data.images.turns import turn
from headstart.data.kept import KeptFile, PreparedRows, Row, preparation_of
from headstart.errors import BrokenDataError, DataError, MissingDataError
from headstart.records import InputSpec

__all__ = [
    "LIMIT_BYTES",
    "ExaminedFile",
    "content",
    "examine",
    "examine_file",
    "foreign_reason",
    "read_bytes",
    "read_head",
    "unread_error",
]

LIMIT_BYTES = 2**30
"""Larger files are not read: 89 million pixels of 16 bits, the most that is decoded, fit without compression."""

_HEAD_BYTES = 4096
_LEAST_SAVED = 2  # how many pixels a file has for each of the input, so that it is kept
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
    """SHA-256 of the content, why the file cannot be used, its largest value if it has 16 bits, and what is kept.

    Of files of 16 bits nothing is kept: how their values are scaled depends on the other files.
    """

    digest: bytes
    fault: str | None
    largest: int | None = None
    kept: KeptFile | None = None


def examine_file(
    path: Path, specs: Sequence[InputSpec] = (), rows: PreparedRows | None = None, *, keep: bool = False
) -> ExaminedFile:
    """Read and decode a file as `examine`."""
    return examine(lambda: content(path), str(path), specs, rows, keep=keep)


def examine(
    read: Callable[[], bytes],
    name: str,
    specs: Sequence[InputSpec] = (),
    rows: PreparedRows | None = None,
    *,
    keep: bool = False,
) -> ExaminedFile:
    """Read and decode an image as a check; ``fault`` is the reason for ``skipped``, no error but of the network.

    JPEG is decoded at a reduced scale. With ``keep``, its look is kept, and in ``rows`` its pixels for ``specs``.
    """
    try:
        data = read()
    except Unread as error:
        return ExaminedFile(b"", f"{error.reason}; {error.advice}")
    with turn():
        digest, found = hashlib.sha256(data).digest(), examined(data, THUMB_PX)
        if isinstance(found, str):
            return ExaminedFile(digest, found)
        if not keep or found.largest is not None:
            return ExaminedFile(digest, None, found.largest)
        prepared = {} if rows is None else _prepared(found, data, name, specs, rows)
        return ExaminedFile(digest, None, None, KeptFile(look_at(found.header, found.pixels), prepared))


def _prepared(
    found: Read, data: bytes, name: str, specs: Sequence[InputSpec], rows: PreparedRows
) -> dict[InputSpec, Row]:
    """The image as networks take it, where that is much smaller; without what fails or has no space."""
    prepared = {}
    for spec in specs:
        n_px = spec.height_px * spec.width_px
        if found.header.width_px * found.header.height_px >= _LEAST_SAVED * n_px:
            row = rows.add(fit_again(found, data, name, spec))
            if row is not None:
                prepared[preparation_of(spec)] = row
    return prepared


def read_bytes(path: Path) -> bytes:
    """Read an image file; MissingDataError if it does not exist, BrokenDataError if it cannot or must not be read."""
    try:
        return content(path)
    except Unread as error:
        raise unread_error(str(path), error) from error


def unread_error(name: str, error: Unread) -> DataError:
    """The error for an image that was not read, in one sentence."""
    if error.missing:
        return MissingDataError(f"image {name!r} does not exist, expected a file; correct the path")
    return BrokenDataError(
        f"image {name!r} cannot be read ({error.reason}), expected a readable file; {error.advice}"
    )


def read_head(path: Path, n_bytes: int) -> bytes:
    """The first bytes of a file; none if it cannot be read, which `read_bytes` reports."""
    try:
        return content(path, n_bytes)
    except Unread:
        return b""


def foreign_reason(path: Path) -> str | None:
    """Why a file is no image by its first bytes; None if it may be one."""
    try:
        head = content(path, _HEAD_BYTES)
    except Unread as error:
        return f"{error.reason}; {error.advice}"
    if head.startswith(_SIGNATURES) or head[8:12] == b"WEBP" or head[4:12] in (b"ftypavif", b"ftypavis"):
        return None
    return None if _PORTABLE.match(head) else described(head) or "it is not an image"


def content(path: Path, n_bytes: int = LIMIT_BYTES) -> bytes:
    """The bytes of a file; Unread with the reason if it cannot or must not be read."""
    try:
        status = path.stat()
        for is_kind, name in _KINDS:
            if is_kind(status.st_mode):
                raise Unread(f"it is {name}, not a file", "leave it out")
        if status.st_size > LIMIT_BYTES:
            raise Unread(f"it has {status.st_size:,} bytes, more than {LIMIT_BYTES:,}", "leave it out")
        with path.open("rb") as file:
            return file.read(n_bytes)
    except FileNotFoundError as error:
        raise _absent(path) from error
    except OSError as error:
        raise Unread(f"it cannot be opened: {error.strerror}", "check its permissions") from error


def _absent(path: Path) -> Unread:
    """Why there is no file: the target of a link may be missing."""
    if not path.is_symlink():
        return Unread("it does not exist", "correct the path", missing=True)
    target = os.readlink(path)
    advice = next((what for mark, what in _FETCHED if mark in target), "restore the file, or delete the link")
    return Unread(f"it is a link to {target!r}, which does not exist", advice)
