"""From the bytes of an image file to 8-bit pixels: the only place that decodes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.turns import claim_pixels
from headstart.errors import BrokenDataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EXTENSIONS", "Header", "decode_bytes", "fault_in", "preview", "squished", "thumbnail"]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# only these decoders read untrusted bytes; EPS, for example, would start Ghostscript
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_CHECK_PX = 64
_LIMIT_SIDE_PX = 65_535


@dataclass(frozen=True)
class Header:
    """What a file says of its image: size as stored, Pillow's mode (``RGB``, ``L``, ``I;16``), format."""

    width_px: int
    height_px: int
    mode: str
    format: str


def decode_bytes(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image, upright, to (height, width, 1 or 3) uint8; BrokenDataError names it as ``name``.

    One channel if the file is grey, else red, green, blue. Transparent pixels are put on white, 16-bit values
    are scaled to 8, and only the first of several frames is read. Colour profiles are ignored. Images above
    Pillow's limit against decompression bombs (89 million pixels) are refused.

    >>> decode_bytes(b"P5 2 1 255 " + bytes([0, 255]), "two.pgm")[..., 0].tolist()
    [[0, 255]]
    """
    pixels, fault = _decoded(data, fast=False)
    if fault is not None:
        raise BrokenDataError(
            f"image {name!r} cannot be read ({fault}), expected a complete image in one of {', '.join(_FORMATS)}; "
            "replace it or leave it out"
        )
    return pixels


def fault_in(data: bytes) -> str | None:
    """Why an image cannot be decoded, or None.

    Reads every byte as `decode_bytes` does, but decodes JPEG at a reduced scale, which is several times
    faster.
    """
    return _decoded(data, fast=True)[1]


def thumbnail(data: bytes, name: str, side_px: int) -> tuple[Header, NDArray[np.uint8]]:
    """An image's header, and its pixels squished to (side_px, side_px, 3), upright."""
    header, pixels = preview(data, name, side_px)
    return header, squished(pixels, side_px)


def preview(data: bytes, name: str, side_px: int) -> tuple[Header, NDArray[np.uint8]]:
    """An image's header, and its pixels upright, (height, width, 1 or 3) uint8.

    JPEG is decoded at a reduced scale near ``side_px``, all else at full size; BrokenDataError if that fails.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image)
            header = Header(image.width, image.height, image.mode, str(image.format))
            image.draft(None, (4 * side_px, 4 * side_px))
            image.load()
            return header, _to_array(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise nearly anything on malformed bytes
        raise BrokenDataError(
            f"image {name!r} cannot be read ({error}), expected a complete image; replace it or leave it out"
        ) from error


def squished(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """One image (height, width, 1 or 3) resized to (side_px, side_px, 3)."""
    from PIL import Image

    small = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    return np.asarray(small.resize((side_px, side_px), Image.Resampling.BILINEAR))


def _decoded(data: bytes, *, fast: bool) -> tuple[NDArray[np.uint8], str | None]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    nothing = np.zeros((0, 0, 1), np.uint8)
    if not data:
        return nothing, "it is empty"
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image)
            if fast:
                image.draft(None, (_CHECK_PX, _CHECK_PX))
            image.load()
            return _to_array(ImageOps.exif_transpose(image)), None
    except UnidentifiedImageError:
        return nothing, "it is not an image"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return nothing, "it has too many pixels"
    except Exception as error:  # decoders raise nearly anything on malformed bytes
        return nothing, str(error).splitlines()[0] if str(error) else type(error).__name__


def _check_size(image: Image) -> None:
    """Refuse an image by its header, before its pixels are decoded, or wait until they fit into memory."""
    from PIL.Image import MAX_IMAGE_PIXELS

    if MAX_IMAGE_PIXELS is not None and image.width * image.height > MAX_IMAGE_PIXELS:
        raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MAX_IMAGE_PIXELS}")
    if max(image.size) > _LIMIT_SIDE_PX:  # few pixels, but resizing would take gigabytes
        raise ValueError(f"it has a side of {max(image.size)} pixels, more than {_LIMIT_SIDE_PX}")
    claim_pixels(image.width * image.height)


def _to_array(image: Image) -> NDArray[np.uint8]:
    """8-bit grey or colour from any of Pillow's modes."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is unknown")
    if image.mode.startswith("I"):
        return _from_16_bits(np.asarray(image).astype(np.int64))
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    pixels: NDArray[np.uint8] = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels  # grey: (h, w) -> (h, w, 1)


def _from_16_bits(values: NDArray[np.int64]) -> NDArray[np.uint8]:
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its pixels are 32-bit numbers, expected 8 or 16 bits")
    scaled: NDArray[Any] = (values + 128) // 257  # 65535 = 255 * 257
    return scaled.astype(np.uint8)[..., None]
