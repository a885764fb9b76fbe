"""Graph code that reads like NumPy code: tensors with operators, over a GraphBuilder.

Numbers are float32 or, where requested, float64, including sizes (whole numbers are exact in float32 to
2**24) and booleans (1 and 0); only shapes and indices are integers. Every runtime has the operators used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from headstart.graph.build import GraphBuilder

__all__ = ["Tensor", "Workspace", "concatenated", "maximum", "minimum", "where"]

Number = int | float
_KINDS = {
    "float": TensorProto.FLOAT,
    "wide": TensorProto.DOUBLE,
    "int": TensorProto.INT64,
    "byte": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


class Workspace:
    """Makes tensors in a builder; a prefix separates their names from a network's.

    ``wide`` says whether the runtime computes float64 as such; OpenVINO makes float32 of it.

    >>> from headstart.records import InputSpec
    >>> space = Workspace(GraphBuilder(input_spec=InputSpec(8, 8, 1)))
    >>> (1 - space.given("images").cast("float") / 255).name
    'picture.sub_4'
    """

    def __init__(self, builder: GraphBuilder, prefix: str = "picture", *, wide: bool = True) -> None:
        # exported files name their tensors with the prefix, so it stays
        self.builder = builder
        self.wide = wide
        self._prefix = prefix
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}

    def given(self, name: str) -> Tensor:
        """A tensor that the builder has."""
        return Tensor(self, name)

    def add(self, operator: str, *inputs: Tensor, **attributes: Any) -> Tensor:
        """Append an operation with one output, of the float type of its first input."""
        name = f"{self._prefix}.{operator.lower()}_{self._count}"
        self._count += 1
        self.builder.add(operator, *(one.name for one in inputs), name=name, **attributes)
        return Tensor(self, name, wide=bool(inputs) and inputs[0].wide)

    def constant(self, value: NDArray[Any]) -> Tensor:
        """Store an array; equal arrays are stored once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = self._stored(value)
        return self._constants[key]

    def _stored(self, value: NDArray[Any]) -> Tensor:
        if value.ndim:
            name = self.builder.constant(f"{self._prefix}.array_{len(self._constants)}", value)
        else:  # constants of a builder have an axis, a scalar must have none
            name = self.add("Constant", value=numpy_helper.from_array(value)).name
        return Tensor(self, name, wide=value.dtype == np.float64)

    def number(self, value: Number | Tensor, *, wide: bool = False) -> Tensor:
        """A scalar, float32 or (``wide``) float64; a tensor is returned unchanged."""
        if isinstance(value, Tensor):
            return value
        return self.constant(np.array(value, np.float64 if wide else np.float32))

    def integers(self, *values: int) -> Tensor:
        """Whole numbers for axes, ends and shapes, int64."""
        return self.constant(np.array(values, np.int64))

    def sizes(self, *values: Number | Tensor) -> Tensor:
        """A shape of which some sizes are only known when the graph runs."""
        if not any(isinstance(value, Tensor) for value in values):
            return self.integers(*(int(value) for value in values))  # type: ignore[arg-type]
        one = self.integers(1)
        parts = [
            self.add("Reshape", value.cast("int"), one)
            if isinstance(value, Tensor)
            else self.integers(int(value))
            for value in values
        ]
        return self.add("Concat", *parts, axis=0)

    def arange(self, size: Number | Tensor) -> Tensor:
        """0, 1, ... below a size."""
        return self.add("Range", self.number(0), self.number(size), self.number(1))


