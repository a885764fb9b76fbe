"""The linear head: softmax regression with an L2 penalty selected by cross-validation, solved by L-BFGS."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError
from headstart.heads.base import AffineHead, Watch, log_loss, softmax
from headstart.heads.scaling import Standardiser
from headstart.heads.training import Training
from headstart.records import Array, Codes, Curve

__all__ = ["LinearHead"]

_STRENGTHS = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4)
_FALLBACK = 0.1  # where a class has one image, and nothing can be held out
_MANY = 5_000  # images from which one held-out tenth is as informative as folds
_ENOUGH = 10_000  # images that decide the strength, which is a prior's precision: more do not change it
_SAMPLE = 8  # rows per feature, enough to estimate second moments
_SEARCH, _FINAL = 1e-3, 1e-5  # where a solve stops: the largest gradient, in whitened coordinates


class LinearHead(AffineHead):
    """Softmax regression: summed cross-entropy plus ``strength / 2`` times the squared weights.

    ``strengths`` are for standardised features of squared length near 1; a single one is used without a
    search. They are tried from strong to weak, each started from the last solution, until the held-out loss
    has risen twice. From 5,000 images on, one stratified tenth is held out instead of ``n_folds`` folds, and
    of more than 10,000 images a stratified 10,000 decide. With fewer images than features the problem is
    solved in the span of the images, with the same solution (the penalty keeps weights in that span) and
    n_images unknowns.

    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(40, 3)).astype(np.float32) + np.repeat([[0.0], [4.0]], 20, axis=0)
    >>> head = LinearHead().fit(features, np.repeat(["ant", "bee"], 20))
    >>> head.predict(features[[0, 39]]).tolist()
    ['ant', 'bee']
    """

    name = "linear"

    def __init__(self, strengths: tuple[float, ...] = _STRENGTHS, n_folds: int = 5) -> None:
        if not strengths or min(strengths) <= 0:
            raise SettingError(f"strengths are {strengths!r}, expected at least one and all above 0")
        self.strengths, self.n_folds = tuple(sorted(strengths, reverse=True)), n_folds

    def _fit(self, training: Training, watch: Watch | None) -> None:
        standardise = Standardiser.of(training.features)
        standard = standardise(training.features)
        span = _Span.of(standard)
        training = replace(training, features=span.inside(standard))
        strength, near = self._choose(training)
        tracker = None
        if watch is not None:
            held, held_codes = self._watched(watch)
            tracker = _Tracker(span.inside(standardise(held)), held_codes)
        zero = np.zeros_like(near)  # so that the curve starts at zero weights
        solution = _solve(_Problem.of(training, strength), zero, _FINAL, pivot=near, tracker=tracker)
        self.chosen_ = {"strength": strength}
        self.curve_ = tracker.curve() if tracker else None
        self.weight_, self.bias_ = standardise.fold(span.outside(solution[:-1]), solution[-1])

    def _choose(self, training: Training) -> tuple[float, NDArray[np.float64]]:
        """The strength with the least held-out loss, and a point near its solution."""
        zero = np.zeros((training.features.shape[1] + 1, training.n_classes))
        if len(self.strengths) == 1:
            return self.strengths[0], zero
        if training.smallest_class < 2:
            return min(self.strengths, key=lambda value: abs(np.log(value / _FALLBACK))), zero
        pairs = self._parts(training)
        starts = [zero] * len(pairs)
        best, rises = (np.inf, self.strengths[0], zero), 0
        for strength in self.strengths:
            loss = 0.0
            for fold, (learn, held) in enumerate(pairs):
                starts[fold] = _solve(_Problem.of(training, strength, learn), starts[fold], _SEARCH)
                logits = training.features[held] @ starts[fold][:-1] + starts[fold][-1]
                loss += log_loss(logits, training.codes[held], training.weights[held]) / len(pairs)
            rises = rises + 1 if loss > best[0] else 0
            if loss < best[0]:
                best = loss, strength, starts[0]
            if rises == 2:
                break
        return best[1], best[2]

    def _parts(self, training: Training) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Pairs of rows to learn from and originals to evaluate on."""
        n_images = len(training.originals)
        if n_images < _MANY:
            return training.folded(min(self.n_folds, training.smallest_class))
        learn, held = training.split(max(0.1, 1 - _ENOUGH / n_images))
        few = held[: max(_ENOUGH // 9, 1)] if n_images > _ENOUGH else held
        return [(learn, few)]


@dataclass(frozen=True)
class _Problem:
    """Rows, classes and weights of a fit, and its penalty per row; weights None are all equal."""

    rows: Array
    codes: Codes
    weights: Array | None
    penalty: float

    @classmethod
    def of(cls, training: Training, strength: float, some: NDArray[np.intp] | None = None) -> _Problem:
        rows, codes, weights = training.features, training.codes, training.weights
        if some is not None:
            rows, codes, weights = rows[some], codes[some], weights[some]
        return cls(rows, codes, weights if training.weighted else None, strength / len(rows))


@dataclass(frozen=True)
class _Span:
    """An orthonormal basis (n_features, rank) of the span of the rows; None is the whole space."""

    basis: NDArray[np.float64] | None

    @classmethod
    def of(cls, rows: Array) -> _Span:
        if len(rows) >= rows.shape[1]:
            return cls(None)
        exact = rows.astype(np.float64)
        values, vectors = np.linalg.eigh(exact @ exact.T)  # (n, n)
        kept = values > values[-1] * 1e-10
        if not kept.any():  # constant features span nothing
            return cls(None)
        return cls(exact.T @ (vectors[:, kept] / np.sqrt(values[kept])))

    def inside(self, rows: Array) -> Array:
        return rows if self.basis is None else (rows @ self.basis).astype(np.float32)

    def outside(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return weight if self.basis is None else self.basis @ weight


class _Tracker:
    """Loss and accuracy after every iteration, on the rows fitted and on held-out rows."""

    def __init__(self, held: Array, held_codes: Codes) -> None:
        self._held, self._codes = held, held_codes
        self._fitted = (np.nan, np.nan)
        self._lines: list[tuple[float, ...]] = []

    def tried(self, loss: float, accuracy: float) -> None:
        """Note a point the solver tried; the last one before `accepted` is the one it took."""
        self._fitted = loss, accuracy

    def accepted(self, solution: NDArray[np.float64]) -> None:
        """Add a line: the solver moved to this solution."""
        logits = self._held @ solution[:-1].astype(np.float32) + solution[-1]
        hits = float((logits.argmax(axis=1) == self._codes).mean())
        self._lines.append((*self._fitted, log_loss(logits, self._codes), hits))

    def curve(self) -> Curve:
        columns = list(zip(*self._lines, strict=True)) or [()] * 4
        steps = tuple(float(step) for step in range(1, len(self._lines) + 1))
        return Curve("head", "L-BFGS iteration", steps, columns[0], columns[2], columns[1], columns[3])


def _solve(
    problem: _Problem,
    start: NDArray[np.float64],
    tolerance: float,
    *,
    pivot: NDArray[np.float64] | None = None,
    tracker: _Tracker | None = None,
) -> NDArray[np.float64]:
    """(n_features + 1, n_classes): weights, and the unpenalised bias in the last row.

    L-BFGS in coordinates in which the Hessian is near the identity, so that tens of steps are
    enough at any strength: W = P U with P from the Hessian at the pivot (default: the start).
    """
    from scipy.optimize import minimize

    rows, codes, penalty, share = problem.rows, problem.codes, problem.penalty, problem.weights
    shape, n, here = start.shape, len(rows), np.arange(len(rows))
    whiten, unwhiten = _preconditioner(rows, start if pivot is None else pivot, penalty)

    def weights(flat: NDArray[np.float64]) -> NDArray[np.float64]:
        u = flat.reshape(shape)
        return np.vstack([whiten @ u[:-1], u[-1:]])

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        solution = weights(flat)
        # classes first: NumPy reduces few long rows fast
        scores = solution[:-1].T.astype(np.float32) @ rows.T + solution[-1][:, None].astype(
            np.float32
        )  # (k, n)
        scores -= scores.max(axis=0)
        chosen = scores[codes, here]
        np.exp(scores, out=scores)
        sums = scores.sum(axis=0)
        loss = float(np.average(np.log(sums) - chosen, weights=share))
        if tracker is not None:
            tracker.tried(loss, float((chosen == 0).mean()))  # the right class has the highest score, now 0
        scores /= sums  # probabilities
        scores[codes, here] -= 1.0
        if share is not None:
            scores *= share
        gradient = (scores @ rows).T.astype(np.float64) / n + penalty * solution[:-1]
        bias = scores.mean(axis=1, dtype=np.float64)
        total = loss + 0.5 * penalty * float((solution[:-1] ** 2).sum())
        return total, np.vstack([whiten.T @ gradient, bias]).ravel()

    found = minimize(
        objective,
        np.vstack([unwhiten @ start[:-1], start[-1:]]).ravel(),
        jac=True,
        method="L-BFGS-B",
        callback=None if tracker is None else lambda flat: tracker.accepted(weights(flat)),
        options={"maxiter": 200, "gtol": tolerance, "ftol": tolerance * 1e-3, "maxcor": 20},
    )
    return weights(np.asarray(found.x))


def _preconditioner(
    rows: Array, start: NDArray[np.float64], penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P and its inverse, (n_features, n_features), with P P^T near the inverse Hessian at the start.

    The curvature p (1 - p) is averaged over classes, so that one matrix serves all, and estimated on a sample
    of the rows.
    """
    from scipy.linalg import cholesky, solve_triangular

    width, n_classes = rows.shape[1], start.shape[1]
    sample = rows[:: max(1, len(rows) // (_SAMPLE * width))]
    probs = softmax(sample @ start[:-1].astype(np.float32) + start[-1].astype(np.float32))
    curvature = (probs * (1.0 - probs)).sum(axis=1) / n_classes
    weighted = sample * np.sqrt(curvature / len(sample))[:, None].astype(np.float32)
    hessian = (weighted.T @ weighted).astype(np.float64)
    floor = penalty + 1e-4 * float(np.trace(hessian)) / width
    upper = cholesky(hessian + floor * np.eye(width))  # R^T R
    return solve_triangular(upper, np.eye(width)), upper
