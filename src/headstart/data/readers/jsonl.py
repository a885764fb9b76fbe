"""Columns of JSON tables: a list of flat objects in one file, or one object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.errors import BrokenDataError, DataError

__all__ = ["json_columns", "jsonl_columns"]


def jsonl_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the line of each object."""
    numbered = [(n, line) for n, line in enumerate(_text(table).splitlines(), 1) if line.strip()]
    rows = [_parsed(table, line, f"line {number} of ") for number, line in numbered]
    return _columns(table, rows), [number for number, _ in numbered]


def json_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the number of each object, from 1."""
    rows = _parsed(table, _text(table), "")
    if not isinstance(rows, list):
        kind = (
            "annotations of object detection (COCO)"
            if {"images", "annotations"} <= set(rows)
            else "one object"
        )
        raise DataError(
            f"table {str(table)!r} holds {kind}, expected a list of objects, each with the path and the label of an "
            "image; export labels of whole images, for instance as CSV"
        )
    return _columns(table, rows), list(range(1, len(rows) + 1))


def _text(table: Path) -> str:
    try:
        return table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenDataError(
            f"table {str(table)!r} cannot be read ({error}), expected JSON in UTF-8; save it as that"
        ) from error


def _parsed(table: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenDataError(
            f"{where}{str(table)!r} cannot be read ({error}), expected JSON; write it again"
        ) from error


def _columns(table: Path, rows: Sequence[Any]) -> dict[str, list[str]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(
                f"object {number} of {str(table)!r} is a {type(row).__name__}, expected an object with path and "
                "label; write one object for each image"
            )
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name.strip().lower(): [_cell(row.get(name)) for row in rows] for name in names}


def _cell(value: Any) -> str:
    """Text of a value; lists and objects as JSON, so that they are refused as labels."""
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
