"""Names of classes and splits: their order, their one spelling, how a sentence shows them.

In and out: plain strings. Imports nothing of ours. Called by every module of this folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["SPLITS", "comma_list", "listed", "natural_order", "shown", "split_name"]

SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names as people do: '10' follows '9'.

    Parameters
    ----------
    names : iterable of str
        Repeats are dropped.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> natural_order(["10", "9", "b2", "b10", "9"])
    ('9', '10', 'b2', 'b10')
    """

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        parts = [part for part in re.split(r"(\d+)", name) if part]
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name

    return tuple(sorted({str(name) for name in names}, key=key))


def split_name(name: str) -> str | None:
    """Give the one word for a split, or None if it is no split's name.

    Parameters
    ----------
    name : str
        A folder's name or a cell of a split column; case does not matter.

    Returns
    -------
    str or None

    Examples
    --------
    >>> split_name("validation"), split_name("holiday")
    ('val', None)
    """
    return _SPLIT_NAMES.get(name.lower())


def shown(names: Iterable[str], limit: int = 5) -> str:
    """Quote names for a sentence, and say how many more there are.

    Parameters
    ----------
    names : iterable of str
        What to show.
    limit : int, default=5
        Names shown at most.

    Returns
    -------
    str

    Examples
    --------
    >>> shown(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    quoted = [repr(str(name)) for name in names]
    return ", ".join(quoted[:limit]) + (f" and {len(quoted) - limit} more" if len(quoted) > limit else "")


def listed(names: Sequence[str] | NDArray[np.str_]) -> str:
    """Put the word class before quoted names, in the right number.

    Parameters
    ----------
    names : sequence of str
        Class names.

    Returns
    -------
    str

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b"]), listed([])
    ("class 'a'", "classes 'a', 'b'", 'no class')
    """
    if len(names) == 0:
        return "no class"
    return ("class " if len(names) == 1 else "classes ") + shown(names)


def comma_list(text: str) -> tuple[str, ...]:
    """Names separated by commas, without empty ones.

    Examples
    --------
    >>> comma_list("squish, crop,")
    ('squish', 'crop')
    """
    return tuple(name for part in text.split(",") if (name := part.strip()))
