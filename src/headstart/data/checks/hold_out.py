"""A test set held out of a dataset without one: drawn once, stratified, copies and groups on one side.

It is apart from `splits`, which knows labels and groups only: here copies, and what the source has seen,
count.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.doctor import examine
from headstart.data.checks.seen import recognise
from headstart.data.clusters import joined_clusters
from headstart.data.dataset import Dataset
from headstart.data.names import listed, natural_order
from headstart.data.splits import Indices, holdout
from headstart.errors import DataError, SettingError
from headstart.records import Holdout, Seen

__all__ = ["hold_out", "holdout_sentence"]

_NEAR_MOST = 10_000  # images up to which near copies are searched for
_NEARLY_ALL = 0.95


def hold_out(dataset: Dataset, share: float | None, seed: int = 0, seen: Seen | None = None) -> Dataset:
    """Hold out a share (0 - 1) of the training images as the split ``test``; ``holdout`` records the draw.

    A share of None changes nothing. Images that the source learned from or was validated on (``seen``) cannot
    be held out: they would not be new to the model. Near copies are searched for among up to 10,000 images,
    which decodes every file and takes O(n_images ** 2). DataError if there is a test split already, or a
    class cannot be split.
    """
    if share is None:
        return dataset
    if not 0 < share < 1:
        raise SettingError(f"holdout is {share!r}, expected a number between 0 and 1; 0.2 holds out a fifth")
    if dataset.splits is not None and "test" in dataset.splits:
        raise DataError(
            f"dataset {dataset.name!r} has a test split of its own, expected none when holdout is "
            "given; leave holdout out"
        )
    units = _units(dataset)
    pool = np.arange(len(dataset)) if dataset.splits is None else np.flatnonzero(dataset.splits == "train")
    free = pool[~np.isin(units[pool], units[_blocked(dataset, pool, seen)])]
    held = _drawn(dataset, pool, free, units, share, seed)
    _check(dataset, pool, held, seen)
    before = np.full(len(dataset), "train") if dataset.splits is None else dataset.splits
    splits = before.astype("<U5")
    splits[held] = "test"
    return replace(dataset, splits=splits, holdout=Holdout(share, seed, len(held)))


def holdout_sentence(dataset: Dataset) -> str | None:
    """What was held out, for the report; None if nothing was."""
    note = dataset.holdout
    if note is None or dataset.splits is None:
        return None
    here = int(np.isin(dataset.splits, ("train", "test")).sum())
    fewer = note.n_images < _NEARLY_ALL * note.share * here
    return (
        f"{note.n_images:,} images ({note.n_images / here:.0%}, seed {note.seed}) were held out as a test "
        "set and not used"
        + (f", fewer than the {note.share:.0%} requested: the others cannot be held out" if fewer else "")
        + "; evaluate the model on them with: headstart evaluate MODEL DATA"
    )


def _units(dataset: Dataset) -> NDArray[np.intp]:
    """A number for each image, the same for images of one group and for copies, near ones included."""
    if dataset.clusters is not None:
        return dataset.clusters
    pairs = [pair.places for pair in examine(dataset, near=len(dataset) <= _NEAR_MOST).pairs]
    return joined_clusters(len(dataset), pairs, dataset.groups)


def _blocked(dataset: Dataset, pool: Indices, seen: Seen | None) -> NDArray[np.bool_]:
    """Images that cannot be held out: those outside the pool, and those that the source has seen."""
    blocked = np.ones(len(dataset), np.bool_)
    blocked[pool] = False
    if seen is not None:
        blocked |= recognise(dataset.images, seen).of("learned", "source", "validation")
    return blocked


def _drawn(
    dataset: Dataset, pool: Indices, free: Indices, units: NDArray[np.intp], share: float, seed: int
) -> Indices:
    """Positions of the images held out, among those that are free."""
    wanted = share * len(pool)
    if wanted >= _NEARLY_ALL * len(free):
        return free
    if dataset.groups is not None:
        return free[holdout(dataset.labels[free], wanted / len(free), seed, units[free])[1]]
    # a unit is nearly always one image, so the share is met exactly in each class
    chosen, first = np.unique(units[free], return_index=True)
    held = holdout(dataset.labels[free[first]], wanted / len(free), seed)[1]
    return free[np.isin(units[free], chosen[held])]


def _check(dataset: Dataset, pool: Indices, held: Indices, seen: Seen | None) -> None:
    """DataError unless every class has images on both sides."""
    rest = np.setdiff1d(pool, held)
    there = set(dataset.labels[pool].tolist())
    lacking = there - set(dataset.labels[held].tolist())
    if lacking and seen is not None:
        raise DataError(
            f"source has seen all images of {listed(natural_order(lacking))} of dataset {dataset.name!r}, "
            "expected some that are new to it; make the source with the same holdout"
        )
    if lacking:
        raise DataError(
            f"dataset {dataset.name!r} has no images of {listed(natural_order(lacking))} that can be held "
            "out, expected two that are no copies, of two groups where there are groups; add images, or "
            "leave the class out with a subset"
        )
    lost = there - set(dataset.labels[rest].tolist())
    if lost:
        raise DataError(
            f"dataset {dataset.name!r} has no images of {listed(natural_order(lost))} left to learn from, "
            "expected one of each class; hold out a smaller share"
        )
