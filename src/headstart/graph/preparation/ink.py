"""Ink normalisation as a graph, step by step as in `data.images.ink`, for one image of any size.

Windows grow with the image, so maxima run by doubling, with shifts that depend on its size, and means are
products with banded matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.data.images import ink as page
from headstart.graph.preparation.tensors import Tensor, concatenated, maximum, minimum, where

__all__ = ["framed_ink"]

_DIVIDING = 2.0**24
"""Pillow's reduce multiplies by this over the count, rounded down, and shifts."""
_MAX_ROUNDS = 8  # doublings to the widest window, 147


def framed_ink(pixels: Tensor, height: int, width: int, luma: Sequence[float]) -> Tensor:
    """Append the ink policy: (1 or 3, h, w) of whole values 0 - 255 to (1, height, width), ink bright.

    ``luma`` holds the weights of the channels: 1, or those of red, green and blue.
    """
    small = _reduced(pixels)
    grey = (small * small.space.constant(np.array(luma, np.float32)[:, None, None])).sum(0)
    return _framed(_marks(_dark_ink(grey)), height, width).reshape(1, height, width)


def _reduced(pixels: Tensor) -> Tensor:
    """Average whole blocks until the longer side fits the working size, rounded as by Pillow's reduce."""
    space = pixels.space
    h, w = pixels.size(1), pixels.size(2)
    factor = -(-maximum(h, w) / page._WORK_PX).floor()
    (rows, counts_down), (columns, counts_across) = (_blocks(size, factor) for size in (h, w))
    ends = space.sizes(0, 0, 0, 0, rows * factor - h, columns * factor - w)
    padded = space.add("Pad", pixels, ends, space.number(0))
    lines = padded.reshape(-1, columns, factor).sum(2)
    total = lines.reshape(-1, rows, factor, columns).sum(2)  # (c, rows, columns)
    count = counts_down.column() * counts_across
    total = total + (count / 2).floor()
    whole = (total / count).floor()
    lost = _DIVIDING - (_DIVIDING / count).floor() * count
    # multiplying by a reciprocal rounded down falls short of a whole result by one
    return whole - (total - whole * count < total * (lost / _DIVIDING))


