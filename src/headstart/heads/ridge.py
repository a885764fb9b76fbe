"""Ridge and kernel ridge: least squares on class indicators, strengths selected by exact held-out scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, SettingError
from headstart.heads.base import (
    AffineHead,
    Builder,
    Head,
    Watch,
    append_softmax,
    fit_temperature,
    softmax,
    squared_distances,
)
from headstart.heads.held_out import HeldOut, best_setting
from headstart.heads.least_squares import KernelLeastSquares, LeastSquares
from headstart.heads.scaling import Scaling, Standardiser, UnitRows
from headstart.heads.training import Training, one_hot
from headstart.records import Array

__all__ = ["KernelHead", "RidgeHead"]

_STRENGTHS = tuple(10.0**power for power in np.arange(-8, 1.5, 0.5).tolist())
_DEFAULT = {"strength": 0.1}  # where a class has one image or one group, and nothing can be held out
_DEFAULT_TEMPERATURE = 5.0  # scores are between 0 and 1: a margin of 0.5 is then a probability of 92 %
_LANDMARKS = 2_000
_FEW = 150  # images that decide width and scaling; 300 gave the same accuracy in 4 of 5 cases (2026-11-29)
_BLOCK = 8_192
_LEAST_DISTANCE = 1e-10  # squared; of rows of length 1, smaller ones are rounding errors, not differences
_LEAST_SHARE = 1e-5  # of the longest row's squared length, below which squared distances are rounding errors
_MOST_JITTERS = 6
_SCALINGS = (UnitRows.of, Standardiser.centring, Standardiser.of)  # the first is the default


class RidgeHead(AffineHead):
    """Ridge regression on one-hot targets; probabilities by a temperature on its scores.

    ``strengths``, penalties per image on standardised features, are compared by leave-one-out squared error:
    one eigendecomposition of the smaller Gram matrix gives the residuals (y - f) / (1 - h) at every strength,
    exactly. The temperature is fitted to the leave-one-out scores. Where rows come in clusters, folds of
    whole clusters are left out instead, also exactly.

    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(40, 3)).astype(np.float32) + np.repeat([[0.0], [4.0]], 20, axis=0)
    >>> head = RidgeHead().fit(features, np.repeat(["ant", "bee"], 20))
    >>> head.predict(features[[0, 39]]).tolist()
    ['ant', 'bee']
    """

    name = "ridge"

    def __init__(self, strengths: tuple[float, ...] = _STRENGTHS) -> None:
        if not strengths or min(strengths) <= 0:
            raise SettingError(f"strengths are {strengths!r}, expected at least one and all above 0")
        self.strengths = tuple(strengths)

    def _fit(self, training: Training, watch: Watch | None) -> None:
        standardise, problem = self._problem(training)
        setting, temperature = _chosen_setting(self.held_out(training, problem), training, _DEFAULT)
        weight, bias = problem.solution(setting["strength"])
        self.chosen_ = {**setting, "temperature": temperature}
        self.weight_, self.bias_ = standardise.fold(weight * temperature, bias * temperature)

    def _problem(self, training: Training) -> tuple[Standardiser, LeastSquares]:
        standardise = Standardiser.of(training.features)
        targets = one_hot(training.codes, training.n_classes)
        return standardise, LeastSquares(standardise(training.features), targets, training.weights)

    def held_out(self, training: Training, problem: LeastSquares | None = None) -> HeldOut | None:
        """Scores at every strength, exactly: see `LeastSquares.left_out`."""
        if training.smallest_class < 2:
            return None
        return _held_out(problem or self._problem(training)[1], training, self.strengths)


class KernelHead(Head):
    """Kernel ridge with a Gaussian kernel, the strongest plain classifier on raw pixels.

    ``widths`` are kernel exponents in units of one over the median squared distance. Up to ``n_landmarks``
    images the kernel is exact; above, it is expanded on as many of them (Williams, Seeger. Using the Nystroem
    Method to Speed Up Kernel Machines. NIPS 2000). Rows are brought to length 1 and centred, or centred only, or
    each feature is brought to one scale, whichever gives the smallest leave-one-out error. Where a class has one
    image rows have length 1: measured on 2026-11-30 with one label per class, 1 to 9 points more than centred rows.
    """

    name = "kernel"

    def __init__(
        self, widths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0), n_landmarks: int = _LANDMARKS
    ) -> None:
        if not widths or min(widths) <= 0 or n_landmarks < 2:
            raise SettingError(
                f"widths are {widths!r}, n_landmarks {n_landmarks}, expected widths above 0 and 2 landmarks"
            )
        self.widths, self.n_landmarks = tuple(widths), n_landmarks

    @property
    def n_features(self) -> int:
        """Number of features per row that the head was fitted on."""
        return int(self.landmarks_.shape[1])

    def _fit(self, training: Training, watch: Watch | None) -> None:
        plan = self._plan(training)
        setting, temperature = _chosen_setting(self.held_out(training, plan), training, _DEFAULT)
        self.standardise_, self.gamma_, self.landmarks_ = (
            plan.standardise,
            plan.gamma,
            plan.rows[plan.landmarks],
        )
        expansion = _nystroem(np.exp(-plan.gamma * squared_distances(self.landmarks_, self.landmarks_)))
        targets = one_hot(training.codes, training.n_classes)
        problem = LeastSquares(self._kernel(plan.rows) @ expansion, targets, training.weights)
        weight, bias = problem.solution(setting["strength"])
        self.chosen_ = {"gamma": plan.gamma, **setting, "landmarks": float(len(plan.landmarks))}
        self.weight_ = (expansion.astype(np.float64) @ weight * temperature).astype(np.float32)
        self.bias_ = (bias * temperature).astype(np.float32)

    def held_out(self, training: Training, plan: _Plan | None = None) -> HeldOut | None:
        """Scores at every strength, at the scaling and width that a fit would select."""
        if training.smallest_class < 2:
            return None
        plan = plan or self._plan(training)
        targets = one_hot(training.codes, training.n_classes)
        problem: LeastSquares
        if len(plan.landmarks) == len(plan.rows):  # every row is a landmark: the kernel is exact
            kernel = np.exp(-plan.gamma * squared_distances(plan.rows, plan.rows))
            problem = KernelLeastSquares(kernel, targets, training.weights)
        else:
            self.gamma_, self.landmarks_ = plan.gamma, plan.rows[plan.landmarks]
            expansion = _nystroem(np.exp(-plan.gamma * squared_distances(self.landmarks_, self.landmarks_)))
            problem = LeastSquares(self._kernel(plan.rows) @ expansion, targets, training.weights)
        return _held_out(problem, training, _STRENGTHS)

    def _plan(self, training: Training) -> _Plan:
        """Landmarks, and the scaling and width with the least held-out error on a few of them."""
        rng = np.random.default_rng([training.seed, 2])
        n_originals = len(training.originals)
        some = training.originals[np.sort(rng.permutation(n_originals)[: self.n_landmarks])]
        few = _few(training, rng)
        scalings: tuple[Scaling, ...] = tuple(one(training.features) for one in _SCALINGS)
        best = (np.inf, scalings[0], 1.0)
        for scaling in scalings:
            rows = scaling(few.features)
            squared = squared_distances(rows, rows)
            median = float(np.median(squared[np.triu_indices(len(squared), 1)]))
            longest = float((rows**2).sum(axis=1).max())
            unit = 1.0 / max(median, _LEAST_DISTANCE, _LEAST_SHARE * longest)
            if few.smallest_class < 2:  # nothing can be held out: the default, rows of length 1
                best = (0.0, scaling, unit)
                break
            for width in self.widths:
                kernel = np.exp(-width * unit * squared)
                problem = KernelLeastSquares(kernel, one_hot(few.codes, few.n_classes), few.weights)
                error = float(_held_out(problem, few, _STRENGTHS).errors.min())
                if error < best[0]:
                    best = (error, scaling, width * unit)
        return _Plan(best[1], best[2], best[1](training.features), some)

    def _kernel(self, features: Array) -> Array:
        """(n_images, n_landmarks), block by block so that no block of distances is large."""
        starts = range(0, max(len(features), 1), _BLOCK)  # without rows, one empty block
        blocks = [features[start : start + _BLOCK] for start in starts]
        return np.concatenate(
            [np.exp(-self.gamma_ * squared_distances(block, self.landmarks_)) for block in blocks]
        )

    def _probabilities(self, features: Array) -> Array:
        kernel = self._kernel(self.standardise_(features))
        return softmax(kernel @ self.weight_ + self.bias_).astype(np.float32)

    def _append(self, builder: Builder, features: str) -> str:
        features = self.standardise_.append(builder, features)
        squares = builder.add(
            "ReduceSumSquare", features, builder.constant("head.axis", np.array([1])), keepdims=1
        )
        cross = builder.add("MatMul", features, builder.constant("head.landmarks", self.landmarks_.T))
        twice = builder.add("Mul", cross, builder.constant("head.minus_two", np.array([-2.0], np.float32)))
        own = builder.constant(
            "head.squares", (self.landmarks_.astype(np.float64) ** 2).sum(1).astype(np.float32)
        )
        distances = builder.add("Add", builder.add("Add", squares, twice), own)
        positive = builder.add("Relu", distances)
        kernel = builder.add(
            "Exp",
            builder.add(
                "Mul", positive, builder.constant("head.gamma", np.array([-self.gamma_], np.float32))
            ),
        )
        return append_softmax(builder, kernel, self.weight_, self.bias_)


@dataclass(frozen=True)
class _Plan:
    """A kernel fit before its strength is selected; ``rows`` are standardised, ``landmarks`` their indices."""

    standardise: Scaling
    gamma: float
    rows: Array
    landmarks: NDArray[np.intp]


def _few(training: Training, rng: np.random.Generator) -> Training:
    """At most 150 of the original images, at least two of each class where there are two."""
    images = rng.permutation(training.originals)
    codes = training.codes[images]
    nth = np.zeros(len(images), np.intp)  # how many of its class come before an image
    for code in range(training.n_classes):
        nth[codes == code] = np.arange((codes == code).sum())
    chosen = np.sort(images[np.argsort(nth >= 2, kind="stable")[:_FEW]])
    return Training(
        training.features[chosen],
        np.unique(training.codes[chosen], return_inverse=True)[1].astype(np.int64),
        training.weights[chosen],
        training.images[chosen],
        training.seed,
        None if training.clusters is None else training.clusters[chosen],
    )


def _held_out(problem: LeastSquares, training: Training, strengths: tuple[float, ...]) -> HeldOut:
    folds, judged = training.left_out_with(), training.originals
    scores = problem.left_out(strengths, folds).take(judged, axis=1)
    return HeldOut.of(tuple({"strength": strength} for strength in strengths), scores, training)


def _chosen_setting(
    held: HeldOut | None, training: Training, default: Mapping[str, float]
) -> tuple[dict[str, float], float]:
    """The best setting and the temperature of its scores; the default where nothing can be held out."""
    if held is None:
        return dict(default), _DEFAULT_TEMPERATURE
    best, judged = best_setting(held), training.originals
    temperature = fit_temperature(
        held.logits[best].astype(np.float64), training.codes[judged], training.weights[judged]
    )
    return dict(held.settings[best]), temperature


def _nystroem(kernel: Array) -> Array:
    """(m, r): maps kernel values against m landmarks to features whose products are the kernel.

    The inverse Cholesky factor, transposed, after a jitter against rounding errors.
    """
    from scipy.linalg import cholesky, solve_triangular

    jitter = max(1e-6, 3e-7 * len(kernel))  # above the rounding errors of a float32 kernel's eigenvalues
    for _ in range(_MOST_JITTERS):
        jittered = kernel.astype(np.float64) + jitter * np.eye(len(kernel))
        try:
            factor = cholesky(jittered, lower=True)
            break
        except np.linalg.LinAlgError:  # distances much smaller than the rows are rounded more
            jitter *= 10.0
    else:
        raise DataError(
            "features are not finite or too large to compare, expected moderate numbers; take another layer"
        )
    return solve_triangular(factor, np.eye(len(kernel)), lower=True).T.astype(np.float32)  # type: ignore[no-any-return]
