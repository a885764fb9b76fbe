"""Where the files of well-known datasets lie, and how they are fetched once.

In: a file's place in torchvision's folder layout, its addresses and MD5. Out: a path to it.
Looks under $HEADSTART_DATA, then in the user's cache, then asks the network through pooch,
which is imported on use. Called by known.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headstart.errors import BrokenDataError, FetchError, MissingDataError
from headstart.system.connection import ANSWER_S, answers

__all__ = ["Remote", "cache_folder", "extract", "find", "obtain"]

_READ_S = 30  # between two pieces of a file
_CHUNK_BYTES = 1024**2


@dataclass(frozen=True)
class Remote:
    """A file on the network: its place under a data folder, its addresses, its MD5."""

    place: str
    urls: tuple[str, ...]
    md5: str


def cache_folder() -> Path:
    """Say where fetched datasets are kept: $HEADSTART_CACHE/data, or the platform's cache.

    Returns
    -------
    Path
        It need not exist.

    Examples
    --------
    >>> cache_folder().name
    'data'
    """
    home = os.environ.get("HEADSTART_CACHE")
    if home:
        return Path(home).expanduser() / "data"
    import pooch

    return Path(pooch.os_cache("headstart")) / "data"


def find(places: Sequence[str]) -> Path | None:
    """Look for a file or folder under $HEADSTART_DATA, then in the cache.

    Parameters
    ----------
    places : sequence of str
        Relative paths, the likeliest first.

    Returns
    -------
    Path or None

    Raises
    ------
    MissingDataError
        If HEADSTART_DATA is set and is no folder.

    Examples
    --------
    >>> find(["no-such-file"]) is None
    True
    """
    roots = [cache_folder()]
    home = os.environ.get("HEADSTART_DATA")
    if home:
        if not Path(home).expanduser().is_dir():
            raise MissingDataError(
                f"HEADSTART_DATA is {home!r}, expected a folder that is there; create it or unset the variable"
            )
        roots.insert(0, Path(home).expanduser())
    return next((root / place for root in roots for place in places if (root / place).exists()), None)


def obtain(remote: Remote, dataset: str, *, download: bool) -> Path:
    """Fetch a file into the cache, verified.

    Parameters
    ----------
    remote : Remote
        What to fetch; its addresses are tried in turn.
    dataset : str
        Whose file it is, for the error.
    download : bool
        Whether the network may be asked.

    Returns
    -------
    Path

    Raises
    ------
    MissingDataError
        If ``download`` is false.
    FetchError
        If no address gives it, or what comes has another MD5.

    Examples
    --------
    >>> obtain(Remote("X/x.gz", (), ""), "x", download=False)
    Traceback (most recent call last):
        ...
    headstart.errors.MissingDataError: dataset 'x' is not on this machine, expected X/x.gz; set \
HEADSTART_DATA to a folder that holds it, or allow download
    """
    if not download:
        raise MissingDataError(
            f"dataset {dataset!r} is not on this machine, expected {remote.place}; "
            "set HEADSTART_DATA to a folder that holds it, or allow download"
        )
    import pooch

    target = cache_folder() / remote.place
    reason: str = "no address is known"
    cause: Exception | None = None
    for url, fault in zip(remote.urls, answers([partial(_ask, url) for url in remote.urls]), strict=True):
        if fault is not None:
            reason, cause = type(fault).__name__, fault
            continue
        try:
            fetcher = pooch.HTTPDownloader(timeout=(ANSWER_S, _READ_S), chunk_size=_CHUNK_BYTES)
            pooch.retrieve(url, f"md5:{remote.md5}", target.name, target.parent, downloader=fetcher)
            return target
        except (OSError, ValueError) as error:  # requests' are OSErrors, a wrong MD5 a ValueError
            altered = isinstance(error, ValueError) and "hash" in str(error)
            reason = "what came has another MD5" if altered else type(error).__name__
            cause = error
            response = getattr(error, "response", None)
            if response is not None:  # pooch 1.9 leaves it open where the server refuses
                response.close()
    raise FetchError(
        f"dataset {dataset!r} could not be fetched ({reason}), expected {remote.place}; "
        f"set HEADSTART_DATA to a folder that holds it, or download {remote.urls[0]} to {target}"
    ) from cause


def _ask(url: str) -> None:
    """Make a small request; raises if nobody answers, and takes any answer."""
    import requests

    requests.head(url, timeout=ANSWER_S).close()


def extract(archive: Path, member: str, place: str) -> Path:
    """Unpack one file of a zip into the cache, whole or not at all.

    Parameters
    ----------
    archive : Path
        A zip; it may be read-only.
    member : str
        Name within it.
    place : str
        Where to put it, relative to the cache.

    Returns
    -------
    Path

    Raises
    ------
    BrokenDataError
        If the archive cannot be read, or lacks the member.

    Examples
    --------
    >>> extract(Path("pyproject.toml"), "a", "b")
    Traceback (most recent call last):
        ...
    headstart.errors.BrokenDataError: archive 'pyproject.toml' cannot be unpacked (File is not a zip file), \
expected a whole zip with a; fetch it again
    """
    target = cache_folder() / place
    try:
        with zipfile.ZipFile(archive) as box:
            content = box.read(member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BrokenDataError(
            f"archive {str(archive)!r} cannot be unpacked ({error.args[0]}), expected a whole zip with {member}; "
            "fetch it again"
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, target)
    return target
