"""The binary portable formats (PGM, PPM) with any largest value, which Pillow decodes pixel by pixel in Python."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PortableHeader", "portable_header", "portable_values"]

_HEADER_BYTES = 64 * 1024
_DIGITS = 10
_BLANK = b" \t\n\x0b\x0c\r"
_STARTS = (b"", b"#", *(_BLANK[i : i + 1] for i in range(len(_BLANK))))


@dataclass(frozen=True)
class PortableHeader:
    """Kind (``P1`` to ``P6``), width, height, largest value (1 for bitmaps), and where the pixels begin."""

    kind: str
    width_px: int
    height_px: int
    largest: int
    begin: int

    @property
    def slow(self) -> bool:
        """Whether Pillow would take seconds per million pixels."""
        return self.kind in ("P5", "P6") and self.largest not in (255, 65535)


def portable_header(data: bytes) -> PortableHeader | None:
    """The header of a portable image; None for other files. ValueError if it has no end within 64 KB.

    Pillow reads it byte by byte in Python: 15 s for 100 MB of blanks.
    """
    if data[:1] != b"P" or data[1:2] not in (b"1", b"2", b"3", b"4", b"5", b"6") or data[2:3] not in _STARTS:
        return None
    kind, at, numbers = data[:2].decode(), 2, []
    for _ in range(2 if kind in ("P1", "P4") else 3):
        number, at = _number(data, at)
        if number is None:
            return None
        numbers.append(number)
    width, height, largest = (*numbers, 1)[:3]
    if not (width and height and 0 < largest < 65536):
        return None
    return PortableHeader(kind, width, height, largest, at + 1)


def portable_values(data: bytes, header: PortableHeader) -> NDArray[np.uint8]:
    """The 8-bit pixels of a binary file, (height, width, 1 or 3): the values that Pillow computes."""
    channels = 1 if header.kind == "P5" else 3
    count = header.width_px * header.height_px * channels
    dtype = np.dtype(">u2" if header.largest > 255 else np.uint8)
    if len(data) - header.begin < count * dtype.itemsize:
        raise ValueError("it is truncated")
    values = np.frombuffer(data, dtype, count, header.begin)
    most = 65535 if dtype.itemsize == 2 and channels == 1 else 255
    scale = (
        np.rint(np.arange(2 ** (8 * dtype.itemsize)) / header.largest * most).clip(max=most).astype(np.int32)
    )
    if most == 65535:
        scale = (scale + 128) // 257
    pixels: NDArray[np.uint8] = scale.astype(np.uint8)[values]
    return pixels.reshape(header.height_px, header.width_px, channels)


def _number(data: bytes, at: int) -> tuple[int | None, int]:
    """The next number of a header and where it ends, after comments and blanks; None if there is another thing."""
    limit = min(len(data), _HEADER_BYTES)
    while at < limit and (data[at] in _BLANK or data[at] == ord("#")):
        if data[at] == ord("#"):
            ends = [place for end in (b"\n", b"\r") if (place := data.find(end, at, limit)) >= 0]
            at = min(ends, default=limit)
        else:
            at += 1
    end = at
    while end < limit and data[end : end + 1].isdigit():
        end += 1
    if end == limit:
        raise ValueError("its header has no end")
    if not 0 < end - at <= _DIGITS or data[end] not in _BLANK:
        return None, end
    return int(data[at:end]), end
