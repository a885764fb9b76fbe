"""Datasets on disk: a folder of class folders, or a table of paths. Every file is decoded once as a check."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.images.decode import EXTENSIONS, fault_in
from headstart.data.names import listed, natural_order, shown, split_name
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError, DataError, MissingDataError
from headstart.system.optional import require

__all__ = ["ImageFile", "read_folder", "read_table"]

# images that cannot be decoded are reported, not ignored
_FOREIGN = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".raw", ".dng", ".cr2", ".nef")
_GROUP_COLUMNS = ("group", "writer")


@dataclass(frozen=True)
class ImageFile:
    """One file as a reader found it: path, label, and split and group if there are any."""

    path: Path
    label: str
    split: str | None = None
    group: str | None = None


def read_folder(folder: Path, *, strict: bool = False) -> Dataset:
    """Read a folder with one folder per class, directly or under train, val and test.

    Class folders are searched to any depth, hidden files are ignored. Broken files are listed in ``skipped``, or
    an error if ``strict``. DataError if there are no class folders, if one has no readable image, or if folders
    for splits are next to others. Files are read in threads; the order is that of their names.
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
    return _checked(
        folder.resolve().name,
        files,
        [class_folder for _, class_folder in class_folders],
        skipped,
        strict=strict,
    )


def read_table(table: Path, *, strict: bool = False) -> Dataset:
    """Read a CSV (UTF-8) or Parquet table with the columns path and label, and split and group if there are any.

    Paths are relative to the table; ``writer`` is a synonym of ``group``, other columns are ignored. DataError
    if a column or a cell is missing; MissingDataError if files are missing: the first is named, all are counted.
    """
    read = _parquet_columns if table.suffix.lower() == ".parquet" else _csv_columns
    columns, numbers = read(table)
    lacking = [name for name in ("path", "label") if name not in columns]
    if lacking:
        raise DataError(
            f"table {str(table)!r} has the columns {shown(columns)}, expected path and label; "
            f"add or rename {' and '.join(lacking)}"
        )
    if not columns["path"]:
        raise DataError(
            f"table {str(table)!r} has no rows, expected at least one; add path and label of an image"
        )
    files = _table_files(table, columns, numbers)
    absent = [file.path for file in files if not file.path.is_file()]
    if absent:
        raise MissingDataError(
            f"image {str(absent[0])!r} does not exist, {len(absent)} of {len(files)} missing, "
            f"expected every file that {str(table)!r} names; correct the paths, which are relative to the table"
        )
    return _checked(table.stem, files, [], [], strict=strict)


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


def _csv_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the line of the file on which each row begins."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            numbered = list(_numbered(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BrokenDataError(
            f"table {str(table)!r} cannot be read ({error}), expected CSV in UTF-8 with a header; save it as that"
        ) from error
    header = [name.strip().lower() for name in numbered[0][1]] if numbered else []
    for number, row in numbered[1:]:
        if len(row) != len(header):
            raise DataError(
                f"row {number} of {str(table)!r} has {len(row)} cells, expected {len(header)} as in the header; "
                "quote cells that hold a comma"
            )
    columns = {name: [row[place].strip() for _, row in numbered[1:]] for place, name in enumerate(header)}
    return columns, [number for number, _ in numbered[1:]]


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number of its first line."""
    reader, begins = csv.reader(lines, strict=True), 1
    for row in reader:
        if row:
            yield begins, row
        begins = reader.line_num + 1  # a quoted cell may span several lines


def _parquet_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the number of each row, from 1."""
    parquet = require("pyarrow.parquet", extra="tables", for_=f"table {table.name!r}")
    try:
        read = parquet.ParquetFile(table).read().to_pydict()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenDataError(
            f"table {str(table)!r} cannot be read ({reason}), expected a whole Parquet file; write it again"
        ) from error
    columns = {
        name.strip().lower(): ["" if cell is None else str(cell).strip() for cell in cells]
        for name, cells in read.items()
    }
    return columns, list(range(1, 1 + max((len(cells) for cells in columns.values()), default=0)))


def _table_files(table: Path, columns: dict[str, list[str]], numbers: Sequence[int]) -> list[ImageFile]:
    group_column = next((name for name in _GROUP_COLUMNS if name in columns), None)
    for name in ("path", "label", "split", group_column):
        if name in columns and "" in columns[name]:
            row, count = numbers[columns[name].index("")], columns[name].count("")
            raise DataError(
                f"row {row} of {str(table)!r} has no {name} ({count} such rows), expected one in every row; "
                "fill it in"
            )
    for row, name in zip(numbers, columns.get("split", []), strict=False):
        if split_name(name) is None:
            raise DataError(
                f"row {row} of {str(table)!r} has split {name!r}, expected train, val or test; rename the split"
            )
    n_rows = len(columns["path"])
    splits = columns.get("split", [None] * n_rows)
    groups = [None] * n_rows if group_column is None else columns[group_column]
    rows = zip(columns["path"], columns["label"], splits, groups, strict=True)
    return [ImageFile(table.parent / path, label, split, group) for path, label, split, group in rows]


def _checked(
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
    return hashlib.sha256(data).digest(), fault_in(data)
