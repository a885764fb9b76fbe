"""What a decoded file is, and by how much a JPEG may be reduced while it is decoded, which is faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.upright import Box, is_turned, orientation_of, upright_box

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["AVERAGED", "Header", "Read", "Reduction", "has_pixels_for", "reduce_jpeg", "reduced_to"]

_REDUCIBLE = ("JPEG", "MPO")
AVERAGED = ("L", "RGB")
"""Modes of Pillow in which the average of pixels is their colour; of CMYK it is that of the inks."""
_FACTORS = (8, 4, 2)  # by which the decoder can reduce a JPEG

Reduction = Callable[[int, int], float]
"""From width and height, upright, to the largest factor by which a JPEG may be reduced: 2, 4 and 8 are possible."""


@dataclass(frozen=True)
class Header:
    """What a file says of its image: size as stored, Pillow's mode (``RGB``, ``L``, ``I;16``), format.

    ``frames`` is whether it holds more than one frame or page.
    """

    width_px: int
    height_px: int
    mode: str
    format: str
    frames: bool = False


@dataclass(frozen=True)
class Read:
    """A decoded file: header, pixels (height, width, 1 or 3), and the largest value if it has 16 bits.

    ``factor`` is by how much a JPEG was reduced. ``area`` is the part of the pixels that the image covers: the last
    row and column of a reduced one may reach beyond it.
    """

    header: Header
    pixels: NDArray[np.uint8]
    largest: int | None
    area: Box
    factor: int = 1


def reduced_to(side_px: int) -> Reduction:
    """Down to an image whose shorter side has this many pixels, or a little more."""
    return lambda width_px, height_px: min(width_px, height_px) // side_px


def has_pixels_for(read: Read, reduction: Reduction | None) -> bool:
    """Whether `decode_reduced` of the same file would give the same pixels."""
    if reduction is None or read.header.format not in _REDUCIBLE or read.header.mode not in AVERAGED:
        return read.factor == 1
    left, top, right, bottom = read.area
    size = (round((right - left) * read.factor), round((bottom - top) * read.factor))
    return read.factor == _factor(reduction, size)


def reduce_jpeg(image: Image, reduction: Reduction, modes: tuple[str, ...] | None) -> tuple[Box, int] | None:
    """Have a JPEG decoded at a reduced size: the upright box that the image will cover, and the factor, if it is."""
    if image.format not in _REDUCIBLE or (modes is not None and image.mode not in modes):
        return None
    orientation, (width, height) = orientation_of(image), image.size
    factor = _factor(reduction, (height, width) if is_turned(orientation) else (width, height))
    found = None if factor == 1 else image.draft(None, (width // factor, height // factor))
    return None if found is None else (upright_box(found[1], image.size, orientation), factor)


def _factor(reduction: Reduction, size: tuple[int, int]) -> int:
    most = reduction(*size)
    return next((factor for factor in _FACTORS if factor <= most), 1)
