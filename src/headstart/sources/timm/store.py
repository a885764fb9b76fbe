"""Networks that others trained, as Sources: exported once by torch, kept as graphs, run without it after.

In: a timm name, a local folder, or a network to draw at random. Out: a Source with a layer at every stage.
Must not import torch or timm but through networks.timm_source, when no graph is kept. Called by sources.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from headstart.errors import MissingDataError
from headstart.graph.pooling import JOIN
from headstart.graph.wrap import flops_of, with_image_input
from headstart.records import InputSpec, Source
from headstart.system.cache import cache_root, key_of
from headstart.system.files import write_atomic
from headstart.system.optional import require

if TYPE_CHECKING:
    from headstart.sources.timm.export import ExportedNetwork

__all__ = ["TimmNetwork", "find_network", "network_source", "pretrained_names", "trained_source"]

_FORMAT = 4  # raise it when the same network would be exported or described otherwise
_LOCAL = "local-dir:"
_BATCH_PIXELS = 4 * 224 * 224  # maps of more images do not stay in a processor's cache
_LAST_STAGES = 5  # what lies before sees edges only
_FEW_FEATURES, _MOST_FEATURES = 64, 8_192


@dataclass(frozen=True)
class TimmNetwork:
    """A kept graph and what its makers say of it; ``about`` is what `ExportedNetwork` holds but for the graph."""

    name: str
    graph: bytes
    about: Mapping[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that it takes, in pixels."""
        height, width = self.about["size"]
        return height, width


def pretrained_names(pattern: str = "") -> list[str]:
    """Names of networks with weights that ``timm:NAME`` can have.

    Parameters
    ----------
    pattern : str, default=''
        Shell pattern; a plain word is looked for anywhere.

    Returns
    -------
    list of str
        Sorted, each as ``timm:NAME.TAG``.

    Raises
    ------
    MissingExtraError
        If timm is not installed.
    """
    require("timm", extra="train", for_="the list of timm's networks")
    from headstart.sources.timm.export import timm_names

    return [f"timm:{name}" for name in timm_names(pattern)]


def find_network(
    name: str, *, pretrained: bool = True, seed: int = 0, size_px: int | None = None
) -> TimmNetwork:
    """A network as a graph: the kept one, or exported now and kept.

    Parameters
    ----------
    name : str
        As timm names it, with or without a tag, or ``local-dir:PATH``.
    pretrained : bool, default=True
        With its weights; False draws random ones.
    seed : int, default=0
        Draws random weights.
    size_px : int, optional
        Side of the input. Default: the network's own.

    Returns
    -------
    TimmNetwork
        Its graph gives every layer.

    Raises
    ------
    UnknownSourceError, SourceError
        If there is no such network, or its weights cannot be had.
    MissingExtraError
        If it must be exported and torch or timm is not installed.
    MissingDataError
        If a local folder lacks a file.
    """
    parts = {
        "format": _FORMAT,
        "network": _identity(name),
        "weights": "pretrained" if pretrained else f"random {seed}",
        "size_px": size_px,
    }
    home = cache_root() / "graphs"
    kept = _kept(home / key_of(parts), name)
    if kept is not None:
        return kept
    for package in ("torch", "timm"):
        require(package, extra="train", for_=f"the first use of source 'timm:{name}'")
    from headstart.sources.timm.export import export_network

    exported = export_network(name, pretrained=pretrained, seed=seed, size_px=size_px)
    return _keep(home / key_of(parts), name, exported)


def network_source(network: TimmNetwork, native: InputSpec | None, name: str) -> Source:
    """A network as a source for images of some size.

    Parameters
    ----------
    network : TimmNetwork
        What to run.
    native : InputSpec or None
        Size and channels where all images of the dataset have the same. If these are within the
        network's, the graph takes them as they are and enlarges them itself; photos of any size
        are prepared to the network's.
    name : str
        What to call it.

    Returns
    -------
    Source
        Its candidates are the last stages, averaged and in a grid, the last two side by side, the
        embedding and the logits.
    """
    about, (height, width) = network.about, network.size
    scaling = tuple(about["mean"]), tuple(about["std"])
    spec = InputSpec(height, width, 3, *scaling, "crop", about["interpolation"], about["crop_share"])
    if native is not None and native.height_px <= height and native.width_px <= width:
        spec = InputSpec(*native.shape, *scaling, "squish", about["interpolation"])
    return _source(network, spec, name)


def trained_source(exported: ExportedNetwork, like: Source) -> Source:
    """A network that was trained further, as a source that takes what it took before.

    Parameters
    ----------
    exported : ExportedNetwork
        The network as it is now.
    like : Source
        As it was.

    Returns
    -------
    Source
        Not kept in the cache: whoever wants it keeps the model.
    """
    name = f"{like.name}, fine-tuned"
    graph = exported.graph.SerializeToString(deterministic=True)
    return _source(TimmNetwork(name, graph, _about(name, exported, graph)), like.input, name)


def _source(network: TimmNetwork, spec: InputSpec, name: str) -> Source:
    """The network behind our input."""
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
    """Layers and poolings worth a trial: rows neither too short to tell much nor too long to fit fast."""
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
    """What decides a network: the files of a local folder, else timm's name and version."""
    if not name.startswith(_LOCAL):
        try:
            return f"timm {version('timm')} {name}"
        except PackageNotFoundError:
            return name
    home = Path(name.removeprefix(_LOCAL)).expanduser()
    files = (home / "config.json", home / "model.safetensors")  # never a pickle
    if not all(file.is_file() for file in files):
        raise MissingDataError(
            f"source 'timm:{name}' is not a folder with config.json and model.safetensors, expected one as "
            "timm saves it; mend the path"
        )
    return " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def _kept(place: Path, name: str) -> TimmNetwork | None:
    """The graph kept here, if it is whole."""
    try:
        about = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        graph = place.with_suffix(".onnx").read_bytes()
        whole = hashlib.sha256(graph).hexdigest() == about["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return TimmNetwork(name, graph, about) if whole else None


def _keep(place: Path, name: str, exported: ExportedNetwork) -> TimmNetwork:
    graph = exported.graph.SerializeToString(deterministic=True)
    about = _about(name, exported, graph)
    write_atomic(place.with_suffix(".onnx"), graph)
    write_atomic(place.with_suffix(".json"), json.dumps(about))
    return TimmNetwork(name, graph, about)


def _about(name: str, exported: ExportedNetwork, graph: bytes) -> dict[str, Any]:
    """What is kept beside a graph."""
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
