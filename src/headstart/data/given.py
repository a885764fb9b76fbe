"""Images that a program hands over: lists and streams of objects, arrays, files and folders, as image stores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from glob import has_magic
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.duplicates import THUMB_PX
from headstart.data.checks.looks import Look, look_at
from headstart.data.dataset import Dataset
from headstart.data.images.inputs import (
    CHANNELS,
    CHANNELS_FIRST,
    as_array,
    eight_bits,
    is_file_object,
    is_pillow,
    is_table,
    local_path,
    one_image,
    one_prepared,
)
from headstart.data.images.reduced import Header
from headstart.data.readers.catalog import KNOWN
from headstart.data.readers.image_files import find_images
from headstart.data.stores import ArrayImages, FileImages, ImageStore
from headstart.errors import DataError, MissingDataError, ShapeError
from headstart.records import Images, InputSpec

__all__ = [
    "GivenImages",
    "array_images",
    "decoded_store",
    "image_stores",
    "listed_images",
    "many_images",
]

_DATASETS = (".csv", ".tsv", ".parquet", ".json", ".jsonl", ".npz", ".zip", ".tar", ".gz", ".tgz")


class GivenImages:
    """Images of any kind that `one_image` reads, of any size; each is decoded when its pixels are read.

    They are kept as given: do not change them afterwards.
    """

    def __init__(self, items: Sequence[Any], first: int = 0) -> None:
        self._items, self._first = tuple(items), first
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def pixels(self) -> None:
        """None: sizes may differ."""
        return

    @property
    def paths(self) -> None:
        """None: not all images are files."""
        return

    @property
    def image_shape(self) -> None:
        """None: sizes may differ."""
        return

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """SHA-256 of each image's shape and pixels."""
        return tuple(_digest(self.image(place)) for place in range(len(self)))

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the images in order."""
        return hashlib.sha256(b"given" + b"".join(self.digests)).hexdigest()

    def image_name(self, place: int) -> str:
        """The path of a file, else ``image 17`` for place 17."""
        item = self._items[place]
        return os.fsdecode(item) if isinstance(item, str | os.PathLike) else f"image {self._first + place}"

    @property
    def depth_bits(self) -> None:
        """None: they need not be of one dataset."""
        return

    def image(self, place: int, depth_bits: int | None = None) -> NDArray[np.uint8]:
        """One decoded image, upright, (height, width, 1 or 3); values of 16 bits are scaled as ``depth_bits``."""
        item, name = self._items[place], f"image {self._first + place}"
        if isinstance(item, str | os.PathLike | bytes):
            return one_image(item, name, depth_bits)
        with self._lock:  # one Pillow image or file object may be given many times, and is read on use
            return one_image(item, name, depth_bits)

    def prepared(self, place: int, spec: InputSpec) -> NDArray[np.uint8]:
        """One image as a network takes it; a large JPEG is decoded at a reduced size."""
        item, name = self._items[place], f"image {self._first + place}"
        if isinstance(item, str | os.PathLike | bytes):
            return one_prepared(item, name, spec)
        with self._lock:
            return one_prepared(item, name, spec)

    def look(self, place: int) -> Look:
        """What the checks keep of an image."""
        return look_at(*self.preview(place, THUMB_PX))

    def preview(self, place: int, side_px: int) -> tuple[Header, NDArray[np.uint8]]:
        """Header and pixels of one image at full size."""
        pixels = self.image(place)
        height, width, channels = pixels.shape
        return Header(width, height, "L" if channels == 1 else "RGB", "object"), pixels

    def subset(self, indices: NDArray[np.intp]) -> GivenImages:
        """Select images in this order."""
        return GivenImages([self._items[place] for place in indices])

    def joined(self, other: ImageStore) -> GivenImages | None:
        """Both stores as one; None if the other is of another kind."""
        return GivenImages([*self._items, *other._items]) if isinstance(other, GivenImages) else None

    def release(self) -> None:
        """Do nothing: decoded pixels are not kept."""


def image_stores(images: Any, spec: InputSpec, chunk: int) -> tuple[int | None, Iterator[ImageStore]]:
    """The number of images, None for a stream, and the images; a stream comes in stores of ``chunk`` images.

    ``images`` is what `Model.predict` takes. A HeadstartError says what is wrong with it, for a stream when the
    image is reached.
    """
    if isinstance(images, Dataset):
        return len(images), iter([images.images])
    if isinstance(images, str | os.PathLike):
        store: ImageStore = FileImages(_files(images))
    elif is_pillow(images) or isinstance(images, bytes | bytearray | memoryview) or is_file_object(images):
        store = GivenImages([images])
    elif is_table(images) or isinstance(images, dict | set | frozenset) or images is None:
        raise DataError(_cannot_be_read(images))
    elif _is_array(images):
        native = None if hasattr(images, "detach") else spec  # tensors usually have channels first
        store = array_images(as_array(images, "images"), spec, native)
    elif isinstance(images, Iterable) and not hasattr(images, "__len__"):
        return None, _chunks(iter(images), chunk)
    elif isinstance(images, Iterable):
        store = listed_images(images, spec)
    else:
        raise DataError(_cannot_be_read(images))
    return len(store), iter([store])


def listed_images(images: Iterable[Any], spec: InputSpec | None = None) -> ImageStore:
    """A list, tuple or column of images, one per item; nested lists of numbers are one array."""
    items = images.tolist() if hasattr(images, "tolist") else list(images)
    if items and isinstance(items[0], list | tuple) and _are_numbers(items):
        return array_images(as_array(items, "images"), spec, spec)
    return GivenImages(items)


def decoded_store(items: Iterable[Any]) -> ImageStore:
    """Images to learn from: decoded once now, so that errors come now, and kept in memory if all have one size."""
    given = GivenImages(list(items))
    pixels, shapes = [], set()
    for place in range(len(given)):
        one = given.image(place)
        shapes.add(one.shape)
        if len(shapes) == 1:
            pixels.append(one)
    return ArrayImages(np.stack(pixels)) if len(shapes) == 1 else given


def many_images(array: NDArray[Any]) -> ImageStore:
    """An array (n, height, width), (n, height, width, channels) or (n, channels, height, width) as n images."""
    if array.ndim == 3 and array.shape[2] in CHANNELS:
        raise ShapeError(
            f"X has shape {array.shape}, which is one image with channels last, expected n images; "
            "pass X[None] for one image"
        )
    return array_images(array[..., None] if array.ndim == 3 else array)


def array_images(
    array: NDArray[Any], spec: InputSpec | None = None, native: InputSpec | None = None
) -> ImageStore:
    """An array as one image or as many; ShapeError where both are possible, or neither.

    (height, width) and (height, width, channels) are one image; (n, height, width), (n, height, width, channels)
    and (n, channels, height, width) are n. ``spec`` tells rows of flattened pixels from one image, ``native`` 3 or
    4 grey images of its size from one image with channels first.
    """
    shape, many = array.shape, False
    if array.ndim == 2:
        _refuse_rows(shape, spec)
    elif array.ndim == 3 and shape[2] not in CHANNELS:
        own = native is not None and (*shape[1:], 1) == native.shape
        if shape[0] in CHANNELS_FIRST[1:] and not own:
            raise ShapeError(
                f"images has shape {shape}, expected one image with channels last, or {shape[0]} grey images "
                "(n, height, width, 1); move channels with numpy.moveaxis(images, 0, -1), or add an axis with "
                "images[..., None]"
            )
        array, many = array[..., None], True
    elif array.ndim == 4:
        many = True
        if shape[3] not in CHANNELS and shape[1] in CHANNELS_FIRST:
            array = np.moveaxis(array, 1, -1)
    if array.ndim not in (2, 3, 4) or (many and array.shape[3] not in CHANNELS) or 0 in array.shape[many:]:
        raise ShapeError(
            f"images has shape {shape}, expected one image (height, width) or (height, width, 1 to 4), or "
            "many (n, height, width) or (n, height, width, 1 to 4); reshape it"
        )
    if not many:
        return GivenImages([array])
    if array.shape[3] in (2, 4) or array.dtype == np.uint16:
        return GivenImages(list(array))
    return ArrayImages(eight_bits(array, "images"))


def _refuse_rows(shape: tuple[int, ...], spec: InputSpec | None) -> None:
    """Raise for an array whose rows may be flattened images of the model's size."""
    if spec is None or shape[0] == shape[1] or shape[1] != spec.height_px * spec.width_px * spec.channels:
        return
    size = f"{spec.height_px}, {spec.width_px}" + (f", {spec.channels}" if spec.channels > 1 else "")
    raise ShapeError(
        f"images has shape {shape}, expected one image, or {shape[0]} images that are not flattened; "
        f"use images.reshape(-1, {size}), or for one grey image images[..., None]"
    )


