"""Which columns of a table are path, label, split and group, and what their cells mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from headstart.data.names import shown, split_name
from headstart.errors import DataError

__all__ = ["Cells", "Table", "column_roles", "picked", "plain_names"]

Cells = Mapping[str, Sequence[str]]
"""Cells by column, column names in lower case."""

_PATHS = (
    *(
        "path",
        "paths",
        "file",
        "files",
        "filename",
        "filenames",
        "filepath",
        "filepaths",
        "fname",
        "relativepath",
    ),
    *(
        "image",
        "images",
        "imagepath",
        "imagepaths",
        "imagefile",
        "imagename",
        "imagefilename",
        "imageuri",
        "imageurl",
    ),
    *("img", "imgpath", "imgfile", "imgname", "photo", "photos", "externalpath", "uri", "url"),
)
"""Names of columns, here and below, without spaces, hyphens and underscores."""
_IDS = ("id", "imageid", "imgid", "idcode", "isicid")
"""Cells of file names without their extension."""
_LABELS = (
    *("label", "class", "category", "target", "classname", "labelname", "labelsname", "categoryname"),
    *("species", "breed", "diagnosis", "dx", "choice", "labels", "classes", "tag", "tags", "findinglabels"),
)
_CODES = (
    *(
        "classid",
        "labelid",
        "categoryid",
        "targetid",
        "classindex",
        "labelindex",
        "classidx",
        "labelidx",
        "y",
    ),
    *("groundtruth", "annotation", "level", "grade"),
)
"""Columns that are the label where there is no better one."""
_SPLITS = (
    *("split", "subset", "set", "partition", "usage", "phase", "fold", "isvalid", "isval", "istest"),
    *("istrain", "istraining", "istrainingimage", "train"),
)
_GROUPS = ("group", "writer")
_FLAGS = {
    **dict.fromkeys(("isvalid", "isval"), ("val", "train")),
    "istest": ("test", "train"),
    **dict.fromkeys(("istrain", "istraining", "istrainingimage", "train"), ("train", "test")),
}
"""Columns of yes and no, and the split for each."""
_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false")
_TRUE, _FALSE = {"true", "1", "1.0", "yes", "t"}, {"false", "0", "0.0", "no", "f", ""}
_GROUP_HINTS = (
    *("patient", "patientid", "subject", "subjectid", "person", "personid", "lesionid", "video", "videoid"),
    *("userid", "writerid"),
)
_SEPARATORS = ("|", ";", ",")
_MISSING = {"", "nan", "NaN", "<NA>", "NaT", "#N/A"}
_MAYBE_MISSING = {"none", "null", "n/a", "na", "?", "-"}
_MANY = 50  # columns; so many are more likely pixels than facts about an image
_WHOLE = re.compile(r"-?\d+(\.0+)?")


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
        "label": _only(name, "label", _LABELS, columns) or _only(name, "label", _CODES, columns),
        "split": _only(name, "split", [one for one in _SPLITS if one not in _FLAGS], columns),
        "group": _first(_GROUPS, columns),
    }
    return {role: column for role, column in found.items() if column is not None}


def picked(name: str, columns: Cells, numbers: Sequence[int | str]) -> Table:
    """The columns that the table's maker meant; DataError that names ``name`` if they are not clear."""
    what = f"table {name!r}"
    path = _first(_PATHS, columns) or _first(_IDS, columns)
    label = _only(what, "label", _LABELS, columns)
    one_hot = [] if label or path is None else _one_hot(columns, path)
    label = label or (None if one_hot else _only(what, "label", _CODES, columns))
    if path is None or not (label or one_hot):
        _raise_lacking(name, columns, path, label or one_hot)
    split, group = _only(what, "split", _SPLITS, columns), _first(_GROUPS, columns)
    is_flag = split is not None and _key(split) in _FLAGS
    for column in (path, label, group, None if is_flag else split):
        _refuse_empty(name, column, columns, numbers)
    labels = _whole(columns[label]) if label else _labels_of(name, columns, one_hot, numbers)
    remarks = []
    if label:
        _refuse_several(name, label, labels, numbers)
        odd = sorted({one for one in labels if one.lower() in _MAYBE_MISSING})
        remarks += (
            [f"class {odd[0]!r} may stand for a label that is missing in column {label!r}"] if odd else []
        )
    known = (path, label, group)
    splits, said = _splits_of(
        name, split, {one: columns[one] for one in columns if one not in known}, numbers
    )
    hint = None if group else _first(_GROUP_HINTS, columns)
    if hint:
        said.append(
            f"column {hint!r} of {name!r} is not used; name it 'group' to keep its images on one side of every split"
        )
    return Table(
        tuple(columns[path]),
        tuple(labels),
        splits,
        tuple(columns[group]) if group else None,
        _key(path) in _IDS,
        (*remarks, *said),
    )


def _raise_lacking(name: str, columns: Cells, path: str | None, label: object) -> NoReturn:
    lacking = [what for what, here in (("path", path), ("label", label)) if not here]
    pixels = (
        "; if its cells are pixels, name their columns pixel0, pixel1 and so on"
        if len(columns) > _MANY
        else ""
    )
    raise DataError(
        f"table {name!r} has the columns {shown(columns)}, expected path and label; "
        f"add or rename {' and '.join(lacking)}{pixels}"
    )


def _key(name: str) -> str:
    return re.sub(r"[\s\-_]+", "", name)


def _first(known: Sequence[str], columns: Iterable[str]) -> str | None:
    """The first of these names that the table has, whatever its spaces, hyphens and underscores."""
    spelled = {_key(name): name for name in reversed(list(columns))}
    return next((spelled[name] for name in known if name in spelled), None)


