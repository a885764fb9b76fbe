"""Datasets on disk: a folder of class folders. Every file is decoded once as a check."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.images.decode import EXTENSIONS, fault_in
from headstart.data.images.turns import turn
from headstart.data.names import listed, natural_order, shown, split_name
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError, DataError

__all__ = ["ImageFile", "read_files", "read_folder"]

# images that cannot be decoded are reported, not ignored
_FOREIGN = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".raw", ".dng", ".cr2", ".nef")


@dataclass(frozen=True)
class ImageFile:
    """One file as a reader found it: path, label, and split and group if there are any."""

    path: Path
    label: str
    split: str | None = None
    group: str | None = None


def read_folder(folder: Path, *, strict: bool = False) -> Dataset:
    """Read a folder with one folder per class, directly or under train, val and test.

    Class folders are searched to any depth, hidden files are ignored. Broken files are listed in ``skipped``,
    or an error if ``strict``. DataError if there are no class folders, if one has no readable image, or if
    folders for splits are next to others. Files are read in threads; the order is that of their names.
    """
    children = _folders(folder)
    split_folders = [child for child in children if split_name(child.name) and _folders(child)]
    misplaced = [path for path in _files(folder) if _is_image(path)]
    if split_folders:
        _check_splits(folder, split_folders, children)
        class_folders = [
            (split_name(child.name), class_folder)
            for child in split_folders
            for class_folder in _folders(child)
        ]
        misplaced += [path for child in split_folders for path in _files(child) if _is_image(path)]
    else:
        class_folders = [(None, path) for path in children]
    if not class_folders:
        raise DataError(
            f"folder {str(folder)!r} has {len(misplaced)} images and no folders, expected one folder per class; "
            "sort the images into folders named for their classes"
        )
    files = [
        ImageFile(path, class_folder.name, split)
        for split, class_folder in class_folders
        for path in _walk(class_folder)
    ]
    skipped = [(str(path), "it is not in a class folder") for path in misplaced]
    return read_files(
        folder.resolve().name,
        files,
        [class_folder for _, class_folder in class_folders],
        skipped,
        strict=strict,
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS + _FOREIGN


def _walk(class_folder: Path) -> Iterator[Path]:
    """The images under a class folder, in an order that depends on names only."""
    yield from (path for path in _files(class_folder) if _is_image(path))
    for child in _folders(class_folder):
        if not child.is_symlink():  # a link may lead to a parent folder
            yield from _walk(child)


def _check_splits(folder: Path, split_folders: Sequence[Path], top: Sequence[Path]) -> None:
    others = [child.name for child in top if child not in split_folders]
    here = shown(child.name for child in split_folders)
    if others:
        raise DataError(
            f"folder {str(folder)!r} has {shown(others)} next to {here}, "
            "expected folders for splits only, or folders for classes only; move the others away"
        )
    words = [split_name(child.name) for child in split_folders]
    if len(set(words)) != len(words):
        raise DataError(
            f"folder {str(folder)!r} has {here}, expected one folder per split; merge those that mean the same"
        )


def read_files(
    name: str,
    files: Sequence[ImageFile],
    class_folders: Sequence[Path],
    skipped: list[tuple[str, str]],
    *,
    strict: bool,
) -> Dataset:
    """Leave out files that cannot be decoded; DataError if a class loses all its images."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_inspect, [file.path for file in files]))
    broken = [(str(file.path), fault) for file, (_, fault) in zip(files, found, strict=True) if fault]
    if strict and broken:
        raise BrokenDataError(
            f"image {broken[0][0]!r} cannot be read ({broken[0][1]}), {len(broken)} of {len(files)} such, "
            "expected complete images; replace them, or allow them to be skipped: strict=False"
        )
    whole = [(file, digest) for file, (digest, fault) in zip(files, found, strict=True) if not fault]
    _check_classes(name, [file for file, _ in whole], files, class_folders)
    kept = [file for file, _ in whole]
    return Dataset(
        name,
        FileImages([file.path for file in kept], [digest for _, digest in whole]),
        np.array([file.label for file in kept], dtype=np.str_),
        natural_order(file.label for file in kept),
        None if kept[0].group is None else np.array([file.group for file in kept], dtype=np.str_),
        None if kept[0].split is None else np.array([file.split for file in kept], dtype=np.str_),
        tuple(skipped + broken),
    )


def _check_classes(
    name: str, whole: Sequence[ImageFile], files: Sequence[ImageFile], class_folders: Sequence[Path]
) -> None:
    wanted = {home.name for home in class_folders} | {file.label for file in files}
    lost = natural_order(wanted - {file.label for file in whole})
    empty = [
        str(class_folder)
        for class_folder in class_folders
        if not any(file.path.is_relative_to(class_folder) for file in whole)
    ]
    if lost or empty:
        where = f" in {shown(empty)}" if empty else ""
        classes = listed(lost) if lost else listed(natural_order(Path(path).name for path in empty))
        raise DataError(
            f"dataset {name!r} has no image that can be read of {classes}{where}, expected at least one; "
            "add images, or remove the class"
        )


def _inspect(path: Path) -> tuple[bytes, str | None]:
    """A file's SHA-256, and why it cannot be used."""
    if path.suffix.lower() in _FOREIGN:
        return b"", f"its format {path.suffix.lower()} cannot be read; convert it to PNG or JPEG"
    try:
        data = path.read_bytes()
    except OSError as error:
        return b"", f"it cannot be opened: {error.strerror}"
    with turn():
        return hashlib.sha256(data).digest(), fault_in(data)
