"""A network's convolutions in 8-bit integers: QuantizeLinear and DequantizeLinear around them, which runtimes fuse.

Weights have one scale per output channel and are symmetric; the inputs of a convolution have one scale and a zero
point per tensor, from the range that calibration images give (Jacob et al. 2018, arXiv:1712.05877; Krishnamoorthi
2018, arXiv:1806.08342). All else stays in fp32. A tensor keeps its name after it was rounded to 8 bits, so layers are
read as before, and a layer has the values that the next convolution takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from headstart.graph.build import GraphBuilder
from headstart.graph.run import ReferenceRun
from headstart.graph.shapes import known_shapes
from headstart.records import Array

__all__ = ["RANGES", "Int8Plan", "int8_fault", "plan_int8"]

RANGES = "ranges"
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
_LEAST_SCALE = 1e-12  # of weights that are all zero
_MOST_BIAS = 2.0**30  # of a bias in units of its scale; it is an int32
_FLAT_RANGE = 1e-6  # of a tensor that is zero in all calibration images


@dataclass(frozen=True)
class Int8Plan:
    """What of a network is computed in 8 bits.

    ``model`` has its constants evaluated and its paddings in the convolutions. ``convolutions`` are the outputs of
    those in 8 bits, ``tensors`` what is rounded; each of ``pooled`` shares the scale of the tensor that it maximises.
    """

    model: onnx.ModelProto
    convolutions: frozenset[str]
    tensors: tuple[str, ...]
    pooled: Mapping[str, str]

    def ranges_graph(self) -> onnx.ModelProto:
        """Graph with one output, `RANGES`: smallest and largest value of every tensor, (n, 2 x n_tensors)."""
        builder, found = GraphBuilder(self.model), []
        every = builder.constant("ranges.axes", np.array([1, 2, 3], np.int64))
        last = builder.constant("ranges.last", np.array([1], np.int64))
        for tensor in self.tensors:
            for operator in ("ReduceMin", "ReduceMax"):
                name = f"{tensor}.{operator}"
                value = builder.add(operator, tensor, every, name=name, keepdims=0)
                found.append(builder.add("Unsqueeze", value, last, name=f"{name}.column"))
        builder.add("Concat", *found, name=RANGES, axis=1)
        return builder.model([RANGES])

    def graph(self, ranges: Array) -> onnx.ModelProto:
        """The network in 8 bits; ``ranges`` (n_images, 2 x n_tensors) is what `ranges_graph` gave."""
        pairs = np.asarray(ranges, np.float64).reshape(len(ranges), -1, 2)
        low, high = pairs[..., 0].min(axis=0), pairs[..., 1].max(axis=0)
        steps = {name: _step(*ends) for name, *ends in zip(self.tensors, low, high, strict=True)}
        steps |= {name: steps[first] for name, first in self.pooled.items()}
        writer = _Writer(self.model, self.convolutions, steps)
        return writer.written()


@dataclass(frozen=True)
class _Step:
    """How a tensor is rounded: ``(value - zero) * scale`` for a value of 0 - 255."""

    scale: np.float32
    zero: np.uint8


def _step(low: float, high: float) -> _Step:
    """For values between two; 0 is always exact, because convolutions are padded with it."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, _FLAT_RANGE) / 255
    return _Step(np.float32(scale), np.uint8(round(-low / scale)))


def int8_fault(model: onnx.ModelProto) -> str | None:
    """Why a network gains nothing from 8 bits or loses too much, as the end of "source X ..."; else None."""
    computed, constants = _computed(model), {one.name for one in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in _PRODUCTS and node.output[0] in computed]
    if any(set(filter(None, node.input[:2])) <= computed - constants for node in products):
        return "has attention, whose values have outliers that 8 bits cannot hold"
    convolutions = sum(node.op_type == "Conv" for node in products)
    if not convolutions:
        return "has no convolutions"
    others = sum(node.op_type != "Conv" for node in products)
    return "has few convolutions" if others > convolutions else None


