"""Files of a dataset: what each one is, and a dataset from those that can be decoded. Every file is decoded once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.depth import SharedDepth
from headstart.data.files import ExaminedFile, examine_file, foreign_reason
from headstart.data.images.decode import EXTENSIONS
from headstart.data.kept import PreparedRows
from headstart.data.names import natural_order
from headstart.data.reading import current_reading
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError, DataError
from headstart.system.progress import throttled

__all__ = [
    "ImageFile",
    "Skipped",
    "fault_of",
    "is_folder",
    "is_image",
    "is_system",
    "read_files",
    "refuse_skipped",
]

MOST_LOOKS = 20_000
"""Files of which looks are kept, a few kilobytes each: more are neither compared nor recorded."""

Skipped = tuple[str, str]
"""Path of a file that is not used, and the reason."""

_FOREIGN = (".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg", ".raw", ".dng", ".cr2", ".nef")
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


@dataclass(frozen=True)
class ImageFile:
    """One file as a reader found it: path, label, and split and group if there are any."""

    path: Path
    label: str
    split: str | None = None
    group: str | None = None


def is_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or an operating system's own."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is one, or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_image(path: Path) -> bool:
    """Whether a file is an image by its extension or by its first bytes."""
    return path.suffix.lower() in _IMAGE_EXTENSIONS or fault_of(path) is None


def fault_of(path: Path) -> str | None:
    """Why a file is no image, by its extension and, unless that is an image's, by its first bytes."""
    return None if path.suffix.lower() in _IMAGE_EXTENSIONS else foreign_reason(path)


def read_files(
    name: str,
    files: Sequence[ImageFile],
    classes: Iterable[str],
    skipped: Sequence[Skipped],
    *,
    strict: bool,
    remarks: Sequence[str] = (),
) -> Dataset:
    """Leave out files that cannot be decoded; DataError if none is left.

    ``classes`` are classes without files, too: a class that loses all its images is one without images.
    """
    found = _examined(name, [file.path for file in files])
    broken = [(str(file.path), one.fault) for file, one in zip(files, found, strict=True) if one.fault]
    if strict:
        refuse_skipped([*broken, *skipped], len(files) + len(skipped))
    whole = [(file, one) for file, one in zip(files, found, strict=True) if not one.fault]
    kept = [file for file, _ in whole]
    if not kept:
        _refuse_none(name, [*broken, *skipped])
    return Dataset(
        name,
        FileImages(
            [file.path for file in kept],
            [one.digest for _, one in whole],
            SharedDepth.of_largest(one.largest for _, one in whole),
            [one.kept for _, one in whole],
        ),
        np.array([file.label for file in kept], dtype=np.str_),
        natural_order([*classes, *(file.label for file in files)]),
        None if kept[0].group is None else np.array([file.group for file in kept], dtype=np.str_),
        None if kept[0].split is None else np.array([file.split for file in kept], dtype=np.str_),
        tuple(sorted([*skipped, *broken], key=_is_companion)),  # those that should be images first
        remarks=tuple(remarks),
    )


def _examined(name: str, paths: Sequence[Path]) -> list[ExaminedFile]:
    """Read every file once, in threads; of up to 20,000 their looks are kept, of more no check needs all."""
    how, keep = current_reading(), len(paths) <= MOST_LOOKS
    rows = PreparedRows() if how.specs and paths else None
    task, found = f"read files of {name}", []
    report = throttled(how.progress)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for one in pool.map(lambda path: examine_file(path, how.specs, rows, keep=keep), paths):
                found.append(one)
                report(task, len(found), len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an interruption does not wait for all files
            raise
    return found


def refuse_skipped(skipped: Sequence[Skipped], n_files: int) -> None:
    """BrokenDataError if a file is not used that is not one of those that usually lie beside images."""
    faults = [one for one in skipped if not _is_companion(one)]
    if faults:
        raise BrokenDataError(
            f"image {faults[0][0]!r} cannot be used ({faults[0][1]}), {len(faults)} of {n_files} such, "
            "expected complete images; replace them, or allow them to be skipped: strict=False"
        )


def _is_companion(skipped: Skipped) -> bool:
    return Path(skipped[0]).suffix.lower() in _COMPANIONS


def _refuse_none(name: str, unused: Sequence[Skipped]) -> None:
    why = f" ({unused[0][0]!r}: {unused[0][1]})" if unused else ""
    raise DataError(
        f"dataset {name!r} has no image that can be read{why}, expected at least one in each class; add images"
    )
