"""Every strength of a closed-form head judged by k-fold cross-validation at the price of one fit.

In: features, codes, folds. Out: the scores of every row by the head that did not see its fold.
Must not import a network or a graph: a head works on numbers. Called by choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.heads.base import Standardiser, one_hot
from headstart.heads.least_squares import KernelLeastSquares, LeastSquares
from headstart.heads.ridge import squared_distances
from headstart.records import Array, Codes

__all__ = ["HELD_OUT", "kernel_scores", "neighbours_scores", "ridge_scores"]

Folds = NDArray[np.intp]
"""(n_rows,): the number of each row's fold; rows of one image share a fold."""


def ridge_scores(features: Array, codes: Codes, folds: Folds, strengths: Sequence[float]) -> Array:
    """Ridge on standardised features.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features), float32
        Training features.
    codes : ndarray of shape (n_rows,), int64
        Their classes.
    folds : ndarray of shape (n_rows,), int
        Which fold each row is left out with.
    strengths : sequence of float
        Penalties per row.

    Returns
    -------
    ndarray of shape (n_strengths, n_rows, n_classes), float32
        Scores of each row by the fit without its fold. Features are scaled by all rows, which
        tells the fit no label.
    """
    return _least_squares(Standardiser.of(features)(features), codes, folds, strengths)


def kernel_scores(features: Array, codes: Codes, folds: Folds, strengths: Sequence[float]) -> Array:
    """Gaussian kernel ridge on standardised features, of median width; otherwise as `ridge_scores`.

    Parameters
    ----------
    features, codes, folds
        As there.
    strengths : sequence of float
        Penalties per row.

    Returns
    -------
    ndarray of shape (n_strengths, n_rows, n_classes), float32
        Scores of each row by the fit without its fold.
    """
    standard = Standardiser.of(features)(features)
    squared = squared_distances(standard, standard)
    median = max(float(np.median(squared[np.triu_indices(len(squared), 1)])), 1e-12)
    kernel = np.exp(squared / np.float32(-median))
    problem = KernelLeastSquares(kernel, *_targets(codes))
    return np.stack([problem.left_out(strength, folds) for strength in strengths])


def neighbours_scores(features: Array, codes: Codes, folds: Folds, strengths: Sequence[float]) -> Array:
    """Votes of the k nearest rows of other folds; otherwise as `ridge_scores`.

    Parameters
    ----------
    features, codes, folds
        As there.
    strengths : sequence of float
        Numbers of neighbours.

    Returns
    -------
    ndarray of shape (n_strengths, n_rows, n_classes), float32
        Scores of each row by the fit without its fold.
    """
    rows = Standardiser.of(features)(features)
    distances = squared_distances(rows, rows)
    distances[folds[:, None] == folds[None]] = np.inf
    most = min(int(max(strengths)), len(rows) - int(np.bincount(folds).max()))
    near = np.argpartition(distances, most - 1, axis=1)[:, :most]
    order = np.argsort(np.take_along_axis(distances, near, axis=1), axis=1, kind="stable")
    votes = one_hot(codes, int(codes.max()) + 1)[np.take_along_axis(near, order, axis=1)].cumsum(axis=1)
    # a millionth of a vote for the nearest parts ties as a reader would
    nearest = 1e-6 * votes[:, 0]
    return np.stack([votes[:, min(int(k), most) - 1] / k + nearest for k in strengths])


def _least_squares(rows: Array, codes: Codes, folds: Folds, strengths: Sequence[float]) -> Array:
    problem = LeastSquares(rows, *_targets(codes))
    return np.stack([problem.left_out(strength, folds) for strength in strengths])


def _targets(codes: Codes) -> tuple[Array, Array]:
    return one_hot(codes, int(codes.max()) + 1), np.ones(len(codes), np.float32)


HELD_OUT: dict[str, tuple[Callable[[Array, Codes, Folds, Sequence[float]], Array], tuple[float, ...]]] = {
    "ridge": (ridge_scores, tuple(10.0**power for power in np.arange(-6, 1.1, 1.0).tolist())),
    "kernel": (kernel_scores, tuple(10.0**power for power in np.arange(-7, 0.1, 1.0).tolist())),
    "neighbours": (neighbours_scores, (1, 2, 3, 5, 7, 9, 15, 25)),
}
"""Heads that can be judged so, each with the strengths tried."""
