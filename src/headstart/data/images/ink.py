"""Ink normalisation: a drawing on any page, brought into the frame of MNIST's digits.

It uses pooling, sums and matrix products only, so that the graph of a model can compute the same.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from headstart.records import Array, Images

__all__ = ["ink"]

Ends = tuple[NDArray[np.integer], NDArray[np.integer]]

_WORK_PX = 512
_INK_SHARE = 20 / 28
_CENTRE = 14.5 / 28
"""The centre of mass in MNIST: the middle of pixel 14 of 28."""
_BORDER_WEIGHT = 0.5
_BLOCKS = 24
_AMBIENT = 48
"""Grey added before dividing by the light, so that noise on black paper is not amplified."""
_WIDE = 2 / 7
"""Window of the closing that fills strokes, by the shorter side: 9 of MNIST's 28, more than its widest stroke."""
_STRONG = 0.5
_CROWD = 0.15
_FAINT = 0.12
_EPS = 1e-6
_DEGREES = [(i, j) for i in range(4) for j in range(4 - i)]
"""Powers of row and column in the terms of the cubic."""


def ink(images: Images, height: int, width: int) -> Images:
    """Bring drawings, dark on light or light on dark, into the frame of MNIST's digits.

    Returns uint8 (n_images, height, width, channels of the input), grey: ink near 255 on paper of 0; a page
    without ink is all zeros. The longer side of the ink takes 20/28 of the shorter side of the frame, and the
    centre of mass is at the middle of pixel 14 of 28, as in MNIST.

    The light is divided out (a cubic fitted to the bright blocks of the page, then a morphological closing).
    Marks that are faint, far from strokes or isolated are dropped, and the rest is cropped and resampled with a
    triangle filter, antialiased when it shrinks; a drawing that is not shrunk moves by whole pixels. Each image
    is processed by itself, so a batch gives the same pixels. On two shared cores: 11 to 24 ms for a photo, 0.2 to
    0.9 ms for 28 x 28.

    >>> page = np.full((1, 90, 60, 1), 255, np.uint8)
    >>> page[0, 40:60, 10:13] = 0
    >>> ink(page, 28, 28)[0, :, :, 0].max(axis=1).nonzero()[0].tolist() == list(range(4, 24))
    True
    """
    marks = _marks(_dark_ink(_grey(_reduced(images))))
    pixels = _framed(marks, height, width)
    return np.repeat(pixels[..., None], images.shape[3], axis=3)


