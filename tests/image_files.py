"""Image files that Pillow does not write, byte by byte: 16 bits per channel, odd metadata, several frames."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(png: bytes, chunk: bytes) -> bytes:
    """A PNG with a chunk after its header."""
    return png[:33] + chunk + png[33:]


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of (height, width, 1 to 4) values of 16 bits: grey, grey and alpha, colour, colour and alpha."""
    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return PNG + b"".join(png_chunk(kind, body) for kind, body in chunks)


def tiff(
    values: np.ndarray,
    *,
    order: str = "<",
    deflate: bool = False,
    extra: tuple[tuple[int, int], ...] = (),
) -> bytes:
    """A TIFF of (height, width, 1, 3 or 4) values of 8 or 16 bits; ``extra`` are whole-number tags."""
    height, width, channels = values.shape
    bits = 8 * values.dtype.itemsize
    data = values.astype(f"{order}u{values.dtype.itemsize}").tobytes()
    data = zlib.compress(data) if deflate else data
    data += b"\0" * (len(data) % 2)
    tags = {256: width, 257: height, 259: 8 if deflate else 1, 262: 2 if channels > 2 else 1, 273: 8}
    tags |= {
        277: channels,
        278: height,
        279: len(data),
        284: 1,
        **({338: 2} if channels == 4 else {}),
        **dict(extra),
    }
    n_tags = len(tags) + 1
    after = 8 + len(data) + 2 + 12 * n_tags + 4
    entries = {tag: struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items()}
    depths = struct.pack(order + f"{channels}H", *[bits] * channels)
    where = depths.ljust(4, b"\0") if channels < 3 else struct.pack(order + "I", after)
    entries[258] = struct.pack(order + "HHI", 258, 3, channels) + where
    directory = (
        struct.pack(order + "H", n_tags) + b"".join(entries[tag] for tag in sorted(entries)) + b"\0" * 4
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return (
        mark + struct.pack(order + "I", 8 + len(data)) + data + directory + (depths if channels > 2 else b"")
    )


def strokes(side_px: int = 48) -> np.ndarray:
    """A cross, dark on white, (side_px, side_px) uint8."""
    pixels = np.full((side_px, side_px), 255, np.uint8)
    pixels[side_px // 2 - 2 : side_px // 2 + 2, 6:-6] = 0
    pixels[6:-6, side_px // 2 - 2 : side_px // 2 + 2] = 0
    return pixels
