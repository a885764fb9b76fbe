"""Least squares with every left-out answer for free: one decomposition, any strength, any folds.

In: rows, targets, weights. Out: scores of rows that were left out, and the fit. Must not import a network
or a graph. Called by ridge and crossval.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.records import Array

__all__ = ["LeastSquares", "decompose"]

Floats = NDArray[np.floating[Any]]
_AFFORDABLE = 4e10  # multiplications up to which float64 is quick: a fit that nearly interpolates needs it
_LEAST_FREEDOM = 1e-9
_BLOCK = 4_096


class LeastSquares:
    """Ridge regression with intercept, for all strengths at once.

    Minimises ``sum(weights * |targets - rows @ w - b|^2) + strength * n_rows * |w|^2``.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_inputs), float32
        Inputs.
    targets : ndarray of shape (n_rows, n_targets), float32
        What to predict.
    weights : ndarray of shape (n_rows,), float32
        How much each row counts; 1 on average.

    Notes
    -----
    With hat matrix H the residuals of rows that are left out together are
    ``(I - H_ff)^-1 (y_f - f_f)``, exactly; for one row that is ``(y - f) / (1 - h)``.

    References
    ----------
    Golub, Heath, Wahba. Generalized Cross-Validation as a Method for Choosing a Good Ridge
    Parameter. Technometrics 21 (1979).
    An, Liu, Venkatesh. Fast cross-validation algorithms for least squares support vector machine
    and kernel ridge regression. Pattern Recognition 40 (2007).
    """

    def __init__(self, rows: Array, targets: Array, weights: Array) -> None:
        n_rows, width = rows.shape
        if n_rows * width * min(n_rows, width) < _AFFORDABLE:
            rows = rows.astype(np.float64)
        self._targets, self._weights = targets, weights
        self._root = np.sqrt(weights, dtype=rows.dtype)[:, None]
        self._centre = np.average(rows, axis=0, weights=weights).astype(rows.dtype)
        self._middle = np.average(targets, axis=0, weights=weights).astype(rows.dtype)
        self._rows = (rows - self._centre) * self._root
        self._values, self._left = decompose(self._rows)  # (rank,), (n_rows, rank) orthonormal
        self._projected = self._left.T @ ((targets - self._middle) * self._root)

    def left_out(self, strength: float, folds: NDArray[np.intp] | None = None) -> Array:
        """Scores of each row by the fit without it, or without all of its fold; (n_rows, n_targets)."""
        shrink = self._shrink(strength)
        fitted = self._left @ (shrink[:, None] * self._projected) / self._root + self._middle
        residuals = (self._targets - fitted) * self._root
        share = self._root / np.sqrt(np.square(self._root).sum())  # of the intercept
        if folds is None:
            starts = range(0, len(self._left), _BLOCK)  # block by block: the squares would double the memory
            squares = [self._left[i : i + _BLOCK] ** 2 @ shrink[:, None] for i in starts]
            leverage = np.concatenate(squares) + share**2
            residuals = residuals / np.maximum(1.0 - leverage, _LEAST_FREEDOM)
            return np.asarray(self._targets - residuals / self._root, np.float32)
        for fold in np.unique(folds):
            here = np.flatnonzero(folds == fold)
            part = self._left[here]
            hat = (part * shrink) @ part.T + share[here] @ share[here].T
            free = np.eye(len(here), dtype=hat.dtype) * (1.0 + _LEAST_FREEDOM) - hat
            residuals[here] = np.linalg.solve(free, residuals[here])
        return np.asarray(self._targets - residuals / self._root, np.float32)

    def error(self, scores: Array) -> float:
        """Weighted mean squared error of left-out scores."""
        return float((self._weights[:, None] * (self._targets - scores) ** 2).mean())

    def solution(self, strength: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights (n_inputs, n_targets) and bias (n_targets,)."""
        inner = (self._left / (self._values + strength * len(self._rows))) @ self._projected
        weight = (self._rows.T @ inner).astype(np.float64)
        return weight, self._middle - self._centre.astype(np.float64) @ weight

    def _shrink(self, strength: float) -> Floats:
        shrink: Floats = self._values / (self._values + strength * len(self._rows))
        return shrink


def decompose(rows: Floats) -> tuple[Floats, Floats]:
    """Squared singular values and left singular vectors, by the smaller Gram matrix.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_inputs), float
        Centred.

    Returns
    -------
    values : ndarray of shape (rank,)
    left : ndarray of shape (n_rows, rank)
        Orthonormal columns, in the precision of the rows.
    """
    n, width = rows.shape
    gram = rows @ rows.T if n <= width else rows.T @ rows
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    kept = values > max(values[-1], 1e-30) * 1e-7  # below lies the rounding of float32 features
    values, vectors = values[kept], vectors[:, kept]
    left = vectors if n <= width else rows @ (vectors / np.sqrt(values)).astype(rows.dtype)
    return values.astype(rows.dtype), left.astype(rows.dtype)
