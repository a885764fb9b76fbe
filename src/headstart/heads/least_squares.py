"""Least squares with exact held-out predictions: one decomposition serves any strength and any folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.records import Array

__all__ = ["KernelLeastSquares", "LeastSquares", "decompose", "spectrum"]

Floats = NDArray[np.floating[Any]]
_AFFORDABLE = 4e10  # multiplications up to which float64 is fast: a fit that nearly interpolates requires it
_LEAST_FREEDOM = 1e-9
_BLOCK = 4_096
_FLOATS = (
    2**18
)  # as many numbers, 2 MB, are made for several strengths together: a call costs more on few rows


class LeastSquares:
    """Ridge regression with intercept, for all strengths at once.

    Minimises ``sum(weights * |targets - rows @ w - b|^2) + strength * n_rows * |w|^2``, for rows (n_rows,
    n_inputs), targets (n_rows, n_targets) and weights (n_rows,) that are 1 on average.
    """

    def __init__(self, rows: Floats, targets: Array, weights: Array) -> None:
        n_rows, width = rows.shape
        if n_rows * width * min(n_rows, width) < _AFFORDABLE:
            rows = rows.astype(np.float64)
        # a mean rounded to float32 is wrong by 1e-8, as large as the residuals of a fit that interpolates
        self._targets, self._weights = targets.astype(rows.dtype), weights.astype(rows.dtype)
        self._root = np.sqrt(self._weights)[:, None]
        self._row_mean = np.average(rows, axis=0, weights=self._weights)
        self._target_mean = np.average(self._targets, axis=0, weights=self._weights)
        self._rows = (rows - self._row_mean) * self._root
        self._values, self._left = self._decomposed()  # (rank,), (n_rows, rank) orthonormal
        self._projected = self._left.T @ ((self._targets - self._target_mean) * self._root)

    def _decomposed(self) -> tuple[Floats, Floats]:
        return decompose(self._rows)

    def left_out(self, strengths: Sequence[float], folds: NDArray[np.intp] | None = None) -> Array:
        """Scores of each row by fits without it, or without all of its fold; (n_strengths, n_rows, n_targets)."""
        together = max(1, _FLOATS // (len(self._left) * max(self._left.shape[1], self._targets.shape[1])))
        groups = None if folds is None else list(_equal_folds(folds))
        parts = [strengths[i : i + together] for i in range(0, len(strengths), together)]
        return np.concatenate([self._left_out(part, groups) for part in parts])

    def _left_out(self, strengths: Sequence[float], folds: Sequence[NDArray[np.intp]] | None) -> Array:
        # with the hat matrix H, residuals of rows that are left out together are (I - H_ff)^-1 (y_f - f_f),
        # exactly (An, Liu, Venkatesh. Fast cross-validation algorithms for least squares support vector
        # machine and kernel ridge regression. Pattern Recognition 40, 2007), for one row (y - f) / (1 - h)
        # (Golub, Heath, Wahba. Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter.
        # Technometrics 21, 1979)
        shrinks = np.stack([self._shrink(strength) for strength in strengths])  # (n_strengths, rank)
        fitted = self._left @ (shrinks[:, :, None] * self._projected) / self._root + self._target_mean
        residuals = (self._targets - fitted) * self._root
        share = self._root / np.sqrt(np.square(self._root).sum())  # of the intercept
        if folds is None:
            starts = range(0, len(self._left), _BLOCK)  # block by block: the squares would double the memory
            squares = [self._left[i : i + _BLOCK] ** 2 @ shrinks[:, :, None] for i in starts]
            leverage = np.concatenate(squares, axis=1) + share**2
            residuals = residuals / np.maximum(1.0 - leverage, _LEAST_FREEDOM)
            return np.asarray(self._targets - residuals / self._root, np.float32)
        for here in folds:  # most are one image, or one and its copies: solved together
            part = self._left[here]  # (n_folds, n_each, rank)
            hat = (part * shrinks[:, None, None]) @ part.swapaxes(1, 2)
            hat += share[here] @ share[here].swapaxes(1, 2)
            free = np.eye(here.shape[1], dtype=hat.dtype) * (1.0 + _LEAST_FREEDOM) - hat
            residuals[:, here] = np.linalg.solve(free, residuals[:, here])
        return np.asarray(self._targets - residuals / self._root, np.float32)

    def error(self, scores: Array) -> float:
        """Weighted mean squared error of left-out scores."""
        return float((self._weights[:, None] * (self._targets - scores) ** 2).mean())

    def errors(self, strengths: Sequence[float]) -> NDArray[np.float64]:
        """Error of scores by the fit without the row, for every strength at once, (n_strengths,)."""
        shrinks = np.stack([self._shrink(strength) for strength in strengths], axis=1)  # (rank, n_strengths)
        steps = np.einsum("rs,rt->rst", shrinks, self._projected)
        fitted = np.tensordot(self._left, steps, axes=1)  # (n_rows, n_strengths, n_targets)
        missed = (self._targets - self._target_mean)[:, None, :] - fitted / self._root[:, None]
        share = self._root**2 / np.square(self._root).sum()  # of the intercept
        freedom = np.maximum(1.0 - self._left**2 @ shrinks - share, _LEAST_FREEDOM)
        squares = (self._weights[:, None] * (missed**2).mean(axis=2) / freedom**2).mean(axis=0)
        return squares.astype(np.float64)  # type: ignore[no-any-return]

    def solution(self, strength: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights (n_inputs, n_targets) and bias (n_targets,)."""
        inner = (self._left / (self._values + strength * len(self._rows))) @ self._projected
        weight = (self._rows.T @ inner).astype(np.float64)
        return weight, self._target_mean - self._row_mean.astype(np.float64) @ weight

    def _shrink(self, strength: float) -> Floats:
        shrink: Floats = self._values / (self._values + strength * len(self._rows))
        return shrink


