"""Networks of timm as sources: exported once by torch, then read from the cache as graphs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from headstart.errors import MissingDataError
from headstart.graph.pooling import JOIN
from headstart.graph.wrap import flops_of, with_image_input
from headstart.records import InputSpec, Source
from headstart.system.array_file import DamagedError
from headstart.system.cache import cache_root, default_cache, key_of
from headstart.system.checked import read_checked, write_checked
from headstart.system.drafts import reason, warn
from headstart.system.files import write_atomic
from headstart.system.optional import require

if TYPE_CHECKING:
    from headstart.sources.timm.export import ExportedNetwork

__all__ = [
    "TimmNetwork",
    "find_network",
    "near_networks",
    "network_source",
    "pretrained_names",
    "trained_source",
]

_FORMAT = 4  # increase it when exports or their description change
_LOCAL = "local-dir:"
_BATCH_PIXELS = 4 * 224 * 224  # feature maps of more images exceed a CPU's cache
_LAST_STAGES = 5  # earlier stages detect edges only
_NEAR = 0.75  # of difflib's similarity
_FEW_FEATURES, _MOST_FEATURES = 64, 8_192


@dataclass(frozen=True)
class TimmNetwork:
    """A cached graph, and the other fields of `ExportedNetwork` as ``about``."""

    name: str
    graph: bytes
    about: Mapping[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its input in pixels."""
        height, width = self.about["size"]
        return height, width


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
) -> TimmNetwork:
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


def network_source(network: TimmNetwork, native: InputSpec | None, name: str) -> Source:
    """A network as a source named ``name``, with its last stages, embedding and logits as candidates.

    ``native`` is the size of a dataset whose images all have one size, else None. If it is within the network's size,
    the graph takes these images and enlarges them itself; photos of any size are prepared to the network's size.
    """
    about, (height, width) = network.about, network.size
    scaling = tuple(about["mean"]), tuple(about["std"])
    spec = InputSpec(height, width, 3, *scaling, "crop", about["interpolation"], about["crop_share"])
    if native is not None and native.height_px <= height and native.width_px <= width:
        spec = InputSpec(*native.shape, *scaling, "squish", about["interpolation"])
    return _source(network, spec, name)


def trained_source(exported: ExportedNetwork, like: Source) -> Source:
    """A fine-tuned network as a source with the input of ``like``; it is not cached, but saved with its model."""
    name = f"{like.name}, fine-tuned"
    graph = exported.graph.SerializeToString(deterministic=True)
    return _source(TimmNetwork(name, graph, _about(name, exported, graph)), like.input, name)


def _source(network: TimmNetwork, spec: InputSpec, name: str) -> Source:
    """The network with the source's preparation in front."""
    about, (height, width) = network.about, network.size
    graph = with_image_input(onnx.ModelProto.FromString(network.graph), spec, network.size)
    layers = {layer: tuple(shape) for layer, shape in about["taps"].items()}
    identity = f"{about['sha256']} {spec}"
    classes = about["classes"]
    last = [layer for layer in layers if layer != "logits"][-1]
    return Source(
        name,
        graph.SerializeToString(deterministic=True),
        spec,
        layers,
        last,
        hashlib.sha256(identity.encode()).hexdigest(),
        None if classes is None else tuple(classes),
        "fp32",
        _candidates(layers),
        max(1, min(64, _BATCH_PIXELS // (height * width))),
        {key: about[key] for key in ("n_parameters", "gflops", "licence", "checksum")} | {"size_px": height},
    )


def _candidates(layers: Mapping[str, tuple[int, ...]]) -> tuple[tuple[str, str], ...]:
    """Layers and poolings to try: rows neither too short to be informative nor too long to fit fast."""
    found = []
    maps = [layer for layer, shape in layers.items() if len(shape) > 1]
    joined = JOIN.join(maps[-2:]) if len(maps) > 1 else ""
    for layer in (*maps[-_LAST_STAGES:], *([joined] if joined else [])):
        width = sum(layers[part][0] for part in layer.split(JOIN))
        for pooling, cells in (("avg", 1), ("grid2", 4)):
            if _FEW_FEATURES <= width * cells <= _MOST_FEATURES:
                found.append((layer, pooling))
    return (*found, *((layer, "flat") for layer, shape in layers.items() if len(shape) == 1))


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


def _cached(place: Path, name: str) -> TimmNetwork | None:
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
    return TimmNetwork(name, graph, about)


def _cache(place: Path, name: str, exported: ExportedNetwork) -> TimmNetwork:
    graph = exported.graph.SerializeToString(deterministic=True)
    about = _about(name, exported, graph)
    try:
        write_atomic(place.with_suffix(".onnx"), graph)
        write_checked(place.with_suffix(".json"), about)
        default_cache().keep_limit(place.with_suffix(".json"))
    except OSError as error:
        warn(
            f"cache {str(place.parent)!r} cannot be written ({reason(error)}): networks are exported each time; "
            "set HEADSTART_CACHE to another folder"
        )
    return TimmNetwork(name, graph, about)


def _about(name: str, exported: ExportedNetwork, graph: bytes) -> dict[str, Any]:
    """What is stored next to a graph."""
    return {
        "name": name,
        "sha256": hashlib.sha256(graph).hexdigest(),
        "taps": {layer: list(shape) for layer, shape in exported.layers.items()},
        "size": list(exported.size),
        "mean": list(exported.mean),
        "std": list(exported.std),
        "interpolation": exported.interpolation,
        "crop_share": exported.crop_share,
        "classes": exported.classes,
        "n_parameters": exported.n_parameters,
        "gflops": flops_of(exported.graph) / 1e9,
        "licence": exported.licence,
        "checksum": exported.checksum,
    }
