"""Networks of timm with their weights, from the hub's cache or downloaded.

The hub's own client retries for a minute before it reports that there is no connection. Here a small request
is made first, so that the error comes within seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch
from timm.models import get_pretrained_cfg

from headstart.system.connection import ANSWER_S, answers

__all__ = ["create_pretrained"]

_FILES = ("model.safetensors", "pytorch_model.bin")  # as timm looks for them
_GATEWAY_ERRORS = (502, 503, 504)  # from a proxy that cannot reach the hub, or a hub that is down


def create_pretrained(name: str) -> Any:
    """A network of timm with its weights. ConnectionError if they are not cached and the server does not respond."""
    weights = get_pretrained_cfg(name)
    if _is_cached(weights):
        try:
            with _offline():
                return timm.create_model(name, pretrained=True)
        except Exception:  # the cached file has another format or is damaged: download
            pass
    if not huggingface_hub.constants.HF_HUB_OFFLINE:
        _check_answers(_address(weights))
    return timm.create_model(name, pretrained=True)


def _is_cached(weights: Any) -> bool:
    """Whether the hub's cache has a file of these weights, or torch's cache the file of their address."""
    if not weights.hf_hub_id:
        return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(weights.url).path).name).is_file()
    repository, _, revision = weights.hf_hub_id.partition("@")
    files = (weights.hf_hub_filename,) if weights.hf_hub_filename else _FILES
    found = [
        huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None) for file in files
    ]
    return any(isinstance(one, str) for one in found)


def _address(weights: Any) -> str:
    """The hub, or the server of weights outside the hub.

    Not the file: its address redirects to another server, and twice as many round trips exceed the limit over a
    satellite link.
    """
    return str(huggingface_hub.constants.ENDPOINT if weights.hf_hub_id else weights.url)


def _check_answers(address: str) -> None:
    """Raise ConnectionError unless the server responds; timm interprets the response."""
    chosen = "HF_HUB_ETAG_TIMEOUT" in os.environ  # the hub's own limit for this request
    limit_s = float(huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT) if chosen else ANSWER_S

    def request() -> None:
        response = huggingface_hub.get_session().head(address, timeout=limit_s)
        if response.status_code in _GATEWAY_ERRORS:
            response.raise_for_status()

    (fault,) = answers([request], limit_s)
    if fault is not None:
        host = urlsplit(address).netloc
        raise ConnectionError(f"no connection to {host}: {fault or type(fault).__name__}") from fault


@contextmanager
def _offline() -> Iterator[None]:
    """Make the hub's client read its cache only, as HF_HUB_OFFLINE=1 does."""
    constants = huggingface_hub.constants
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