def _reduced(images: Images) -> Images:
    """Average whole blocks of pixels until the longer side fits the working size."""
    factor = -(-max(images.shape[1:3]) // _WORK_PX)
    if factor == 1:
        return images
    from PIL import Image

    grey = images.shape[3] == 1
    small = [np.asarray(Image.fromarray(one[..., 0] if grey else one).reduce(factor)) for one in images]
    return np.stack(small).reshape(len(images), *small[0].shape[:2], images.shape[3])


def _grey(images: Images) -> Array:
    """ITU-R BT.601, as in prepare."""
    if images.shape[3] == 1:
        return images[..., 0].astype(np.float32)
    red, green, blue = (images[..., i].astype(np.float32) for i in range(3))
    grey: Array = (19595 * red + 38470 * green + 7471 * blue) / np.float32(65536)
    return grey


def _dark_ink(grey: Array) -> Array:
    """Invert the pages whose ink is light.

    Ink is rare, and paper is at the border: relative to their neighbourhood, pixel values are skewed towards the
    ink, and the values of the border away from it.
    """
    rest = grey - _pool_mean(grey, _odd(min(grey.shape[1:]) / 3))
    spread = np.sqrt(_mean(rest**2)) + _EPS
    border = [rest[:, 0], rest[:, -1], rest[:, :, 0], rest[:, :, -1]]
    light = _mean(rest**3) / spread**3 - _BORDER_WEIGHT * _mean(np.concatenate(border, axis=1)) / spread
    return np.where(light[:, None, None] > 0, 255 - grey, grey)


def _marks(grey: Array) -> Array:
    """Darkness relative to the paper, 0 - 1, only where there are strokes."""
    side = min(grey.shape[1:])
    fine, wide = _odd(side / 100), _odd(side * _WIDE)
    light = (grey + _AMBIENT) / (_lighting(grey) + _AMBIENT)
    paper = -_pool_max(-_pool_max(_pool_mean(light, fine), wide), wide)
    dark = np.clip(1 - light / paper, 0, 1)
    smooth = _pool_mean(dark, fine)
    level = _level(smooth)
    strong = (smooth > _STRONG * level).astype(np.float32)
    crowd = _pool_mean(strong * smooth**2, _odd(side / 8))
    strong *= crowd > _CROWD * crowd.max(axis=(1, 2), keepdims=True)
    near = _pool_max(strong, _odd(side / 14))
    floor = _floor(dark, 1 - near)
    clear = level - _mean(smooth)[:, None, None] > _FAINT  # an empty page has noise only
    marks: Array = np.clip((dark - floor) / np.maximum(level - floor, _EPS), 0, 1) * near * clear
    return marks


def _lighting(grey: Array) -> Array:
    """Smooth upper envelope of the page: a cubic over the brightest pixel of each block, which also fills in ink."""
    n, h, w = grey.shape
    rows, columns = (_edges(size)[:-1] for size in (h, w))
    bright = np.maximum.reduceat(np.maximum.reduceat(grey, rows, axis=1), columns, axis=2)
    basis, solve = _surface()
    values = bright.reshape(n, 1, -1)
    for _ in range(8):
        terms = values @ solve
        values = np.maximum(values, terms @ basis)
    square = np.zeros((n, 4, 4), np.float32)
    for term, (i, j) in enumerate(_DEGREES):
        square[:, i, j] = terms[:, 0, term]
    surface = np.maximum(_powers(h) @ square @ _powers(w).T, 0)
    return surface.astype(np.float32, copy=False)


def _edges(size: int) -> NDArray[np.int64]:
    """Boundaries of the blocks along a side; on a short side some coincide."""
    return np.linspace(0, size, _BLOCKS + 1).astype(np.int64)


@cache
def _surface() -> tuple[Array, Array]:
    """The cubic's terms at the blocks, (terms, blocks), and their pseudo-inverse: the same for every page."""
    y = _powers(_BLOCKS)
    basis = np.stack([np.outer(y[:, i], y[:, j]).ravel() for i, j in _DEGREES])
    return basis, np.linalg.pinv(basis)


def _powers(size: int) -> Array:
    """Powers 0 to 3 of the pixels' centres, from -1 to 1: (size, 4)."""
    middle = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1
    return np.stack([middle**power for power in range(4)], axis=1).astype(np.float32)


def _floor(dark: Array, calm: NDArray[np.floating]) -> Array:
    """Darkness of bare paper: mean plus twice the standard deviation of the pixels far from strokes."""
    count = np.maximum(_mean(calm), _EPS)
    mean = _mean(dark * calm) / count
    spread = np.sqrt(np.maximum(_mean(dark**2 * calm) / count - mean**2, 0))
    floor: Array = (mean + 2 * spread)[:, None, None].astype(np.float32, copy=False)
    return floor


def _level(dark: NDArray[np.floating]) -> Array:
    """Darkness of a full stroke: a mean weighted towards the darkest pixels."""
    weight = dark**8
    level = _mean(weight * dark) / np.maximum(_mean(weight), 1e-30)
    return level[:, None, None].astype(np.float32, copy=False)


def _framed(marks: Array, height: int, width: int) -> Images:
    """Crop to the ink, scale its longer side, and centre by mass."""
    there = marks > 0.25
    boxes = [_ends(np.any(there, axis=other)) for other in (2, 1)]
    step = np.maximum(*(high - low for low, high in boxes)) / (_INK_SHARE * min(height, width))
    rows = _weights(marks.sum(axis=2), boxes[0], step, height)
    columns = _weights(marks.sum(axis=1), boxes[1], step, width)
    framed = rows @ marks @ columns.transpose(0, 2, 1)
    return np.rint(255 * np.clip(framed / np.maximum(_level(framed), _EPS), 0, 1)).astype(np.uint8)


def _ends(line: NDArray[np.bool_]) -> Ends:
    """First true position and the one after the last; the whole line if none is true."""
    return line.argmax(axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1)


def _weights(mass: Array, ends: Ends, step: NDArray[np.floating], size: int) -> Array:
    """Resampling along one axis as a matrix for each image: (n_images, size, length)."""
    low, high = ends
    pixel = np.arange(mass.shape[1]) + 0.5
    centre = (mass * pixel).sum(axis=1) / np.maximum(mass.sum(axis=1), _EPS)
    first = size * _CENTRE - (centre - low) / step
    # a drawing that does not shrink moves by whole pixels, so its pixel values stay the same
    first = np.where(step > 1, first, np.rint(first))
    at = (np.arange(size) + 0.5 - first[:, None]) * step[:, None] + low[:, None]  # (n_images, size)
    reach = np.maximum(step, 1)[:, None, None]
    weights = np.maximum(0, 1 - np.abs(pixel - at[..., None]) / reach) / reach
    inside = (pixel > low[:, None]) & (pixel < high[:, None])
    matrix: Array = (weights * inside[:, None, :]).astype(np.float32)
    return matrix


def _odd(value: float) -> int:
    return 2 * int(value / 2) + 1


def _mean(values: NDArray[np.floating]) -> Array:
    """Mean of each image."""
    mean: Array = values.reshape(len(values), -1).mean(axis=1)
    return mean


def _pool_max(values: Array, window: int) -> Array:
    """Maximum over a centred square inside the image, by doubling: the cost grows with its logarithm."""
    for axis in (1, 2):
        values = _running_max(values, window, axis)
    return values


def _running_max(values: Array, window: int, axis: int) -> Array:
    half = window // 2
    pad = [(0, 0)] * 3
    pad[axis] = (half, half)
    line = np.moveaxis(np.pad(values, pad, constant_values=-np.inf), axis, 0)
    done = 1
    while done < window:
        hop = min(done, window - done)
        line = np.maximum(line[:-hop], line[hop:])
        done += hop
    return np.moveaxis(line, 0, axis)


def _pool_mean(values: Array, window: int) -> Array:
    """Mean over a centred square; outside, the image's border is repeated."""
    from scipy.ndimage import uniform_filter

    mean: Array = values if window == 1 else uniform_filter(values, (1, window, window), mode="nearest")
    return mean
