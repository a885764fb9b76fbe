"""Networks defined by a `NetworkSpec` as sources, and the input that suits a dataset."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import onnx

from headstart.data.dataset import Dataset
from headstart.graph import layers
from headstart.graph.candidates import small_network_places
from headstart.networks.specs import layer_shapes
from headstart.records import InputSpec, NetworkSpec, Source, Weights

__all__ = ["fingerprint", "graph_source", "native_input", "network_body", "spec_source"]

_LARGEST_PX = 64  # side that photos are squished to for raw pixels


def native_input(dataset: Dataset, policy: str = "squish") -> InputSpec:
    """The size and channels of a dataset's own images; 64 x 64 colour for files of any size."""
    if dataset.images.image_shape is not None:
        return InputSpec(*dataset.images.image_shape, policy=policy)
    return InputSpec(_LARGEST_PX, _LARGEST_PX, 3, (0.0,) * 3, (1.0,) * 3, policy=policy)


def fingerprint(graph: bytes) -> str:
    """Hex SHA-256 of a graph: its layers, its weights and its input."""
    return hashlib.sha256(graph).hexdigest()


def graph_source(name: str, graph: onnx.ModelProto, spec: InputSpec, shape: tuple[int, ...]) -> Source:
    """A graph without a network as a source of the kind ``name``, read at its only output."""
    content, layer = graph.SerializeToString(deterministic=True), graph.graph.output[0].name
    places = ((layer, "flat"),)
    return Source(
        name, content, spec, {layer: shape}, layer, fingerprint(content), candidates=places, kind=name
    )


def spec_source(
    name: str, spec: NetworkSpec, graph: onnx.ModelProto, weights: Weights | None = None
) -> Source:
    """A network as a source, read by default at its last layer but one.

    ``graph`` is the same network, every layer's output named as the layer. With ``weights`` it can be fine-tuned.
    """
    content = graph.SerializeToString(deterministic=True)
    shapes, default = layer_shapes(spec), spec.layer_names[-2]
    return Source(
        name,
        content,
        spec.input,
        shapes,
        default,
        fingerprint(content),
        candidates=small_network_places(spec, shapes, default),
        network=None if weights is None else (spec, weights),
    )


def network_body(source: Source, layer: str) -> Any:
    """The network up to a layer as a ``Body``; None for a source that does not contain its network."""
    if source.network is None:
        return None
    from headstart.networks.engines.torch_finetune import spec_body

    body = spec_body(*source.network, layer)

    def finished(module: Any) -> Source:
        spec, weights = body.finished(module)
        spec = replace(spec, input=source.input)
        return spec_source(f"{source.name}, fine-tuned", spec, layers.network_graph(spec, weights), weights)

    return replace(body, finished=finished)
