"""Files of named datasets: found under $HEADSTART_DATA or in the user's cache, else downloaded once (pooch).

Paths follow torchvision's folder layout.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headstart.errors import BrokenDataError, FetchError, MissingDataError
from headstart.system.connection import ANSWER_S, answers
from headstart.system.drafts import reason, warn
from headstart.system.files import write_atomic

__all__ = ["Remote", "cache_folder", "extract_archive", "fetch", "find", "obtain"]

_READ_S = 30  # between two chunks of a file
_CHUNK_BYTES = 1024**2


@dataclass(frozen=True)
class Remote:
    """A file on the network: its path under a data folder, its URLs, its MD5."""

    place: str
    urls: tuple[str, ...]
    md5: str


def cache_folder() -> Path:
    """The folder of downloaded datasets: $HEADSTART_CACHE/data, or the platform's cache. It need not exist."""
    home = os.environ.get("HEADSTART_CACHE")
    if home:
        return Path(os.path.expanduser(home)) / "data"
    import pooch

    return Path(pooch.os_cache("headstart")) / "data"


def find(places: Sequence[str], *remotes: Remote) -> Path | None:
    """The first of these relative paths under $HEADSTART_DATA, then in the cache; None if there is none.

    A file of the cache counts as absent if its MD5 differs from that of its remote, or from the one noted when
    it was extracted.
    """
    roots = [cache_folder()]
    home = os.environ.get("HEADSTART_DATA")
    if home:
        if not Path(os.path.expanduser(home)).is_dir():
            raise MissingDataError(
                f"HEADSTART_DATA is {home!r}, expected an existing folder; create it or unset the variable"
            )
        roots.insert(0, Path(os.path.expanduser(home)))
    md5s = {remote.place: remote.md5 for remote in remotes}
    for root in roots:
        for place in places:
            ours = root == cache_folder()
            if (root / place).exists() and not (ours and _is_damaged(root / place, md5s.get(place))):
                return root / place
    return None


def _is_damaged(path: Path, md5: str | None) -> bool:
    """Whether a file of the cache is not the one that was downloaded or extracted; if so, warn."""
    try:
        expected = _note(path).read_text(encoding="utf-8") if md5 is None else md5
        with path.open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() == expected:
                return False
        found = "its MD5 differs"
    except FileNotFoundError:  # put there by the user
        return False
    except (OSError, UnicodeDecodeError) as error:
        found = reason(error)
    warn(f"data file {str(path)!r} is damaged ({found}): it is fetched again")
    return True


def _note(path: Path) -> Path:
    """Where the MD5 of an extracted file is."""
    return path.with_name(f"{path.name}.md5")


def obtain(remote: Remote, dataset: str, *, download: bool) -> Path:
    """Download a file into the cache from the first URL that works, and verify its MD5.

    MissingDataError unless ``download``; FetchError if no URL works or the MD5 differs. ``dataset`` is for
    the messages.
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
    for url, fault in zip(remote.urls, answers([partial(_probe, url) for url in remote.urls]), strict=True):
        if fault is not None:
            reason, cause = type(fault).__name__, fault
            continue
        try:
            fetcher = pooch.HTTPDownloader(timeout=(ANSWER_S, _READ_S), chunk_size=_CHUNK_BYTES)
            pooch.retrieve(url, f"md5:{remote.md5}", target.name, target.parent, downloader=fetcher)
            return target
        except (OSError, ValueError) as error:  # requests raises OSError, a wrong MD5 is a ValueError
            altered = isinstance(error, ValueError) and "hash" in str(error)
            reason = "its MD5 differs" if altered else type(error).__name__
            cause = error
            response = getattr(error, "response", None)
            if response is not None:  # pooch 1.9 leaves it open where the server refuses
                response.close()
    raise FetchError(
        f"dataset {dataset!r} could not be fetched ({reason}), expected {remote.place}; "
        f"set HEADSTART_DATA to a folder that holds it, or download {remote.urls[0]} to {target}"
    ) from cause


def fetch(url: str, name: str, sha256: str | None = None) -> Path:
    """Download a file once into the cache as ``name``, verified if its SHA-256 is given; FetchError if that fails."""
    import pooch

    home = cache_folder().parent / "fetched" / hashlib.sha256(url.encode()).hexdigest()[:32]
    pooch.get_logger().setLevel("WARNING")
    try:
        if not (home / name).is_file() and (fault := next(iter(answers([partial(_probe, url)])))) is not None:
            raise fault
        fetcher = pooch.HTTPDownloader(timeout=(ANSWER_S, _READ_S), chunk_size=_CHUNK_BYTES)
        pooch.retrieve(url, f"sha256:{sha256}" if sha256 else None, name, home, downloader=fetcher)
    except (OSError, ValueError) as error:  # requests raises OSError, a wrong hash is a ValueError
        altered = isinstance(error, ValueError) and "hash" in str(error)
        reason = "its SHA-256 differs" if altered else type(error).__name__
        raise FetchError(
            f"archive {url!r} could not be fetched ({reason}), expected an answer with the file; check the address "
            "and the connection, or download it yourself and give the file"
        ) from error
    return home / name


def _probe(url: str) -> None:
    """Make a small request: raises if there is no answer, accepts any answer."""
    import requests

    requests.head(url, timeout=ANSWER_S).close()


def extract_archive(archive: Path, member: str, place: str) -> Path:
    """Extract one file of a zip into the cache; BrokenDataError if it cannot be read."""
    try:
        with zipfile.ZipFile(archive) as box:
            content = box.read(member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BrokenDataError(
            f"archive {str(archive)!r} cannot be unpacked ({error.args[0]}), expected a whole zip with {member}; "
            "fetch it again"
        ) from error
    target = cache_folder() / place
    write_atomic(_note(target), hashlib.md5(content).hexdigest())
    return write_atomic(target, content)
