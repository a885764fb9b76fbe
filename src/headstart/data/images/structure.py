"""What the parts of an image file would cost a decoder, found before one opens it.

Pillow walks chunks, segments, blocks and tags in Python: 30 MB of empty comments take it hours, and tags that share
their values gigabytes. A file may also begin with a small frame that is blank and go on with a very large one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from math import prod

__all__ = ["MOST_FRAMES", "check_structure", "check_tags"]

MOST_FRAMES = 8  # tried where the first ones are blank
_FEW_PARTS = 1000  # that any file may have, however small
_PART_BYTES, _BLOCK_BYTES = (
    128,
    32,
)  # in larger files parts have at least as many bytes on average; blocks of GIF
_COMMENT_BYTES, _COMMENTS = 2**20, 1000  # Pillow copies all of a comment for every piece of it
_SEGMENTS, _EXIF_SEGMENTS = 2000, 16
_FILL_BYTES = 2**16
_LIMIT_STRIPS = 2**20
_TOO_MANY = "its structure has more parts than any image needs"
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
_BIG_TIFF = b"+"
_STRIPS = (273, 279, 324, 325)  # offsets and byte counts of strips, of tiles
_WIDTH, _HEIGHT, _SHORT = 256, 257, 3
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_NEXT_BLOCK = re.compile(rb"[,!;]")
_NOT_FILL = re.compile(rb"[^\xff]")

_Size = tuple[int, int]
"""Width and height in pixels."""
_FIRST: _Size = (0, 0)  # where all frames have the size of the first


def check_structure(data: bytes) -> _Size:
    """Size of the largest frame that may be decoded, (0, 0) where the first tells; ValueError for too many parts."""
    for starts, walk in _WALKS:
        if data.startswith(starts):
            return walk(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_chunks(data, 12, "<4xI", 8)
    return _FIRST


def check_tags(data: bytes) -> _Size:
    """Size of the largest of the first pages of a TIFF file; ValueError where tags share values, or have too many.

    EXIF is such a file without pixels.
    """
    order, is_big = "<" if data[:1] == b"I" else ">", data[2:3] == _BIG_TIFF
    number, entry, pointer = (
        struct.Struct(order + form) for form in (("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I"))
    )
    at, value_bytes, sizes, seen = _number(pointer, data, 8 if is_big else 4), 0, [_FIRST], set[int]()
    while at and at not in seen and len(seen) < MOST_FRAMES:
        seen.add(at)
        begin = at + number.size
        end = begin + entry.size * min(_number(number, data, at), 65_535)
        n_whole = max(0, min(end, len(data)) - begin) // entry.size
        sides = {_WIDTH: 0, _HEIGHT: 0}
        for tag, kind, count, value in entry.iter_unpack(data[begin : begin + n_whole * entry.size]):
            n_bytes = _TYPE_BYTES.get(kind, 0) * count
            value_bytes += min(n_bytes, len(data)) if n_bytes > len(value) else 0
            if tag in _STRIPS and count > _LIMIT_STRIPS:
                raise ValueError(_TOO_MANY)
            if tag in sides:
                sides[tag] = int(struct.unpack_from(order + ("H" if kind == _SHORT else "I"), value)[0])
        if value_bytes > 2 * len(data) + 2**16:
            raise ValueError("its tags share their values")
        sizes.append((sides[_WIDTH], sides[_HEIGHT]))
        at = _number(pointer, data, end)
    return max(sizes, key=prod)


def _number(form: struct.Struct, data: bytes, at: int) -> int:
    """The number at a place; 0 behind the end."""
    return int(form.unpack_from(data, at)[0]) if at + form.size <= len(data) else 0


def _check_png(data: bytes) -> _Size:
    _check_chunks(data, len(_PNG), ">I", 12)
    return _FIRST


def _check_chunks(data: bytes, at: int, form: str, around: int) -> None:
    """ValueError for too many chunks, each of a size that stands at its beginning and ``around`` more bytes."""
    size, left = struct.Struct(form), _FEW_PARTS + len(data) // _PART_BYTES
    while at + size.size <= len(data):
        at += around + int(size.unpack_from(data, at)[0])
        left -= 1
        if left < 0:
            raise ValueError(_TOO_MANY)


def _check_jpeg(data: bytes) -> _Size:
    """The segments before the pixels, and the bytes between them."""
    at, n_exif, fill = 2, 0, _FILL_BYTES + len(data) // _PART_BYTES
    for _ in range(_SEGMENTS):
        begin = data.find(b"\xff", at)
        found = _NOT_FILL.search(data, begin) if begin >= 0 else None
        if found is None:
            fill -= len(data) - at
            break
        fill -= found.start() - 1 - at
        code, at = found[0][0], found.end()
        if code == 0xDA or fill < 0:
            break
        if code >= 0xC0 and not 0xD0 <= code <= 0xD9:  # others have no content
            n_exif += code == 0xE1 and data[at + 2 : at + 6] == b"Exif"
            at += max(2, int.from_bytes(data[at : at + 2]))
    else:
        raise ValueError(_TOO_MANY)
    if fill < 0 or n_exif > _EXIF_SEGMENTS:
        raise ValueError(_TOO_MANY)
    return _FIRST


def _check_gif(data: bytes) -> _Size:
    """The blocks of the first frames, which may go beyond the first one."""
    left, largest, n_frames = _FEW_PARTS + len(data) // _BLOCK_BYTES, _FIRST, 0
    at, comment_bytes, n_comments = 13 + _table_bytes(data, 10), 0, 0
    while n_frames < MOST_FRAMES:
        found = _NEXT_BLOCK.search(data, at)
        left -= (found.start() if found else len(data)) - at
        if left < 0:
            raise ValueError(_TOO_MANY)
        if not found or found[0] == b";":
            break
        at, is_comment = found.end(), found[0] == b"!" and data[found.end() : found.end() + 1] == b"\xfe"
        if found[0] == b"!":
            at += 1
        elif at + 9 > len(data):
            break
        else:
            x, y, width, height = struct.unpack_from("<4H", data, at)
            largest, n_frames = (max(largest[0], x + width), max(largest[1], y + height)), n_frames + 1
            at += 10 + _table_bytes(data, at + 8)
        begin = at
        at, left = _blocks_end(data, at, left)
        if is_comment:
            comment_bytes, n_comments = comment_bytes + at - begin, n_comments + 1
            if comment_bytes > _COMMENT_BYTES or n_comments > _COMMENTS:
                raise ValueError("its comments are longer than any image needs")
    return largest


def _table_bytes(data: bytes, at: int) -> int:
    """The size of a table of colours, by the flags at a place."""
    flags = data[at] if at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def _blocks_end(data: bytes, at: int, left: int) -> tuple[int, int]:
    """Where a chain of blocks ends, and how many are left; ValueError if more than ``left`` come."""
    while left > 0:
        size = data[at] if at < len(data) else 0
        at, left = at + 1 + size, left - 1
        if not size:
            return at, left
    raise ValueError(_TOO_MANY)


_WALKS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[bytes], _Size]], ...] = (
    (b"\xff\xd8", _check_jpeg),
    (_PNG, _check_png),
    (_TIFF, check_tags),
    (b"GIF8", _check_gif),
)
