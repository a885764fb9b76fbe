"""Files by path or address (``s3://``, ``gs://``, ``hf://``): parts of them, their sizes, and errors in one line.

What is remote is read through fsspec, in blocks while the reads follow each other, else exactly what is wanted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from glob import has_magic
from threading import Lock
from typing import IO, Any, cast

from headstart.data.contents.blocks import blocks
from headstart.data.contents.protocol import Unread
from headstart.data.names import natural_order
from headstart.errors import (
    BrokenDataError,
    DataError,
    FetchError,
    HeadstartError,
    MissingDataError,
    MissingExtraError,
)
from headstart.system.optional import require

__all__ = [
    "canonical",
    "explained",
    "file_system",
    "forget",
    "is_remote",
    "open_file",
    "protocol_of",
    "read_part",
    "remote_files",
    "size_of",
]

_ADDRESS = re.compile(r"(?!https?://|file://)([a-z][a-z0-9+.-]*)://.*", re.IGNORECASE | re.DOTALL)
_BLOCK_BYTES = 4 * 2**20
_N_AHEAD = 2  # blocks
_MOST_BLOCKS = 8  # of one read; more are read at once
_NETWORK = {
    *(
        "aiobotocore",
        "aiohttp",
        "asyncio",
        "botocore",
        "gcsfs",
        "google",
        "httpcore",
        "httpcore2",
        "httpx",
        "httpx2",
    ),
    *("huggingface_hub", "requests", "s3fs", "socket", "ssl", "urllib3"),
}
"""Packages whose errors are of the network, whatever their class."""
_KEYS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE; for a public bucket FSSPEC_S3_ANON=true",
    "gs": "log in with gcloud auth application-default login; for a public bucket set FSSPEC_GS_TOKEN=anon",
    "hf": "log in with hf auth login, or set HF_TOKEN",
}
_EXTRAS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}


def is_remote(text: str) -> bool:
    """Whether this is an address that fsspec reads; those of the web are archives, and ``file://`` is a path.

    >>> is_remote("s3://bucket/train.tar"), is_remote("https://example.org/a.zip"), is_remote("photos:odd")
    (True, False, False)
    """
    return _ADDRESS.fullmatch(text) is not None


def protocol_of(address: str) -> str:
    """``s3`` of ``s3://bucket/train.tar``; empty for a path."""
    match = _ADDRESS.fullmatch(address)
    return match[1].lower() if match else ""


def file_system(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and its path there; MissingExtraError if a package is missing."""
    protocol = protocol_of(address)
    for_ = f"address {address!r}"
    fsspec = require("fsspec", extra="buckets", for_=for_)
    if protocol in _EXTRAS:
        require(_EXTRAS[protocol], extra="buckets", for_=for_)
    try:
        with explained(address):
            system, path = fsspec.core.url_to_fs(address)
    except ValueError as error:
        if isinstance(error, HeadstartError):
            raise
        raise DataError(
            f"address {address!r} has the unknown protocol {protocol!r}, expected s3://, gs://, hf:// or another of "
            "fsspec; correct it"
        ) from error
    except ImportError as error:
        if isinstance(error, HeadstartError):
            raise
        raise MissingExtraError(
            f"{for_}: expected a package that is not installed ({_first_line(error)}); install it with pip"
        ) from error
    return system, str(path)


def canonical(address: str) -> str:
    """The address as listings spell it."""
    system, path = file_system(address)
    return str(system.unstrip_protocol(path)).removeprefix("file://")


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn errors of file systems into ours: one line each."""
    try:
        yield
    except (HeadstartError, Unread):
        raise
    except FileNotFoundError as error:
        reason = f" ({_first_line(error)})" if "bucket" in str(error).lower() else ""
        raise MissingDataError(
            f"{address!r} does not exist{reason}, expected a file or folder; correct the address"
        ) from error
    except Exception as error:
        if type(error).__name__ == "FileExpired":
            raise BrokenDataError(
                f"{address!r} has changed since it was opened, expected it as it was; load the dataset again"
            ) from error
        if not isinstance(error, OSError) and not _NETWORK & _packages(error):
            raise
        raise _network_error(address, error) from error


def _network_error(address: str, error: Exception) -> HeadstartError:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    advice = _KEYS.get(protocol_of(address), "check your credentials")
    if kinds & {
        "NoCredentialsError",
        "PartialCredentialsError",
        "DefaultCredentialsError",
        "ProfileNotFound",
    }:
        return FetchError(f"{address!r} cannot be read without credentials, expected some; {advice}")
    if isinstance(error, PermissionError) or kinds & {"GatedRepoError", "RepositoryNotFoundError"}:
        reason = _first_line(error) or "access denied"
        return FetchError(
            f"{address!r} cannot be read ({reason}), expected permission to list and read it; {advice}"
        )
    if isinstance(error, ConnectionError | TimeoutError) or any("Connect" in kind for kind in kinds):
        return FetchError(
            f"{address!r} cannot be reached ({_first_line(error) or type(error).__name__}), expected an answer of "
            "its server; check the connection and the endpoint, then run the same command again"
        )
    return FetchError(
        f"{address!r} cannot be read ({_first_line(error) or type(error).__name__}), expected its content; "
        "check the address, then run the same command again"
    )


def _packages(error: BaseException) -> set[str]:
    return {kind.__module__.partition(".")[0] for kind in type(error).__mro__}


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".: ")[:200] if lines else ""


