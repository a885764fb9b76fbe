"""Tables of image paths and labels, in any of the formats of `TABLES`.

A new format is a module with a function from a file to its columns, and one line of the registry.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from headstart.data.dataset import Dataset
from headstart.data.images.decode import EXTENSIONS
from headstart.data.readers.columns import Table, picked
from headstart.data.readers.csv import csv_columns
from headstart.data.readers.files import ImageFile, read_files
from headstart.data.readers.jsonl import json_columns, jsonl_columns
from headstart.data.readers.parquet import parquet_columns
from headstart.data.readers.pixels import has_pixels, pixel_dataset
from headstart.data.readers.tree import Tree
from headstart.errors import DataError, MissingDataError

__all__ = ["TABLES", "Found", "columns_of", "found_in", "read_table"]

Columns = tuple[dict[str, list[str]], list[int]]
"""Cells by column, column names in lower case, and the number of each row as its maker counts rows."""

TABLES: Mapping[str, Callable[[Path], Columns]] = {
    ".csv": csv_columns,
    ".tsv": csv_columns,
    ".jsonl": jsonl_columns,
    ".json": json_columns,
    ".parquet": parquet_columns,
}
"""The reader of each file name extension."""

_LABEL_STUDIO = re.compile(r"(?:https?://[^/]+)?/data/(?:upload|local-files)/(?:.*/|.*=)?([^/=]+)")
"""Where Label Studio keeps an image: its exports name that, not the file."""
_SHOWN = 80  # characters of a path in a message: a data URI has thousands


@dataclass
class Found:
    """The rows of a table with the file that each one names; None where there is none."""

    table: Path
    rows: Table
    numbers: Sequence[int]
    paths: list[Path | None]

    def files(self) -> list[ImageFile]:
        """One image of each row; MissingDataError if there are rows without a file.

        DataError if two rows give an image two labels, as tables of objects in images do.
        """
        self._refuse_missing()
        n_rows = len(self.paths)
        splits = self.rows.splits or [None] * n_rows
        groups = self.rows.groups or [None] * n_rows
        first: dict[Path, tuple[int, str]] = {}
        files = []
        cells = zip(self.numbers, self.paths, self.rows.labels, splits, groups, strict=True)
        for number, path, label, split, group in cells:
            if path is None:
                continue
            before, known = first.setdefault(path, (number, label))
            if known != label:
                raise DataError(
                    f"row {number} of {str(self.table)!r} gives {_short(str(path))} the label {label!r}, and row "
                    f"{before} gives it {known!r}, expected one label per image; keep one row for each image"
                )
            files.append(ImageFile(path, unicodedata.normalize("NFC", label), split, group))
        return files

    def _refuse_missing(self) -> None:
        missing = [place for place, path in enumerate(self.paths) if path is None]
        if not missing:
            return
        cell = self.rows.paths[missing[0]]
        where = f"row {self.numbers[missing[0]]} of {str(self.table)!r}"
        if cell.startswith(("data:", "http://", "https://", "s3://", "gs://", "{'bytes'")):
            raise DataError(
                f"{where} has the path {_short(cell)}, expected a file; save the images as files and name these"
            )
        raise MissingDataError(
            f"image {_short(str(self.table.parent / cell))} does not exist, {len(missing)} of {len(self.paths)} "
            f"missing, expected every file that {str(self.table)!r} names; {self._advice(cell)}"
        )

    def _advice(self, cell: str) -> str:
        place = self.table.parent / cell
        name = re.split(r"[\\/]", cell)[-1].lower()
        below = (path for path in Tree().below([self.table.parent]) if path.name.lower() == name)
        there = next(below, None)
        if there is not None:
            return f"correct the paths, which are relative to the table: there is {_relative(there, self.table)!r}"
        if len(cell) < 255 and place.parent.is_dir():
            names = sorted(one.name for one in place.parent.iterdir())
            with_ending = [name for name in names if Path(name).stem == place.name]
            if with_ending:
                return f"add {Path(with_ending[0]).suffix}: there is {with_ending[0]!r}"
            close = get_close_matches(place.name, names, 1)
            if close:
                return f"correct the paths, which are relative to the table: there is {close[0]!r}"
        return "correct the paths, which are relative to the table"


def read_table(table: Path, *, strict: bool = False) -> Dataset:
    """Read a table in a format of `TABLES`: a path and a label in every row, split and group if it has them.

    Columns may have other usual names (`headstart.data.readers.columns`); paths are relative to the table.
    A table of pixel columns is read, too. DataError if a column or a cell is missing; MissingDataError if
    files are missing: the first is named, all are counted.
    """
    columns, numbers = columns_of(table)
    if has_pixels(columns):
        return pixel_dataset(table, columns, numbers)
    found = found_in(table, columns, numbers)
    return read_files(table.stem, found.files(), [], [], strict=strict, remarks=found.rows.remarks)


def columns_of(table: Path) -> Columns:
    """The columns of a table; DataError if it has no rows."""
    columns, numbers = TABLES[table.suffix.lower()](table)
    if not numbers:
        raise DataError(
            f"table {str(table)!r} has no rows, expected at least one; add path and label of an image"
        )
    return columns, numbers


def found_in(
    table: Path,
    columns: dict[str, list[str]],
    numbers: Sequence[int],
    folder: Path | None = None,
    tree: Tree | None = None,
) -> Found:
    """The rows of a table and their files: relative to the table, else the only one of that name in a folder."""
    rows = picked(str(table), columns, numbers)
    index = _Index(folder or table.parent, tree or Tree())
    paths = [_path(table.parent, cell, index, by_id=rows.by_id) for cell in rows.paths]
    return Found(table, rows, numbers, paths)


def _path(home: Path, cell: str, index: _Index, *, by_id: bool) -> Path | None:
    if cell.startswith("data:") or len(cell) > 4096 or "\0" in cell:
        return None
    if cell.startswith("file://"):
        cell = unquote(urlsplit(cell).path)
    uploaded = _LABEL_STUDIO.fullmatch(cell)
    if uploaded:
        return index.named(unquote(uploaded[1]), by_id=False)
    forms = (unicodedata.normalize(form, cell) for form in ("NFC", "NFD"))  # macOS may have written either
    for text in dict.fromkeys((cell, cell.replace("\\", "/"), *forms)):
        try:
            if (home / text).is_file() and not by_id:
                return home / text
        except OSError:
            return None
    if "/" in cell or "\\" in cell:
        return None
    return index.named(cell, by_id=by_id or Path(cell).suffix.lower() not in EXTENSIONS)


@dataclass
class _Index:
    """Files below a folder by name, listed once and only when a row asks for it."""

    folder: Path
    tree: Tree

    @cached_property
    def _names(self) -> dict[str, list[Path]]:
        names: dict[str, list[Path]] = {}
        for path in self.tree.below([self.folder]):
            names.setdefault(path.name, []).append(path)
        return names

    @cached_property
    def _stems(self) -> dict[str, list[Path]]:
        stems: dict[str, list[Path]] = {}
        for name, paths in self._names.items():
            if Path(name).suffix.lower() in EXTENSIONS:
                stems.setdefault(Path(name).stem, []).extend(paths)
        return stems

    def named(self, cell: str, *, by_id: bool) -> Path | None:
        """The only file of this name; for an id, of this name without its extension."""
        for found in (self._names.get(cell, []), self._stems.get(cell, []) if by_id else []):
            if len(found) == 1:
                return found[0]
        return None


def _relative(path: Path, table: Path) -> str:
    return str(path.relative_to(table.parent))


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
