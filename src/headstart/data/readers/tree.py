"""The folders and files below a folder, each folder listed once however often it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart.data.readers.files import is_folder, is_image, is_system
from headstart.errors import DataError

__all__ = ["Tree"]


class Tree:
    """Folders and files by name, without hidden ones and those of operating systems."""

    def __init__(self) -> None:
        self._listed: dict[Path, tuple[list[Path], list[Path]]] = {}
        self._images: dict[Path, list[Path]] = {}

    def folders(self, folder: Path) -> list[Path]:
        """Folders in a folder, links to folders included."""
        return self._entries(folder)[0]

    def files(self, folder: Path) -> list[Path]:
        """All that is in a folder and no folder: dangling links, too."""
        return self._entries(folder)[1]

    def images(self, folder: Path) -> list[Path]:
        """Images directly in a folder."""
        if folder not in self._images:
            self._images[folder] = [path for path in self.files(folder) if is_image(path)]
        return self._images[folder]

    def below(self, folders: Iterable[Path]) -> Iterator[Path]:
        """All files below these folders, every folder once, however many links lead to it."""
        seen: set[tuple[int, int]] = set()
        return (path for folder in folders for inner in self.walk(folder, seen) for path in self.files(inner))

    def has_images(self, folder: Path) -> bool:
        """Whether there is an image anywhere below a folder."""
        return any(self.images(inner) for inner in self.walk(folder, set()))

    def walk(self, folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
        """A folder and the folders below it that are not ``seen`` yet."""
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        yield folder
        for child in self.folders(folder):
            yield from self.walk(child, seen)

    def _entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        if folder not in self._listed:
            try:
                with os.scandir(folder) as entries:
                    kept = [(entry.name, is_folder(entry)) for entry in entries if not is_system(entry.name)]
            except OSError as error:
                raise DataError(
                    f"folder {str(folder)!r} cannot be listed ({error.strerror}), expected a readable folder; "
                    "check its permissions"
                ) from error
            kept.sort()
            self._listed[folder] = (
                [folder / name for name, leads_on in kept if leads_on],
                [folder / name for name, leads_on in kept if not leads_on],
            )
        return self._listed[folder]
