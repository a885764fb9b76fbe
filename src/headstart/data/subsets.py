"""Subsets: a selection or relabelling of a dataset, written after a colon, such as ``mnist:odd``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.names import listed, natural_order, shown
from headstart.data.stores import ArrayImages
from headstart.errors import UnknownClassError, UnknownSubsetError, nearest

__all__ = ["SUBSETS", "apply_subset", "subset_map"]

SUBSETS = {
    "odd": "images of odd numbers, labels kept",
    "even": "images of even numbers, labels kept",
    "parity": "all images, relabelled even or odd",
    "0-4": "images of a range of numbers, labels kept",
    "a,b,c": "images of the classes named, labels kept",
    "turned": "every image in four quarter turns, each a class of its own",
}

_TURNED = "turned"


def subset_map(classes: Sequence[str], subset: str) -> dict[str, str | None]:
    """The label of each class in a subset, None where the subset drops it; see `SUBSETS`.

    Controls sum class probabilities by it: ten digits become even and odd. UnknownSubsetError if there is no such
    subset or the classes are not whole numbers, UnknownClassError if it names a class that does not exist.

    >>> subset_map(["1", "2"], "parity")
    {'1': 'odd', '2': 'even'}
    """
    if subset in classes:
        kept = {subset}
    elif subset in ("odd", "even", "parity"):
        parity = {
            name: "even" if number % 2 == 0 else "odd" for name, number in _numbers(classes, subset).items()
        }
        if subset == "parity":
            return dict(parity)
        kept = {name for name in classes if parity[name] == subset}
    elif match := re.fullmatch(r"(\d+)-(\d+)", subset):
        kept = _range(classes, subset, int(match[1]), int(match[2]))
    elif "," in subset:
        kept = {name.strip() for name in subset.split(",")}
        _check_known(kept, classes, subset)
    else:
        raise UnknownSubsetError(
            f"subset {subset!r} is unknown, expected {', '.join(SUBSETS)} or a class "
            f"({nearest(subset, classes)}); choose one of these"
        )
    return {name: name if name in kept else None for name in classes}


def apply_subset(dataset: Dataset, subset: str) -> Dataset:
    """Select and relabel images; the result is named ``dataset:subset`` and has the classes that the subset keeps.

    ``turned`` has four times as many: ``a``, and ``a turned 90`` for the same, a quarter turn to the left, ...
    UnknownSubsetError also if no image is kept, or images to turn are not square and in memory.

    >>> images = np.zeros((3, 8, 8), np.uint8)
    >>> digits = Dataset("digits", images, np.array(["1", "2", "3"]), ("1", "2", "3"))
    >>> odd = apply_subset(digits, "odd")
    >>> odd.name, odd.labels.tolist()
    ('digits:odd', ['1', '3'])
    """
    if subset == _TURNED and subset not in dataset.classes:
        return _turned(dataset)
    mapping = subset_map(dataset.classes, subset)
    new_names = [new for new in mapping.values() if new is not None]
    keep = np.array([mapping[name] is not None for name in dataset.classes])[dataset.codes()]
    if not keep.any():
        raise UnknownSubsetError(
            f"subset {subset!r} keeps no image of dataset {dataset.name!r}, expected one that does; "
            f"its classes are {shown(dataset.classes)}"
        )
    relabelled = subset == "parity" and subset not in dataset.classes
    classes = natural_order(new_names) if relabelled else tuple(new_names)
    kept = dataset.subset(keep)
    renamed = np.array([mapping[name] or "" for name in dataset.classes], dtype=np.str_)[kept.codes()]
    return replace(kept, name=f"{dataset.name}:{subset}", labels=renamed, classes=classes)


def _turned(dataset: Dataset) -> Dataset:
    """Four classes from each, for more varied training drawings (Santoro et al. 2016, arXiv:1605.06065)."""
    images = dataset.images.pixels
    if images is None or images.shape[1] != images.shape[2]:
        raise UnknownSubsetError(
            f"subset {_TURNED!r} does not fit dataset {dataset.name!r}, expected square images in memory; "
            "leave the subset out"
        )
    pixels = np.concatenate([np.rot90(images, turns, axes=(1, 2)) for turns in range(4)])
    endings = ["", *(f" turned {90 * turns}" for turns in range(1, 4))]
    return Dataset(
        f"{dataset.name}:{_TURNED}",
        ArrayImages(pixels),
        np.concatenate([np.char.add(dataset.labels, ending) for ending in endings]),
        tuple(name + ending for ending in endings for name in dataset.classes),
        None if dataset.groups is None else np.tile(dataset.groups, 4),
        None if dataset.splits is None else np.tile(dataset.splits, 4),
    )


def _numbers(classes: Sequence[str], subset: str) -> dict[str, int]:
    words = [name for name in classes if not re.fullmatch(r"-?[0-9]+", name)]
    if words:
        raise UnknownSubsetError(
            f"subset {subset!r} does not fit {listed(words)}, expected classes that are whole numbers; "
            "list the classes by name instead, such as a,b"
        )
    return {name: int(name) for name in classes}


def _range(classes: Sequence[str], subset: str, low: int, high: int) -> set[str]:
    if low > high:
        raise UnknownSubsetError(f"subset {subset!r} runs downwards, expected low-high; write {high}-{low}")
    numbers = _numbers(classes, subset)
    here = set(numbers.values())
    # checking the ends is enough: a dataset may lack numbers within the range
    _check_known({str(end) for end in (low, high) if end not in here}, classes, subset)
    return {name for name, number in numbers.items() if low <= number <= high}


def _check_known(wanted: set[str], classes: Sequence[str], subset: str) -> None:
    unknown = sorted(wanted - set(classes))
    if unknown:
        raise UnknownClassError(
            f"subset {subset!r} names {listed(unknown)}, expected classes of the dataset, "
            f"{nearest(unknown[0], classes)}; correct the subset"
        )
