"""Images of several places as those of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.data.contents.local import LocalFiles
from headstart.data.contents.protocol import Contents

__all__ = ["joined"]


def joined(first: Contents, second: Contents) -> Contents:
    """The images of both, in order."""
    if first.paths is not None and second.paths is not None:
        return LocalFiles((*first.paths, *second.paths))
    sizes = [len(first), len(second)]
    return _Joined([first, second], np.repeat([0, 1], sizes), np.concatenate([np.arange(n) for n in sizes]))


class _Joined:
    def __init__(
        self, parts: Sequence[Contents], part_of: NDArray[np.intp], place_in: NDArray[np.intp]
    ) -> None:
        self._parts, self._part_of, self._place_in = tuple(parts), part_of, place_in

    @property
    def paths(self) -> None:
        """None: not all are local files."""
        return

    def __len__(self) -> int:
        return len(self._part_of)

    def _at(self, place: int) -> tuple[Contents, int]:
        return self._parts[self._part_of[place]], int(self._place_in[place])

    def name(self, place: int) -> str:
        """The name in its own place."""
        part, inner = self._at(place)
        return part.name(inner)

    def read(self, place: int) -> bytes:
        """The bytes of one image."""
        part, inner = self._at(place)
        return part.read(inner)

    def head(self, place: int, n_bytes: int) -> bytes:
        """The first bytes of an image."""
        part, inner = self._at(place)
        return part.head(inner, n_bytes)

    def subset(self, indices: NDArray[np.intp]) -> _Joined:
        """Select images in this order, with what they use of each part."""
        part_of, place_in = self._part_of[indices], self._place_in[indices].copy()
        parts = []
        for number, part in enumerate(self._parts):
            mine = part_of == number
            parts.append(part.subset(place_in[mine]))
            place_in[mine] = np.arange(mine.sum())
        return _Joined(parts, part_of, place_in)
