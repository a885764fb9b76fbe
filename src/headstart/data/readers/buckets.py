"""Datasets in a bucket that are no shards: folders of classes, and tables that name files."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from headstart.data.contents.addresses import explained, is_remote, open_file
from headstart.data.contents.objects import BucketObjects
from headstart.data.images.decode import EXTENSIONS
from headstart.data.names import shown, split_name
from headstart.data.readers.columns import Table, picked
from headstart.data.readers.files import Labels, Listing, Skipped, is_system
from headstart.data.readers.pixels import has_pixels
from headstart.data.readers.tables import columns_of
from headstart.errors import DataError, HeadstartError

__all__ = ["bucket_table_listing", "folder_listing"]

_COPIED_BYTES = 2**20


def folder_listing(address: str, files: Mapping[str, int], label: str | None = None) -> Listing:
    """The images of folders of classes, directly or under train, val and test; ``files`` are addresses with sizes.

    With ``label``, that is the label of all images, in whatever folder. Other files are skipped with their reason.
    DataError if there are no class folders.
    """
    home = address.rstrip("/") + "/"
    parts = {one: tuple(one.removeprefix(home).split("/")) for one in files}
    parts = {one: path for one, path in parts.items() if not any(is_system(part) for part in path)}
    images = {one: path for one, path in parts.items() if posixpath.splitext(one)[1].lower() in EXTENSIONS}
    skipped = [(one, "it is no image by its name") for one in parts if one not in images]
    labels = _labels(address, images, skipped) if label is None else dict.fromkeys(images, Labels(label))
    found = sorted(labels, key=lambda one: _order(images[one]))
    return Listing(
        posixpath.basename(address.rstrip("/")),
        BucketObjects(found, (files[one] for one in found)),
        (labels[one] for one in found),
        lambda _: len(found),
        skipped,
    )


def _order(path: Sequence[str]) -> list[tuple[bool, str]]:
    """As in folders of this machine: by name, files before folders."""
    return [(place < len(path) - 1, part) for place, part in enumerate(path)]


def _labels(address: str, images: Mapping[str, tuple[str, ...]], skipped: list[Skipped]) -> dict[str, Labels]:
    paths = list(images.values())
    depth = 0
    while len({path[depth] for path in paths}) == 1 and all(len(path) > depth + 2 for path in paths):
        depth += 1
    tops = {path[depth] for path in paths if len(path) > depth + 1}
    splits = {top: split_name(top) for top in tops}
    deep = {path[depth] for path in paths if len(path) > depth + 2}
    has_splits = bool(tops) and all(splits.values()) and bool(deep)
    if any(splits[top] for top in deep) and not has_splits:
        raise DataError(
            f"folder {address!r} has {shown(sorted(tops))}, expected folders for splits only, or folders for classes "
            "only; move the others away"
        )
    found = {}
    for one, path in images.items():
        inner = path[depth:]
        if len(inner) < 2 + has_splits:
            skipped.append((one, "it is not in a class folder, so it has no label"))
        else:
            found[one] = Labels(inner[has_splits], splits[inner[0]] if has_splits else None)
    if not found or (all(splits.values()) and not has_splits):
        raise DataError(
            f"folder {address!r} has {len(images)} images and no class folders, expected one folder per class, or "
            "shards (.tar, .parquet); sort the images into folders named for their classes"
        )
    return found


def bucket_table_listing(address: str) -> Listing:
    """The images that a table names, whose paths are relative to it, or addresses.

    Nobody looks whether they exist: those that do not are found out when they are read.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / posixpath.basename(address)
        with open_file(address) as file, explained(address), table.open("wb") as copy:
            while chunk := file.read(_COPIED_BYTES):
                copy.write(chunk)
        try:
            columns, numbers = columns_of(table)
        except HeadstartError as error:  # a user knows the address, not where it was copied
            raise type(error)(str(error).replace(str(table), address)) from error
    if has_pixels(columns):
        raise DataError(f"table {address!r} holds pixels, expected paths of files; copy it to this machine")
    rows = picked(address, columns, numbers)
    if rows.by_id:
        raise DataError(f"table {address!r} has ids of images, expected paths of files; write their paths")
    found = [_address_of(address, number, cell) for number, cell in zip(numbers, rows.paths, strict=True)]
    return Listing(
        Path(posixpath.basename(address)).stem,
        BucketObjects(found, [0] * len(found)),
        _rows(rows),
        lambda _: len(found),
        remarks=list(rows.remarks),
    )


def _address_of(table: str, number: int, cell: str) -> str:
    if is_remote(cell):
        return cell
    if cell.startswith(("/", "data:", "http://", "https://", "file://")) or "\0" in cell:
        raise DataError(
            f"row {number} of {table!r} has the path {cell[:80]!r}, expected one relative to the table, or an "
            "address; correct it"
        )
    return f"{posixpath.dirname(table)}/{posixpath.normpath(cell)}"


def _rows(table: Table) -> Iterator[Labels]:
    for place, label in enumerate(table.labels):
        yield Labels(
            label,
            table.splits[place] if table.splits else None,
            table.groups[place] if table.groups else None,
        )
