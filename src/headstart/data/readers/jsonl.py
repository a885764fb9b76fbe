"""Columns of JSON tables: objects in a list or one a line, columns by name, or labels by path."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.data.names import shown
from headstart.data.readers.columns import plain_names
from headstart.data.readers.text import encoding_of
from headstart.errors import BrokenDataError, DataError

__all__ = ["json_columns", "jsonl_columns"]


def jsonl_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the line of each object."""
    return _of_lines(table, _text(table))


def json_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the number of each object, from 1; also of one object a line."""
    text = _text(table)
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and all(line.strip().startswith("{") and line.strip().endswith("}") for line in lines):
        return _of_lines(table, text)
    rows = _rows(table, _parsed(table, text, ""))
    return _columns(table, rows), list(range(1, len(rows) + 1))


def _of_lines(table: Path, text: str) -> tuple[dict[str, list[str]], list[int]]:
    numbered = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = [_parsed(table, line, f"line {number} of ") for number, line in numbered]
    return _columns(table, rows), [number for number, _ in numbered]


def _text(table: Path) -> str:
    try:
        return table.read_text(encoding=encoding_of(table))
    except (OSError, UnicodeError) as error:
        raise BrokenDataError(
            f"table {str(table)!r} cannot be read ({error}), expected JSON in UTF-8; save it as that"
        ) from error


def _parsed(table: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BrokenDataError(
            f"{where}{str(table)!r} cannot be read ({error}), expected JSON; write it again"
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1}) if len({*names}) < len(names) else []
    if twice:
        raise ValueError(f"an object has {shown(twice)} more than once")
    return dict(pairs)


def _rows(table: Path, content: Any) -> Sequence[Any]:
    """Objects with a path and a label, from the ways in which tables are written as one JSON value."""
    if isinstance(content, Mapping):
        _refuse_annotations(table, content)
        cells = list(content.values())
        if len(cells) == 1 and isinstance(cells[0], list):
            return _rows(table, cells[0])  # such as {"data": [...]}
        if (
            len(cells) > 1
            and all(isinstance(one, list) for one in cells)
            and len({len(one) for one in cells}) == 1
        ):
            return [dict(zip(content, row, strict=True)) for row in zip(*cells, strict=True)]
        if len(cells) > 1 and all(isinstance(one, Mapping) and list(one) == list(cells[0]) for one in cells):
            return [
                {name: content[name][place] for name in content} for place in cells[0]
            ]  # as pandas writes it
        if (
            cells
            and all(isinstance(one, str | int) for one in cells)
            and any("." in name for name in content)
        ):
            return [{"path": path, "label": label} for path, label in content.items()]
    if not isinstance(content, list):
        kind = "one object" if isinstance(content, Mapping) else f"one value of type {type(content).__name__}"
        raise DataError(
            f"table {str(table)!r} holds {kind}, expected a list of objects, each with the path and the label of an "
            "image; write one object for each image"
        )
    if content and isinstance(content[0], Mapping):
        _refuse_annotations(table, content[0])
    return content


def _refuse_annotations(table: Path, one: Mapping[str, Any]) -> None:
    """DataError for the exports of annotation tools, whose labels are not those of whole images."""
    kind = None
    if {"images", "annotations"} <= {*one}:
        kind, advice = (
            "annotations of object detection (COCO)",
            "export labels of whole images, for instance as CSV",
        )
    elif "data" in one and {"annotations", "completions", "predictions"} & {*one}:
        kind, advice = "tasks of Label Studio", "export them as JSON-MIN or CSV"
    if kind is not None:
        raise DataError(
            f"table {str(table)!r} holds {kind}, expected a list of objects, each with the path and the label of an "
            f"image; {advice}"
        )


def _columns(table: Path, rows: Sequence[Any]) -> dict[str, list[str]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(
                f"object {number} of {str(table)!r} is a {type(row).__name__}, expected an object with path and "
                "label; write one object for each image"
            )
    names = list(dict.fromkeys(name for row in rows for name in row))
    plain = plain_names(str(table), names)
    return {one: [_cell(row.get(name)) for row in rows] for one, name in zip(plain, names, strict=True)}


def _cell(value: Any) -> str:
    """Text of a value; lists and objects as JSON, so that they are refused as labels."""
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
