"""Images in files of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data.files import content, read_head

__all__ = ["LocalFiles"]


class LocalFiles:
    """One file for each image."""

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self.paths: tuple[Path, ...] = tuple(Path(path) for path in paths)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, place: int) -> str:
        """Path of the file."""
        return str(self.paths[place])

    def read(self, place: int) -> bytes:
        """The bytes of a file; Unread if it cannot or must not be read."""
        return content(self.paths[place])

    def head(self, place: int, n_bytes: int) -> bytes:
        """The first bytes of a file; none if it cannot be read."""
        return read_head(self.paths[place], n_bytes)

    def subset(self, indices: NDArray[np.intp]) -> LocalFiles:
        """Select files in this order."""
        return LocalFiles(self.paths[index] for index in indices)
