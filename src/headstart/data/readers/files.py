"""Files of a dataset: what each one is, and a dataset from those that can be decoded. Every file is decoded once."""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.data.contents.local import LocalFiles
from headstart.data.contents.protocol import Contents
from headstart.data.dataset import Dataset
from headstart.data.depth import SharedDepth
from headstart.data.files import ExaminedFile, examine, foreign_reason
from headstart.data.images.decode import EXTENSIONS
from headstart.data.kept import KeptFile, PreparedRows
from headstart.data.names import natural_order
from headstart.data.reading import current_reading
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError, DataError
from headstart.system.progress import throttled
from headstart.system.runners import in_order

__all__ = [
    "ImageFile",
    "Labels",
    "Listing",
    "Skipped",
    "fault_of",
    "is_folder",
    "is_image",
    "is_system",
    "read_files",
    "read_images",
    "refuse_skipped",
]

MOST_LOOKS = 20_000
"""Files of which looks are kept, a few kilobytes each: more are neither compared nor recorded."""

_AHEAD = 256  # images that are read before the first of them is wanted
_TOGETHER = 256  # images that a worker reads at a time

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


class Labels(NamedTuple):
    """What a reader knows of an image: its label, and split and group if there are any."""

    label: str
    split: str | None = None
    group: str | None = None


@dataclass
class Listing:
    """Images that a reader has found, before they are read.

    ``rows`` are the labels of the images of ``contents``, which may grow while they are read, as ``skipped`` and
    ``remarks`` may. ``n_images`` is how many there will be, given how many were found.
    """

    name: str
    contents: Contents
    rows: Iterable[Labels]
    n_images: Callable[[int], int]
    skipped: list[Skipped] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def unread(self) -> FileImages:
        """The images without labels, not examined: nothing is decoded yet."""
        for _ in self.rows:
            pass
        return FileImages(self.contents)


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
    """As `read_images`, of files of this machine.

    ``classes`` are classes without files, too: a class that loses all its images is one without images.
    """
    listing = Listing(
        name,
        LocalFiles(file.path for file in files),
        (Labels(file.label, file.split, file.group) for file in files),
        lambda _: len(files),
        list(skipped),
        list(remarks),
    )
    return read_images(listing, classes, strict=strict)


def read_images(listing: Listing, classes: Iterable[str] = (), *, strict: bool) -> Dataset:
    """Read every image once, in order, and leave out those that cannot be decoded; DataError if none is left."""
    name, contents, skipped = listing.name, listing.contents, listing.skipped
    found = _Found()
    for place, (row, one) in enumerate(_examined(listing)):
        found.add(place, contents, row, one)
    unused = [*found.broken, *skipped]
    if strict:
        refuse_skipped(unused, len(found.digests) + len(unused))
    if not found.digests:
        _refuse_none(name, unused)
    images = FileImages(
        contents if not found.broken else contents.subset(np.asarray(found.places).astype(np.intp)),
        found.digests,
        SharedDepth.of_largest([found.largest]),
        found.kept,
    )
    return Dataset(
        name,
        images,
        np.array(found.labels, dtype=np.str_),
        natural_order([*classes, *found.all_labels]),
        _column(name, "group", found.groups),
        _column(name, "split", found.splits),
        tuple(sorted([*skipped, *found.broken], key=_is_companion)),  # those that should be images first
        remarks=tuple(listing.remarks),
    )


def _column(name: str, what: str, cells: Sequence[str | None]) -> NDArray[np.str_] | None:
    """Groups or splits; None if no image has one."""
    n_missing = cells.count(None)
    if 0 < n_missing < len(cells):
        raise DataError(
            f"dataset {name!r} has no {what} for {n_missing:,} of its {len(cells):,} images, expected one for all or "
            "for none; fill them in"
        )
    return None if n_missing else np.array(cells, dtype=np.str_)


