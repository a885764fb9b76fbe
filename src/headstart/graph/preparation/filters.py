"""Pillow's filters as matrices of whole numbers, computed in a graph for one side of an image of any size.

A weight that is one unit off moves a pixel whose sum lies just between two values by a level. So weights are
computed in float64 as in Pillow, or, where a runtime has none, with pairs of float32. Then they differ only where a
weight lies just between two units, and the last bit of float64 decided: in crops to some non-square inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headstart.graph.preparation.pairs import Pair, exact_product, exact_sum
from headstart.graph.preparation.tensors import Number, Tensor, maximum, minimum, where

__all__ = ["UNIT", "Cut", "centred_part", "quotient", "weights_of", "whole_side"]

UNIT = 2.0**22
"""Pillow's fixed point for weights."""
_BICUBIC = -0.5
_SCALE = 2.0**12  # of the cubic's values, so that sums keep 24 bits below
_LEAST = 1e-6  # a row beyond the image has no weight


class Cut(NamedTuple):
    """Part of a side that is resized: where it begins, and its length, in pixels."""

    begin: Tensor
    length: Tensor


def whole_side(side: Tensor) -> Cut:
    """All of a side."""
    return Cut(side.space.number(0), side)


def centred_part(side: Tensor, product: Tensor, share: Number, by: Tensor) -> Cut:
    """The centred part of a side of the length ``product`` * ``share`` / ``by``, at most the side.

    All but the share are whole numbers. As in Pillow, both ends are rounded to float32 once, and so is their
    distance: an end that was off in its last bit moved 0.8 % of the pixels of a photo by a level (2026-11-30).
    """
    if side.space.wide:
        whole, length = _wide(side), _wide(product) * share / _wide(by)
        length = minimum(length, whole)
        low = (whole - length) / 2
        begin, end = low.cast("float"), (low + length).cast("float")
        return Cut(begin, end - begin)
    zero, high = side.space.number(0), float(np.float32(share))
    factor = Pair(side.space.number(high), side.space.number(share - high))
    part = Pair(product, zero).times(factor).over(Pair(by, zero))
    part = part.chosen((part.high - side) + part.low <= 0, Pair(side, zero))
    low_end = Pair(side, zero).plus(part.scaled(-1)).scaled(0.5)
    begin, end = (exact_sum(*one).high for one in (low_end, low_end.plus(part)))
    return Cut(begin, end - begin)


def quotient(value: Tensor, by: Tensor) -> Tensor:
    """A quotient of whole numbers, to the last bit: 43008 / 224 was 191.99998 in OpenVINO (2026-11-30)."""
    zero = value.space.number(0)
    found = Pair(value, zero).over(Pair(by, zero))
    return found.high + found.low


def weights_of(side: Tensor, cut: Cut, place: Tensor, size: Tensor | int, interpolation: str) -> Tensor:
    """Weights of a side's pixels (columns) at places of the result (rows); rows sum to `UNIT`."""
    bilinear = interpolation == "bilinear"
    if not side.space.wide:
        return _spread(side, *_narrow_weights(side, cut, place, size, bilinear=bilinear))
    step = _wide(cut.length) / (_wide(size) if isinstance(size, Tensor) else size)
    centre = (_wide(place) + 0.5) * step + _wide(cut.begin)
    far = abs((_wide(side.space.arange(side)) - centre.column() + 0.5) * (1 / maximum(step, 1)))
    exact = maximum(1 - far, 0) if bilinear else _cubic(far)
    return (exact / maximum(exact.sum(1, keep=True), _LEAST) * UNIT + 0.5).floor().cast("float")


def _wide(value: Tensor) -> Tensor:
    return value.cast("wide")


def _cubic(far: Tensor) -> Tensor:
    a = _BICUBIC
    near = ((a + 2) * far - (a + 3)) * far * far + 1
    beyond = (((far - 5) * far + 8) * far - 4) * a
    return where(far < 1, near, where(far < 2, beyond, 0))


def _narrow_weights(
    side: Tensor, cut: Cut, place: Tensor, size: Tensor | int, *, bilinear: bool
) -> tuple[Tensor, Tensor]:
    """The same with pairs, for the pixels near each place only: their numbers and their weights, (places, width)."""
    space = side.space
    zero, across = space.number(0), space.number(size)
    reach = maximum(cut.length, across)  # of distances times the size of the result
    width = (reach * ((2 if bilinear else 4) / across)).floor() + 4
    middle = (2 * place + 1) * cut.length / (2 * across) + cut.begin
    first = maximum(minimum((middle - width / 2).floor(), side), -width)
    pixel = first.column() + space.arange(width)
    # twice, so that they are whole numbers where the cut is
    there = exact_sum(2 * pixel + 1, -2 * cut.begin).times(Pair(across, zero))
    here = exact_product(2 * place + 1, cut.length)
    far = there.plus(Pair(-here.high.column(), -here.low.column()))
    far, twice = far.chosen(far.high >= 0, far.scaled(-1)), Pair(2 * reach, zero)
    weights = far.scaled(-1).plus(twice) if bilinear else _cubic_pairs(far.over(twice)).scaled(_SCALE)
    counts = (pixel >= 0) * (pixel < side)
    counts = counts * (weights.high > 0) if bilinear else counts
    weights = weights.chosen(counts, Pair(zero, zero))
    total = weights.sums()
    return pixel, weights.over(Pair(maximum(total.high, _LEAST), total.low)).rounded(UNIT)


def _spread(side: Tensor, pixel: Tensor, weights: Tensor) -> Tensor:
    """A matrix (places, side) of the weights of some pixels; the others have none."""
    space, width = side.space, pixel.size(1)
    empty = space.add("ConstantOfShape", space.sizes(pixel.size(0), side + 2 * width))
    full = space.add("ScatterElements", empty, (pixel + width).cast("int"), weights, axis=1)
    return full.slice(1, width, width + side)


def _cubic_pairs(far: Pair) -> Pair:
    """The cubic of a = -1/2: 1 - 5/2 x^2 + 3/2 x^3 below 1, 2 - 4 x + 5/2 x^2 - 1/2 x^3 below 2."""
    zero, square = far.high * 0, far.times(far)
    cube = square.times(far)
    squares = square.scaled(2).plus(square.scaled(0.5))
    near = squares.scaled(-1).plus(zero + 1).plus(cube).plus(cube.scaled(0.5))
    beyond = far.scaled(-4).plus(zero + 2).plus(squares).plus(cube.scaled(-0.5))
    less = [(far.high - end) + far.low < 0 for end in (1, 2)]
    return near.chosen(less[0], beyond.chosen(less[1], Pair(zero, zero)))