def _only(name: str, standard: str, known: Sequence[str], columns: Iterable[str]) -> str | None:
    """The column with the standard name, else the only synonym; DataError if there are several."""
    spelled = {_key(one): one for one in columns}
    if standard in spelled:
        return spelled[standard]
    found = [spelled[one] for one in known if one in spelled]
    if len(found) > 1:
        raise DataError(
            f"{name} has the columns {shown(found)}, expected one {standard}; rename one to {standard}"
        )
    return found[0] if found else None


def _refuse_empty(name: str, column: str | None, columns: Cells, numbers: Sequence[int | str]) -> None:
    _refuse_null(name, column, columns, numbers)
    places = (
        [] if column is None else [place for place, cell in enumerate(columns[column]) if cell in _MISSING]
    )
    if places and column is not None:
        cell = columns[column][places[0]]
        written = f", but {cell!r}" if cell else ""
        raise DataError(
            f"row {numbers[places[0]]} of {name!r} has no {column}{written} ({len(places)} such rows), "
            "expected one in every row; fill it in, or drop the row"
        )


def _refuse_null(name: str, column: str | None, columns: Cells, numbers: Sequence[int | str]) -> None:
    cells = [] if column is None else columns[column]
    for row, cell in zip(numbers, cells, strict=False):
        if "\0" in cell:
            raise DataError(
                f"row {row} of {name!r} has a null character in its {column}, expected text; write the table again"
            )


def _whole(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels without the zeros of a float, if all are whole numbers: 1 and 1.0 are one class, 01 and 1 are two."""
    if not all(_WHOLE.fullmatch(one) for one in labels):
        return tuple(labels)
    return tuple(one.partition(".")[0] for one in labels)


def _refuse_several(name: str, column: str, labels: Sequence[str], numbers: Sequence[int | str]) -> None:
    """DataError if cells hold several labels: every combination would become a class."""
    known = Counter(labels)
    separators = (*_SEPARATORS, " ") if column.endswith("s") and column != "species" else _SEPARATORS
    for separator in separators:
        parts = {label: [part.strip() for part in label.split(separator) if part.strip()] for label in known}
        several = {label: found for label, found in parts.items() if len(found) > 1}
        shared = Counter(part for found in parts.values() for part in set(found))
        places: dict[str, set[int]] = {}
        for found in several.values():
            for place, part in enumerate(found):
                places.setdefault(part, set()).add(place)
        for label, found in several.items():
            is_list = sum(shared[part] > 1 for part in found) > 1 or any(
                len(places[part]) > 1 for part in found
            )
            is_list |= separator != "," and any(shared[part] > 1 for part in found)
            if is_list or any(part in known for part in found):
                _raise_several(name, column, label, numbers[list(labels).index(label)])
    for label in known:
        if label[:1] in "{[" and label[-1:] in "}]":
            _raise_several(name, column, label, numbers[list(labels).index(label)])


def _raise_several(name: str, column: str, label: str, row: int | str) -> None:
    raise DataError(
        f"row {row} of {name!r} has the {column} {_short(label)}, expected one class per image; keep one label per "
        "row, since a model gives each image one class, or write a table of yes and no for each label (multi-label)"
    )


def _one_hot(columns: Cells, path: str) -> list[str]:
    """Cells of zeros and ones, one per class, if that is all there is beside the path."""
    others = [name for name in columns if name != path and _key(name) not in (*_SPLITS, *_GROUPS)]
    flags = [name for name in others if {cell.lower() for cell in columns[name]} <= {*_YES, *_NO}]
    return flags if len(flags) > 1 and flags == others else []


def _labels_of(
    name: str, columns: Cells, classes: Sequence[str], numbers: Sequence[int | str]
) -> tuple[str, ...]:
    """The class of each row of a one-hot table; DataError if a row has none or several."""
    labels = []
    for place, row in enumerate(numbers):
        found = [one for one in classes if columns[one][place].lower() in _YES]
        if not found:
            raise DataError(
                f"row {row} of {name!r} has no class that is 1, expected one in every row; give it a class or drop it"
            )
        if len(found) > 1:
            _raise_several(name, "classes", "|".join(found), row)
        labels.append(found[0])
    return tuple(labels)


def _splits_of(
    name: str, column: str | None, columns: Cells, numbers: Sequence[int | str]
) -> tuple[tuple[str, ...] | None, list[str]]:
    """The split of each row, and what a user should know of it; ``columns`` are those that are nothing else."""
    if column is None:
        named = [one for one in columns if _name_splits(columns[one])]
        if len(named) != 1:
            return None, []
        return tuple(split_name(cell) or "" for cell in columns[named[0]]), [
            f"column {named[0]!r} is the split"
        ]
    cells = columns[column]
    flag = _FLAGS.get(_key(column))
    if flag and all(cell.lower() in _TRUE | _FALSE for cell in cells):
        return tuple(flag[0] if cell.lower() in _TRUE else flag[1] for cell in cells), []
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


def _name_splits(cells: Sequence[str]) -> bool:
    """Whether the cells of a column are the names of several splits, training among them."""
    found = {split_name(cell) for cell in set(cells)}
    return None not in found and "train" in found and len(found) > 1


def _short(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else text[:most] + "...")


def plain_names(address: str, names: Sequence[str]) -> list[str]:
    """Names of columns in lower case; DataError if two are equal."""
    plain = [name.strip().lower() for name in names]
    twice = sorted({name for name in plain if plain.count(name) > 1})
    if twice:
        raise DataError(
            f"table {address!r} has the column {shown(twice)} more than once, expected each name once; "
            "rename or drop the others"
        )
    return plain
