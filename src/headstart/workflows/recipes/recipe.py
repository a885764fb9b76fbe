"""Recipes as records, read from TOML and checked before anything is computed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from headstart.errors import RecipeError, nearest
from headstart.records import TrainSettings
from headstart.workflows.recipes.check import recipe_faults, recipe_kind, with_present_keys

__all__ = [
    "FrozenRecipe",
    "LettersRecipe",
    "Published",
    "Recipe",
    "Textbook",
    "read_recipe",
    "recipe_names",
    "recipe_text",
]


@dataclass(frozen=True)
class Recipe:
    """A classic experiment: which data, which network, how it learns, what is compared."""

    name: str
    title: str
    summary: str
    data: str
    source_subset: str
    target_subset: str
    network: str
    engine: str
    training: TrainSettings
    few_labels: TrainSettings
    layer: str
    textbook_layer: str | None
    head: str
    labels_per_class: tuple[int, ...]
    draws: int
    collapse: bool


@dataclass(frozen=True)
class Textbook:
    """The textbook's head and augmentation, on the averaged maps of the last stage."""

    head: str
    augment: str
    copies: int


@dataclass(frozen=True)
class Published:
    """A published figure: what it measures, its accuracy in 0 - 1, number of test images, source."""

    what: str
    accuracy: float
    n_test: int
    source: str


@dataclass(frozen=True)
class FrozenRecipe:
    """An experiment on a pretrained network; settings that are None are selected or left out.

    ``labels_per_class`` None trains on all labels in one draw. ``augment`` is compared with no augmentation by
    cross-validation and used if it wins. ``first_test_images`` adds the accuracy on so many first test images.
    """

    name: str
    title: str
    summary: str
    data: str
    source: str
    size_px: int | None
    head: str | None
    augment: str | None
    copies: int
    textbook: Textbook | None
    labels_per_class: int | None
    draws: int
    first_test_images: int | None
    published: tuple[Published, ...]


@dataclass(frozen=True)
class LettersRecipe:
    """A network trained on one dataset, frozen, taught the few images of another, tested on a third.

    ``augment`` is the augmentation of the network's training images, ``copies_augment`` and ``copies`` that of
    the few images. The textbook's way has its own network, preparation and layer.
    """

    name: str
    title: str
    summary: str
    source_data: str
    data: str
    test: str
    network: str
    engine: str
    augment: str
    training: TrainSettings
    layer: str
    head: str
    policy: str
    copies_augment: str
    copies: int
    textbook_layer: str
    textbook_head: str
    crop_share: float
    textbook_training: TrainSettings
    scratch: TrainSettings


def recipe_names() -> tuple[str, ...]:
    """Names of the bundled recipes.

    >>> "parity" in recipe_names()
    True
    """
    return tuple(
        sorted(
            entry.name.removesuffix(".toml")
            for entry in files("headstart.workflows.recipes").iterdir()
            if entry.name.endswith(".toml")
        )
    )


def read_recipe(name: str) -> Recipe | FrozenRecipe | LettersRecipe:
    """A bundled recipe by name, or one from a path that ends in ``.toml``; RecipeError if it is unknown or faulty.

    A recipe with a table [source] has a pretrained network; one whose [data] names a test set is of letters.
    """
    text = recipe_text(name)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            f"recipe {name!r} is not TOML ({error}), expected a recipe as TOML; "
            "see one with: headstart recipes show parity"
        ) from error
    document = with_present_keys(document)
    if faults := recipe_faults(document):
        raise RecipeError(
            f"recipe {name!r} is malformed ({'; '.join(faults)}), expected the tables and keys of a recipe; "
            "see one with: headstart recipes show parity"
        )
    kind, stem = recipe_kind(document), Path(name).stem
    if kind == "own":
        return _recipe(stem, document)
    return _frozen_recipe(stem, document) if kind == "frozen" else _letters_recipe(stem, document)


def recipe_text(name: str) -> str:
    """The TOML of a recipe, by name or path; RecipeError if there is none."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise RecipeError(
                f"recipe file {name!r} does not exist, expected a TOML file; "
                "see one with: headstart recipes show parity"
            )
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"recipe file {name!r} cannot be read ({error}), expected TOML in UTF-8; save it as that"
            ) from error
    if name in recipe_names():
        return files("headstart.workflows.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    raise RecipeError(
        f"recipe {name!r} is unknown, expected a registered name or a .toml file, "
        f"{nearest(name, recipe_names())}; list all with: headstart recipes"
    )


def _frozen_recipe(name: str, document: Mapping[str, Any]) -> FrozenRecipe:
    probe, study = document.get("probe", {}), document.get("study", {})
    textbook = document.get("textbook")
    return FrozenRecipe(
        name=name,
        title=document["title"],
        summary=document["summary"].strip(),
        data=document["data"]["default"],
        source=document["source"]["name"],
        size_px=document["source"].get("size_px"),
        head=probe.get("head"),
        augment=probe.get("augment"),
        copies=probe.get("copies", 3),
        textbook=None
        if textbook is None
        else Textbook(textbook["head"], textbook["augment"], textbook.get("copies", 3)),
        labels_per_class=study.get("labels_per_class"),
        draws=study.get("draws", 1),
        first_test_images=study.get("first_test_images"),
        published=tuple(Published(**entry) for entry in document.get("published", [])),
    )


def _letters_recipe(name: str, document: Mapping[str, Any]) -> LettersRecipe:
    data, network, probe, textbook = (document[part] for part in ("data", "network", "probe", "textbook"))
    return LettersRecipe(
        name=name,
        title=document["title"],
        summary=document["summary"].strip(),
        source_data=data["source"],
        data=data["default"],
        test=data["test"],
        network=network["name"],
        engine=network["engine"],
        augment=network["augment"],
        training=TrainSettings(**document["training"]),
        layer=probe["layer"],
        head=probe["head"],
        policy=probe["policy"],
        copies_augment=probe["augment"],
        copies=probe["copies"],
        textbook_layer=textbook["layer"],
        textbook_head=textbook["head"],
        crop_share=textbook["crop_share"],
        textbook_training=TrainSettings(**document["textbook_training"]),
        scratch=TrainSettings(**document["scratch"]),
    )


def _recipe(name: str, document: Mapping[str, Any]) -> Recipe:
    data, network, study = document["data"], document["network"], document["study"]
    return Recipe(
        name=name,
        title=document["title"],
        summary=document["summary"].strip(),
        data=data["default"],
        source_subset=data["source_subset"],
        target_subset=data["target_subset"],
        network=network["name"],
        engine=network["engine"],
        training=TrainSettings(**document["training"]),
        few_labels=TrainSettings(**document["few_labels"]),
        layer=document["probe"]["layer"],
        textbook_layer=document["probe"].get("textbook_layer"),
        head=document["probe"]["head"],
        labels_per_class=tuple(study["labels_per_class"]),
        draws=study["draws"],
        collapse=study.get("collapse", False),
    )
