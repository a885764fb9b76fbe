"""Names of classes and splits: their order, their spelling, and how messages list them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SPLITS",
    "comma_list",
    "listed",
    "name_words",
    "natural_order",
    "near_paths",
    "shown",
    "split_name",
    "splits_in",
]

SPLITS = ("train", "val", "test")
_NEAR = 0.6  # of difflib's similarity
_LISTED = 10_000  # entries of a folder that are compared
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "publictest"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "privatetest"), "test"),
    **dict.fromkeys(("heldout", "holdout"), "test"),
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
    "sub",
    "copy",
}
"""Words that may stand next to the name of a split: ``train_set``, ``seg_test``, ``Validation images``."""
_NUMBERS = re.compile(
    r"\d{8}T\d{6}Z|\d+", re.IGNORECASE
)  # train2017, 1_train, Google Drive's train-20240131T120000Z-001
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


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
    >>> split_name("train2017"), split_name("TestImages"), split_name("hold-out"), split_name("train_val")
    ('train', 'test', 'test', 'train')
    """
    words = name_words(name)
    found = [word for word in words if word in _SPLIT_WORDS]
    if "".join(words) in _SPLIT_WORDS:
        return _SPLIT_WORDS["".join(words)]
    others = [word for word in words if word not in _SPLIT_WORDS and word not in _FILLERS]
    return _SPLIT_WORDS[found[0]] if len(found) == 1 and not others else None


def splits_in(name: str) -> set[str]:
    """The splits that a name mentions among other words.

    >>> sorted(splits_in("cifar_train")), splits_in("playing")
    (['train'], set())
    """
    return {_SPLIT_WORDS[word] for word in name_words(name) if word in _SPLIT_WORDS}


def name_words(name: str) -> list[str]:
    """The words of a name in lower case, without numbers and the ending set: ``Training_Set2`` is training.

    >>> name_words("1_trainImages"), name_words("Testset (2)")
    (['train', 'images'], ['test'])
    """
    text = _NUMBERS.sub(" ", _HUMP.sub(" ", name))
    words = [word for word in re.split(r"[\W_]+", text.lower()) if word]
    return [word.removesuffix("set") or word for word in words]


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
