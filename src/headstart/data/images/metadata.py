"""PNG and WebP without their metadata: a text, profile or EXIF block that a decoder refuses costs no image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["exif_of", "without_metadata"]

_PNG = b"\x89PNG\r\n\x1a\n"
# without the chunks of an animation a PNG is its default image, which is what is read anyway
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}

_WEBP_CHUNKS = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_WEBP_METADATA = 0x20 | 0x08 | 0x04  # flags in VP8X: ICC profile, EXIF, XMP


def exif_of(info: Mapping[Any, Any]) -> bytes:
    """The EXIF block that Pillow would read, from what it knows of an image; empty if there is none."""
    found = info.get("exif")
    if found is None and (profile := info.get("Raw profile type exif")) is not None:
        found = bytes.fromhex("".join(str(profile).split("\n")[3:]))
    return bytes(found or b"").removeprefix(b"Exif\0\0")


def without_metadata(data: bytes) -> bytes | None:
    """The same image with nothing but what decides its pixels; None for other formats, or if nothing is left out."""
    if data.startswith(_PNG):
        kept = _png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kept = _webp(data)
    else:
        return None
    return None if kept == data else kept


def _png(data: bytes) -> bytes:
    parts, at, last = [_PNG], len(_PNG), b""
    while at + 8 <= len(data) and last != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4])
        last = data[at + 4 : at + 8]
        if last in _PIXEL_CHUNKS:
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def _webp(data: bytes) -> bytes:
    parts, at = [], 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]
        if kind == b"VP8X" and body:
            body = bytes([body[0] & ~_WEBP_METADATA]) + body[1:]
        if kind in _WEBP_CHUNKS or kind == b"VP8X":
            parts.append(kind + size.to_bytes(4, "little") + body + b"\0" * (size % 2))
        at += 8 + size + size % 2
    joined = b"".join(parts)
    return b"RIFF" + (4 + len(joined)).to_bytes(4, "little") + b"WEBP" + joined
