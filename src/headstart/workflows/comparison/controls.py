"""Controls that reuse a source, and the majority class: functions from training images to predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.subsets import subset_map
from headstart.records import Array
from headstart.strategies.fits import Indices, Strategy

__all__ = ["collapse", "majority"]


def majority(pool: Dataset, *, whole: bool = False) -> Strategy:
    """Always the most frequent class: of the labels drawn, or with ``whole`` of the whole pool.

    With cross-validation use the whole pool: leaving an image out makes its class rarer among the others, so
    their majority class would be wrong too often.
    """
    codes, n_classes = pool.codes(), len(pool.classes)

    def strategy(train: Indices, test: Indices, seed: int) -> Array:
        counted = codes if whole else codes[train]
        shares = np.bincount(counted, minlength=n_classes) / len(counted)
        return np.tile(shares.astype(np.float32), (len(test), 1))

    return strategy


def collapse(probs: Array, source_classes: Sequence[str], subset: str, classes: Sequence[str]) -> Strategy:
    """Sum the source's own class probabilities, (n_test, n_source_classes), into coarser classes.

    ``subset`` names the mapping, such as parity. No label of the target is used.
    """
    mapping = subset_map(source_classes, subset)
    summed = np.stack(
        [probs[:, [mapping[name] == target for name in source_classes]].sum(axis=1) for target in classes],
        axis=1,
    )
    return lambda train, test, seed: summed[test]
