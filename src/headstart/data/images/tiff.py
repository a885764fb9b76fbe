"""TIFF files: those that only look like an image are refused, and what libtiff complains about is noticed.

libtiff reports a damaged strip on stderr and goes on, so that a torn fax page decodes to other pixels every time.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

__all__ = ["check_fax", "check_tiff", "noticed"]

_SUBFILE_TYPE, _COMPRESSION, _PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION = 254, 259, 262, 330, 50706
_COLOUR_FILTER_ARRAY, _LINEAR_RAW = 32803, 34892
_PARTS = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_UNCOMPRESSED = 1
_FAX = {"tiff_ccitt", "group3", "group4", "tiff_raw_16", "tiff_thunderscan"}
_DAMAGED = "its compressed data is damaged"
_RAW = "it is a camera's raw file, whose format is not read; convert it to PNG or JPEG"
_TORN = "it is truncated: a part of its pixels lies behind its end"
_LIMIT_PART_BYTES = 2**28
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)

_HERE = threading.local()
_KEPT: list[object] = []


def check_tiff(image: TiffImageFile, n_bytes: int) -> None:
    """ValueError for a camera's raw file, whose first page is a thumbnail, and for one that is cut off."""
    tags = image.tag_v2
    photometric = tags.get(_PHOTOMETRIC)
    is_reduced = _SUB_IFDS in tags and tags.get(_SUBFILE_TYPE, 0) & 1
    if _DNG_VERSION in tags or is_reduced or photometric in (_COLOUR_FILTER_ARRAY, _LINEAR_RAW):
        raise ValueError(_RAW)
    if tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED:
        return  # Pillow counts these bytes itself
    for offsets, counts in _PARTS:
        ends = [
            at + n for at, n in zip(_numbers(tags.get(offsets)), _numbers(tags.get(counts)), strict=False)
        ]
        if max(ends, default=0) > n_bytes:
            raise ValueError(_TORN)


@contextmanager
def noticed() -> Iterator[None]:
    """Decode TIFF in this thread: ValueError if libtiff reported an error, which does not reach stderr.

    Where the libtiff of Pillow is not a library of its own (Windows), its reports cannot be noticed.
    """
    _redirect()
    _HERE.n_errors = 0
    try:
        yield
        if _HERE.n_errors:
            raise ValueError(_DAMAGED)
    finally:
        _HERE.n_errors = None


def check_fax(image: TiffImageFile, data: bytes, page: int) -> None:
    """ValueError for a fax page whose code ends before its rows do.

    libtiff takes the end of the code for the end of the page, without a word, and leaves the other rows as
    they were in memory. So the code is decoded on two different grounds: where they differ, nothing was decoded.
    """
    library = _redirect()[-1:]
    if image.info.get("compression") not in _FAX or not library:
        return
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        file.seek(0)
        # libtiff closes the descriptor that it gets
        opened = library[0].TIFFFdOpen(os.dup(file.fileno()), b"page", b"r")
        if not opened:
            raise ValueError(_DAMAGED)
        try:
            if not library[0].TIFFSetDirectory(opened, page) or not _is_whole(library[0], opened):
                raise ValueError(_DAMAGED)
        finally:
            library[0].TIFFClose(opened)


def _is_whole(library: ctypes.CDLL, opened: int) -> bool:
    """Whether every byte of every strip or tile of a page is decoded."""
    part = "Tile" if library.TIFFIsTiled(opened) else "Strip"
    size = getattr(library, f"TIFF{part}Size")(opened)
    if not 0 < size <= _LIMIT_PART_BYTES:
        return False
    read = getattr(library, f"TIFFReadEncoded{part}")
    buffers = [ctypes.create_string_buffer(size) for _ in range(2)]
    for number in range(getattr(library, f"TIFFNumberOf{part}s")(opened)):
        lengths = []
        for fill, buffer in zip((0x00, 0xFF), buffers, strict=True):
            ctypes.memset(buffer, fill, size)
            lengths.append(read(opened, number, buffer, size))
        n_decoded = lengths[0]
        if min(lengths) < 0 or buffers[0].raw[:n_decoded] != buffers[1].raw[:n_decoded]:
            return False
    return True


def _numbers(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value or ())


@cache
def _redirect() -> tuple[Any, ...]:
    """Replace libtiff's error handler, once; reports of other threads go to the handler that was there."""
    library = _library()
    if library is None:
        return ()
    _declare(library)
    library.TIFFSetWarningHandler(None)  # as Pillow does when it decodes for the first time
    before = library.TIFFSetErrorHandler(None)
    former = _HANDLER(before) if before else None

    def handle(module: int | None, form: int | None, values: int | None) -> None:
        if getattr(_HERE, "n_errors", None) is not None:
            _HERE.n_errors += 1
        elif former is not None:
            former(module, form, values)

    handler = _HANDLER(handle)
    library.TIFFSetErrorHandler(ctypes.cast(handler, ctypes.c_void_p))
    _KEPT.extend((handler, former))  # libtiff holds the addresses, also if two threads come here at once
    return handler, former, library


def _declare(library: ctypes.CDLL) -> None:
    """Say what libtiff's functions take and return."""
    number, size, pointer = ctypes.c_uint32, ctypes.c_ssize_t, ctypes.c_void_p
    for name, result, arguments in (
        ("SetErrorHandler", pointer, [pointer]),
        ("SetWarningHandler", pointer, [pointer]),
        ("FdOpen", pointer, [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]),
        ("Close", None, [pointer]),
        ("SetDirectory", ctypes.c_int, [pointer, number]),
        ("IsTiled", ctypes.c_int, [pointer]),
        *((f"{part}Size", size, [pointer]) for part in ("Strip", "Tile")),
        *((f"NumberOf{part}s", number, [pointer]) for part in ("Strip", "Tile")),
        *((f"ReadEncoded{part}", size, [pointer, number, pointer, size]) for part in ("Strip", "Tile")),
    ):
        function = getattr(library, f"TIFF{name}")
        function.restype, function.argtypes = result, arguments


def _library() -> ctypes.CDLL | None:
    """The libtiff that Pillow has loaded: in its wheel, or the one of the system."""
    from PIL import _imaging

    home = Path(_imaging.__file__).parent.parent
    bundled = [
        *glob.glob(str(home / "pillow.libs" / "libtiff*")),
        *glob.glob(str(home / "PIL/.dylibs/libtiff*")),
    ]
    loaded = [*bundled, *([_imaging.__file__] if sys.platform != "win32" else [])]
    for path in loaded:  # a symbol of a library is also found through the module that is linked to it
        try:
            library = ctypes.CDLL(path)
            library.TIFFSetErrorHandler  # noqa: B018
            return library
        except (OSError, AttributeError):
            continue
    return None
