"""Tables of image paths and labels, in any of the formats of `TABLES`.

A new format is a module with a function from a file to its columns, and one line of the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headstart.data.dataset import Dataset
from headstart.data.names import shown, split_name
from headstart.data.readers.csv import csv_columns
from headstart.data.readers.folders import ImageFile, read_files
from headstart.data.readers.parquet import parquet_columns
from headstart.errors import DataError, MissingDataError

__all__ = ["TABLES", "read_table"]

Columns = tuple[dict[str, list[str]], list[int]]
"""Cells by column, column names in lower case, and the number of each row as its maker counts rows."""

TABLES: Mapping[str, Callable[[Path], Columns]] = {".csv": csv_columns, ".parquet": parquet_columns}
"""The reader of each file name extension."""

_GROUP_COLUMNS = ("group", "writer")


def read_table(table: Path, *, strict: bool = False) -> Dataset:
    """Read a table in a format of `TABLES`, with the columns path and label, and split and group if it has them.

    Paths are relative to the table; ``writer`` is a synonym of ``group``, other columns are ignored.
    DataError if a column or a cell is missing; MissingDataError if files are missing: the first is named, all
    are counted.
    """
    columns, numbers = TABLES[table.suffix.lower()](table)
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
    return read_files(table.stem, files, [], [], strict=strict)


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
