"""Image stores: the images of a dataset, in memory or in files, with one protocol.

A store has no labels: see `dataset`. Other modules use the protocol, never the type of a store.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.duplicates import THUMB_PX
from headstart.data.checks.looks import Look, look_at
from headstart.data.contents.joined import joined
from headstart.data.contents.local import LocalFiles
from headstart.data.contents.protocol import Contents, Unread
from headstart.data.depth import SharedDepth, may_be_deep
from headstart.data.faults import Fault, raise_faults
from headstart.data.files import unread_error
from headstart.data.images.decode import decode_bytes, preview
from headstart.data.images.fit import fit_bytes, fit_image
from headstart.data.images.reduced import Header
from headstart.data.kept import KeptFile, preparation_of
from headstart.errors import BrokenDataError, ShapeError
from headstart.records import Images, InputSpec

__all__ = ["ArrayImages", "FileImages", "ImageStore"]


_HASHED = 16_384  # images hashed at once


class ImageStore(Protocol):
    """The images of a dataset; encoded ones are decoded only when pixels are read.

    ``pixels`` is None unless the images are in memory, ``paths`` unless each is a file of this machine: images in
    shards, tables or buckets have neither.
    """

    @property
    def pixels(self) -> Images | None:
        """All images, (n_images, height, width, channels) uint8; None if they are not in memory."""
        ...

    @property
    def paths(self) -> tuple[Path, ...] | None:
        """The local file of each image; None if they are none."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels of every image; None if images may differ."""
        ...

    @property
    def digests(self) -> Sequence[bytes]:
        """SHA-256 of each image's pixels in memory, or of its file."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the images in order; paths do not count."""
        ...

    def __len__(self) -> int: ...

    def image_name(self, place: int) -> str:
        """The name in messages: the path of the file, ``train-0003.tar:cat/001.jpg``, or ``image 17``."""
        ...

    @property
    def depth_bits(self) -> int | None:
        """Bits that the 16-bit files of the whole dataset use, 8 to 16; None if there is no such file."""
        ...

    def image(self, place: int, depth_bits: int | None = None) -> NDArray[np.uint8]:
        """One decoded image, upright, (height, width, 1 or 3); values of 16 bits are scaled as ``depth_bits``."""
        ...

    def prepared(self, place: int, spec: InputSpec) -> NDArray[np.uint8]:
        """One image as a network takes it; a large JPEG is decoded at a reduced size."""
        ...

    def preview(self, place: int, side_px: int) -> tuple[Header, NDArray[np.uint8]]:
        """Header and pixels of an image, for a thumbnail of this size: JPEG is decoded at a reduced scale."""
        ...

    def look(self, place: int) -> Look:
        """What the checks keep of an image; of a file that was examined nothing is decoded again."""
        ...

    def subset(self, indices: NDArray[np.intp]) -> Self:
        """Select images in this order."""
        ...

    def joined(self, other: ImageStore) -> ImageStore | None:
        """Both stores as one; None if one is in memory and the other in files, or shapes differ."""
        ...

    def release(self) -> None:
        """Return the pages of a memory-mapped file to the system."""
        ...


