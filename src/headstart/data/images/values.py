"""From Pillow's many modes to 8-bit grey or colour: deep values are scaled, transparency is composited."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DEPTHS", "composited", "depth_of", "from_deep", "shallow"]

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners use of a 16-bit file."""

_UNSEEN_ALPHA = 8  # of 255; an alpha that is nowhere above it hides the whole image, so it is an error
_NEAR_WHITE = 255 - 48
# White is the background unless the visible part is so white that it would vanish there.
_FEW_VISIBLE, _HARDLY_ANY, _MOSTLY_OPAQUE = 0.02, 0.0005, 0.9


def depth_of(largest: int) -> int:
    """The bits that values up to this one use: 8, 10, 12, 14 or 16.

    >>> depth_of(255), depth_of(4000), depth_of(65535)
    (8, 12, 16)
    """
    return next((bits for bits in DEPTHS if largest < 1 << bits), DEPTHS[-1])


def from_deep(values: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """Scale values of this many bits to 0 - 255, rounded; larger ones become 255."""
    scaled: NDArray[np.uint8] = _scale(bits)[values]
    return scaled


@cache
def _scale(bits: int) -> NDArray[np.uint8]:
    most = (1 << bits) - 1
    values = np.arange(65536, dtype=np.int32).clip(max=most)
    return ((values * 255 + most // 2) // most if bits < 16 else (values + 128) // 257).astype(np.uint8)


def shallow(image: Image) -> NDArray[np.uint8]:
    """The pixels (height, width, 1 or 3) of an image of 8 bits per channel or less."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = composited(image.convert("LA") if image.mode == "La" else image)
    pixels: NDArray[np.uint8] = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels  # grey: (h, w) -> (h, w, 1)


def composited(image: Image) -> Image:
    """Put an image with transparency on white, or on black where white would hide what is visible.

    An alpha that is 0 everywhere is ignored: the colours are the image.
    """
    from PIL import Image as pillow

    coloured = image.convert("RGBA")
    least, most = coloured.getchannel("A").getextrema()
    if most <= _UNSEEN_ALPHA or least == 255:  # type: ignore[operator]
        return coloured.convert("RGB")
    background = "black" if _vanishes_on_white(np.asarray(coloured)) else "white"
    return pillow.alpha_composite(pillow.new("RGBA", image.size, background), coloured)


def _vanishes_on_white(pixels: NDArray[np.uint8]) -> bool:
    """Whether hardly anything that is visible differs from white; pixels are (height, width, 4)."""
    alpha = pixels[..., 3]
    visible = int(alpha.sum(dtype=np.int64))
    differs = (pixels[..., :3] < _NEAR_WHITE).any(axis=2)
    share = int(alpha[differs].sum(dtype=np.int64)) / visible
    is_opaque = visible > _MOSTLY_OPAQUE * 255 * alpha.size
    return share < (_HARDLY_ANY if is_opaque else _FEW_VISIBLE)
