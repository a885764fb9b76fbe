"""The images of a dataset as a network takes them, batch by batch; one image and a thousand get the same pixels."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.files import read_bytes
from headstart.data.images.decode import decode_bytes
from headstart.data.images.fit import check_spec, fit_images
from headstart.data.images.turns import turn
from headstart.data.stores import ImageStore
from headstart.errors import SettingError
from headstart.records import Images, InputSpec
from headstart.system.threads import reading_threads

__all__ = ["batches", "decode", "prepare", "store_batches"]

_PREPARE_BATCH = 256


def decode(source: str | os.PathLike[str] | bytes, depth_bits: int | None = None) -> NDArray[np.uint8]:
    """Decode a file or its content, upright, as `decode_bytes`; MissingDataError if there is no such file."""
    if isinstance(source, bytes):
        return decode_bytes(source, "(bytes)", depth_bits)
    return decode_bytes(read_bytes(Path(source)), str(Path(source)), depth_bits)


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
    check_spec(spec)
    if batch_size < 1:
        raise SettingError(f"batch_size is {batch_size!r}, expected at least 1; 64 suits most machines")
    if images.pixels is None:
        return _file_batches(images, spec, batch_size)
    return _array_batches(images, images.pixels, spec, batch_size)


def _array_batches(images: ImageStore, pixels: Images, spec: InputSpec, batch_size: int) -> Iterator[Images]:
    for start in range(0, len(images), batch_size):
        yield fit_images(pixels[start : start + batch_size], spec)
        images.release()


def _file_batches(images: ImageStore, spec: InputSpec, batch_size: int) -> Iterator[Images]:
    """Keep two batches of prepared images ahead; images of full size exist only inside a worker."""

    def ready(place: int) -> NDArray[np.uint8]:
        with turn():
            return images.prepared(place, spec)

    waiting: deque[Future[NDArray[np.uint8]]] = deque()
    todo = iter(range(len(images)))
    pool = ThreadPoolExecutor(reading_threads())
    try:
        for start in range(0, len(images), batch_size):
            while len(waiting) < 3 * batch_size and (index := next(todo, None)) is not None:
                waiting.append(pool.submit(ready, index))
            size = min(batch_size, len(images) - start)
            yield np.stack([waiting.popleft().result() for _ in range(size)])
    finally:
        pool.shutdown(cancel_futures=True)
