"""Networks exported elsewhere: given an input of uint8 images, and their operations counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from headstart.graph.build import GraphBuilder, needed_nodes
from headstart.graph.layers import normalise
from headstart.graph.run import ReferenceRun
from headstart.records import InputSpec

__all__ = ["Flops", "count_flops", "flops_of", "with_image_input"]

Shapes = Sequence[tuple[int, ...]]

_MODES: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},
}


def with_image_input(network: onnx.ModelProto, spec: InputSpec, size: tuple[int, int]) -> onnx.ModelProto:
    """Put the input ``images``, uint8 (n, *spec.shape), in front of a network; its outputs stay.

    The network takes normalised float32 (n, 3, *size); grey images become colour, and images of another size
    are resized in the graph.
    """
    builder = GraphBuilder(input_spec=spec)
    pixels = normalise(builder, spec)  # three means turn one channel into three
    if (spec.height_px, spec.width_px) != size:
        sizes = builder.constant("input.size", np.array(size, np.int64))
        pixels = builder.add(
            "Resize", pixels, "", "", sizes, name="resized", axes=[2, 3], **_MODES[spec.interpolation]
        )
    builder.graft(network, {network.graph.input[0].name: pixels})
    return builder.model([output.name for output in network.graph.output])


@dataclass(frozen=True)
class Flops:
    """Floating-point operations for one image; a multiply-accumulate counts as two.

    ``weights`` are products with weights, which grow with the number of pixels; ``pairs`` are products of two
    computed tensors, such as attention's, which grow with its square.
    """

    weights: float
    pairs: float

    @property
    def total(self) -> float:
        """All operations."""
        return self.weights + self.pairs

    def at(self, share: float) -> float:
        """Operations for ``share`` of the pixels, about."""
        return self.weights * share + self.pairs * share**2


def flops_of(network: onnx.ModelProto) -> float:
    """All operations of `count_flops`."""
    return count_flops(network).total


def count_flops(network: onnx.ModelProto) -> Flops:
    """Operations of the last output for one image.

    As in torch.utils.flop_counter, only convolutions, matrix products and recurrent layers count.
    """
    # layers before the last output may repeat some of its operations
    nodes = needed_nodes(network.graph.node, [network.graph.output[-1].name])
    counted = [node for node in nodes if node.op_type in _PRODUCTS]
    # from the tensors of a run: shape inference does not see through padding and reshapes that are computed
    shapes = _shapes(
        network, {name for node in counted for name in (*node.input[:3], node.output[0]) if name}
    )
    computed = _computed(network)
    found = {True: 0.0, False: 0.0}
    for node in counted:
        ends = [shapes.get(name, ()) for name in (*node.input[:3], node.output[0])]
        found[computed >= set(node.input[:2])] += 2.0 * _PRODUCTS[node.op_type](node, ends)
    return Flops(found[False], found[True])


def _computed(network: onnx.ModelProto) -> set[str]:
    """Tensors that depend on the image."""
    known = {network.graph.input[0].name}
    for node in network.graph.node:
        if known & set(node.input):
            known |= set(node.output)
    return known


def _shapes(network: onnx.ModelProto, names: AbstractSet[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors for one image, found by running the network."""
    if not names:
        return {}
    ordered = sorted(names)
    measured = onnx.ModelProto()
    measured.CopyFrom(network)
    del measured.graph.output[:]
    for name in ordered:
        measured.graph.node.append(helper.make_node("Shape", [name], [f"{name}/shape"]))
        measured.graph.output.append(helper.make_tensor_value_info(f"{name}/shape", TensorProto.INT64, None))
    given = network.graph.input[0].type.tensor_type
    sizes = [1, *(one.dim_value for one in given.shape.dim[1:])]
    image = np.zeros(sizes, helper.tensor_dtype_to_np_dtype(given.elem_type))
    found = ReferenceRun(measured)(image)
    return {name: tuple(shape.tolist()) for name, shape in zip(ordered, found, strict=True)}


def _of_convolution(node: onnx.NodeProto, shapes: Shapes) -> float:
    return math.prod(shapes[-1]) * math.prod(shapes[1][1:])


def _of_transposed(node: onnx.NodeProto, shapes: Shapes) -> float:
    return math.prod(shapes[0]) * math.prod(shapes[1][1:])


def _of_product(node: onnx.NodeProto, shapes: Shapes) -> float:
    return math.prod(shapes[-1]) * shapes[0][-1]


def _of_gemm(node: onnx.NodeProto, shapes: Shapes) -> float:
    transposed = any(one.name == "transA" and one.i for one in node.attribute)
    return math.prod(shapes[-1]) * shapes[0][0 if transposed else 1]


def _of_einsum(node: onnx.NodeProto, shapes: Shapes) -> float:
    """Every index of the equation is one loop; an ellipsis is as many as it stands for."""
    equation = next(one.s.decode() for one in node.attribute if one.name == "equation").replace(" ", "")
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.partition("->")[0].split(","), shapes, strict=False):
        before, dots, after = term.partition("...")
        end = len(shape) - len(after)
        named = [*zip(before, shape, strict=False), *zip(after, shape[end:], strict=False)]
        rest = [("...", math.prod(shape[len(before) : end]))] if dots else []
        for index, size in (*named, *rest):
            sizes[index] = max(size, sizes.get(index, 1))
    return math.prod(sizes.values())


def _of_recurrence(node: onnx.NodeProto, shapes: Shapes) -> float:
    """Both weight matrices at every step."""
    steps, n_images, _ = shapes[0]
    return steps * n_images * (math.prod(shapes[1]) + math.prod(shapes[2]))


# multiply-accumulates from the shapes of up to three inputs, in order, and of the output, which is last
_PRODUCTS: dict[str, Callable[[onnx.NodeProto, Shapes], float]] = {
    "Conv": _of_convolution,
    "ConvTranspose": _of_transposed,
    "MatMul": _of_product,
    "Gemm": _of_gemm,
    "Einsum": _of_einsum,
    **dict.fromkeys(("RNN", "GRU", "LSTM"), _of_recurrence),
}
