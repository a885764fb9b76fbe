"""Networks of timm with their weights, from the hub's cache or downloaded.

The hub's own client retries for a minute or more before it reports that there is no connection, and the download of
a server that falls silent has no limit. Here one small request is made first, and the download is watched, so that
the error comes within seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils.tqdm import tqdm
from timm.models import get_pretrained_cfg

from headstart.errors import SourceError
from headstart.system.connection import ANSWER_S, BYTE_S, FIRST_BYTE_S, answers, moving

__all__ = ["create_pretrained"]

_FILES = ("model.safetensors", "pytorch_model.bin")  # as timm looks for them
_CHUNK_BYTES = 2**16


def create_pretrained(name: str) -> Any:
    """A network of timm with its weights. SourceError if they are not cached and do not arrive."""
    weights = get_pretrained_cfg(name)
    if _is_cached(weights):
        try:
            return _from_cache(name)
        except Exception:  # the cached file has another format or is damaged: download
            pass
    try:
        _download(weights)
    except Exception as error:  # hub, network and disk raise many unrelated types
        raise SourceError(_unreachable(name, weights, error)) from error
    return _from_cache(name)


def _from_cache(name: str) -> Any:
    with _constant("HF_HUB_OFFLINE", True):  # read the cache only
        return timm.create_model(name, pretrained=True)


def _repository(weights: Any) -> tuple[str, str | None, tuple[str, ...]]:
    """Name and revision of a repository of the hub, and the files that it may have the weights in."""
    repository, _, revision = weights.hf_hub_id.partition("@")
    return repository, revision or None, (weights.hf_hub_filename,) if weights.hf_hub_filename else _FILES


def _checkpoint(url: str) -> Path:
    """Where torch keeps the file of an address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def _is_cached(weights: Any) -> bool:
    """Whether the hub's cache has a file of these weights, or torch's cache the file of their address."""
    if not weights.hf_hub_id:
        return _checkpoint(weights.url).is_file()
    repository, revision, files = _repository(weights)
    found = (huggingface_hub.try_to_load_from_cache(repository, file, revision=revision) for file in files)
    return any(isinstance(one, str) for one in found)


def _download(weights: Any) -> None:
    """Download the weights into the hub's cache, or torch's."""
    limit_s = _limit_s()
    if weights.hf_hub_id:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        repository, revision, files = _repository(weights)
        file = _file_there(repository, revision, files, limit_s)
        fetch: Callable[[Callable[[], None]], object] = partial(_fetch, repository, revision, file)
    else:
        _raise_fault(lambda: huggingface_hub.get_session().head(weights.url, timeout=limit_s), limit_s)
        fetch = partial(_fetch_address, weights.url)
    patience = limit_s / ANSWER_S
    with _constant("DOWNLOAD_CHUNK_SIZE", _CHUNK_BYTES):  # the bar moves once for each, by default 10 MB
        moving(fetch, first_s=patience * FIRST_BYTE_S, later_s=patience * BYTE_S)


def _limit_s() -> float:
    """Seconds for the first answer: the hub's own limit for this request where the user has set it."""
    chosen = "HF_HUB_ETAG_TIMEOUT" in os.environ
    return float(huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT) if chosen else ANSWER_S


def _file_there(repository: str, revision: str | None, files: tuple[str, ...], limit_s: float) -> str:
    """The first of these files that the hub has; it is asked without following a redirect to another server.

    Over a satellite link twice as many round trips exceed the limit.
    """
    for file in files[:-1]:
        try:
            _ask_for(repository, revision, file, limit_s)
        except EntryNotFoundError:
            continue
        return file
    _ask_for(repository, revision, files[-1], limit_s)
    return files[-1]


def _ask_for(repository: str, revision: str | None, file: str, limit_s: float) -> None:
    url = huggingface_hub.hf_hub_url(repository, file, revision=revision)
    _raise_fault(lambda: huggingface_hub.get_hf_file_metadata(url, timeout=limit_s), limit_s)


def _raise_fault(request: Callable[[], object], limit_s: float) -> None:
    (fault,) = answers([request], limit_s)
    if fault is not None:
        raise fault


def _fetch(repository: str, revision: str | None, file: str, arrived: Callable[[], None]) -> None:
    class Bar(tqdm):
        """The hub's progress bar, which tells of what arrives; bytes that arrive again do not count."""

        n_bytes = most = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            self.n_bytes += n or 0
            if self.n_bytes > self.most:
                self.most = self.n_bytes
                arrived()
            return super().update(n)  # type: ignore[no-any-return]

    huggingface_hub.hf_hub_download(repository, file, revision=revision, tqdm_class=Bar)


def _fetch_address(url: str, arrived: Callable[[], None]) -> None:
    """Download a file outside the hub to where timm looks for it."""
    target = _checkpoint(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with huggingface_hub.get_session().stream("GET", url, follow_redirects=True) as response:
            response.raise_for_status()
            with part.open("wb") as file:
                for chunk in response.iter_bytes():
                    arrived()
                    file.write(chunk)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _unreachable(name: str, weights: Any, error: Exception) -> str:
    """What was tried, and how the weights are carried over from another machine."""
    reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    if weights.hf_hub_id:
        repository, revision, files = _repository(weights)
        tried = huggingface_hub.constants.ENDPOINT
        command = f"hf download {repository} {files[0]} --cache-dir weights"
        command += f" --revision {revision}" if revision else ""
        remedy = (
            f"run where there is a connection: {command}; copy the folder weights here and set "
            "HF_HUB_CACHE=weights, or give a folder as timm:local-dir:PATH"
        )
    else:
        tried = weights.url
        remedy = f"download that file where there is a connection, and copy it to {_checkpoint(weights.url)}"
    return (
        f"source 'timm:{name}' cannot be downloaded from {tried} ({type(error).__name__}: {reason}), and its "
        f"weights are not in the cache, expected one of the two; {remedy}"
    )


@contextmanager
def _constant(name: str, value: Any) -> Iterator[None]:
    """Give a setting of the hub's client another value for a while."""
    constants = huggingface_hub.constants
    before = getattr(constants, name)
    setattr(constants, name, value)
    try:
        yield
    finally:
        setattr(constants, name, before)
