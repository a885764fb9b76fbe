"""Networks of timm as sources: exported once by torch, then read from the cache as graphs."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from headstart.errors import MissingDataError
from headstart.sources.image_network import ExportedNetwork, ImageNetwork, described
from headstart.system.array_file import DamagedError
from headstart.system.cache import cache_root, default_cache, key_of
from headstart.system.checked import read_checked, write_checked
from headstart.system.drafts import reason, warn
from headstart.system.files import write_atomic
from headstart.system.optional import require

__all__ = ["find_network", "near_networks", "pretrained_names"]

_FORMAT = 5  # increase it when exports or their description change
_LOCAL = "local-dir:"
_NEAR = 0.75  # of difflib's similarity


def pretrained_names(pattern: str = "") -> list[str]:
    """Sorted names ``timm:NAME.TAG`` of pretrained networks that match a shell pattern."""
    require("timm", extra="train", for_="the list of timm's networks")
    from headstart.sources.timm.export import timm_names

    return [f"timm:{name}" for name in timm_names(pattern)]


def near_networks(name: str) -> list[str]:
    """Names of timm's networks, without tags, that are nearest to a name given by another library; maybe none."""
    from difflib import get_close_matches

    wanted = name.rpartition("/")[2].lower().replace("-", "_")
    bare = wanted.replace("_", "")
    if not wanted or find_spec("timm") is None or find_spec("torch") is None:
        return []
    names = dict.fromkeys(one.removeprefix("timm:").partition(".")[0] for one in pretrained_names())
    same = [one for one in names if one == wanted] or [one for one in names if one.replace("_", "") == bare]
    longer = [one for one in names if one.replace("_", "").startswith(bare)]
    longer.sort(key=lambda one: (not one.endswith("_100"), len(one)))  # the plain width comes first
    return same[:1] or longer[:2] or get_close_matches(wanted, names, n=2, cutoff=_NEAR)


def find_network(
    name: str, *, pretrained: bool = True, seed: int = 0, size_px: int | None = None
) -> ImageNetwork:
    """A network as a graph: from the cache, or exported now and cached.

    UnknownSourceError or SourceError if there is no such network or its weights cannot be loaded, MissingExtraError
    if it must be exported without torch or timm, MissingDataError if a local folder lacks a file.
    """
    parts = {
        "format": _FORMAT,
        "network": _identity(name),
        "weights": "pretrained" if pretrained else f"random {seed}",
        "size_px": size_px,
    }
    home = cache_root() / "graphs"
    kept = _cached(home / key_of(parts), name)
    if kept is not None:
        return kept
    for package in ("torch", "timm"):
        require(package, extra="train", for_=f"the first use of source 'timm:{name}'")
    from headstart.sources.timm.export import export_network

    exported = export_network(name, pretrained=pretrained, seed=seed, size_px=size_px)
    return _cache(home / key_of(parts), name, exported)


def _identity(name: str) -> str:
    """What identifies a network: the files of a local folder, else timm's name and version."""
    if not name.startswith(_LOCAL):
        try:
            return f"timm {version('timm')} {name}"
        except PackageNotFoundError:
            return name
    home = Path(os.path.expanduser(name.removeprefix(_LOCAL)))
    files = (home / "config.json", home / "model.safetensors")  # never a pickle
    if not all(file.is_file() for file in files):
        raise MissingDataError(
            f"source 'timm:{name}' is not a folder with config.json and model.safetensors, expected one as "
            "timm saves it; correct the path"
        )
    return " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def _cached(place: Path, name: str) -> ImageNetwork | None:
    """The cached graph, None if there is none or it is damaged."""
    try:
        about = read_checked(place.with_suffix(".json"))
        if about is None:
            return None
        graph = place.with_suffix(".onnx").read_bytes()
        if hashlib.sha256(graph).hexdigest() != about["sha256"]:
            raise DamagedError("the checksum of its graph differs")
    except (OSError, DamagedError) as error:
        warn(f"network in {str(place)!r} is damaged ({reason(error)}): it is exported again")
        return None
    with suppress(OSError):  # the folder may be read-only
        os.utime(place.with_suffix(".json"))  # the time of last use
    return ImageNetwork(name, graph, about)


def _cache(place: Path, name: str, exported: ExportedNetwork) -> ImageNetwork:
    network = described(name, exported)
    try:
        write_atomic(place.with_suffix(".onnx"), network.graph)
        write_checked(place.with_suffix(".json"), network.about)
        default_cache().keep_limit(place.with_suffix(".json"))
    except OSError as error:
        warn(
            f"cache {str(place.parent)!r} cannot be written ({reason(error)}): networks are exported each time; "
            "set HEADSTART_CACHE to another folder"
        )
    return network
