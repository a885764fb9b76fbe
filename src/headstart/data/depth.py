"""How many bits the 16-bit files of a dataset use: cameras and scanners store 10, 12 or 14 in 16.

The depth is that of the whole dataset: scaled one by one, a dark image would be as bright as a bright one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from headstart.data.contents.protocol import Contents
from headstart.data.files import examine
from headstart.data.images.values import depth_of

__all__ = ["SharedDepth", "may_be_deep"]

_HEAD = 32


def may_be_deep(head: bytes) -> bool:
    r"""Whether the first bytes of a file allow 16 bits per value: PNG says it, TIFF and PGM may have them.

    >>> may_be_deep(b"\xff\xd8\xff\xe0"), may_be_deep(b"II*\0")
    (False, True)
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return head[24:25] == b"\x10"
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") or head[:2] in (b"P2", b"P5")


class SharedDepth:
    """The depth of a dataset, found when it is first needed and shared by its subsets."""

    def __init__(self, find: Callable[[], int | None]) -> None:
        self._find: Callable[[], int | None] | None = find
        self._bits: int | None = None
        self._lock = threading.Lock()

    @classmethod
    def of_largest(cls, largest: Iterable[int | None]) -> SharedDepth:
        """Of the largest value of each file, None for files of 8 bits: what `examine_file` found."""
        return cls.known(_bits_of(largest))

    @classmethod
    def of_contents(cls, contents: Contents) -> SharedDepth:
        """Of images that are not examined yet: those that may have 16 bits are decoded, once."""
        return cls(lambda: _bits_of(_largest_in(contents)))

    @classmethod
    def known(cls, bits: int | None) -> SharedDepth:
        """A depth that is known already."""
        return cls(lambda: bits)

    def joined(self, other: SharedDepth) -> SharedDepth:
        """Of two datasets together."""
        return SharedDepth(lambda: max(filter(None, (self.bits, other.bits)), default=None))

    def __reduce__(self) -> tuple[Callable[[int | None], SharedDepth], tuple[int | None]]:
        return SharedDepth.known, (self.bits,)  # a lock cannot be copied

    @property
    def bits(self) -> int | None:
        """8, 10, 12, 14 or 16; None if no file has 16 bits."""
        with self._lock:
            if self._find is not None:
                self._bits, self._find = self._find(), None
        return self._bits


def _bits_of(largest: Iterable[int | None]) -> int | None:
    known = [value for value in largest if value is not None]
    return depth_of(max(known)) if known else None


def _largest_in(contents: Contents) -> list[int | None]:
    def largest(place: int) -> int | None:
        if not may_be_deep(contents.head(place, _HEAD)):
            return None
        return examine(lambda: contents.read(place), contents.name(place)).largest

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(largest, range(len(contents))))