def _blocks(size: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Number of blocks along a side, and the pixels in each."""
    number = -(-size / factor).floor()
    return number, minimum(size - size.space.arange(number) * factor, factor)


def _dark_ink(grey: Tensor) -> Tensor:
    """Invert a page whose ink is light."""
    rest = grey - _pool_mean(grey, _odd(_side(grey) / 3))
    spread = rest.squared().mean().sqrt() + page._EPS
    border = concatenated(*(rest.at(axis, end) for axis in (0, 1) for end in (0, -1)), axis=0)
    tail = (rest.squared() * rest).mean() / (spread.squared() * spread)
    light = tail - page._BORDER_WEIGHT * border.mean() / spread
    return where(light > 0, 255 - grey, grey)


def _marks(grey: Tensor) -> Tensor:
    """Darkness relative to the paper, 0 - 1, only where there are strokes."""
    side = _side(grey)
    fine, wide = _odd(side / 100), _odd(side * page._WIDE)
    light = (grey + page._AMBIENT) / (_lighting(grey) + page._AMBIENT)
    paper = -_pool_max(-_pool_max(_pool_mean(light, fine), wide), wide)
    dark = (1 - light / paper).clip(0, 1)
    smooth = _pool_mean(dark, fine)
    level = _level(smooth)
    strong = smooth > page._STRONG * level
    crowd = _pool_mean(strong * smooth.squared(), _odd(side / 8))
    strong = strong * (crowd > page._CROWD * crowd.max())
    near = _pool_max(strong, _odd(side / 14))
    floor = _floor(dark, 1 - near)
    clear = level - smooth.mean() > page._FAINT
    return ((dark - floor) / maximum(level - floor, page._EPS)).clip(0, 1) * near * clear


def _lighting(grey: Tensor) -> Tensor:
    """Smooth upper surface of the page: a cubic over the brightest value of each block."""
    space = grey.space
    sizes = [grey.size(axis) for axis in (0, 1)]
    bright = _block_max(_block_max(grey, sizes[0], 0), sizes[1], 1)
    basis, solve = page._surface()
    values = bright.reshape(1, -1)
    up, down = space.constant(basis), space.constant(solve)
    for _ in range(8):
        terms = values @ down
        values = maximum(values, terms @ up)
    spread = np.zeros((len(page._DEGREES), 16), np.float32)
    for term, (i, j) in enumerate(page._DEGREES):
        spread[term, 4 * i + j] = 1
    square = (terms @ space.constant(spread)).reshape(4, 4)
    rows, columns = (_powers(size) for size in sizes)
    return maximum(rows @ square @ columns.transpose(1, 0), 0)


def _block_max(values: Tensor, size: Tensor, axis: int) -> Tensor:
    """Brightest value of each block along a side; block starts come from a table, rounded as in NumPy."""
    space = values.space
    begins = np.stack([page._edges(size) for size in range(page._WORK_PX + 1)]).astype(np.float32)
    edges = space.constant(begins).take(size, 0)
    starts, ends = edges.slice(0, 0, page._BLOCKS), edges.slice(0, 1, page._BLOCKS + 1)
    longest = -(-page._WORK_PX // page._BLOCKS)
    within = minimum(space.arange(longest), maximum(ends - starts - 1, 0).column())
    places = starts.column() + within  # (blocks, longest), the last repeated
    return values.take(places, axis).max(axis + 1)


def _powers(size: Tensor) -> Tensor:
    """Powers 0 to 3 of the pixels' centres, from -1 to 1: (size, 4)."""
    middle = ((2 * size.space.arange(size) + 1) / size - 1).column()
    square = middle.squared()
    return concatenated(middle * 0 + 1, middle, square, square * middle, axis=1)


def _floor(dark: Tensor, calm: Tensor) -> Tensor:
    """Darkness that bare paper still shows."""
    count = maximum(calm.mean(), page._EPS)
    mean = (dark * calm).mean() / count
    spread = maximum((dark.squared() * calm).mean() / count - mean.squared(), 0).sqrt()
    return mean + 2 * spread


def _level(dark: Tensor) -> Tensor:
    """Darkness of a full stroke."""
    weight = dark.squared().squared().squared()
    return (weight * dark).mean() / maximum(weight.mean(), 1e-30)


def _framed(marks: Tensor, height: int, width: int) -> Tensor:
    """Crop to the ink, scale its longer side, and centre by mass."""
    there = marks > 0.25
    ends = [_ends(there.max(other)) for other in (1, 0)]
    longer = maximum(*(high - low for low, high in ends))
    step = maximum(longer, 1) / (page._INK_SHARE * min(height, width))
    rows = _weights(marks.sum(1), ends[0], step, height)
    columns = _weights(marks.sum(0), ends[1], step, width)
    framed = rows @ marks @ columns.transpose(1, 0)
    return (255 * (framed / maximum(_level(framed), page._EPS)).clip(0, 1)).rounded()


def _ends(line: Tensor) -> tuple[Tensor, Tensor]:
    """First true place and the one after the last; the whole line where none is true."""
    size = line.size(0)
    place = line.space.arange(size)
    return size - (line * (size - place)).max(), (line * (place + 1)).max()


def _weights(mass: Tensor, ends: tuple[Tensor, Tensor], step: Tensor, size: int) -> Tensor:
    """Resampling of one direction as a matrix: (size, length)."""
    low, high = ends
    pixel = mass.space.arange(mass.size(0)) + 0.5
    # relative to the ink, for precision in float32
    centre = (mass * (pixel - low)).sum() / maximum(mass.sum(), page._EPS)
    first = size * page._CENTRE - centre / step
    first = where(step > 1, first, first.rounded())
    at = (mass.space.constant(np.arange(size, dtype=np.float32) + 0.5) - first) * step + low
    reach = maximum(step, 1)
    weights = maximum(1 - abs(pixel - at.column()) / reach, 0) / reach
    return weights * ((pixel > low) * (pixel < high))


def _side(grey: Tensor) -> Tensor:
    return minimum(grey.size(0), grey.size(1))


def _odd(value: Tensor) -> Tensor:
    return 2 * (value / 2).floor() + 1


def _pool_max(values: Tensor, window: Tensor) -> Tensor:
    """Maximum over a centred square, inside the image."""
    return _running_max(_running_max(values, window, 0), window, 1)


def _running_max(values: Tensor, window: Tensor, axis: int) -> Tensor:
    """By doubling; rounds beyond the window shift by zero."""
    space = values.space
    half = (window / 2).floor()
    pads: list[Tensor | int] = [0, 0, 0, 0]
    pads[axis] = pads[axis + 2] = half
    line = space.add("Pad", values, space.sizes(*pads), space.number(-1e30))
    length = values.size(axis) + 2 * half
    covered: Tensor = space.number(1)
    for _ in range(_MAX_ROUNDS):
        shift = minimum(covered, window - covered)
        line = maximum(line.slice(axis, 0, length - shift), line.slice(axis, shift, length))
        length, covered = length - shift, covered + shift
    return line


def _pool_mean(values: Tensor, window: Tensor) -> Tensor:
    """Mean over a centred square; outside, the edge of the image is repeated."""
    down, across = (_band(values.size(axis), window) for axis in (0, 1))
    return ((down @ values) / window @ across.transpose(1, 0)) / window


def _band(size: Tensor, window: Tensor) -> Tensor:
    """How often each pixel counts in the window around each: (size, size)."""
    half = (window / 2).floor()
    place = size.space.arange(size)
    row = place.column()
    inside = abs(row - place) <= half
    before = maximum(half - row, 0) * (place <= 0)
    after = maximum(row + half - size + 1, 0) * (place >= size - 1)
    return inside + before + after