def open_file(address: str) -> IO[bytes]:
    """A file to read from, with ``seek``; MissingDataError or FetchError in one line."""
    if not is_remote(address):
        with _local(address):
            return open(address, "rb")
    system, path = file_system(address)
    with explained(address):
        return cast("IO[bytes]", system.open(path, "rb", block_size=_BLOCK_BYTES))


def size_of(address: str) -> int:
    """Size in bytes; MissingDataError or FetchError in one line."""
    if is_remote(address):
        return _remote(address).size_bytes
    with _local(address):
        return os.stat(address).st_size


@contextmanager
def _local(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = MissingDataError if isinstance(error, FileNotFoundError) else BrokenDataError
        raise kind(
            f"file {path!r} cannot be opened ({error.strerror}), expected a readable file; check path and permissions"
        ) from error


def read_part(address: str, first: int, n_bytes: int) -> bytes:
    """Some bytes of a file, fewer at its end; Unread if there is no such file."""
    if is_remote(address):
        try:
            return _remote(address).read(first, n_bytes)
        except MissingDataError as error:
            raise Unread("it does not exist any more", "load the dataset again", missing=True) from error
    try:
        with open(address, "rb") as file:
            file.seek(first)
            return file.read(n_bytes)
    except FileNotFoundError as error:
        raise Unread("it does not exist any more", "load the dataset again", missing=True) from error
    except OSError as error:
        raise Unread(f"it cannot be opened: {error.strerror}", "check its permissions") from error


class _Remote:
    """One remote file. While reads follow each other, whole blocks are fetched, and the next ones ahead of time."""

    def __init__(self, address: str) -> None:
        self._address, self._end = address, 0
        self._system, self._path = file_system(address)
        known = _SIZES.get(address)
        if known is None:
            with explained(address):
                known = int(self._system.info(self._path)["size"] or 0)
        self.size_bytes = known

    def read(self, first: int, n_bytes: int) -> bytes:
        end = min(first + n_bytes, self.size_bytes)
        follows = 0 <= first - self._end <= _BLOCK_BYTES
        self._end = end
        if first >= end:
            return b""
        numbers = range(first // _BLOCK_BYTES, (end - 1) // _BLOCK_BYTES + 1)
        is_there = all(blocks().has((self._address, number)) for number in numbers)
        if len(numbers) > _MOST_BLOCKS or not (follows or is_there):
            return self._fetch(first, end)
        data = b"".join(self._block(number) for number in numbers)
        start = first - numbers[0] * _BLOCK_BYTES
        return data[start : start + end - first]

    def _block(self, number: int) -> bytes:
        for later in range(number + 1, number + 1 + _N_AHEAD):
            if later * _BLOCK_BYTES < self.size_bytes:
                blocks().ahead((self._address, later), partial(self._load, later))
        return cast("bytes", blocks().get((self._address, number), partial(self._load, number)))

    def _load(self, number: int) -> tuple[bytes, int]:
        first = number * _BLOCK_BYTES
        data = self._fetch(first, min(first + _BLOCK_BYTES, self.size_bytes))
        return data, len(data)

    def _fetch(self, first: int, end: int) -> bytes:
        with explained(self._address):
            return bytes(self._system.cat_file(self._path, start=first, end=end))


_REMOTES: dict[str, _Remote] = {}
_SIZES: dict[str, int] = {}
_LOCK = Lock()


def _after_fork() -> None:
    global _LOCK  # noqa: PLW0603 (another thread may have held it)
    _LOCK = Lock()
    _REMOTES.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _remote(address: str) -> _Remote:
    with _LOCK:
        known = _REMOTES.get(address)
    if known is None:
        known = _Remote(address)
        with _LOCK:
            known = _REMOTES.setdefault(address, known)
    return known


def forget() -> None:
    """Forget what is known of remote files: they may have changed since."""
    with _LOCK:
        _REMOTES.clear()
        _SIZES.clear()
    blocks().drop(lambda key: isinstance(key, tuple) and isinstance(key[0], str) and is_remote(key[0]))


def remote_files(address: str, *, deep: bool = True) -> dict[str, int]:
    """Files of a pattern or in a folder of a bucket, in natural order, with their sizes; a file alone is one.

    ``deep`` is whether folders in the folder are listed, too. MissingDataError if there is none.
    """
    system, path = file_system(address)
    try:
        with explained(address):
            system.invalidate_cache()
            if has_magic(path) and not system.exists(path):  # a name may have brackets
                found = system.glob(path, detail=True)
            elif deep:
                found = system.find(path, detail=True)
            else:
                found = {one["name"]: one for one in system.ls(path, detail=True)}
    except ValueError as error:
        if isinstance(error, HeadstartError):
            raise
        raise DataError(
            f"address {address!r} cannot be listed ({_first_line(error)}), expected a bucket and a path; correct it"
        ) from error
    files = {
        name: one for name, one in found.items() if one.get("type") != "directory" and not name.endswith("/")
    }
    if not files:
        raise MissingDataError(
            f"{address!r} has no files, expected a file, a folder or a pattern with some; correct the address"
        )
    sizes = {
        system.unstrip_protocol(name).removeprefix("file://"): int(files[name].get("size") or 0)
        for name in natural_order(files)
    }
    with _LOCK:
        _SIZES.update(sizes)
    return sizes
