"""Orientation of a photo by its metadata: how its pixels, and a box in them, are turned upright."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.metadata import exif_of
from headstart.data.images.structure import check_tags

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Box", "is_turned", "orientation_of", "upright", "upright_box"]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of an image."""

_ORIENTATION = 0x0112
_ORIENTED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # where Pillow looks for it
# Whether rows, then columns, are reversed, and rows and columns then swapped.
_TURNS: dict[int, tuple[bool, bool, bool]] = {
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}


def orientation_of(image: Image) -> int:
    """The orientation that the metadata gives, 1 to 8; 1, upright, if it cannot be read."""
    if _ORIENTED.isdisjoint(image.info):
        return 1
    try:
        check_tags(exif_of(image.info))
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # metadata may be malformed in any way, and the image whole
        return 1


def is_turned(orientation: int) -> bool:
    """Whether width and height are swapped."""
    return orientation in _TURNS and _TURNS[orientation][2]


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels (height, width, channels) as they are seen."""
    if orientation not in _TURNS:
        return pixels
    rows, columns, swapped = _TURNS[orientation]
    turned = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
    return np.ascontiguousarray(turned.swapaxes(0, 1) if swapped else turned)


def upright_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Where a box in pixels of this width and height lies when they are turned upright.

    >>> upright_box((0, 0, 3, 1.5), (3, 2), 3)
    (0, 0.5, 3, 2)
    """
    if orientation not in _TURNS:
        return box
    (left, top, right, bottom), (width, height) = box, size
    rows, columns, swapped = _TURNS[orientation]
    if rows:
        top, bottom = height - bottom, height - top
    if columns:
        left, right = width - right, width - left
    return (top, left, bottom, right) if swapped else (left, top, right, bottom)