class KernelLeastSquares(LeastSquares):
    """The same from a kernel matrix (n_rows, n_rows)."""

    def __init__(self, kernel: Floats, targets: Array, weights: Array) -> None:
        exact = kernel.astype(np.float64)
        self._means = np.average(exact, axis=1, weights=weights.astype(np.float64))
        super().__init__(exact - self._means[:, None], targets, weights)

    def _decomposed(self) -> tuple[Floats, Floats]:
        return spectrum((self._rows * self._root.T).astype(np.float64))  # centred both ways

    def solution(self, strength: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights of the kernel's columns (n_rows, n_targets), which sum to 0, and bias (n_targets,)."""
        inner = (self._left / (self._values + strength * len(self._rows))) @ self._projected
        weight = (self._root * inner).astype(np.float64)
        return weight, self._target_mean - self._means @ weight


def _equal_folds(folds: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Rows of folds of one size, (n_folds, n_each), at most a block of rows at a time or one fold."""
    order = np.argsort(folds, kind="stable")
    _, starts, sizes = np.unique(folds[order], return_index=True, return_counts=True)
    for size in np.flatnonzero(np.bincount(sizes)):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]
        n_folds = max(1, _BLOCK // int(size))
        yield from (rows[i : i + n_folds] for i in range(0, len(rows), n_folds))


def decompose(rows: Floats) -> tuple[Floats, Floats]:
    """Squared singular values (rank,) and left singular vectors (n_rows, rank) of centred rows.

    By the smaller Gram matrix; the vectors have the precision of the rows.
    """
    n, width = rows.shape
    gram = rows @ rows.T if n <= width else rows.T @ rows
    values, vectors = spectrum(gram.astype(np.float64))
    left = vectors if n <= width else rows @ (vectors / np.sqrt(values)).astype(rows.dtype)
    return values.astype(rows.dtype), left.astype(rows.dtype)


def spectrum(gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues above the rounding errors, and their vectors as columns."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > max(values[-1], 1e-30) * 1e-7  # below are rounding errors of float32 features
    return (values, vectors) if kept.all() else (values[kept], vectors[:, kept])
