"""Files of a dataset: what each one is, and a dataset from those that can be decoded. Every file is decoded once."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.images.decode import EXTENSIONS, fault_in
from headstart.data.names import listed, natural_order, shown
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError, DataError

__all__ = ["ImageFile", "Skipped", "fault_of", "is_image", "is_system", "read_files"]

Skipped = tuple[str, str]
"""Path of a file that is not used, and the reason."""

_FOREIGN = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".raw", ".dng", ".cr2", ".nef")
_IMAGE_EXTENSIONS = (*EXTENSIONS, *_FOREIGN)
_SYSTEM = {
    *(
        "@eadir",
        "$recycle.bin",
        "#recycle",
        "@recycle",
        "lost+found",
        "__macosx",
        "system volume information",
    ),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}
_COMPANIONS = {
    *(
        ".txt",
        ".md",
        ".rst",
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".xml",
        ".yaml",
        ".yml",
        ".html",
        ".htm",
        ".pdf",
    ),
    *(
        ".py",
        ".ipynb",
        ".log",
        ".mat",
        ".npy",
        ".npz",
        ".parquet",
        ".zip",
        ".tar",
        ".gz",
        ".doc",
        ".docx",
        ".xls",
    ),
    *(".xlsx", ".cff", ".bib", ""),
}
"""Files that usually lie beside images: listed where they are not used, but no reason to fail with ``strict``."""
_KINDS = (
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISDIR, "folder"),
)


@dataclass(frozen=True)
class ImageFile:
    """One file as a reader found it: path, label, and split and group if there are any."""

    path: Path
    label: str
    split: str | None = None
    group: str | None = None


def is_system(path: Path) -> bool:
    """Whether a file or folder is hidden, or an operating system's own."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM


def is_image(path: Path) -> bool:
    """Whether a file is an image by its extension or by its first bytes."""
    return path.suffix.lower() in _IMAGE_EXTENSIONS or fault_of(path) is None


def fault_of(path: Path) -> str | None:
    """Why a file can be no image, or None: by what it is, its extension and its first bytes, not decoded."""
    try:
        status = path.stat()
    except FileNotFoundError:
        link = path.is_symlink()
        return f"it is a link to {os.readlink(path)!r}, which does not exist" if link else "it does not exist"
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "special file")
        return f"it is a {kind}, not an image"
    if path.suffix.lower() in _IMAGE_EXTENSIONS:
        return None
    try:
        with path.open("rb") as file:
            return _fault_of_head(file.read(512))
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"


def _fault_of_head(head: bytes) -> str | None:
    signatures = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
    return None if head.startswith(signatures) or head[8:12] == b"WEBP" else "it is not an image"


def read_files(
    name: str,
    files: Sequence[ImageFile],
    class_folders: Sequence[tuple[Path, str]],
    skipped: Sequence[Skipped],
    *,
    strict: bool,
    remarks: Sequence[str] = (),
) -> Dataset:
    """Leave out files that cannot be decoded; DataError if a class, or one of the folders, loses all its images."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_inspect, [file.path for file in files]))
    broken = [(str(file.path), fault) for file, (_, fault) in zip(files, found, strict=True) if fault]
    if strict:
        _refuse_skipped([*broken, *skipped], len(files) + len(skipped))
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
        tuple([*skipped, *broken]),
        remarks=tuple(remarks),
    )


def _refuse_skipped(skipped: Sequence[Skipped], n_files: int) -> None:
    faults = [one for one in skipped if Path(one[0]).suffix.lower() not in _COMPANIONS]
    if faults:
        raise BrokenDataError(
            f"image {faults[0][0]!r} cannot be used ({faults[0][1]}), {len(faults)} of {n_files} such, "
            "expected complete images; replace them, or allow them to be skipped: strict=False"
        )


def _check_classes(
    name: str,
    whole: Sequence[ImageFile],
    files: Sequence[ImageFile],
    class_folders: Sequence[tuple[Path, str]],
) -> None:
    wanted = {label for _, label in class_folders} | {file.label for file in files}
    lost = natural_order(wanted - {file.label for file in whole})
    used = {parent for file in whole for parent in file.path.parents}
    empty = [(str(folder), label) for folder, label in class_folders if folder not in used]
    if lost or empty:
        where = f" in {shown(folder for folder, _ in empty)}" if empty else ""
        classes = listed(lost) if lost else listed(natural_order(label for _, label in empty))
        raise DataError(
            f"dataset {name!r} has no image that can be read of {classes}{where}, expected at least one; "
            "add images, or remove the class"
        )


def _inspect(path: Path) -> tuple[bytes, str | None]:
    """A file's SHA-256, and why it cannot be used."""
    if (fault := fault_of(path)) is not None:
        return b"", fault
    try:
        data = path.read_bytes()
    except OSError as error:
        return b"", f"it cannot be opened: {error.strerror}"
    fault = fault_in(data)
    if fault and path.suffix.lower() in _FOREIGN:
        fault = f"its format {path.suffix.lower()} cannot be read; convert it to PNG or JPEG"
    return hashlib.sha256(data).digest(), fault
