"""A network as a graph: one function for each kind of layer."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto

from headstart.graph.build import INPUT, GraphBuilder
from headstart.records import InputSpec, LayerSpec, NetworkSpec, Weights

__all__ = ["network_graph", "normalise"]


def network_graph(spec: NetworkSpec, weights: Weights) -> onnx.ModelProto:
    """Graph of a network from uint8 ``images`` to its logits; each layer's output has the layer's name.

    Dropout becomes an identity operation, so that it remains a layer.
    """
    builder = GraphBuilder(input_spec=spec.input)
    x = normalise(builder, spec.input)
    for layer in spec.layers:
        x = _LAYERS[layer.kind](builder, layer, x, weights)
    return builder.model([x])


def normalise(builder: GraphBuilder, spec: InputSpec) -> str:
    """Scale uint8 (n, h, w, c) to float32 (n, c, h, w); the layer ``pixels`` of every source."""
    scale = 1.0 / (255.0 * np.asarray(spec.std, np.float32))
    shift = -np.asarray(spec.mean, np.float32) / np.asarray(spec.std, np.float32)
    x = builder.add("Cast", INPUT, name="images_float", to=TensorProto.FLOAT)
    x = builder.add("Mul", x, builder.constant("input.scale", scale.astype(np.float32)), name="scaled")
    if np.any(shift):
        x = builder.add("Add", x, builder.constant("input.shift", shift.astype(np.float32)), name="shifted")
    return builder.add("Transpose", x, name="pixels", perm=[0, 3, 1, 2])


def _conv2d(builder: GraphBuilder, layer: LayerSpec, x: str, weights: Weights) -> str:
    pad = layer.options["kernel"] // 2 if layer.options.get("padding", "valid") == "same" else 0
    names = [
        builder.constant(f"{layer.name}.{part}", weights[f"{layer.name}.{part}"])
        for part in ("weight", "bias")
    ]
    return builder.add("Conv", x, *names, name=layer.name, pads=[pad] * 4)


def _batchnorm2d(builder: GraphBuilder, layer: LayerSpec, x: str, weights: Weights) -> str:
    names = [
        builder.constant(f"{layer.name}.{part}", weights[f"{layer.name}.{part}"])
        for part in ("weight", "bias", "mean", "variance")
    ]
    return builder.add("BatchNormalization", x, *names, name=layer.name, epsilon=1e-5)


def _maxpool2d(builder: GraphBuilder, layer: LayerSpec, x: str, _: Weights) -> str:
    size = layer.options["size"]
    return builder.add("MaxPool", x, name=layer.name, kernel_shape=[size, size], strides=[size, size])


def _relu(builder: GraphBuilder, layer: LayerSpec, x: str, _: Weights) -> str:
    return builder.add("Relu", x, name=layer.name)


def _flatten(builder: GraphBuilder, layer: LayerSpec, x: str, _: Weights) -> str:
    rows = builder.add("Transpose", x, name=f"{layer.name}.rows", perm=[0, 2, 3, 1])
    return builder.add("Flatten", rows, name=layer.name, axis=1)


def _dense(builder: GraphBuilder, layer: LayerSpec, x: str, weights: Weights) -> str:
    names = [
        builder.constant(f"{layer.name}.{part}", weights[f"{layer.name}.{part}"])
        for part in ("weight", "bias")
    ]
    return builder.add("Gemm", x, *names, name=layer.name, transB=1)


def _dropout(builder: GraphBuilder, layer: LayerSpec, x: str, _: Weights) -> str:
    return builder.add("Identity", x, name=layer.name)


_LAYERS = {
    "conv2d": _conv2d,
    "batchnorm2d": _batchnorm2d,
    "maxpool2d": _maxpool2d,
    "relu": _relu,
    "flatten": _flatten,
    "dense": _dense,
    "dropout": _dropout,
}
