"""One image at the size and channels that a network takes, from pixels or from a file.

Training, prediction, export and serving all take this path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.decode import decode_reduced
from headstart.data.images.reduced import Read, Reduction, has_pixels_for
from headstart.data.images.upright import Box
from headstart.errors import SettingError, ShapeError, nearest
from headstart.records import Images, InputSpec

__all__ = ["POLICIES", "check_spec", "fit_again", "fit_bytes", "fit_image", "fit_images", "reduction_for"]

_CHUNK_BYTES = 8 * 1024**2
_INTERPOLATIONS = ("bilinear", "bicubic")
_STRIP_PX = 2**18
_LIMIT_PX = 16_384
# Measured 2026-11-30: with 2.5 pixels left for each pixel of the input, photos differ from those decoded at full size
# by 0.2 to 0.3 levels on average, mosaics of sharp photos by 0.4 to 0.7; with 2 by up to 1.0.
_LEFT_PX = 2.5
_REDUCING_VERSION = 2
_REDUCED_POLICIES = ("squish", "crop")  # the others look at the pixels of a border, or at single strokes


def fit_image(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Bring one image (height, width[, 1 or 3]) to the size and channels that a network takes.

    Policies: ``squish`` resizes both sides independently; ``crop`` takes ``crop_share`` of the largest
    centred part with the right aspect ratio; ``letterbox`` keeps the aspect ratio and pads with the median
    colour of the border; ``ink`` frames a drawing like MNIST's digits, see `images.ink`. Resizing is Pillow's
    bilinear or bicubic filter, antialiased when it shrinks. Colour becomes grey by ITU-R BT.601: (19595 R +
    38470 G + 7471 B + 32768) / 65536.

    >>> fit_image(np.full((10, 20), 7, np.uint8), InputSpec(4, 4, 3)).shape
    (4, 4, 3)
    """
    check_spec(spec)
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.size == 0:
        raise ShapeError(
            f"image has shape {image.shape} and dtype {image.dtype}, expected (height, width) or "
            "(height, width, 1 or 3) of uint8; decode it with headstart.data.images.decode"
        )
    fitted: NDArray[np.uint8] = fit_images(pixels[None], spec)[0]
    return fitted


def fit_bytes(data: bytes, name: str, spec: InputSpec, depth_bits: int | None = None) -> NDArray[np.uint8]:
    """Decode the content of an image file and fit it, as `fit_image`; BrokenDataError names it as ``name``.

    A JPEG is decoded at half, a quarter or an eighth of its size where at least 2.5 times the pixels that the network
    takes are left in each direction (policies ``squish`` and ``crop``, preparation version 2). That is several times
    faster, and changes the result by a fraction of a level on average. ``depth_bits`` is as for `decode_bytes`.
    """
    check_spec(spec)
    return _fitted(decode_reduced(data, name, reduction_for(spec), depth_bits), spec)


def fit_again(read: Read, data: bytes, name: str, spec: InputSpec) -> NDArray[np.uint8]:
    """As `fit_bytes`, of an image of 8 bits that was decoded before, which is decoded again only if it must be."""
    if has_pixels_for(read, reduction_for(spec)):
        check_spec(spec)
        return _fitted(read, spec)
    return fit_bytes(data, name, spec)


def _fitted(read: Read, spec: InputSpec) -> NDArray[np.uint8]:
    fitted: NDArray[np.uint8] = fit_images(read.pixels[None], spec, read.area)[0]
    return fitted


def reduction_for(spec: InputSpec) -> Reduction | None:
    """By how much a JPEG may be reduced before it is fitted; None for a preparation that needs all pixels."""
    if spec.version < _REDUCING_VERSION or spec.policy not in _REDUCED_POLICIES:
        return None
    share = spec.crop_share if spec.policy == "crop" else 1.0
    return lambda width_px, height_px: (
        share * min(width_px / spec.width_px, height_px / spec.height_px) / _LEFT_PX
    )


def check_spec(spec: InputSpec) -> None:
    """SettingError for an input that images cannot be fitted to, with all that is wrong with it."""
    faults = []
    if spec.policy not in POLICIES:
        known = nearest(spec.policy, POLICIES)
        faults.append(f"policy {spec.policy!r} is unknown, expected {', '.join(POLICIES)}; {known}")
    if spec.interpolation not in _INTERPOLATIONS:
        known = nearest(spec.interpolation, _INTERPOLATIONS)
        faults.append(f"interpolation {spec.interpolation!r} is unknown, expected {known}")
    if not 0 < spec.crop_share <= 1:
        faults.append(f"crop_share is {spec.crop_share!r}, expected a number in (0, 1]; 1 keeps all")
    if not (1 <= spec.height_px <= _LIMIT_PX and 1 <= spec.width_px <= _LIMIT_PX):
        size = f"{spec.height_px} x {spec.width_px}"
        faults.append(f"input size is {size} pixels, expected 1 to {_LIMIT_PX} each way; change the spec")
    if spec.channels not in (1, 3):
        faults.append(f"channels is {spec.channels!r}, expected 1 (grey) or 3 (colour); change the spec")
    if faults:
        raise SettingError("; also ".join(faults))


