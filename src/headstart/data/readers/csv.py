"""Columns of a CSV table in UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart.errors import BrokenDataError, DataError

__all__ = ["csv_columns"]


def csv_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
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
