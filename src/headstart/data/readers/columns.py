"""Which columns of a table are path, label, split and group, and what their cells mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headstart.data.names import shown, split_name
from headstart.errors import DataError

__all__ = ["Cells", "Table", "column_roles", "picked"]

Cells = Mapping[str, Sequence[str]]
"""Cells by column, column names in lower case."""

_PATHS = (
    *("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "imagepath"),
    *("img", "img_path", "image_file", "image_name", "image_filename", "images"),
)
_IDS = ("id", "image_id", "imageid", "img_id", "id_code", "isic_id")
"""Cells of file names without their extension."""
_LABELS = (
    *("label", "class", "category", "target", "class_name", "classname", "label_name", "category_name"),
    *("species", "breed", "diagnosis", "dx", "choice", "labels", "classes", "tag", "tags"),
)
_SPLITS = ("split", "subset", "set", "partition", "usage", "phase", "fold", "is_valid", "is_val", "is_test")
_GROUPS = ("group", "writer")
_FLAGS = {"is_valid": "val", "is_val": "val", "is_test": "test"}
_TRUE, _FALSE = {"true", "1", "1.0", "yes", "t"}, {"false", "0", "0.0", "no", "f", ""}
_GROUP_HINTS = ("patient", "patient_id", "subject", "subject_id", "person", "lesion_id", "video", "user_id")
_SEPARATORS = ("|", ";", ",")


@dataclass(frozen=True)
class Table:
    """Path, label, and if there are any split and group, of each row; ``by_id`` if paths lack their extension."""

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    by_id: bool
    remarks: tuple[str, ...]


def column_roles(name: str, columns: Sequence[str]) -> dict[str, str]:
    """The columns that are ``path``, ``label``, ``split`` and ``group``; DataError if there are two of one."""
    found = {
        "path": _only(name, "path", _PATHS, columns),
        "label": _only(name, "label", _LABELS, columns),
        "split": _only(name, "split", [one for one in _SPLITS if one not in _FLAGS], columns),
        "group": _first(_GROUPS, columns),
    }
    return {role: column for role, column in found.items() if column is not None}


def picked(name: str, columns: Cells, numbers: Sequence[int]) -> Table:
    """The columns that the table's maker meant; DataError that names ``name`` if they are not clear."""
    path = _first(_PATHS, columns) or _first(_IDS, columns)
    label = _only(f"table {name!r}", "label", _LABELS, columns)
    one_hot = [] if label or path is None else _one_hot(columns, path)
    lacking = [what for what, here in (("path", path), ("label", label or one_hot)) if not here]
    if lacking or path is None:
        raise DataError(
            f"table {name!r} has the columns {shown(columns)}, expected path and label; "
            f"add or rename {' and '.join(lacking)}"
        )
    split, group = _only(f"table {name!r}", "split", _SPLITS, columns), _first(_GROUPS, columns)
    for column in (path, label, group, split if split not in _FLAGS else None):
        _refuse_empty(name, column, columns, numbers)
    labels = tuple(columns[label]) if label else _labels_of(name, columns, one_hot, numbers)
    if label:
        _refuse_several(name, label, labels, numbers)
    splits, remarks = _splits_of(name, split, columns, numbers)
    hint = None if group else _first(_GROUP_HINTS, columns)
    if hint:
        remarks.append(
            f"column {hint!r} of {name!r} is not used; name it 'group' to keep its images on one side of every split"
        )
    return Table(
        tuple(columns[path]),
        labels,
        splits,
        tuple(columns[group]) if group else None,
        path in _IDS,
        tuple(remarks),
    )


def _first(known: Sequence[str], columns: Iterable[str]) -> str | None:
    """The first of these names that the table has, whatever its spaces and hyphens."""
    spelled = {re.sub(r"[\s\-]+", "_", name): name for name in reversed(list(columns))}
    return next((spelled[name] for name in known if name in spelled), None)


