"""Columns of a table of text: comma, semicolon, tab or bar between cells, in UTF-8 or UTF-16."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from headstart.data.images.decode import EXTENSIONS
from headstart.data.names import shown, split_name
from headstart.data.readers.text import encoding_of
from headstart.errors import BrokenDataError, DataError

__all__ = ["csv_columns", "pixel_header"]

_DELIMITERS = (",", ";", "\t", "|")
_EXCEL = re.compile(r"sep=(.)\s*")
"""The first line by which a table tells Excel its delimiter."""
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_MANY = 16  # columns; a table with so many numbers in its first line holds pixels


def csv_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the line of the file on which each row begins.

    A table without a header is read if it can only be path and label, or split, path and label.
    """
    try:
        with table.open(newline="", encoding=encoding_of(table)) as lines:
            n_before, delimiter = _beginning(lines)
            lines.seek(0)
            numbered = list(_numbered(islice(lines, n_before, None), delimiter, 1 + n_before))
    except (UnicodeError, csv.Error) as error:
        raise BrokenDataError(
            f"table {str(table)!r} cannot be read ({error}), expected CSV in UTF-8 with a header; save it as that"
        ) from error
    header, rows = _header(table, [(number, [cell.strip() for cell in row]) for number, row in numbered])
    for number, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"row {number} of {str(table)!r} has {len(row)} cells, expected {len(header)} as in the header; "
                f"quote cells that hold a {_named(delimiter)}"
            )
    return {name: [row[place] for _, row in rows] for place, name in enumerate(header)}, [n for n, _ in rows]


def pixel_header(table: Path) -> int:
    """Whether a table begins like one whose cells are pixels: 2 with labels, 1 without; 0 if not, or unreadable."""
    try:
        with table.open(newline="", encoding=encoding_of(table)) as lines:
            words = re.split(r"[,;\t|\s]+", lines.readline().lower())
    except (OSError, UnicodeError):
        return 0
    if "pixels" not in words and sum(bool(re.search(r"\d", word)) for word in words) < _MANY:
        return 0
    return 1 + any(word.isalpha() and word != "pixels" for word in words)


def _header(table: Path, rows: list[tuple[int, list[str]]]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, in lower case, and the rows below them."""
    first = rows[0][1] if rows else []
    header = [name.lower() for name in first]
    if _is_data(first):
        roles = _roles([row for _, row in rows])
        if roles is None:
            cells, line = (
                ("numbers only", "label,pixel0,pixel1,...")
                if len(first) > _MANY
                else (
                    f"the name of an image, {next(filter(_is_image, first))!r}",
                    "path,label",
                )
            )
            raise DataError(
                f"row {rows[0][0]} of {str(table)!r} has {cells}, expected the names of the columns; add a line at "
                f"the top, such as {line}"
            )
        return roles, rows
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"table {str(table)!r} has the column {shown(twice)} more than once, expected each name once; "
            "rename or drop the others"
        )
    return header, rows[1:]


def _is_data(first: Sequence[str]) -> bool:
    """Whether the first row holds no names of columns: it names an image, or has numbers that do not count up."""
    if any(_is_image(cell) for cell in first):
        return True
    numbers = [cell for cell in first if _NUMBER.fullmatch(cell)]
    counts_up = (
        [str(number) for number in range(len(first))],
        [str(number + 1) for number in range(len(first))],
    )
    return len(first) > _MANY and len(numbers) == len(first) and list(first) not in counts_up


def _is_image(cell: str) -> bool:
    return cell.lower().endswith(EXTENSIONS)


def _roles(rows: Sequence[Sequence[str]]) -> list[str] | None:
    """The columns of a table without a header, if they can only be these."""
    widths = {len(row) for row in rows}
    if widths == {2} and all(_is_image(row[0]) and not _is_image(row[1]) for row in rows):
        return ["path", "label"]
    if widths == {3} and all(
        split_name(row[0]) and _is_image(row[1]) and not _is_image(row[2]) for row in rows
    ):
        return ["split", "path", "label"]
    return None


def _beginning(lines: Iterable[str]) -> tuple[int, str]:
    """How many lines stand before the header, comments or Excel's ``sep=;``, and the delimiter."""
    for number, line in enumerate(lines):
        excel = _EXCEL.fullmatch(line) if number == 0 else None
        if excel:
            return 1, excel[1]
        if not line.startswith("#"):
            return number, _delimiter(line)
    return 0, ","


def _delimiter(header: str) -> str:
    """The delimiter that splits the header into most cells; a comma if none does."""
    counts = {one: header.count(one) for one in _DELIMITERS}
    return max(_DELIMITERS, key=lambda one: counts[one])


def _named(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}.get(delimiter, "bar")


def _numbered(lines: Iterable[str], delimiter: str, first: int) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number of its first line."""
    reader, begins = csv.reader(lines, delimiter=delimiter, strict=True), first
    for row in reader:
        if row:
            yield begins, row
        begins = first + reader.line_num  # a quoted cell may span several lines
