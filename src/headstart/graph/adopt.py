"""A network exported elsewhere becomes a graph of ours: uint8 in, scaled and resized inside, taps by name.

In: an ONNX network on normalised float pixels. Out: the same network from ``images``, and what it costs.
Must not import a runtime or a training framework. Called by pretrained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import shape_inference

from headstart.graph.build import GraphBuilder, normalise
from headstart.records import InputSpec

__all__ = ["adopt", "flops_of"]

_MODES: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},
}


def adopt(network: onnx.ModelProto, spec: InputSpec, size: tuple[int, int]) -> onnx.ModelProto:
    """Put our input before a network.

    Parameters
    ----------
    network : onnx.ModelProto
        One input, float32 (n, 3, height, width), normalised; any outputs.
    spec : InputSpec
        What pictures are prepared to; grey becomes colour, and sizes below the network's are
        enlarged in the graph.
    size : (int, int)
        Height and width that the network takes.

    Returns
    -------
    onnx.ModelProto
        Input ``images``, uint8 (n, spec.height_px, spec.width_px, spec.channels); the same outputs.
    """
    builder = GraphBuilder(input_spec=spec)
    pixels = normalise(builder, spec)  # three means make three channels of one
    if (spec.height_px, spec.width_px) != size:
        sizes = builder.constant("input.size", np.array(size, np.int64))
        pixels = builder.add(
            "Resize", pixels, "", "", sizes, name="resized", axes=[2, 3], **_MODES[spec.interpolation]
        )
    builder.graft(network, {network.graph.input[0].name: pixels})
    return builder.model([output.name for output in network.graph.output])


def flops_of(network: onnx.ModelProto) -> float:
    """Floating-point operations for one image: two for each multiplication of convolutions and products.

    Parameters
    ----------
    network : onnx.ModelProto
        With static shapes but for the images' axis.

    Returns
    -------
    float
        Operations; divide by 1e9 for GFLOPs.
    """
    single = onnx.ModelProto()
    single.CopyFrom(network)
    single.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1  # shapes hang on it
    inferred = shape_inference.infer_shapes(single, data_prop=True).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    shapes = {value.name: _sizes(value) for value in values}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in network.graph.initializer}
    return 2.0 * sum(_multiplications(node, shapes) for node in network.graph.node)


def _sizes(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Sizes with 1 where they vary: the images' axis."""
    return tuple(one.dim_value or 1 for one in value.type.tensor_type.shape.dim)


def _multiplications(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> float:
    outputs = shapes.get(node.output[0], ())
    if node.op_type == "Conv":
        return float(np.prod(outputs) * np.prod(shapes[node.input[1]][1:]))
    if node.op_type in ("Gemm", "MatMul"):
        return float(np.prod(outputs) * shapes.get(node.input[0], (1,))[-1])
    return 0.0