def fit_images(images: Images, spec: InputSpec, area: Box | None = None) -> Images:
    """Convert channels, then resize the area (the whole by default), in pieces that fit a processor's cache."""
    if area is None:
        area = (0, 0, images.shape[2], images.shape[1])
    n_chunk = max(1, _CHUNK_BYTES // (images[0].nbytes + spec.height_px * spec.width_px * spec.channels))
    policy, has_size = POLICIES[spec.policy], images.shape[1:3] == (spec.height_px, spec.width_px)
    whole = has_size and spec.policy != "ink" and (spec.policy != "crop" or spec.crop_share == 1.0)
    ready = np.empty((len(images), *spec.shape), np.uint8)
    for start in range(0, len(images), n_chunk):
        chunk = _with_channels(images[start : start + n_chunk], spec.channels)
        ready[start : start + n_chunk] = chunk if whole else policy(chunk, spec, area)
    return ready


def _with_channels(images: Images, channels: int) -> Images:
    if images.shape[3] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=3)
    n, height, width, _ = images.shape
    luma = np.empty((n, height, width, 1), np.uint8)
    n_rows = max(1, _STRIP_PX // (n * width))  # of a large image only a strip becomes 32-bit numbers
    for start in range(0, height, n_rows):
        strip = images[:, start : start + n_rows]
        red, green, blue = (strip[..., i].astype(np.uint32) for i in range(3))
        # ITU-R BT.601 in Pillow's integer arithmetic, to get the same values
        luma[:, start : start + n_rows, :, 0] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return luma


def _squish(images: Images, spec: InputSpec, area: Box) -> Images:
    return _resize(images, spec, area)


def _crop(images: Images, spec: InputSpec, area: Box) -> Images:
    """Resize a share of the largest centred box with the right aspect ratio."""
    left, top, right, bottom = area
    h, w = bottom - top, right - left
    scale = max(spec.height_px / h, spec.width_px / w) / spec.crop_share
    box_h, box_w = min(h, spec.height_px / scale), min(w, spec.width_px / scale)
    left, top = left + (w - box_w) / 2, top + (h - box_h) / 2
    return _resize(images, spec, (left, top, min(left + box_w, right), min(top + box_h, bottom)))


def _letterbox(images: Images, spec: InputSpec, area: Box) -> Images:
    (left, top, right, bottom), (height, width) = area, (spec.height_px, spec.width_px)
    h, w = bottom - top, right - left
    scale = min(height / h, width / w)
    new_h, new_w = (min(full, max(1, round(side * scale))) for full, side in ((height, h), (width, w)))
    padded = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    padded[:] = _border_colour(images)[:, None, None, :]
    above, before = (height - new_h) // 2, (width - new_w) // 2
    inner = replace(spec, height_px=new_h, width_px=new_w)
    padded[:, above : above + new_h, before : before + new_w] = _squish(images, inner, area)
    return padded


def _ink(images: Images, spec: InputSpec, _: Box) -> Images:
    from headstart.data.images.ink import ink

    return ink(images, spec.height_px, spec.width_px)


def _border_colour(images: Images) -> NDArray[np.uint8]:
    """The median of each image's outermost pixels, channel by channel: (n, c)."""
    sides = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]  # each (n, side, c)
    median: NDArray[np.uint8] = np.median(np.concatenate(sides, axis=1), axis=1).astype(np.uint8)
    return median


def _resize(images: Images, spec: InputSpec, box: Box) -> Images:
    """Resize a box of equally large images, all in two calls.

    Pillow filters the rows and then the columns, rounding to 8 bits in between, and skips a direction whose
    size does not change. So images stacked vertically can have their rows filtered in one call, and images
    stacked horizontally their columns: the same pixels as one by one.
    """
    (n, h, w, c), (height, width), how = images.shape, (spec.height_px, spec.width_px), spec.interpolation
    if n == 1:  # Pillow resizes both directions in one call
        return _resampled(images[0], height, width, box, how)[None].copy()
    left, top, right, bottom = box
    tall = _resampled(images.reshape(n * h, w, c), n * h, width, (left, 0, right, n * h), how)
    wide = tall.reshape(n, h, width, c).transpose(1, 0, 2, 3).reshape(h, n * width, c)
    done = _resampled(wide, height, n * width, (0, top, n * width, bottom), how)
    return np.ascontiguousarray(done.reshape(height, n, width, c).transpose(1, 0, 2, 3))


def _resampled(
    pixels: NDArray[np.uint8], height: int, width: int, box: Box, interpolation: str
) -> NDArray[np.uint8]:
    from PIL import Image

    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    done = np.asarray(image.resize((width, height), Image.Resampling[interpolation.upper()], box=box))
    return done[..., None] if grey else done


POLICIES: dict[str, Callable[[Images, InputSpec, Box], Images]] = {
    "squish": _squish,
    "crop": _crop,
    "letterbox": _letterbox,
    "ink": _ink,
}