def _files(given: str | os.PathLike[str]) -> Sequence[Path]:
    """The image files that one path means; MissingDataError or DataError if there is none."""
    path = local_path(given, "image")
    text = str(path)
    if path.is_dir() or (has_magic(text) and not path.exists()):
        return [Path(one) for one in find_images([text])]
    if path.is_file() and path.name.lower().endswith(_DATASETS):
        raise DataError(
            f"file {text!r} is a table or an archive, expected an image or a folder of images; "
            f"for a dataset pass headstart.load({text!r})"
        )
    if not path.exists() and text.partition(":")[0] in KNOWN:
        raise MissingDataError(
            f"image {text!r} does not exist, expected a file or a folder; for the dataset of that name pass "
            f"headstart.load({text!r})"
        )
    return [path]


def _chunks(items: Iterator[Any], size: int) -> Iterator[ImageStore]:
    first = 0
    while some := list(islice(items, size)):
        yield GivenImages(some, first)
        first += len(some)


def _is_array(images: Any) -> bool:
    """Whether this is an array or tensor of numbers; a column of objects is a list."""
    if not hasattr(images, "__array__") or not hasattr(images, "shape"):
        return False
    return getattr(getattr(images, "dtype", None), "kind", "n") not in "OUST" or len(images.shape) == 0


def _are_numbers(items: list[Any]) -> bool:
    inner: Any = items
    while isinstance(inner, list | tuple) and inner:
        inner = inner[0]
    return isinstance(inner, bool | int | float | np.number)


def _cannot_be_read(images: Any) -> str:
    kind = "None" if images is None else f"of type {type(images).__name__}"
    advice = "pass its column of paths" if is_table(images) else "pass a list of images"
    return (
        f"images is {kind}, expected a path, bytes, a Pillow image, an array, a list of these, or a dataset; "
        f"{advice}"
    )


def _digest(pixels: Images) -> bytes:
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).data).digest()
