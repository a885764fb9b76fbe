"""Ridge regression from statistics of folds: the solution at any strength, and its error on every held-out fold.

Apart from `least_squares`, which decomposes the rows themselves and so leaves out one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.heads.least_squares import spectrum
from headstart.heads.moments import Moments
from headstart.heads.statistics import RowStatistics, Sample
from headstart.records import Array

__all__ = ["FoldedLeastSquares"]

Exact = NDArray[np.float64]
Solution = tuple[Exact, Exact]

_MOST_UNKNOWN = 0.5  # of the weight of a fold, in classes that no other fold has
_SOLUTIONS_BYTES = 2**28  # of all folds and strengths, kept from the errors for the scores


class FoldedLeastSquares:
    """Minimises what `LeastSquares` does, from the moments of the rows of each fold.

    The errors are exactly those of refits: least squares without a fold is solved from the sum of the others, and the
    squared error of its rows follows from their moments, in float64. The penalty of a refit is per row, too, so that
    it shrinks scores as the fit to all rows does, and a temperature serves both. ``mapped`` makes the moments of the
    inputs from those of the rows, on use, so that one copy of all folds is kept.
    """

    def __init__(self, statistics: RowStatistics, mapped: Callable[[Moments], Moments]) -> None:
        self._statistics, self._mapped = statistics, mapped
        self._n_classes = len(statistics.counts)
        self._solved: dict[tuple[int, float], Solution] = {}
        judged = {fold: one for fold, one in enumerate(statistics.judged) if one is not None}
        self._unknown = {fold: statistics.classes_only_in(fold) for fold in judged}
        self.folds = [
            fold
            for fold, one in judged.items()
            if one.class_weights[self._unknown[fold]].sum() <= _MOST_UNKNOWN * one.weight
        ]
        """The folds that can be held out: others have rows of nearly all of their classes."""

    def solution(self, strength: float) -> Solution:
        """Weights (n_inputs, n_classes) and bias (n_classes,) from all rows."""
        return _Decomposed(self._mapped(self._statistics.whole())).solution(strength)

    def errors(self, strengths: Sequence[float]) -> Exact:
        """Mean squared error of held-out rows, summed over classes and weighted, (n_strengths,)."""
        squares, weight = np.zeros(len(strengths)), 0.0
        for fold in self.folds:
            held, others = self._statistics.judged[fold], self._without(fold)
            assert held is not None, "only folds with rows are held out"
            held = self._mapped(held)
            weight += held.weight
            small = len(self.folds) * len(strengths) * held.sums.nbytes <= _SOLUTIONS_BYTES
            for number, strength in enumerate(strengths):
                found = others.solution(strength)
                squares[number] += _squares(held, found)
                if small:  # a decomposition of 5,000 inputs takes 10 s
                    self._solved[fold, strength] = found
        return squares / weight

    def left_out(self, sample: Sample, rows: Array, strength: float) -> Array:
        """Scores of sampled rows (n, n_inputs) by fits without their folds, (n, n_classes)."""
        scores = np.zeros((len(rows), self._n_classes), np.float32)
        for fold in self.folds:
            here = sample.folds == fold
            weight, bias = self._solved.get((fold, strength)) or self._without(fold).solution(strength)
            scores[here] = rows[here] @ weight + bias
        return scores

    def evaluated(self, sample: Sample) -> NDArray[np.bool_]:
        """Which sampled rows have scores by a fit that knows their class."""
        found = np.zeros(len(sample.codes), np.bool_)
        for fold in self.folds:
            found |= (sample.folds == fold) & ~self._unknown[fold][sample.codes]
        return found

    def _without(self, fold: int) -> _Decomposed:
        return _Decomposed(self._mapped(self._statistics.without(fold)))


class _Decomposed:
    """The eigenvectors of the products of some rows: solutions at every strength."""

    def __init__(self, moments: Moments) -> None:
        self._n_rows, self._mean, self._target_mean = moments.n_rows, moments.mean, moments.target_mean
        self._values, self._vectors = spectrum(moments.products)
        self._projected = self._vectors.T @ moments.sums

    def solution(self, strength: float) -> Solution:
        penalty = strength * self._n_rows
        weight = self._vectors @ (self._projected / (self._values + penalty)[:, None])
        return weight, self._target_mean - self._mean @ weight


def _squares(held: Moments, solution: Solution) -> float:
    """Weighted sum of the squared errors of a solution on rows with these moments."""
    weight, bias = solution
    share = held.target_mean
    spread = held.weight * float(share @ (1.0 - share))  # of the indicators about their means
    fitted = float(np.einsum("ij,ij->", weight, held.products @ weight - 2.0 * held.sums))
    offset = share - held.mean @ weight - bias
    return spread + fitted + held.weight * float(offset @ offset)