class Tensor:
    """A tensor of a graph, float64 if ``wide``; operators append operations."""

    def __init__(self, space: Workspace, name: str, *, wide: bool = False) -> None:
        self.space = space
        self.name = name
        self.wide = wide

    def _with(self, operator: str, other: Tensor | Number) -> Tensor:
        return self.space.add(operator, self, self.space.number(other, wide=self.wide))

    def __add__(self, other: Tensor | Number) -> Tensor:
        return self._with("Add", other)

    def __radd__(self, other: Number) -> Tensor:
        return self._with("Add", other)

    def __sub__(self, other: Tensor | Number) -> Tensor:
        return self._with("Sub", other)

    def __rsub__(self, other: Number) -> Tensor:
        return self.space.number(other, wide=self.wide)._with("Sub", self)

    def __mul__(self, other: Tensor | Number) -> Tensor:
        return self._with("Mul", other)

    def __rmul__(self, other: Number) -> Tensor:
        return self._with("Mul", other)

    def __truediv__(self, other: Tensor | Number) -> Tensor:
        return self._with("Div", other)

    def __rtruediv__(self, other: Number) -> Tensor:
        return self.space.number(other, wide=self.wide)._with("Div", self)

    def __matmul__(self, other: Tensor) -> Tensor:
        return self._with("MatMul", other)

    def __neg__(self) -> Tensor:
        return self.space.add("Neg", self)

    def __abs__(self) -> Tensor:
        return self.space.add("Abs", self)

    def __lt__(self, other: Tensor | Number) -> Tensor:
        return self._with("Less", other).cast("float")

    def __le__(self, other: Tensor | Number) -> Tensor:
        return self._with("LessOrEqual", other).cast("float")

    def __gt__(self, other: Tensor | Number) -> Tensor:
        return self._with("Greater", other).cast("float")

    def __ge__(self, other: Tensor | Number) -> Tensor:
        return self._with("GreaterOrEqual", other).cast("float")

    def squared(self) -> Tensor:
        """The square."""
        return self._with("Mul", self)

    def floor(self) -> Tensor:
        """Largest whole number at or below."""
        return self.space.add("Floor", self)

    def rounded(self) -> Tensor:
        """Nearest whole number, halves to the even one."""
        return self.space.add("Round", self)

    def sqrt(self) -> Tensor:
        """Square root."""
        return self.space.add("Sqrt", self)

    def clip(self, low: Number, high: Number) -> Tensor:
        """Clip to a range."""
        ends = [self.space.number(end, wide=self.wide) for end in (low, high)]
        return self.space.add("Clip", self, *ends)

    def cast(self, kind: str) -> Tensor:
        """To ``float``, ``wide`` (float64), ``int``, ``byte`` or ``bool``."""
        cast = self.space.add("Cast", self, to=_KINDS[kind])
        return Tensor(self.space, cast.name, wide=kind == "wide")

    def size(self, axis: int) -> Tensor:
        """Length of an axis, as a number."""
        shape = self.space.add("Shape", self)
        index = self.space.constant(np.array(axis, np.int64))
        return self.space.add("Gather", shape, index, axis=0).cast("float")

    def sum(self, *axes: int, keep: bool = False) -> Tensor:
        """Sum over some axes; over all by default."""
        return self._reduced("ReduceSum", axes, keep)

    def mean(self, *axes: int, keep: bool = False) -> Tensor:
        """Mean over some axes; over all by default."""
        return self._reduced("ReduceMean", axes, keep)

    def max(self, *axes: int, keep: bool = False) -> Tensor:
        """Maximum over some axes; over all by default."""
        return self._reduced("ReduceMax", axes, keep)

    def _reduced(self, operator: str, axes: tuple[int, ...], keep: bool) -> Tensor:
        over = [self.space.integers(*axes)] if axes else []
        return self.space.add(operator, self, *over, keepdims=int(keep))

    def reshape(self, *sizes: Number | Tensor) -> Tensor:
        """The same values in another shape."""
        return self.space.add("Reshape", self, self.space.sizes(*sizes))

    def transpose(self, *order: int) -> Tensor:
        """The axes in another order."""
        return self.space.add("Transpose", self, perm=list(order))

    def column(self) -> Tensor:
        """(n,) as (n, 1)."""
        return self.space.add("Unsqueeze", self, self.space.integers(1))

    def slice(self, axis: int, start: Number | Tensor, end: Number | Tensor) -> Tensor:
        """Slice of an axis, from ``start`` to before ``end``."""
        space = self.space
        return space.add("Slice", self, space.sizes(start), space.sizes(end), space.integers(axis))

    def at(self, axis: int, index: int) -> Tensor:
        """Values at one index of an axis, which disappears; -1 is the last."""
        place = self.space.constant(np.array(index, np.int64))
        return self.space.add("Gather", self, place, axis=axis)

    def take(self, places: Tensor, axis: int) -> Tensor:
        """Values at several indices of an axis."""
        return self.space.add("Gather", self, places.cast("int"), axis=axis)


def maximum(one: Tensor, other: Tensor | Number) -> Tensor:
    """Elementwise maximum."""
    return one.space.add("Max", one, one.space.number(other, wide=one.wide))


def minimum(one: Tensor, other: Tensor | Number) -> Tensor:
    """Elementwise minimum."""
    return one.space.add("Min", one, one.space.number(other, wide=one.wide))


def where(condition: Tensor, one: Tensor | Number, other: Tensor | Number) -> Tensor:
    """``one`` where the condition is 1, ``other`` where it is 0; float64 if either is."""
    space = condition.space
    wide = any(isinstance(value, Tensor) and value.wide for value in (one, other))
    values = [space.number(value, wide=wide) for value in (one, other)]
    return Tensor(space, space.add("Where", condition.cast("bool"), *values).name, wide=wide)


def concatenated(*parts: Tensor, axis: int) -> Tensor:
    """Tensors joined along an axis."""
    return parts[0].space.add("Concat", *parts, axis=axis)
