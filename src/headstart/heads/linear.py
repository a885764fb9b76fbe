"""The linear softmax head: L2-penalised, strength chosen by cross-validation, solved by L-BFGS.

In: features, codes. Out: weights. Must not import a network or a graph. Called by registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.splits import folds, holdout
from headstart.errors import SettingError
from headstart.heads.base import AffineHead, Builder, Head, Standardiser, Watch, log_loss, one_hot, softmax
from headstart.records import Array, Codes, Curve

__all__ = ["LinearHead"]

_STRENGTHS = tuple(10.0**power for power in range(0, -8, -1))
_FALLBACK = 1e-4  # where a class has one image there is nothing to hold out
_MANY = 5_000  # images from which one held-out tenth says as much as folds
_TOLERANCE = 1e-5


class LinearHead(AffineHead):
    """Softmax regression, mean cross-entropy plus ``strength / 2`` times the squared weights.

    Parameters
    ----------
    strengths : sequence of float, optional
        L2 strengths to choose from, on standardised features of squared length near 1.
        Default: powers of ten from 1 to 1e-7. A single one is taken without a search.
    n_folds : int, default=5
        Folds of the search; fewer where the smallest class is smaller.

    Notes
    -----
    With fewer images than features the problem is solved in the span of the images, which gives
    the same answer (the penalty keeps weights in that span) at the cost of n_images unknowns.
    Above 5,000 images one stratified tenth is held out instead of folds. Strengths are tried from
    strong to weak, each started from the last, until the held-out loss has risen twice.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(40, 3)).astype(np.float32) + np.repeat([[0.0], [4.0]], 20, axis=0)
    >>> head = LinearHead().fit(features, np.repeat(["ant", "bee"], 20))
    >>> head.predict(features[[0, 39]]).tolist()
    ['ant', 'bee']
    """

    name = "linear"

    def __init__(self, strengths: tuple[float, ...] = _STRENGTHS, n_folds: int = 5) -> None:
        if not strengths or min(strengths) <= 0:
            raise SettingError(f"strengths are {strengths!r}, need at least one and all above 0")
        self.strengths, self.n_folds = tuple(sorted(strengths, reverse=True)), n_folds

    def _fit(self, features: Array, codes: Codes, seed: int, watch: Watch | None) -> None:
        standardise = Standardiser.of(features)
        standard = standardise(features)
        span = _Span.of(standard)
        rows = span.inside(standard)
        n_classes = len(self.classes_)
        strength, start = self._choose(rows, codes, n_classes, seed)
        tracker = None
        if watch is not None:
            held, held_codes = self._watched(watch)
            tracker = _Tracker(rows, codes, span.inside(standardise(held)), held_codes)
        solution = _solve(rows, codes, n_classes, strength, start, tracker)
        self.chosen_ = {"strength": strength}
        self.curve_ = tracker.curve() if tracker else None
        self.weight_, self.bias_ = standardise.fold(span.outside(solution[:-1]), solution[-1])

    def _choose(
        self, rows: Array, codes: Codes, n_classes: int, seed: int
    ) -> tuple[float, NDArray[np.float64]]:
        """The strength with the least held-out loss, and a place to start the final fit from."""
        zero = np.zeros((rows.shape[1] + 1, n_classes))
        smallest = int(np.bincount(codes).min())
        if len(self.strengths) == 1:
            return self.strengths[0], zero
        if smallest < 2:
            return min(self.strengths, key=lambda value: abs(np.log(value / _FALLBACK))), zero
        if len(rows) >= _MANY:
            pairs = [holdout(codes, 0.1, seed)]
        else:
            pairs = folds(codes, min(self.n_folds, smallest), seed)
        starts = [zero] * len(pairs)
        best, rises = (np.inf, self.strengths[0], zero), 0
        for strength in self.strengths:
            loss = 0.0
            for fold, (fit_rows, held) in enumerate(pairs):
                starts[fold] = _solve(rows[fit_rows], codes[fit_rows], n_classes, strength, starts[fold])
                loss += log_loss(rows[held] @ starts[fold][:-1] + starts[fold][-1], codes[held]) / len(pairs)
            rises = rises + 1 if loss > best[0] else 0
            if loss < best[0]:
                best = loss, strength, starts[0]
            if rises == 2:
                break
        return best[1], best[2]


@dataclass(frozen=True)
class _Span:
    """An orthonormal basis (n_features, rank) of what the rows span; None is the whole space."""

    basis: NDArray[np.float64] | None

    @classmethod
    def of(cls, rows: Array) -> _Span:
        if len(rows) >= rows.shape[1]:
            return cls(None)
        exact = rows.astype(np.float64)
        values, vectors = np.linalg.eigh(exact @ exact.T)  # (n, n)
        kept = values > values[-1] * 1e-10
        return cls(exact.T @ (vectors[:, kept] / np.sqrt(values[kept])))

    def inside(self, rows: Array) -> Array:
        return rows if self.basis is None else (rows @ self.basis).astype(np.float32)

    def outside(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return weight if self.basis is None else self.basis @ weight


class _Tracker:
    """Loss and accuracy after every iteration, on the rows fitted and on rows held out."""

    def __init__(self, rows: Array, codes: Codes, held: Array, held_codes: Codes) -> None:
        self._sets = ((rows, codes), (held, held_codes))
        self._lines: list[tuple[float, ...]] = []

    def __call__(self, solution: NDArray[np.float64]) -> None:
        line: list[float] = []
        for rows, codes in self._sets:
            logits = rows @ solution[:-1].astype(np.float32) + solution[-1]
            line += [log_loss(logits, codes), float((logits.argmax(axis=1) == codes).mean())]
        self._lines.append(tuple(line))

    def curve(self) -> Curve:
        columns = list(zip(*self._lines, strict=True)) or [()] * 4
        steps = tuple(float(step) for step in range(1, len(self._lines) + 1))
        return Curve("head", "L-BFGS iteration", steps, columns[0], columns[2], columns[1], columns[3])


def _solve(
    rows: Array,
    codes: Codes,
    n_classes: int,
    strength: float,
    start: NDArray[np.float64],
    each: Callable[[NDArray[np.float64]], None] | None = None,
) -> NDArray[np.float64]:
    """(n_features + 1, n_classes): weights, and the unpenalised bias in the last row."""
    from scipy.optimize import minimize

    shape, targets, n = start.shape, one_hot(codes, n_classes), len(rows)
    here = np.arange(n)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        solution = flat.reshape(shape)
        logits = rows @ solution[:-1].astype(np.float32) + solution[-1].astype(np.float32)  # (n, k)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[here, codes]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1, keepdims=True)
        loss = float((np.log(sums[:, 0]) - chosen).mean(dtype=np.float64))
        error = (logits / sums - targets) / n
        gradient = np.vstack([rows.T @ error + strength * solution[:-1], error.sum(axis=0)])
        return loss + 0.5 * strength * float((solution[:-1] ** 2).sum()), gradient.ravel()

    callback = None if each is None else lambda flat: each(flat.reshape(shape))
    found = minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B", callback=callback,
        options={"maxiter": 500, "gtol": _TOLERANCE, "ftol": 1e-7, "maxcor": 20},
    )
    return np.asarray(found.x).reshape(shape)
