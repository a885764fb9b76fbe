"""Shapes of a graph's tensors for one image, found without running it: computed sizes are followed as numbers.

Networks that were traced compute the sizes of paddings and reshapes from constants and from the sizes of other
tensors; onnx's own inference gives up there. No tensor of more than a few thousand values is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headstart.graph.build import light_model

__all__ = ["known_shapes"]

_SMALL = 4_096
"""Values of a tensor that is followed: sizes, paddings, indices."""
_MAX_ROUNDS = 100
"""The deepest network of timm needs 27; every round knows more sizes than the last one."""

Values = NDArray[Any]
Attributes = dict[str, Any]


def known_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors for one image whose shape can be known; InferenceError if operations do not fit."""
    constants = {
        one.name: numpy_helper.to_array(one) for one in graph.initializer if math.prod(one.dims) <= _SMALL
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for _ in range(_MAX_ROUNDS):
        followed = _followed(graph, constants, shapes)
        if shapes and not followed:
            break
        constants |= followed
        shapes = _inferred(graph, constants)
        if all(name in shapes for node in graph.node for name in node.output if name):
            break
    return shapes


def _inferred(graph: onnx.GraphProto, constants: dict[str, Values]) -> dict[str, tuple[int, ...]]:
    """What onnx infers when the followed tensors are constants."""
    inputs = []
    for value in graph.input:
        one = onnx.ValueInfoProto()
        one.CopyFrom(value)
        if one.type.tensor_type.shape.dim:
            one.type.tensor_type.shape.dim[0].dim_value = 1
        inputs.append(one)
    stored = {one.name for one in graph.initializer}
    new = [numpy_helper.from_array(value, name) for name, value in constants.items() if name not in stored]
    nodes = [node for node in graph.node if not all(name in constants for name in node.output)]
    outputs = [helper.make_tensor_value_info(one.name, TensorProto.FLOAT, None) for one in graph.output]
    light = light_model(nodes, inputs, [*graph.initializer, *new], outputs)
    found = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    kinds = {value.name: value.type.tensor_type for value in (*found.value_info, *found.output)}
    known = {
        name: tuple(one.dim_value for one in kind.shape.dim)
        for name, kind in kinds.items()
        if kind.HasField("shape") and all(one.HasField("dim_value") for one in kind.shape.dim)
    }
    return (
        known
        | {one.name: tuple(one.dims) for one in graph.initializer}
        | {k: v.shape for k, v in constants.items()}
    )


def _followed(
    graph: onnx.GraphProto, constants: dict[str, Values], shapes: dict[str, tuple[int, ...]]
) -> dict[str, Values]:
    """Small tensors that can be computed now, and could not before."""
    found: dict[str, Values] = {}
    for node in graph.node:
        if len(node.output) != 1 or node.output[0] in constants:
            continue
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        value = None
        if node.op_type == "Shape" and node.input[0] in shapes:
            part = slice(attributes.get("start", 0), attributes.get("end"))
            value = np.array(shapes[node.input[0]][part], np.int64)
        elif node.op_type in _FOLLOWED:
            inputs = [None if not name else found.get(name, constants.get(name)) for name in node.input]
            if all(one is not None for one, name in zip(inputs, node.input, strict=True) if name):
                value = _computed(node.op_type, inputs, attributes)
        if value is not None and value.size <= _SMALL:
            found[node.output[0]] = value
    return found


def _computed(operator: str, inputs: Sequence[Values | None], attributes: Attributes) -> Values | None:
    """The value of one operation on small tensors; None where it is not followed."""
    try:
        with np.errstate(all="ignore"):
            value = _FOLLOWED[operator](attributes, *inputs)
            return None if value is None else np.asarray(value)
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, ZeroDivisionError, AttributeError):
        return None  # inference then says what does not fit


def _constant(attributes: Attributes) -> Values | None:
    (name, value), *_ = attributes.items()
    if name == "value":
        return numpy_helper.to_array(value) if math.prod(value.dims) <= _SMALL else None
    return np.array(value, np.float32 if name.startswith("value_float") else np.int64)


def _constant_of_shape(attributes: Attributes, shape: Values) -> Values | None:
    if math.prod(shape.tolist()) > _SMALL:
        return None
    value = numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    return np.full(shape.tolist(), value[0], value.dtype)


def _reshaped(_: Attributes, value: Values, shape: Values) -> Values:
    sizes = [value.shape[place] if size == 0 else size for place, size in enumerate(shape.tolist())]
    return value.reshape(sizes)


def _sliced(_: Attributes, value: Values, starts: Values, ends: Values, *rest: Values | None) -> Values:
    axes, steps = (*rest, None, None)[:2]
    places = [slice(None)] * value.ndim
    for number, axis in enumerate(range(len(starts)) if axes is None else axes.tolist()):
        step = 1 if steps is None else int(steps[number])
        begin, end = int(starts[number]), int(ends[number])
        places[axis] = slice(begin, None if step < 0 and end < -value.shape[axis] else end, step)
    return value[tuple(places)]


def _ranged(_: Attributes, begin: Values, end: Values, by: Values) -> Values | None:
    return (
        None
        if abs(float((end - begin) / by)) > _SMALL
        else np.arange(*map(float, (begin, end, by))).astype(begin.dtype)
    )


def _one_hot(attributes: Attributes, places: Values, depth: Values, pair: Values) -> Values | None:
    if places.size * int(depth.item()) > _SMALL:
        return None
    here = np.expand_dims(places % depth, attributes.get("axis", -1)) == np.arange(int(depth.item()))
    return np.where(here, pair[1], pair[0]) if attributes.get("axis", -1) == -1 else None


def _squeezed(_: Attributes, value: Values, axes: Values | None = None) -> Values:
    return value.squeeze(None if axes is None else tuple(axes.tolist()))


def _divided(_: Attributes, value: Values, by: Values) -> Values:
    if value.dtype.kind == "f":
        return np.divide(value, by)
    return np.trunc(np.divide(value, by)).astype(value.dtype)  # sizes are far below 2**53


def _cast(attributes: Attributes, value: Values) -> Values:
    return value.astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _binary(function: Callable[[Values, Values], Any]) -> Callable[..., Any]:
    return lambda _, one, other: function(one, other) if one.size * other.size <= _SMALL else None


def _unary(function: Callable[[Values], Any]) -> Callable[..., Any]:
    return lambda _, one: function(one)


_FOLLOWED: dict[str, Callable[..., Any]] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "OneHot": _one_hot,
    "Range": _ranged,
    "Squeeze": _squeezed,
    "Div": _divided,
    "Cast": _cast,
    "Concat": lambda attributes, *values: np.concatenate(values, axis=attributes["axis"]),
    "Gather": lambda attributes, value, places: np.take(value, places, axis=attributes.get("axis", 0)),
    "Transpose": lambda attributes, value: value.transpose(attributes.get("perm")),
    "Unsqueeze": lambda _, value, axes: np.expand_dims(value, tuple(axes.tolist())),
    "Where": lambda _, which, one, other: np.where(which, one, other) if which.size <= _SMALL else None,
    "Identity": _unary(lambda one: one),
    "Neg": _unary(np.negative),
    "Floor": _unary(np.floor),
    "Ceil": _unary(np.ceil),
    "Not": _unary(np.logical_not),
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Mod": _binary(np.mod),
    "Min": _binary(np.minimum),
    "Max": _binary(np.maximum),
    "Equal": _binary(np.equal),
    "Less": _binary(np.less),
    "Greater": _binary(np.greater),
}
"""Operations with which networks compute sizes; each output is at most as large as its inputs together."""
