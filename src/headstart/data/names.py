"""Names of classes and splits: their order, their spelling, and how messages list them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["SPLITS", "comma_list", "listed", "natural_order", "near_paths", "shown", "split_name"]

SPLITS = ("train", "val", "test")
_NEAR = 0.6  # of difflib's similarity
_LISTED = 10_000  # entries of a folder that are compared
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "publictest"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "heldout", "privatetest"), "test"),
}
_FILLERS = {
    "set",
    "seg",
    "image",
    "images",
    "img",
    "imgs",
    "data",
    "dataset",
    "folder",
    "split",
    "part",
    "subset",
}
"""Words that may stand next to the name of a split: ``train_set``, ``seg_test``, ``Validation images``."""


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names so that '10' follows '9', and drop repeats.

    >>> natural_order(["10", "9", "b2", "b10", "9"])
    ('9', '10', 'b2', 'b10')
    """

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        parts = [part for part in re.split(r"(\d+)", name) if part]
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name

    return tuple(sorted({str(name) for name in names}, key=key))


def split_name(name: str) -> str | None:
    """The standard name of a split by any of its usual names, or None for any other name.

    >>> split_name("validation"), split_name("Training_Set"), split_name("seg_test"), split_name("holiday")
    ('val', 'train', 'test', None)
    """
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    whole = [word.removesuffix("set") if word != "set" else word for word in words]
    found = [word for word in whole if word in _SPLIT_WORDS]
    others = [word for word in whole if word not in _SPLIT_WORDS and word not in _FILLERS]
    return _SPLIT_WORDS[found[0]] if len(found) == 1 and not others else None


def shown(names: Iterable[str], limit: int = 5) -> str:
    """Quote names for a message, ``limit`` at most, and count the others.

    >>> shown(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    quoted = [repr(str(name)) for name in names]
    return ", ".join(quoted[:limit]) + (f" and {len(quoted) - limit} more" if len(quoted) > limit else "")


def listed(names: Sequence[str] | NDArray[np.str_]) -> str:
    """Quoted names after the word class or classes.

    >>> listed(["a"]), listed(["a", "b"]), listed([])
    ("class 'a'", "classes 'a', 'b'", 'no class')
    """
    if len(names) == 0:
        return "no class"
    return ("class " if len(names) == 1 else "classes ") + shown(names)


def comma_list(text: str) -> tuple[str, ...]:
    """Names separated by commas, without empty ones."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def near_paths(text: str, endings: Sequence[str] = ()) -> list[str]:
    """Folders that a mistyped path may mean, three at most, each with a slash; files too that have these endings.

    The first part of the path that does not exist is compared with its neighbours; a bare name also with those of
    the working directory.
    """
    from difflib import get_close_matches

    parts = Path(os.path.expanduser(text)).parts
    there = max((n for n in range(len(parts)) if Path(*parts[:n]).is_dir()), default=0)
    if there >= len(parts):
        return []
    wanted, rest = parts[there].casefold(), parts[there + 1 :]
    found = []
    for home in (Path(*parts[:there]), *([Path(os.pardir)] if len(parts) == 1 else [])):
        here = {name.casefold(): name for name in _entries(home, endings if not rest else ())}
        for near in get_close_matches(wanted, here, n=3, cutoff=_NEAR):
            path = home.joinpath(here[near], *rest)
            if path.exists():
                found.append(f"{path}{os.sep}" if path.is_dir() else str(path))
    return found[:3]


def _entries(home: Path, endings: Sequence[str]) -> list[str]:
    """Names of the folders in a folder, and of files with these endings, without hidden ones."""
    try:
        with os.scandir(home) as entries:
            return [
                entry.name
                for entry in islice(entries, _LISTED)
                if not entry.name.startswith(".")
                and (entry.is_dir() or entry.name.lower().endswith(tuple(endings)))
            ]
    except OSError:
        return []
