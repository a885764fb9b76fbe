"""The encoding of files of text: UTF-8, or what a byte order mark says."""

from __future__ import annotations

import codecs
from pathlib import Path

__all__ = ["encoding_of"]

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(path: Path) -> str:
    """The encoding by the byte order mark of a file; UTF-8 without one."""
    with path.open("rb") as file:
        head = file.read(4)
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")
