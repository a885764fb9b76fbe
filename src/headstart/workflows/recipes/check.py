"""Checks of a recipe's tables and keys.

Apart from the records, which hold only what has passed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from headstart.errors import nearest
from headstart.records import TrainSettings

__all__ = ["recipe_faults", "recipe_kind", "with_present_keys"]

_OLDER = {
    "tap": "layer",
    "textbook_tap": "textbook_layer",
    "source_view": "source_subset",
    "target_view": "target_subset",
    "views": "copies",
}
"""Keys of recipes written before 2026-11-29, and what they are called now."""


_SETTINGS = {field.name: type(field.default) for field in fields(TrainSettings)}


_TABLES: Mapping[str, Mapping[str, Any]] = {
    "data": {"default": str, "source_subset": str, "target_subset": str},
    "network": {"name": str, "engine": str},
    "training": _SETTINGS,
    "few_labels": _SETTINGS,
    "probe": {"layer": str, "textbook_layer": str, "head": str},
    "study": {"labels_per_class": list, "draws": int, "collapse": bool},
}


_FROZEN_TABLES: Mapping[str, Mapping[str, Any]] = {
    "data": {"default": str},
    "source": {"name": str, "size_px": int},
    "probe": {"head": str, "augment": str, "copies": int},
    "textbook": {"head": str, "augment": str, "copies": int},
    "study": {"labels_per_class": int, "draws": int, "first_test_images": int},
}


_LETTERS_TABLES: Mapping[str, Mapping[str, Any]] = {
    "data": {"source": str, "default": str, "test": str},
    "network": {"name": str, "engine": str, "augment": str},
    "training": _SETTINGS,
    "probe": {"layer": str, "head": str, "policy": str, "augment": str, "copies": int},
    "textbook": {"layer": str, "head": str, "crop_share": float},
    "textbook_training": _SETTINGS,
    "scratch": _SETTINGS,
}


_FROZEN_OPTIONAL = {
    *("size_px", "head", "augment", "copies", "probe", "textbook", "study"),
    *("labels_per_class", "draws", "first_test_images"),
}


_PUBLISHED = {"what": str, "accuracy": float, "n_test": int, "source": str}


_TEXTS = ("title", "summary")


_OPTIONAL = {"textbook_layer", "collapse", *_SETTINGS}


_COUNTS = ("draws", "copies", "size_px", "first_test_images", "labels_per_class", "n_test")


_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of whole numbers, each at least 1",
    dict: "a table",
}


def with_present_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with keys of older recipes under their present names; one that has both keeps both."""
    return {
        name: {key if (new := _OLDER.get(key, key)) in table else new: value for key, value in table.items()}
        if isinstance(table, dict)
        else table
        for name, table in document.items()
    }


def recipe_kind(document: Mapping[str, Any]) -> str:
    """Which kind of recipe a document is."""
    if "source" in document:
        return "frozen"
    data = document.get("data")
    return "letters" if isinstance(data, dict) and "test" in data else "own"


def recipe_faults(document: Mapping[str, Any]) -> list[str]:
    """Everything that is unknown, missing or of a wrong type."""
    kind = recipe_kind(document)
    frozen = kind == "frozen"
    tables = {"frozen": _FROZEN_TABLES, "letters": _LETTERS_TABLES, "own": _TABLES}[kind]
    known = (*tables, *_TEXTS, *(["published"] if frozen else []))
    faults = [f"{name!r} is unknown, {nearest(name, known)}" for name in document if name not in known]
    faults += _published_faults(document.get("published", [])) if frozen else []
    optional = _FROZEN_OPTIONAL if frozen else _OPTIONAL
    faults += [
        fault for name in _TEXTS for fault in _value_faults(repr(name), document, name, str, needed=True)
    ]
    for table, keys in tables.items():
        here = document.get(table)
        if here is None and table in optional:
            continue
        if not isinstance(here, dict):
            faults.append(
                f"table [{table}] is missing" if here is None else f"{table!r} is {here!r}, expected a table"
            )
            continue
        for key in here:
            if key not in keys:
                faults.append(f"key {key!r} in [{table}] is unknown, {nearest(key, keys)}")
        for key, kind in keys.items():
            faults += _value_faults(f"{key!r} in [{table}]", here, key, kind, needed=key not in optional)
    return faults


def _published_faults(entries: Any) -> list[str]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return [f"'published' is {entries!r}, expected tables [[published]]"]
    faults = [
        fault
        for entry in entries
        for key, kind in _PUBLISHED.items()
        for fault in _value_faults(f"{key!r} in [[published]]", entry, key, kind, needed=True)
    ]
    faults += [
        f"key {key!r} in [[published]] is unknown, {nearest(key, _PUBLISHED)}"
        for entry in entries
        for key in entry
        if key not in _PUBLISHED
    ]
    shares = [entry["accuracy"] for entry in entries if type(entry.get("accuracy")) in (int, float)]
    return faults + [
        f"'accuracy' in [[published]] is {share}, expected a share from 0 to 1"
        for share in shares
        if not 0 <= share <= 1
    ]


def _value_faults(what: str, table: Mapping[str, Any], key: str, kind: type, *, needed: bool) -> list[str]:
    if key not in table:
        return [f"{what} is missing"] if needed else []
    value = table[key]
    if kind is list:
        right = isinstance(value, list) and all(type(size) is int and size >= 1 for size in value)
    else:
        right = type(value) is kind or (kind is float and type(value) is int)
    if right and kind is int and key in _COUNTS and value < 1:
        return [f"{what} is {value}, expected at least 1"]
    return [] if right else [f"{what} is {value!r}, expected {_WORDS[kind]}"]
