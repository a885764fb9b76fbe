"""Small images as PNG, and a few of each class for reports."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.prepare import prepare
from headstart.data.readable import has_pixels
from headstart.records import InputSpec

__all__ = ["examples_of", "png_address", "png_bytes"]

_SIDE_PX = 144  # twice the displayed size, for high-resolution screens
_MOST = 8


def examples_of(dataset: Dataset) -> tuple[tuple[str, str], ...]:
    """The first images of each class as (class, ``data:`` address), 8 at most; none where there are no pixels."""
    if not has_pixels(dataset.images):
        return ()
    each = max(1, _MOST // len(dataset.classes))
    places = [np.flatnonzero(dataset.labels == name)[:each] for name in dataset.classes[:_MOST]]
    some = dataset.subset(np.concatenate(places))
    shape = some.images.image_shape
    spec = InputSpec(_SIDE_PX, _SIDE_PX, 3, policy="crop") if shape is None else InputSpec(*shape)
    images = prepare(some, spec)
    return tuple((str(name), png_address(one)) for name, one in zip(some.labels, images, strict=True))


def png_address(pixels: NDArray[np.uint8], *, colours: int | None = None) -> str:
    """An image (height, width, 1 or 3) uint8 as a ``data:`` address; the same pixels give the same text.

    ``colours`` reduces a colour image to that many colours, 2 to 256.
    """
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels, colours=colours)).decode()


def png_bytes(pixels: NDArray[np.uint8], *, colours: int | None = None) -> bytes:
    """The PNG file of an image (height, width, 1 or 3) uint8."""
    from PIL import Image

    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    if colours is not None and not grey:
        image = image.quantize(colours)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