def plan_int8(network: onnx.ModelProto) -> Int8Plan:
    """Choose what is computed in 8 bits: convolutions of maps, and sums of their outputs with each other.

    Convolutions of one position, as in squeeze-and-excitation, stay: they cost nothing and scale everything.
    """
    model = _padded_inside(_evaluated(network))
    shapes, constants = known_shapes(model.graph), {one.name for one in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    chosen = {
        node.output[0]: node
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in constants and _is_map(shapes, node)
    }
    tensors, pooled = dict[str, None](), dict[str, str]()
    for node in chosen.values():
        tensor, above = node.input[0], []
        while tensor in made and made[tensor].op_type == "MaxPool":
            above.append(tensor)
            tensor = made[tensor].input[0]
        tensors[tensor] = None
        pooled |= dict.fromkeys(above, tensor)
    known = {*chosen, *tensors}
    for node in model.graph.node:
        # a sum of two rounded tensors is computed in 8 bits; one with a float would become less exact only
        if node.op_type == "Add" and known >= set(node.input):
            tensors |= dict.fromkeys(node.input)
    return Int8Plan(model, frozenset(chosen), tuple(tensors), pooled)


def _is_map(shapes: Mapping[str, tuple[int, ...]], node: onnx.NodeProto) -> bool:
    shape = shapes.get(node.output[0], ())
    return len(shape) == 4 and shape[2] * shape[3] > 1


def _computed(model: onnx.ModelProto) -> set[str]:
    """Tensors that depend on the image."""
    known = {one.name for one in model.graph.input}
    for node in model.graph.node:
        if known & set(node.input):
            known |= set(node.output)
    return known


def _evaluated(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network with everything that does not depend on the image as constants."""
    computed, stored = _computed(network), {one.name for one in network.graph.initializer}
    later = [node for node in network.graph.node if set(node.output) & computed]
    used = {name for node in later for name in node.input if name}
    wanted = sorted(used - computed - stored)
    model = onnx.ModelProto()
    model.CopyFrom(network)
    if wanted:
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        values = ReferenceRun(model)(_blank(network.graph.input[0]))
        del model.graph.output[:]
        model.graph.output.extend(network.graph.output)
        tensors = zip(wanted, values, strict=True)
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in tensors)
    del model.graph.node[:]
    model.graph.node.extend(later)
    return model


def _blank(value: onnx.ValueInfoProto) -> NDArray[Any]:
    """One image of zeros."""
    given = value.type.tensor_type
    sizes = [1, *(one.dim_value for one in given.shape.dim[1:])]
    return np.zeros(sizes, helper.tensor_dtype_to_np_dtype(given.elem_type))


def _padded_inside(model: onnx.ModelProto) -> onnx.ModelProto:
    """Zero paddings moved into the convolutions behind them, where they cost nothing."""
    constants = {one.name: one for one in model.graph.initializer}
    outputs = {one.name for one in model.graph.output}
    paddings = {}
    for node in model.graph.node:
        if node.op_type != "Pad" or node.output[0] in outputs:
            continue
        users = [one for one in model.graph.node if node.output[0] in one.input]
        sides = _sides(node, constants)
        if sides is not None and all(one.op_type == "Conv" and _is_padded(one) for one in users):
            paddings[node.output[0]] = (node.input[0], sides)
    kept = [node for node in model.graph.node if node.output[0] not in paddings]
    for node in kept:
        if node.op_type == "Conv" and node.input[0] in paddings:
            node.input[0], sides = paddings[node.input[0]]
            own = _attribute(node, "pads") or [0] * 4
            _set_attribute(node, "pads", [a + b for a, b in zip(own, sides, strict=True)])
    written = onnx.ModelProto()
    written.CopyFrom(model)
    del written.graph.node[:]
    written.graph.node.extend(kept)
    return written


def _sides(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> list[int] | None:
    """How many zeros a Pad adds above, left, below and right; None if it does something else."""
    mode = _attribute(node, "mode")
    given = [numpy_helper.to_array(constants[name]) for name in node.input[1:] if name in constants]
    if mode not in (None, b"constant") or len(given) != sum(bool(name) for name in node.input[1:]):
        return None
    pads = given[0].tolist()
    if len(given) > 2 or len(pads) != 8 or (len(given) > 1 and given[1].any()):
        return None  # of some axes only, of no maps, or with another value
    sides = [pads[place] for place in (2, 3, 6, 7)]
    return sides if min(pads) >= 0 and sum(pads) == sum(sides) else None


def _is_padded(node: onnx.NodeProto) -> bool:
    """Whether a convolution states its paddings as numbers."""
    return _attribute(node, "auto_pad") in (None, b"NOTSET")


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), None)


def _set_attribute(node: onnx.NodeProto, name: str, value: Sequence[int]) -> None:
    kept = [one for one in node.attribute if one.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


@dataclass
class _Writer:
    """Writes the nodes of a network with its roundings."""

    model: onnx.ModelProto
    convolutions: frozenset[str]
    steps: Mapping[str, _Step]
    added: dict[str, NDArray[Any]] = field(default_factory=dict)

    def written(self) -> onnx.ModelProto:
        stored = {one.name: one for one in self.model.graph.initializer}
        nodes = [one for node in self.model.graph.node for one in self._nodes(node, stored)]
        found = onnx.ModelProto()
        found.CopyFrom(self.model)
        del found.graph.node[:]
        found.graph.node.extend(nodes)
        found.graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name) for name, value in self.added.items()
        )
        return GraphBuilder(found).model([one.name for one in self.model.graph.output])

    def _nodes(
        self, node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]
    ) -> Iterator[onnx.NodeProto]:
        """A node, with the roundings of its weights before it and of its outputs after it."""
        written = onnx.NodeProto()
        written.CopyFrom(node)
        if node.output[0] in self.convolutions:
            yield from self._weights(written, stored)
        for place, name in enumerate(node.output):
            if name in self.steps:
                written.output[place] = _part(name, "exact")
        yield written
        for name in node.output:
            if name in self.steps:
                step = self.steps[name]
                taken = self._constants(name, scale=step.scale, zero=step.zero)
                rounded = _part(name, "rounded")
                yield helper.make_node("QuantizeLinear", [_part(name, "exact"), *taken], [rounded])
                yield helper.make_node("DequantizeLinear", [rounded, *taken], [name])

    def _weights(
        self, node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]
    ) -> Iterator[onnx.NodeProto]:
        """The weights of a convolution in int8, and its bias in int32."""
        name, scale_in = node.output[0], float(self.steps[node.input[0]].scale)
        weights = numpy_helper.to_array(stored[node.input[1]]).astype(np.float64)
        bias = np.zeros(len(weights))
        if len(node.input) > 2 and node.input[2] in stored:
            bias = numpy_helper.to_array(stored[node.input[2]]).astype(np.float64)
        largest = np.abs(weights).reshape(len(weights), prod(weights.shape[1:])).max(axis=1)
        scale = np.maximum(largest / 127, np.abs(bias) / (scale_in * _MOST_BIAS))
        scale = np.maximum(scale, _LEAST_SCALE).astype(np.float32)
        rounded = np.round(weights / scale[:, None, None, None]).clip(-127, 127).astype(np.int8)
        yield self._restored(node, 1, _part(name, "weights"), rounded, scale)
        if len(node.input) > 2 and node.input[2] in stored:
            unit = (scale_in * scale.astype(np.float64)).astype(np.float32)
            yield self._restored(node, 2, _part(name, "bias"), np.round(bias / unit).astype(np.int32), unit)

    def _restored(
        self, node: onnx.NodeProto, place: int, name: str, values: NDArray[Any], scale: NDArray[np.float32]
    ) -> onnx.NodeProto:
        """Whole numbers as an input of a node, one scale per channel."""
        whole = _part(name, "rounded")
        self.added[whole] = values
        taken = self._constants(name, scale=scale, zero=np.zeros(len(values), values.dtype))
        node.input[place] = name
        return helper.make_node("DequantizeLinear", [whole, *taken], [name], axis=0)

    def _constants(self, name: str, **values: Any) -> list[str]:
        self.added |= {_part(name, part): value for part, value in values.items()}
        return [_part(name, part) for part in values]


def _part(name: str, part: str) -> str:
    """A name that no layer and no weight has."""
    return f"int8:{name.removeprefix('int8:')}:{part}"
