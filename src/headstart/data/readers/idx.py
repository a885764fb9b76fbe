"""The IDX format of the MNIST family. Sizes are checked before anything is decompressed."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from headstart.errors import BrokenDataError

__all__ = ["check_pair", "parse_idx"]

_UINT8 = 0x08
_GZIP = b"\x1f\x8b"
_LIMIT_BYTES = 4 * 1024**3


def parse_idx(data: bytes, name: str, n_axes: int) -> NDArray[np.uint8]:
    """The read-only uint8 array in an IDX file, gzipped or not, with 3 axes (images) or 1 (labels).

    BrokenDataError if it is empty, or its magic number or length is wrong.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "labels", 1).tolist()
    [7, 9]
    """
    if not data:
        raise BrokenDataError(
            f"IDX file {name!r} is empty (0 bytes), expected a header and values; fetch it again"
        )
    n_header = 4 + 4 * n_axes
    header = _unpacked(data, name, n_header)
    magic = bytes([0, 0, _UINT8, n_axes])
    if header[:4] != magic[: len(header)] or len(header) < n_header:
        raise BrokenDataError(
            f"IDX file {name!r} starts with {header[:4].hex()!r} and {len(header)} header bytes, "
            f"expected {magic.hex()!r} and {n_header} for {n_axes} axes of uint8; fetch it again"
        )
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
    expected = n_header + math.prod(shape)
    if expected > _LIMIT_BYTES:
        raise BrokenDataError(
            f"IDX file {name!r} claims shape {shape}, expected at most {_LIMIT_BYTES} bytes; fetch it again"
        )
    content = _unpacked(data, name, expected + 1)
    if len(content) != expected:
        found = f"{len(content)} bytes" if len(content) < expected else f"more than {expected} bytes"
        raise BrokenDataError(
            f"IDX file {name!r} holds {found}, expected {expected} for shape {shape}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=n_header).reshape(shape)


def check_pair(images: NDArray[np.uint8], labels: NDArray[np.uint8], names: tuple[str, str]) -> None:
    """BrokenDataError unless there is one label per image."""
    if len(images) != len(labels):
        raise BrokenDataError(
            f"IDX file {names[1]!r} has {len(labels)} labels ({8 + len(labels)} bytes), expected {len(images)} "
            f"({8 + len(images)} bytes) to match the images in {names[0]!r}; fetch both again"
        )


def _unpacked(data: bytes, name: str, limit_bytes: int) -> bytes:
    """At most this many bytes of the content; the checksum is verified if the end is reached."""
    if data[:2] != _GZIP:
        return data[:limit_bytes]
    try:
        return zlib.decompressobj(wbits=31).decompress(data, limit_bytes)
    except zlib.error as error:
        raise BrokenDataError(
            f"IDX file {name!r} cannot be unpacked ({error}), expected a whole gzip file; fetch it again"
        ) from error
