"""What every place of image bytes can do, and the error for an image that is not there."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Contents", "Names", "Unread"]


class Unread(Exception):
    """An image that was not read, with the reason; ``missing`` if there is none."""

    def __init__(self, reason: str, advice: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.advice, self.missing = reason, advice, missing


class Contents(Protocol):
    """The encoded bytes of images, read on demand from any thread.

    A copy in another process holds only what its images need, and no open files.
    """

    @property
    def paths(self) -> tuple[Path, ...] | None:
        """The local file of each image; None if they are not files of their own on this machine."""
        ...

    def __len__(self) -> int: ...

    def name(self, place: int) -> str:
        """The name in messages: a path, an address, or ``train-0003.tar:cat/001.jpg``."""
        ...

    def read(self, place: int) -> bytes:
        """The bytes of one image; Unread if it is not there, FetchError if the network fails."""
        ...

    def head(self, place: int, n_bytes: int) -> bytes:
        """The first bytes of an image; none if it cannot be read."""
        ...

    def subset(self, indices: NDArray[np.intp]) -> Self:
        """Select images in this order."""
        ...


class Names:
    """Many names in little memory: a tuple of them would take 60 bytes more for each."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._text, self._ends = bytearray(), array("q", [0])
        for name in names:
            self.append(name)

    def append(self, name: str) -> None:
        """Add a name; one that is no UTF-8 in its archive is kept byte by byte."""
        self._text += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        return self._text[self._ends[place] : self._ends[place + 1]].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))
