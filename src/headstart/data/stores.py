"""Where the images of a dataset lie: in memory or in files, undecoded until asked for.

In: a uint8 array, or paths. Out: stores with a length, a content fingerprint and subsets.
Imports NumPy and our errors only. Called by the dataset and by imaging.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from headstart.data.faults import Fault, raise_faults
from headstart.errors import BrokenDataError, MissingDataError, ShapeError
from headstart.records import Images

__all__ = ["ArrayImages", "FileImages", "ImageStore", "read_bytes"]


_HASHED = 16_384  # images hashed at a time


class ImageStore(Protocol):
    """Where a dataset keeps its images; nothing is decoded until somebody asks for pixels."""

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the images in order, wherever they lie."""
        ...

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def subset(self, indices: NDArray[np.intp]) -> Self:
        """Take these images in this order."""
        ...


class ArrayImages:
    """Images of one size, in memory, read-only.

    Parameters
    ----------
    pixels : ndarray of shape (n_images, height, width) or (n_images, height, width, 1 or 3), uint8
        Not copied where it is contiguous: do not change it afterwards. A file mapped by
        ``numpy.load(path, mmap_mode="r")`` stays on the disk, however large.

    Attributes
    ----------
    pixels : ndarray of shape (n_images, height, width, channels), uint8

    Raises
    ------
    ShapeError
        If the dtype is not uint8, or the shape is none of the above.

    Examples
    --------
    >>> ArrayImages(np.zeros((5, 8, 8), np.uint8)).pixels.shape
    (5, 8, 8, 1)
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
        """How many images there are."""
        return len(self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the shape and every pixel."""
        digest = hashlib.sha256(f"array {self.pixels.shape}".encode())
        for start in range(0, len(self), _HASHED):
            digest.update(self.pixels[start : start + _HASHED].data)
            self.release()
        return digest.hexdigest()

    def subset(self, indices: NDArray[np.intp]) -> ArrayImages:
        """Take these images in this order; a run of neighbours costs no copy."""
        if len(indices) and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
            run = ArrayImages(self.pixels[indices[0] : indices[0] + len(indices)])
            run._mapping = self._mapping
            return run
        return ArrayImages(self.pixels[indices])

    def release(self) -> None:
        """Let the system have the pages of a mapped file back: what was read need not stay in memory."""
        pages = getattr(self._mapping, "_mmap", None)
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)


class FileImages:
    """Images as files, read when asked for and checked to be what they were when listed.

    Parameters
    ----------
    paths : sequence of path
        One file per image.
    digests : sequence of bytes, optional
        SHA-256 of each file's bytes; taken when first needed otherwise.

    Raises
    ------
    ShapeError
        If ``digests`` is not as long as ``paths``.

    Examples
    --------
    >>> len(FileImages(["a.png", "b.png"]).subset(np.array([1])))
    1
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], digests: Sequence[bytes] | None = None
    ) -> None:
        self.paths: tuple[Path, ...] = tuple(Path(path) for path in paths)
        if digests is not None and len(digests) != len(self.paths):
            raise ShapeError(
                f"digests has {len(digests)} entries, need {len(self.paths)} to match paths; "
                "pass one per file"
            )
        self._digests = None if digests is None else tuple(digests)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.paths)

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """SHA-256 of each file's bytes."""
        if self._digests is not None:
            return self._digests
        return tuple(hashlib.sha256(read_bytes(path)).digest() for path in self.paths)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the files' contents in order; their places do not matter."""
        return hashlib.sha256(b"files" + b"".join(self.digests)).hexdigest()

    def subset(self, indices: NDArray[np.intp]) -> FileImages:
        """Take these files in this order."""
        digests = None if self._digests is None else [self._digests[i] for i in indices]
        return FileImages([self.paths[i] for i in indices], digests)

    def read(self, index: int) -> bytes:
        """Read one file.

        Parameters
        ----------
        index : int
            Which of the files.

        Returns
        -------
        bytes
            The file as it lies on disk, undecoded.

        Raises
        ------
        MissingDataError
            If the file is gone.
        BrokenDataError
            If the file is not what it was when the dataset was read: features and
            scores are stored under the fingerprint of what was there then.
        """
        data = read_bytes(self.paths[index])
        if self._digests is not None and hashlib.sha256(data).digest() != self._digests[index]:
            raise BrokenDataError(
                f"image {str(self.paths[index])!r} has changed since the dataset was read, "
                "need it as it was; load the dataset again"
            )
        return data


def read_bytes(path: Path) -> bytes:
    """Read an image file whole.

    Parameters
    ----------
    path : Path
        Where it lies.

    Returns
    -------
    bytes

    Raises
    ------
    MissingDataError
        If it is not there.
    BrokenDataError
        If it cannot be opened.

    Examples
    --------
    >>> read_bytes(Path("no-such.png"))
    Traceback (most recent call last):
        ...
    headstart.errors.MissingDataError: image 'no-such.png' is not there, need a file; mend the path
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingDataError(f"image {str(path)!r} is not there, need a file; mend the path") from error
    except OSError as error:
        raise BrokenDataError(
            f"image {str(path)!r} cannot be opened ({error.strerror}), need a readable file; "
            "check its permissions"
        ) from error


def _pixel_faults(pixels: Any) -> list[Fault]:
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels).__name__
        return [(ShapeError, f"images is of type {kind}, need a uint8 array; convert it with numpy.asarray")]
    faults: list[Fault] = []
    if pixels.dtype != np.uint8:
        advice = "scale to 0 - 255 and convert with .astype('uint8')"
        faults.append((ShapeError, f"images has dtype {pixels.dtype}, need uint8; {advice}"))
    if (
        pixels.ndim not in (3, 4)
        or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3))
        or 0 in pixels.shape[1:]
    ):
        need = "need (n_images, height, width) or (n_images, height, width, 1 or 3)"
        advice = "put channels last, without alpha: numpy.moveaxis(images, 1, -1)"
        faults.append((ShapeError, f"images has shape {pixels.shape}, {need}; {advice}"))
    return faults
