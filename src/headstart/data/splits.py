"""Ways to split a dataset: a held-out share, cross-validation folds, nested subsets.

All are stratified by label, and depend on the seed and nothing else. They know labels and groups only, no
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.data.names import listed, natural_order
from headstart.errors import DataError, SettingError, ShapeError

__all__ = ["Indices", "fewest_per_class", "folds", "holdout", "nested_subsets"]

Indices = NDArray[np.intp]
_N_TRIES = 64
_MANY_GROUPS = 2_000  # from here on searching for the best groups takes too long


def holdout(
    labels: ArrayLike, share: float, seed: int | np.random.Generator, groups: ArrayLike | None = None
) -> tuple[Indices, Indices]:
    """Hold out a share (0 - 1, exclusive) of the images of every class; returns sorted indices (rest, held out).

    Whole groups go to one side, and the share is then met as closely as they allow. A class with at least two
    images (two groups) is on both sides; one with fewer stays in the rest. DataError if nothing can be held
    out, or the groups allow no such split.

    >>> rest, held = holdout(["a"] * 8 + ["b"] * 4, 0.25, seed=0)
    >>> len(rest), len(held), held[-1] >= 8
    (9, 3, np.True_)
    """
    names, codes = _coded(labels)
    if not 0 < share < 1:
        raise SettingError(f"share is {share!r}, expected a number between 0 and 1; 0.2 holds out a fifth")
    rng = np.random.default_rng(seed)
    units = None if groups is None else _grouped(groups, len(codes))
    if units is None or len(np.unique(units)) == len(units):
        held = _held_images(codes, share, rng)
    elif units.max() >= _MANY_GROUPS:
        held = _held_clusters(codes, units, share, rng)
    else:
        held = _held_groups(names, codes, units, share, rng)
    if not held.any():
        raise DataError("labels has no class with 2 images, expected at least one such class; add images")
    return np.flatnonzero(~held), np.flatnonzero(held)


def folds(
    labels: ArrayLike, k: int, seed: int | np.random.Generator, groups: ArrayLike | None = None
) -> list[tuple[Indices, Indices]]:
    """Split the images into k folds for cross-validation; returns sorted indices (train, val) of each.

    Every image is in ``val`` once, and every class in every ``train``. ``k`` is at most the number of images
    (of groups: whole groups go to one fold); at that number it is leave-one-out. DataError if a class has one
    image, or one group has all images of a class.

    >>> [(len(train), len(val)) for train, val in folds(["a"] * 6 + ["b"] * 3, 3, seed=0)]
    [(6, 3), (6, 3), (6, 3)]
    """
    names, codes = _coded(labels)
    units = np.arange(len(codes)) if groups is None else _grouped(groups, len(codes))
    n_units = len(np.unique(units))
    if not 2 <= k <= n_units:
        what = "images" if groups is None else "groups"
        raise SettingError(f"k is {k!r}, expected 2 to {n_units}, the number of {what}; choose fewer folds")
    _check_units(names, codes, units, "image" if groups is None else "group")
    rng = np.random.default_rng(seed)
    fold = _dealt(codes, k, rng) if groups is None else _dealt_groups(codes, units, k, rng)
    for _ in range(_N_TRIES):
        alone = _in_one_fold(codes, fold)
        if alone is None:
            break
        fold = rng.permutation(np.arange(n_units) % k)[units]  # less even, but possibly valid
    if alone is not None:
        raise DataError(
            f"class {str(names[alone])!r} falls into one of {k} folds with all its groups, expected two folds "
            "for it; choose more folds, or another seed"
        )
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(k)]


def nested_subsets(
    labels: ArrayLike, per_class: Sequence[int] = (1, 5, 10, 50), *, seed: int | np.random.Generator
) -> dict[int, Indices]:
    """Draw subsets with the given numbers of images per class, each contained in the next larger one.

    Returns sorted indices by size; a subset does not depend on which other sizes are drawn. DataError names
    all classes with too few images.
    """
    names, codes = _coded(labels)
    sizes = sorted({int(size) for size in per_class})
    if not sizes or sizes[0] < 1:
        raise SettingError(
            f"per_class is {tuple(per_class)!r}, expected sizes of at least 1; such as (1, 5, 10)"
        )
    counts = np.bincount(codes)
    if counts.min() < sizes[-1]:
        few = names[counts < sizes[-1]]
        raise DataError(
            f"labels has {counts.min()} images at the least of {listed(natural_order(few.tolist()))}, "
            f"expected {sizes[-1]} of each; choose fewer per class, or add images"
        )
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(codes == code)) for code in range(len(names))]
    return {size: np.sort(np.concatenate([order[:size] for order in drawn])) for size in sizes}


def fewest_per_class(labels: ArrayLike, groups: ArrayLike | None = None) -> int:
    """Number of images of the smallest class that occurs; a group counts once in each of its classes."""
    codes = _coded(labels)[1]
    if groups is not None:
        units = np.unique(np.asarray(groups), return_inverse=True)[1]
        n_units = int(units.max()) + 1
        if n_units < len(codes):  # else each is alone, and counts once as it is
            codes = (
                np.unique(codes * n_units + units) // n_units
            )  # as one number: pairs take ten times as long
    return int(np.bincount(codes).min())


def _in_one_fold(codes: Indices, fold: Indices) -> int | None:
    """The first class with all its images in one fold; None if there is none."""
    pairs = np.unique(np.stack([codes, fold]), axis=1)
    alone = np.flatnonzero(np.bincount(pairs[0]) < 2)
    return int(alone[0]) if len(alone) else None


def _coded(labels: ArrayLike) -> tuple[NDArray[Any], NDArray[np.intp]]:
    values = np.asarray(labels)
    if values.ndim != 1 or values.size == 0:
        raise ShapeError(
            f"labels has shape {values.shape}, expected (n_images,) with at least 1; pass one per image"
        )
    names, codes = np.unique(values, return_inverse=True)
    return names, codes


def _grouped(groups: ArrayLike, n_images: int) -> NDArray[np.intp]:
    values = np.asarray(groups)
    if values.shape != (n_images,):
        raise ShapeError(
            f"groups has shape {values.shape}, expected ({n_images},) to match labels; pass one per image"
        )
    units = np.unique(values, return_inverse=True)[1]
    if units.max() == 0:
        raise DataError("groups has 1 group, expected at least 2 to split them; leave groups out")
    return units


def _check_units(names: NDArray[Any], codes: Indices, units: Indices, what: str) -> None:
    alone = [str(name) for i, name in enumerate(names) if len(np.unique(units[codes == i])) < 2]
    if alone:
        raise DataError(
            f"labels has only 1 {what} of {listed(natural_order(alone))}, expected at least 2, one for "
            "training and one for validation; add images, or leave the class out"
        )


def _held_images(codes: Indices, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Round by largest remainder, so that the share of all images is met as well."""
    counts = np.bincount(codes)
    quota = share * counts
    number = np.floor(quota).astype(int)
    left = round(float(quota.sum())) - int(number.sum())
    number[np.argsort(number - quota, kind="stable")[:left]] += 1
    number = number.clip(np.where(counts >= 2, 1, 0), np.maximum(counts - 1, 0))
    held = np.zeros(len(codes), dtype=np.bool_)
    for code, n_held in enumerate(number):
        held[rng.permutation(np.flatnonzero(codes == code))[:n_held]] = True
    return held


