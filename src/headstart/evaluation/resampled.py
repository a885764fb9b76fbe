"""Paired comparison by cross-validation, whose folds share most of their training images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ShapeError
from headstart.evaluation.compare import mean_difference
from headstart.evaluation.records import Difference
from headstart.evaluation.spread import of_fold_draws, of_folds

__all__ = ["fold_draws_difference", "folds_difference"]

_LEVEL = 0.95


def folds_difference(gain: NDArray[np.float64], level: float = _LEVEL) -> Difference:
    """Accuracy of a minus accuracy of b over the rounds of a cross-validation with all labels.

    ``gain`` (n_rounds, n_images) holds 1 where only a is correct, -1 where only b is; see `spread.of_folds`.

    >>> gain = np.zeros((2, 100)); gain[:, :8] = 1; gain[:, 8:10] = -1
    >>> found = folds_difference(gain)
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3), round(found.p_value, 3)
    (0.06, -0.009, 0.129, 0.089)
    """
    if gain.ndim != 2 or gain.shape[1] < 2:
        raise ShapeError(f"gain has shape {gain.shape}, expected (n_rounds, n_images) with 2 images or more")
    return mean_difference(gain, of_folds(gain), level)


def fold_draws_difference(
    gain: NDArray[np.float64], folds: NDArray[np.intp], level: float = _LEVEL, overlap: float = 0.0
) -> Difference:
    """Accuracy of a minus accuracy of b over the folds of a cross-validation, each with few labels of its own.

    ``gain`` (n_images,) as in `folds_difference`, ``folds`` (n_images,) the fold of each image; ``overlap`` is
    the share of training images that two folds have in common. See `spread.of_fold_draws`.

    >>> gain = np.tile([1.0, 0, 0, 0, -1, 0, 0, 1, 0, 0], 10)
    >>> found = fold_draws_difference(gain, np.arange(100) // 5)
    >>> round(found.value, 3), found.low < 0.1 < found.high
    (0.1, True)
    """
    if gain.ndim != 1 or gain.shape != folds.shape or len(np.unique(folds)) < 2:
        raise ShapeError(
            f"gain and folds have shapes {gain.shape} and {folds.shape}, expected 2 folds or more"
        )
    return mean_difference(gain[None], of_fold_draws(gain, folds, overlap), level)
