"""Columns of a table of text in UTF-8: comma, semicolon, tab or bar between cells."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart.data.names import shown
from headstart.errors import BrokenDataError, DataError

__all__ = ["csv_columns"]

_DELIMITERS = (",", ";", "\t", "|")


def csv_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the line of the file on which each row begins."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            delimiter = _delimiter(lines.readline())
            lines.seek(0)
            numbered = list(_numbered(lines, delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BrokenDataError(
            f"table {str(table)!r} cannot be read ({error}), expected CSV in UTF-8 with a header; save it as that"
        ) from error
    header = [name.strip().lower() for name in numbered[0][1]] if numbered else []
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"table {str(table)!r} has the column {shown(twice)} more than once, expected each name once; "
            "rename or drop the others"
        )
    for number, row in numbered[1:]:
        if len(row) != len(header):
            raise DataError(
                f"row {number} of {str(table)!r} has {len(row)} cells, expected {len(header)} as in the header; "
                f"quote cells that hold a {_named(delimiter)}"
            )
    columns = {name: [row[place].strip() for _, row in numbered[1:]] for place, name in enumerate(header)}
    return columns, [number for number, _ in numbered[1:]]


def _delimiter(header: str) -> str:
    """The delimiter that splits the header into most cells; a comma if none does."""
    counts = {one: header.count(one) for one in _DELIMITERS}
    return max(_DELIMITERS, key=lambda one: counts[one])


def _named(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}.get(delimiter, "bar")


def _numbered(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number of its first line."""
    reader, begins = csv.reader(lines, delimiter=delimiter, strict=True), 1
    for row in reader:
        if row:
            yield begins, row
        begins = reader.line_num + 1  # a quoted cell may span several lines
