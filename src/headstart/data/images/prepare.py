"""The one image preparation for training, prediction, export and serving.

One image and a thousand take the same path, so their pixels are identical.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.files import read_bytes
from headstart.data.images.decode import decode_bytes
from headstart.data.images.turns import turn
from headstart.data.stores import ImageStore
from headstart.errors import SettingError, ShapeError, nearest
from headstart.records import Images, InputSpec

__all__ = ["POLICIES", "batches", "decode", "fit_image", "prepare", "store_batches"]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the image."""

_CHUNK_BYTES = 8 * 1024**2
_INTERPOLATIONS = ("bilinear", "bicubic")
_STRIP_PX = 2**18
_LIMIT_PX = 16_384
_PREPARE_BATCH = 256


def decode(source: str | os.PathLike[str] | bytes, depth_bits: int | None = None) -> NDArray[np.uint8]:
    """Decode a file or its content, upright, as `decode_bytes`; MissingDataError if there is no such file."""
    if isinstance(source, bytes):
        return decode_bytes(source, "(bytes)", depth_bits)
    return decode_bytes(read_bytes(Path(source)), str(Path(source)), depth_bits)


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
    _check_spec(spec)
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.size == 0:
        raise ShapeError(
            f"image has shape {image.shape} and dtype {image.dtype}, expected (height, width) or "
            "(height, width, 1 or 3) of uint8; decode it with headstart.data.images.decode"
        )
    fitted: NDArray[np.uint8] = _fit_batch(pixels[None], spec)[0]
    return fitted


def prepare(dataset: Dataset, spec: InputSpec) -> Images:
    """All images as a network takes them, (n_images, *spec.shape) in new memory; the pixels of `fit_image`."""
    pixels = np.empty((len(dataset), *spec.shape), np.uint8)
    done = 0
    for batch in batches(dataset, spec, _PREPARE_BATCH):
        pixels[done : done + len(batch)] = batch
        done += len(batch)
    return pixels


def batches(dataset: Dataset, spec: InputSpec, batch_size: int) -> Iterator[Images]:
    """The images of a dataset as a network takes them, batch by batch in new memory; memory use stays constant.

    The next two batches are prepared in threads. Options are checked at once, not at the first batch.
    """
    return store_batches(dataset.images, spec, batch_size)


def store_batches(images: ImageStore, spec: InputSpec, batch_size: int) -> Iterator[Images]:
    """As `batches`, for images without labels."""
    _check_spec(spec)
    if batch_size < 1:
        raise SettingError(f"batch_size is {batch_size!r}, expected at least 1; 64 suits most machines")
    if images.pixels is None:
        return _file_batches(images, spec, batch_size)
    return _array_batches(images, images.pixels, spec, batch_size)


def _array_batches(images: ImageStore, pixels: Images, spec: InputSpec, batch_size: int) -> Iterator[Images]:
    for start in range(0, len(images), batch_size):
        yield _fit_batch(pixels[start : start + batch_size], spec)
        images.release()


def _file_batches(images: ImageStore, spec: InputSpec, batch_size: int) -> Iterator[Images]:
    """Keep two batches of prepared images ahead; images of full size exist only inside a worker."""

    def ready(place: int) -> NDArray[np.uint8]:
        with turn():
            return fit_image(images.image(place, spec.depth_bits), spec)

    waiting: deque[Future[NDArray[np.uint8]]] = deque()
    todo = iter(range(len(images)))
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for start in range(0, len(images), batch_size):
            while len(waiting) < 3 * batch_size and (index := next(todo, None)) is not None:
                waiting.append(pool.submit(ready, index))
            size = min(batch_size, len(images) - start)
            yield np.stack([waiting.popleft().result() for _ in range(size)])
    finally:
        pool.shutdown(cancel_futures=True)


def _check_spec(spec: InputSpec) -> None:
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


def _fit_batch(images: Images, spec: InputSpec) -> Images:
    """Convert channels, then resize, in pieces that fit a processor's cache."""
    n_chunk = max(1, _CHUNK_BYTES // (images[0].nbytes + spec.height_px * spec.width_px * spec.channels))
    policy, has_size = POLICIES[spec.policy], images.shape[1:3] == (spec.height_px, spec.width_px)
    whole = has_size and spec.policy != "ink" and (spec.policy != "crop" or spec.crop_share == 1.0)
    ready = np.empty((len(images), *spec.shape), np.uint8)
    for start in range(0, len(images), n_chunk):
        chunk = _with_channels(images[start : start + n_chunk], spec.channels)
        ready[start : start + n_chunk] = chunk if whole else policy(chunk, spec)
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


def _squish(images: Images, spec: InputSpec) -> Images:
    return _resize(images, spec, (0, 0, images.shape[2], images.shape[1]))


def _crop(images: Images, spec: InputSpec) -> Images:
    """Resize a share of the largest centred box with the right aspect ratio."""
    h, w = images.shape[1:3]
    scale = max(spec.height_px / h, spec.width_px / w) / spec.crop_share
    box_h, box_w = min(h, spec.height_px / scale), min(w, spec.width_px / scale)
    left, top = (w - box_w) / 2, (h - box_h) / 2
    return _resize(images, spec, (left, top, left + box_w, top + box_h))


def _letterbox(images: Images, spec: InputSpec) -> Images:
    (h, w), (height, width) = images.shape[1:3], (spec.height_px, spec.width_px)
    scale = min(height / h, width / w)
    new_h, new_w = (min(full, max(1, round(side * scale))) for full, side in ((height, h), (width, w)))
    padded = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    padded[:] = _border_colour(images)[:, None, None, :]
    top, left = (height - new_h) // 2, (width - new_w) // 2
    inner = replace(spec, height_px=new_h, width_px=new_w)
    padded[:, top : top + new_h, left : left + new_w] = _squish(images, inner)
    return padded


def _ink(images: Images, spec: InputSpec) -> Images:
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


POLICIES: dict[str, Callable[[Images, InputSpec], Images]] = {
    "squish": _squish,
    "crop": _crop,
    "letterbox": _letterbox,
    "ink": _ink,
}
