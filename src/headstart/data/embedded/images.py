"""The images of a file of features: names and digests, and pixels only where the images are still there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.looks import Look, content_digest
from headstart.data.embedded.parts import DIGEST_BYTES, Part
from headstart.data.images.reduced import Header
from headstart.data.readable import why_no_pixels
from headstart.data.stores import ImageStore
from headstart.errors import MissingDataError
from headstart.records import Array, Images, InputSpec

__all__ = ["DescribedImages", "EmbeddedImages", "FeatureTable", "image_digests", "table_of"]


class FeatureTable:
    """The vectors of one or several Parquet files, read when they are used.

    The images of every selection have a fingerprint; the table knows the rows of those that were computed.
    """

    def __init__(
        self, name: str, parts: Sequence[Part], names: NDArray[np.object_], digests: NDArray[np.uint8]
    ) -> None:
        self.name, self.record, self._parts = name, parts[0].record, tuple(parts)
        self.names, self.digests = names, digests
        self._rows: dict[str, NDArray[np.intp]] = {}

    @property
    def about(self) -> str:
        """The file or folder, and how its features were computed."""
        record = self.record
        rounded = ", rounded to float16" if record.dtype == "float16" else ""
        return (
            f"read from {Path(self.name).name}: {len(self.digests):,} rows at {record.layer}, {record.pooling}"
            f"{rounded}, computed by headstart {record.version} with {record.runtime}"
        )

    @property
    def state(self) -> list[tuple[int, int]]:
        """That of each file: what was copied from others holds no more."""
        return [part.state for part in self._parts]

    def noted(self, fingerprint: str, rows: NDArray[np.intp]) -> str:
        """The fingerprint, by which the vectors of these rows are found from now on."""
        self._rows[fingerprint] = rows
        return fingerprint

    def rows_of(self, fingerprint: str) -> NDArray[np.intp] | None:
        """The rows of the images with a fingerprint; None if they are not in this table."""
        return self._rows.get(fingerprint)

    def vectors(self, rows: NDArray[np.intp]) -> Array:
        """Vectors of some rows in their order, (n_rows, n_features) float32."""
        order = np.argsort(rows, kind="stable")
        ascending, first = rows[order], 0
        found = np.empty((len(rows), self.record.n_features), np.float32)
        for part in self._parts:
            low, high = np.searchsorted(ascending, [first, first + len(part)])
            for places, values in part.vectors(ascending[low:high] - first):
                found[order[low + places]] = values
            first += len(part)
        return found


class DescribedImages:
    """Images of which names and digests are known, but no pixels; ``no_pixels`` says why."""

    def __init__(
        self,
        names: NDArray[np.object_],
        digests: NDArray[np.uint8],
        no_pixels: str,
        shape: tuple[int, int, int] | None = None,
        depth_bits: int | None = None,
    ) -> None:
        self._names, self._digests, self.no_pixels = names, digests, no_pixels
        self.image_shape, self.depth_bits = shape, depth_bits

    def __len__(self) -> int:
        return len(self._digests)

    @property
    def pixels(self) -> None:
        """None: there are no pixels."""
        return

    @property
    def paths(self) -> None:
        """None: there are no files, or others than there were."""
        return

    @property
    def digests(self) -> list[bytes]:
        """SHA-256 of each image."""
        return [row.tobytes() for row in self._digests]

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the digests in order; the same as that of the files where the images were files."""
        kind = b"files" if self.image_shape is None else f"described {self.image_shape}".encode()
        digest = hashlib.sha256(kind + self._digests.tobytes())
        if self.depth_bits not in (None, 16):
            digest.update(f"{self.depth_bits} bits".encode())
        return digest.hexdigest()

    def image_name(self, place: int) -> str:
        """The path of the file, or ``image 17``."""
        return str(self._names[place])

    def image(self, place: int, depth_bits: int | None = None) -> NDArray[np.uint8]:
        """Raise MissingDataError: there are no pixels."""
        self._refuse(place)

    def prepared(self, place: int, spec: InputSpec) -> NDArray[np.uint8]:
        """Raise MissingDataError: there are no pixels."""
        self._refuse(place)

    def preview(self, place: int, side_px: int) -> tuple[Header, NDArray[np.uint8]]:
        """Raise MissingDataError: there are no pixels."""
        self._refuse(place)

    def look(self, place: int) -> Look:
        """Raise MissingDataError: there are no pixels."""
        self._refuse(place)

    def _refuse(self, place: int) -> NoReturn:
        raise MissingDataError(
            f"image {self.image_name(place)!r} is known by its features only ({self.no_pixels}), expected the "
            "image itself; put the images back, or give the dataset instead of its features"
        )

    def subset(self, indices: NDArray[np.intp]) -> DescribedImages:
        """Select images in this order."""
        names, digests = self._names[indices], self._digests[indices]
        return DescribedImages(names, digests, self.no_pixels, self.image_shape, self.depth_bits)

    def joined(self, other: ImageStore) -> DescribedImages:
        """Names and digests of both, by which copies are found."""
        theirs = np.array([other.image_name(place) for place in range(len(other))], np.object_)
        names = np.concatenate([self._names, theirs])
        return DescribedImages(names, np.concatenate([self._digests, image_digests(other)]), self.no_pixels)

    def release(self) -> None:
        """Do nothing: there are no pixels."""