class _Found:
    """What is known of the images that can be used; of many only what is needed, and equal names are one object."""

    def __init__(self) -> None:
        self.all_labels: dict[str, str] = {}
        self.broken: list[Skipped] = []
        self.places, self.digests = array("q"), list[bytes]()
        self.labels, self.splits, self.groups = list[str](), list[str | None](), list[str | None]()
        self.largest: int | None = None
        self.kept: list[KeptFile | None] | None = []

    def add(self, place: int, contents: Contents, row: Labels, one: ExaminedFile) -> None:
        label = self.all_labels.setdefault(row.label, row.label)
        if one.fault:
            self.broken.append((contents.name(place), one.fault))
            return
        self.places.append(place)
        self.digests.append(one.digest)
        self.labels.append(label)
        self.splits.append(row.split)
        self.groups.append(row.group)
        if one.largest is not None:
            self.largest = max(self.largest or 0, one.largest)
        if place >= MOST_LOOKS:
            self.kept = None
        elif self.kept is not None:
            self.kept.append(one.kept)


def _examined(listing: Listing) -> Iterator[tuple[Labels, ExaminedFile]]:
    """Read every image once, here or by workers; of up to 20,000 looks are kept, of more no check needs all."""
    return _examined_by_workers(listing) if current_reading().runner.remote else _examined_here(listing)


def _examined_by_workers(listing: Listing) -> Iterator[tuple[Labels, ExaminedFile]]:
    """Read every image once, by the workers of a runner, some hundred at a time."""
    how, contents = current_reading(), listing.contents
    task, report, done = f"read files of {listing.name}", throttled(how.progress), 0
    sent: deque[list[Labels]] = deque()

    def parts() -> Iterator[tuple[Contents, bool]]:
        first, rows = 0, iter(listing.rows)
        while some := list(islice(rows, _TOGETHER)):
            sent.append(some)
            end = first + len(some)
            yield contents.subset(np.arange(first, end)), listing.n_images(end) <= MOST_LOOKS
            first = end

    for found in in_order(how.runner.map(_examiner, parts())):
        done += len(found)
        report(task, done, max(listing.n_images(done), done))
        yield from zip(sent.popleft(), found, strict=True)


def _examiner() -> Callable[[tuple[Contents, bool]], list[ExaminedFile]]:
    """In a worker: what examines some images."""

    def examine_all(part: tuple[Contents, bool]) -> list[ExaminedFile]:
        contents, keep = part
        return [
            examine(partial(contents.read, place), contents.name(place), keep=keep)
            for place in range(len(contents))
        ]

    return examine_all


def _examined_here(listing: Listing) -> Iterator[tuple[Labels, ExaminedFile]]:
    """Read every image once, in threads."""
    how, contents, n_images = current_reading(), listing.contents, listing.n_images
    kept = PreparedRows() if how.specs else None
    task, report = f"read files of {listing.name}", throttled(how.progress)

    def examine_at(place: int, keep: bool) -> ExaminedFile:
        return examine(
            lambda: contents.read(place), contents.name(place), how.specs, kept if keep else None, keep=keep
        )

    waiting: deque[tuple[Labels, Future[ExaminedFile]]] = deque()
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for place, row in enumerate(listing.rows):
                keep = n_images(place + 1) <= MOST_LOOKS
                waiting.append((row, pool.submit(examine_at, place, keep)))
                if len(waiting) > _AHEAD:
                    done += 1
                    yield waiting[0][0], waiting[0][1].result()
                    waiting.popleft()
                    report(task, done, max(n_images(place + 1), place + 1))
            for row, future in waiting:
                done += 1
                yield row, future.result()
                report(task, done, place + 1)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an interruption does not wait for all files
            raise


def refuse_skipped(skipped: Sequence[Skipped], n_files: int) -> None:
    """BrokenDataError if a file is not used that is not one of those that usually lie beside images."""
    faults = [one for one in skipped if not _is_companion(one)]
    if faults:
        raise BrokenDataError(
            f"image {faults[0][0]!r} cannot be used ({faults[0][1]}), {len(faults)} of {n_files} such, "
            "expected complete images; replace them, or allow them to be skipped (without --strict, strict=False)"
        )


def _is_companion(skipped: Skipped) -> bool:
    return Path(skipped[0]).suffix.lower() in _COMPANIONS


def _refuse_none(name: str, unused: Sequence[Skipped]) -> None:
    why = f" ({unused[0][0]!r}: {unused[0][1]})" if unused else ""
    raise DataError(
        f"dataset {name!r} has no image that can be read{why}, expected at least one in each class; add images"
    )