def _only(name: str, standard: str, known: Sequence[str], columns: Iterable[str]) -> str | None:
    """The column with the standard name, else the only synonym; DataError if there are several."""
    spelled = {re.sub(r"[\s\-]+", "_", one): one for one in columns}
    if standard in spelled:
        return spelled[standard]
    found = [spelled[one] for one in known if one in spelled]
    if len(found) > 1:
        raise DataError(
            f"{name} has the columns {shown(found)}, expected one {standard}; rename one to {standard}"
        )
    return found[0] if found else None


def _refuse_empty(name: str, column: str | None, columns: Cells, numbers: Sequence[int]) -> None:
    if column is not None and "" in columns[column]:
        cells = columns[column]
        raise DataError(
            f"row {numbers[list(cells).index('')]} of {name!r} has no {column} ({list(cells).count('')} such rows), "
            "expected one in every row; fill it in"
        )


def _refuse_several(name: str, column: str, labels: Sequence[str], numbers: Sequence[int]) -> None:
    """DataError if cells hold several labels: every combination would become a class."""
    known = Counter(labels)
    separators = (*_SEPARATORS, " ") if column.endswith("s") and column != "species" else _SEPARATORS
    for separator in separators:
        parts = {label: [part.strip() for part in label.split(separator) if part.strip()] for label in known}
        several = {label: found for label, found in parts.items() if len(found) > 1}
        shared = Counter(part for found in parts.values() for part in set(found))
        for label, found in several.items():
            if any(part in known or shared[part] > 1 for part in found):
                _raise_several(name, column, label, numbers[list(labels).index(label)])
    for label in known:
        if label[:1] in "{[" and label[-1:] in "}]":
            _raise_several(name, column, label, numbers[list(labels).index(label)])


def _raise_several(name: str, column: str, label: str, row: int) -> None:
    raise DataError(
        f"row {row} of {name!r} has the {column} {_short(label)}, expected one class per image; keep one label per "
        "row, since a model gives each image one class, or write a table of yes and no for each label (multi-label)"
    )


def _one_hot(columns: Cells, path: str) -> list[str]:
    """Cells of zeros and ones, one per class, if that is all there is beside the path."""
    others = [name for name in columns if name != path and name not in (*_SPLITS, *_GROUPS)]
    flags = [name for name in others if set(columns[name]) <= {"0", "1", "0.0", "1.0"}]
    return flags if len(flags) > 1 and flags == others else []


def _labels_of(name: str, columns: Cells, classes: Sequence[str], numbers: Sequence[int]) -> tuple[str, ...]:
    """The class of each row of a one-hot table; DataError if a row has none or several."""
    labels = []
    for place, row in enumerate(numbers):
        found = [one for one in classes if columns[one][place].startswith("1")]
        if not found:
            raise DataError(
                f"row {row} of {name!r} has no class that is 1, expected one in every row; give it a class or drop it"
            )
        if len(found) > 1:
            _raise_several(name, "classes", "|".join(found), row)
        labels.append(found[0])
    return tuple(labels)


def _splits_of(
    name: str, column: str | None, columns: Cells, numbers: Sequence[int]
) -> tuple[tuple[str, ...] | None, list[str]]:
    if column is None:
        return None, []
    cells = columns[column]
    if column in _FLAGS and all(cell.lower() in _TRUE | _FALSE for cell in cells):
        return tuple(_FLAGS[column] if cell.lower() in _TRUE else "train" for cell in cells), []
    names = [split_name(cell) for cell in cells]
    if column != "split" and not any(names):
        return None, [
            f"column {column!r} of {name!r} is not used: its values, such as {cells[0]!r}, name no split"
        ]
    for row, cell, found in zip(numbers, cells, names, strict=True):
        if found is None:
            raise DataError(
                f"row {row} of {name!r} has {column} {cell!r}, expected train, val or test; rename the split"
            )
    return tuple(found for found in names if found), []


def _short(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else text[:most] + "...")