def _held_clusters(
    codes: Indices, units: Indices, share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """For very many groups: stratify by the class of their first image, since most are single images."""
    first = np.unique(units, return_index=True)[1]
    return _held_images(codes[first], share, rng)[units]


def _held_groups(
    names: NDArray[Any], codes: Indices, units: Indices, share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """The best of many greedy draws: first no class lost, then closest to the share."""
    table = _unit_table(codes, units)
    wanted = share * table.sum(axis=0)
    best, best_cost = np.zeros(len(table), np.bool_), (np.inf, np.inf, np.inf)
    for _ in range(_N_TRIES):
        held = _greedy_groups(table, wanted, rng)
        missing = (table[~held].sum(axis=0) == 0).sum()
        unseen = ((table[held].sum(axis=0) == 0) & ((table > 0).sum(axis=0) >= 2)).sum()
        cost = (float(missing), float(unseen), _distance(table[held].sum(axis=0), wanted))
        if cost < best_cost:
            best, best_cost = held, cost
    if best_cost[0] > 0:
        lost = names[table[~best].sum(axis=0) == 0]
        raise DataError(
            f"{listed(natural_order(str(name) for name in lost))} would be held out with all its groups, "
            "expected some to learn from; hold out a smaller share, or add groups"
        )
    return best[units]


def _greedy_groups(
    table: NDArray[np.intp], wanted: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Add groups in random order while they bring the held-out counts closer to those wanted."""
    held = np.zeros(len(table), np.bool_)
    total = np.zeros(table.shape[1])
    order = rng.permutation(len(table))
    for group in order:
        if not held.any() or _distance(total + table[group], wanted) < _distance(total, wanted):
            held[group] = True
            total += table[group]
    return held


def _distance(counts: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float((np.abs(counts - wanted) / wanted).sum())


def _unit_table(codes: Indices, units: Indices) -> NDArray[np.intp]:
    """Number of images by group and class."""
    table = np.zeros((units.max() + 1, codes.max() + 1), dtype=np.intp)
    np.add.at(table, (units, codes), 1)
    return table


def _dealt(codes: Indices, k: int, rng: np.random.Generator) -> Indices:
    """Assign images to folds in turn, class after class, so that fold sizes differ by one at most."""
    order = np.concatenate(
        [rng.permutation(np.flatnonzero(codes == code)) for code in range(codes.max() + 1)]
    )
    fold = np.empty(len(codes), dtype=np.intp)
    fold[order] = np.arange(len(codes)) % k
    return fold


def _dealt_groups(codes: Indices, units: Indices, k: int, rng: np.random.Generator) -> Indices:
    """Assign each group, the largest first, to the fold where the classes stay most even."""
    table = _unit_table(codes, units)
    share = table / table.sum(axis=0)
    order = rng.permutation(len(table))
    order = order[np.argsort(-table[order].sum(axis=1), kind="stable")]
    totals = np.zeros((k, table.shape[1]))
    fold_of = np.empty(len(table), dtype=np.intp)
    for group in order:
        spread = 2 * totals @ share[group]  # what it adds to the sum of squares, without a constant
        fold = min(range(k), key=lambda i: (round(float(spread[i]), 9), totals[i].sum()))
        fold_of[group] = fold
        totals[fold] += share[group]
    return fold_of[units]
