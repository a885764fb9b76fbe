"""Frames, letterboxes and bars of text around an image: what is inside is compared with other images, too.

Framed copies of one image have nothing in common with it but the inside, and distinct images in equal frames
look alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["inside"]

# Measured 2026-11-30: of 60 photos, 57 to 60 letterboxes, frames of 4 and 8 % and bars with text are found; of 397
# photos without any, 25 have an edge that is taken for one, mostly sky.
_TOLERANCE = 16  # of 255: compression changes a flat border
_EVEN, _BARE, _DIFFERENT = (
    0.9,
    0.5,
    0.4,
)  # least shares of the border's colour in its first line and others; most inside
_LEAST, _MOST = 0.015, 0.45  # of a side
_LOOKED_AT_PX = 256  # of a larger image every second, third, ... line is looked at
_N_WITHIN = 3  # lines of the inside that must differ from the border


def inside(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The pixels inside an even border of an image (height, width, 1 or 3); None without one.

    The border ends at straight lines, and its colour is rare inside: paper around a letter is none.
    """
    step = max(1, max(pixels.shape[:2]) // _LOOKED_AT_PX)
    small = pixels[::step, ::step].astype(np.int16)
    height, width = small.shape[:2]
    if min(height, width) < 4 * _N_WITHIN:
        return None
    ends = np.zeros(4, np.intp)  # of the border at the top, bottom, left and right
    for _ in range(2):  # bars of text are found beside plain bars, and the other way round
        top, bottom, left, right = ends
        rows = small[:, left : width - right]
        ends[:2] = top or _border(rows), bottom or _border(rows[::-1])
        top, bottom = ends[:2]
        columns = small[top : height - bottom].swapaxes(0, 1)
        ends[2:] = left or _border(columns), right or _border(columns[::-1])
    if not ends.any():
        return None
    top, bottom, left, right = ends
    within = small[top : height - bottom, left : width - right]
    lines = (small[0], small[-1], small[:, 0], small[:, -1])
    colours = [np.median(line, axis=0) for line, end in zip(lines, ends, strict=True) if end]
    if any(_shares(within, colour).mean() > _DIFFERENT for colour in colours):
        return None
    top, bottom, left, right = step * ends
    return np.ascontiguousarray(pixels[top : pixels.shape[0] - bottom, left : pixels.shape[1] - right])


def _border(lines: NDArray[np.int16]) -> int:
    """How many lines from the first on are a border, (n_lines, n, channels)."""
    colour, most = np.median(lines[0], axis=0), int(len(lines) * _MOST)
    if _shares(lines[:1], colour)[0] < _EVEN:
        return 0
    shares = _shares(lines[: most + 1 + _N_WITHIN], colour)
    n_lines = int(np.argmin(shares[:most] >= _BARE))  # 0 if all are
    within = shares[n_lines + 1 : n_lines + 1 + _N_WITHIN]  # the line between may be a mixture of both
    if n_lines < max(2, _LEAST * len(lines)) or within.mean() > _DIFFERENT:
        return 0
    return n_lines + 1


def _shares(lines: NDArray[np.int16], colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of pixels that have a colour, of each line."""
    near = np.ones(lines.shape[:-1], np.bool_)
    for channel, value in enumerate(colour.astype(np.int16)):  # faster than along an axis of three
        near &= abs(lines[..., channel] - value) <= _TOLERANCE
    return np.asarray(near.mean(axis=-1))
