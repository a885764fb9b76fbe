"""Recipes as records: a TOML file read, checked and listed.

In: a name or a path. Out: a Recipe whose every setting was checked before anything is computed.
Must not import data or networks. Called by run.py and the command line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from headstart.errors import RecipeError, nearest
from headstart.records import TrainSettings

__all__ = ["Recipe", "read_recipe", "recipe_names", "recipe_text"]

_TABLES = {
    "data": {"default", "source_view", "target_view"},
    "network": {"name", "engine"},
    "training": {field.name for field in fields(TrainSettings)},
    "few_labels": {field.name for field in fields(TrainSettings)},
    "probe": {"tap", "textbook_tap", "head"},
    "study": {"labels_per_class", "draws", "collapse"},
}


@dataclass(frozen=True)
class Recipe:
    """A classic experiment: which data, which network, how it learns, what is compared."""

    name: str
    title: str
    summary: str
    data: str
    source_view: str
    target_view: str
    network: str
    engine: str
    training: TrainSettings
    few_labels: TrainSettings
    tap: str
    textbook_tap: str | None
    head: str
    labels_per_class: tuple[int, ...]
    draws: int
    collapse: bool


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with Headstart.

    Examples
    --------
    >>> "parity" in recipe_names()
    True
    """
    return tuple(
        sorted(
            entry.name.removesuffix(".toml")
            for entry in files("headstart.recipes").iterdir()
            if entry.name.endswith(".toml")
        )
    )


def read_recipe(name: str) -> Recipe:
    """A recipe by name, or from a TOML file of the user's.

    Parameters
    ----------
    name : str
        One of `recipe_names`, or a path that ends in ``.toml``.

    Returns
    -------
    Recipe
        Checked.

    Raises
    ------
    RecipeError
        If there is none of that name, or the file is not a recipe.
    """
    text = recipe_text(name)
    try:
        return _recipe(Path(name).stem, tomllib.loads(text))
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f"recipe {name!r} is malformed ({error}), need the tables and keys of a recipe; "
            "see one with: headstart recipes show parity"
        ) from error


def recipe_text(name: str) -> str:
    """The TOML of a recipe, by name or path.

    Parameters
    ----------
    name : str
        As in `read_recipe`.

    Returns
    -------
    str
        As it stands in the file.

    Raises
    ------
    RecipeError
        If there is none.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise RecipeError(
                f"recipe file {name!r} does not exist, need a TOML file; "
                "see one with: headstart recipes show parity"
            )
        return path.read_text(encoding="utf-8")
    if name in recipe_names():
        return files("headstart.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    raise RecipeError(
        f"recipe {name!r} is unknown, need a registered name or a .toml file, "
        f"{nearest(name, recipe_names())}; list all with: headstart recipes"
    )


def _recipe(name: str, document: Mapping[str, Any]) -> Recipe:
    for table, keys in _TABLES.items():
        unknown = set(document.get(table, {})) - keys
        if unknown:
            wrong = sorted(unknown)[0]
            raise ValueError(f"key {wrong!r} in [{table}] is unknown, {nearest(wrong, keys)}")
    data, network, study = document["data"], document["network"], document["study"]
    return Recipe(
        name=name,
        title=document["title"],
        summary=document["summary"].strip(),
        data=data["default"],
        source_view=data["source_view"],
        target_view=data["target_view"],
        network=network["name"],
        engine=network["engine"],
        training=TrainSettings(**document["training"]),
        few_labels=TrainSettings(**document["few_labels"]),
        tap=document["probe"]["tap"],
        textbook_tap=document["probe"].get("textbook_tap"),
        head=document["probe"]["head"],
        labels_per_class=tuple(int(size) for size in study["labels_per_class"]),
        draws=int(study["draws"]),
        collapse=bool(study.get("collapse", False)),
    )