class EmbeddedImages:
    """The images of rows of a `FeatureTable`: those of ``images``, which are described, or files, or in memory."""

    def __init__(self, table: FeatureTable, rows: NDArray[np.intp], images: ImageStore) -> None:
        self.table, self.rows, self._images = table, rows, images

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def no_pixels(self) -> str | None:
        """Why images cannot be decoded; None if they can."""
        return why_no_pixels(self._images)

    @property
    def pixels(self) -> Images | None:
        """All images, if they are in memory."""
        return self._images.pixels

    @property
    def paths(self) -> tuple[Path, ...] | None:
        """The file of each image, if they are there."""
        return self._images.paths

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels of every image; None if images may differ."""
        return self._images.image_shape

    @property
    def depth_bits(self) -> int | None:
        """Bits that the 16-bit files of the whole dataset use."""
        return self._images.depth_bits

    @property
    def digests(self) -> Sequence[bytes]:
        """SHA-256 of each image."""
        return [row.tobytes() for row in self.table.digests[self.rows]]

    @cached_property
    def fingerprint(self) -> str:
        """That of the images; the table finds their vectors by it from now on."""
        return self.table.noted(self._images.fingerprint, self.rows)

    def image_name(self, place: int) -> str:
        """The path of the file, or ``image 17``."""
        return str(self.table.names[self.rows[place]])

    def image(self, place: int, depth_bits: int | None = None) -> NDArray[np.uint8]:
        """One decoded image; MissingDataError if there are no pixels, as below."""
        return self._images.image(place, depth_bits)

    def prepared(self, place: int, spec: InputSpec) -> NDArray[np.uint8]:
        """One image as a network takes it."""
        return self._images.prepared(place, spec)

    def preview(self, place: int, side_px: int) -> tuple[Header, NDArray[np.uint8]]:
        """Header and pixels of one image."""
        return self._images.preview(place, side_px)

    def look(self, place: int) -> Look:
        """What the checks keep of an image."""
        return self._images.look(place)

    def subset(self, indices: NDArray[np.intp]) -> EmbeddedImages:
        """Select images in this order."""
        return EmbeddedImages(self.table, self.rows[indices], self._images.subset(indices))

    def joined(self, other: ImageStore) -> ImageStore | None:
        """Both stores as one, without vectors."""
        theirs = other._images if isinstance(other, EmbeddedImages) else other
        if why_no_pixels(self._images) is None and why_no_pixels(theirs) is not None:
            ours: ImageStore = self._described(str(why_no_pixels(theirs)))
            return ours.joined(theirs)
        return self._images.joined(theirs)

    def _described(self, reason: str) -> DescribedImages:
        return DescribedImages(self.table.names[self.rows], self.table.digests[self.rows], reason)

    def release(self) -> None:
        """Return the pages of a memory-mapped file to the system."""
        self._images.release()


def table_of(images: ImageStore) -> FeatureTable | None:
    """The table that knows the vectors of images; None if they must be computed."""
    table: FeatureTable | None = getattr(images, "table", None)
    return table


def image_digests(images: ImageStore) -> NDArray[np.uint8]:
    """SHA-256 of each image's file, or of the size and pixels of an image in memory, uint8 (n_images, 32).

    Records of the images that a model has seen hold the first bytes of the same.
    """
    pixels = images.pixels
    known = table_of(images) is not None or pixels is None
    found = images.digests if known or pixels is None else [content_digest(image) for image in pixels]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, DIGEST_BYTES)