class ArrayImages:
    """Images of one size in memory, read-only, (n_images, height, width, channels) uint8.

    They are not copied if contiguous, so do not change them afterwards. A file mapped by
    ``numpy.load(path, mmap_mode="r")`` stays on the disk. ShapeError if they are not uint8 images.
    """

    def __init__(self, pixels: Images) -> None:
        faults = _pixel_faults(pixels)
        if faults:
            raise_faults(faults)
        four_d = pixels[..., None] if pixels.ndim == 3 else pixels  # (n, h, w) -> (n, h, w, 1)
        self.pixels: Images = np.ascontiguousarray(four_d).view()
        self.pixels.flags.writeable = False
        self._mapping = pixels if isinstance(pixels, np.memmap) and pixels.mode == "r" else None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def paths(self) -> None:
        """None: the images are not files."""
        return

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.pixels.shape[1:]
        return height, width, channels

    @property
    def digests(self) -> list[bytes]:
        """SHA-256 of each image's pixels."""
        return [hashlib.sha256(image).digest() for image in self.pixels]

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the shape and every pixel."""
        digest = hashlib.sha256(f"array {self.pixels.shape}".encode())
        for start in range(0, len(self), _HASHED):
            digest.update(self.pixels[start : start + _HASHED].data)
            self.release()
        return digest.hexdigest()

    def image_name(self, place: int) -> str:
        """``image 17`` for place 17."""
        return f"image {place}"

    @property
    def depth_bits(self) -> None:
        """None: all images have 8 bits."""
        return

    def image(self, place: int, depth_bits: int | None = None) -> NDArray[np.uint8]:
        """One image, (height, width, 1 or 3), read-only."""
        pixels: NDArray[np.uint8] = self.pixels[place]
        return pixels

    def preview(self, place: int, side_px: int) -> tuple[Header, NDArray[np.uint8]]:
        """Header and pixels of one image; nothing is decoded, so ``side_px`` is ignored."""
        height, width, channels = self.image_shape
        return Header(width, height, "L" if channels == 1 else "RGB", "array"), self.image(place)

    def prepared(self, place: int, spec: InputSpec) -> NDArray[np.uint8]:
        """One image as a network takes it."""
        return fit_image(self.image(place), spec)

    def look(self, place: int) -> Look:
        """What the checks keep of an image."""
        return look_at(*self.preview(place, THUMB_PX))

    def joined(self, other: ImageStore) -> ArrayImages | None:
        """Both stores as one; None if the other is in files or has images of another shape."""
        if other.pixels is None or self.image_shape != other.image_shape:
            return None
        return ArrayImages(np.concatenate([self.pixels, other.pixels]))

    def subset(self, indices: NDArray[np.intp]) -> ArrayImages:
        """Select images in this order; consecutive images are not copied."""
        if len(indices) and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
            run = ArrayImages(self.pixels[indices[0] : indices[0] + len(indices)])
            run._mapping = self._mapping
            return run
        return ArrayImages(self.pixels[indices])

    def release(self) -> None:
        """Return the pages of a memory-mapped file to the system, so that memory use stays constant."""
        pages = getattr(self._mapping, "_mmap", None)
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)


class FileImages:
    """Encoded images, read on demand; ``digests`` are the SHA-256 of their bytes, else computed when needed.

    ``files`` are paths, or `Contents` such as the members of tar shards. ``depth`` is how the values
    of 16-bit files are scaled, which a subset shares with the whole; else it is found out when it is needed.
    ``kept`` is what is known of files that were read before.
    """

    def __init__(
        self,
        files: Iterable[str | os.PathLike[str]] | Contents,
        digests: Sequence[bytes] | None = None,
        depth: SharedDepth | None = None,
        kept: Sequence[KeptFile | None] | None = None,
    ) -> None:
        self._contents: Contents = LocalFiles(files) if isinstance(files, Iterable) else files
        self._depth = SharedDepth.of_contents(self._contents) if depth is None else depth
        n_files = len(self._contents)
        if digests is not None and len(digests) != n_files:
            raise ShapeError(
                f"digests has {len(digests)} entries, expected {n_files} to match paths; pass one per file"
            )
        self._digests = None if digests is None else tuple(digests)
        self._kept = (None,) * n_files if kept is None else tuple(kept)

    @property
    def paths(self) -> tuple[Path, ...] | None:
        """The local file of each image; None if they lie in shards, tables or a bucket."""
        return self._contents.paths

    @property
    def pixels(self) -> None:
        """None: the images are not in memory."""
        return

    @property
    def image_shape(self) -> None:
        """None: files may differ in size."""
        return

    def __len__(self) -> int:
        return len(self._contents)

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """SHA-256 of each file's bytes."""
        if self._digests is not None:
            return self._digests
        return tuple(hashlib.sha256(self.read(place)).digest() for place in range(len(self)))

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the content of the files in order; paths do not count."""
        digest = hashlib.sha256(b"files" + b"".join(self.digests))
        if self.depth_bits not in (None, 16):  # a subset alone may use fewer bits
            digest.update(f"{self.depth_bits} bits".encode())
        return digest.hexdigest()

    def subset(self, indices: NDArray[np.intp]) -> FileImages:
        """Select files in this order."""
        digests = None if self._digests is None else [self._digests[i] for i in indices]
        kept = [self._kept[i] for i in indices]
        return FileImages(self._contents.subset(indices), digests, self._depth, kept)

    def image_name(self, place: int) -> str:
        """Path of the file, or where it lies in a shard."""
        return self._contents.name(place)

    @property
    def depth_bits(self) -> int | None:
        """Bits that the 16-bit files of the whole dataset use; None if there is no such file."""
        return self._depth.bits

    def image(self, place: int, depth_bits: int | None = None) -> NDArray[np.uint8]:
        """One decoded image, upright, (height, width, 1 or 3); by default with the depth of the dataset."""
        data = self.read(place)
        return decode_bytes(data, self.image_name(place), depth_bits or self._bits_for(data))

    def prepared(self, place: int, spec: InputSpec) -> NDArray[np.uint8]:
        """One image as a network takes it; a file that was prepared for it before is not read again."""
        kept = self._kept[place]
        row = None if kept is None else kept.prepared.get(preparation_of(spec))
        if row is not None:
            return row.read()
        data = self.read(place)
        return fit_bytes(data, self.image_name(place), spec, spec.depth_bits or self._bits_for(data))

    def look(self, place: int) -> Look:
        """What the checks keep of an image; of a file that was examined nothing is decoded again."""
        kept = self._kept[place]
        if kept is not None and kept.look is not None:
            return kept.look
        return look_at(*self.preview(place, THUMB_PX))

    def preview(self, place: int, side_px: int) -> tuple[Header, NDArray[np.uint8]]:
        """Header and pixels of one image; JPEG is decoded at a scale near ``side_px``, which is fast."""
        data = self.read(place)
        return preview(data, self.image_name(place), side_px, self._bits_for(data))

    def _bits_for(self, data: bytes) -> int | None:
        """The depth for a file that may have 16 bits; the other files of the dataset are read only for these."""
        return self.depth_bits if may_be_deep(data) else None

    def joined(self, other: ImageStore) -> FileImages | None:
        """Both stores as one; None if the other holds no encoded images."""
        if not isinstance(other, FileImages):
            return None
        contents, digests = joined(self._contents, other._contents), [*self.digests, *other.digests]
        return FileImages(contents, digests, self._depth.joined(other._depth), (*self._kept, *other._kept))

    def release(self) -> None:
        """Do nothing: files are read one at a time."""

    def read(self, index: int) -> bytes:
        """The bytes of one file; BrokenDataError if it has changed since the dataset was read.

        Features and scores are stored under the fingerprint of the content at that time.
        """
        try:
            data = self._contents.read(index)
        except Unread as error:
            raise unread_error(self.image_name(index), error) from error
        if self._digests is not None and hashlib.sha256(data).digest() != self._digests[index]:
            raise BrokenDataError(
                f"image {self.image_name(index)!r} has changed since the dataset was read, "
                "expected it as it was; load the dataset again"
            )
        return data


def _pixel_faults(pixels: Any) -> list[Fault]:
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels).__name__
        return [
            (ShapeError, f"images is of type {kind}, expected a uint8 array; convert it with numpy.asarray")
        ]
    faults: list[Fault] = []
    if pixels.dtype != np.uint8:
        advice = "scale to 0 - 255 and convert with .astype('uint8')"
        faults.append((ShapeError, f"images has dtype {pixels.dtype}, expected uint8; {advice}"))
    if (
        pixels.ndim not in (3, 4)
        or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3))
        or 0 in pixels.shape[1:]
    ):
        expected = "expected (n_images, height, width) or (n_images, height, width, 1 or 3)"
        advice = "put channels last, without alpha: numpy.moveaxis(images, 1, -1)"
        faults.append((ShapeError, f"images has shape {pixels.shape}, {expected}; {advice}"))
    return faults
