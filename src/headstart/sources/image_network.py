"""Networks for photos as sources: every stage is a layer, and the last ones are candidates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx

from headstart.graph.candidates import stage_places
from headstart.graph.wrap import count_flops, with_image_input
from headstart.records import InputSpec, Source

__all__ = ["ExportedNetwork", "ImageNetwork", "Licence", "described", "network_source", "source_like"]

_LICENCE = ("licence", "licence from")
_NOTES = ("n_parameters", "gflops", "gflops at 224 px", *_LICENCE, "checksum")
_USUAL_PX = 224  # for which an input that is expensive is compared
_BATCH_PIXELS = 4 * 224 * 224  # feature maps of more images exceed a CPU's cache


@dataclass(frozen=True)
class Licence:
    """The name of a licence of weights, and where it is stated."""

    name: str
    stated: str


@dataclass(frozen=True)
class ExportedNetwork:
    """A network's graph, and its pretrained configuration.

    ``graph`` takes float32 (n, 3, *size), normalised, and returns the tensors that ``layers`` names with their
    shapes; ``classes`` are those of the layer ``logits``, None without one. ``licence`` is that of the weights, None
    for random ones; ``checksum`` is of the weights. ``any_size`` says that the input may have another size.
    """

    graph: onnx.ModelProto
    layers: Mapping[str, tuple[int, ...]]
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_share: float
    classes: tuple[str, ...] | None
    n_parameters: int
    licence: Licence | None
    checksum: str
    any_size: bool = True


@dataclass(frozen=True)
class ImageNetwork:
    """A serialized graph, and the other fields of `ExportedNetwork` as ``about``."""

    name: str
    graph: bytes
    about: Mapping[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its input in pixels."""
        height, width = self.about["size"]
        return height, width


def described(name: str, exported: ExportedNetwork) -> ImageNetwork:
    """A network with what is stored next to its graph."""
    graph, flops = exported.graph.SerializeToString(deterministic=True), count_flops(exported.graph)
    licence, usual = exported.licence, (_USUAL_PX / exported.size[0]) ** 2
    about = {
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
        "gflops": flops.total / 1e9,
        **({"gflops at 224 px": flops.at(usual) / 1e9} if exported.any_size else {}),
        **({} if licence is None else {"licence": licence.name, "licence from": licence.stated}),
        "checksum": exported.checksum,
    }
    return ImageNetwork(name, graph, about)


def network_source(network: ImageNetwork, native: InputSpec | None, name: str) -> Source:
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


def source_like(exported: ExportedNetwork, like: Source) -> Source:
    """A fine-tuned network as a source with the input of ``like``; it is not cached, but saved with its model."""
    name = f"{like.name}, fine-tuned"
    source = _source(described(name, exported), like.input, name)
    licence = {key: like.notes[key] for key in _LICENCE if key in like.notes}
    others = {key: value for key, value in source.notes.items() if key not in _LICENCE}
    return replace(source, notes={**others, **licence})


def _source(network: ImageNetwork, spec: InputSpec, name: str) -> Source:
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
        stage_places(layers),
        max(1, min(64, _BATCH_PIXELS // (height * width))),
        {key: about[key] for key in _NOTES if key in about} | {"size_px": height},
    )
