"""Kernel ridge: least squares on a Gaussian kernel, width, scaling and strength selected by held-out scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, SettingError
from headstart.heads.base import (
    Builder,
    Head,
    Watch,
    append_softmax,
    softmax,
    squared_distances,
)
from headstart.heads.folded_least_squares import FoldedLeastSquares
from headstart.heads.held_out import HeldOut
from headstart.heads.least_squares import KernelLeastSquares, LeastSquares
from headstart.heads.moments import Moments
from headstart.heads.row_blocks import TrainingBlocks, is_large
from headstart.heads.scaling import Scaling, Standardiser, UnitRows
from headstart.heads.statistics import RowStatistics
from headstart.heads.strengths import STRENGTHS, chosen_of_folds, chosen_setting, held_out_at
from headstart.heads.training import Training, one_hot
from headstart.records import Array
from headstart.system.mapped import taken

__all__ = ["KernelHead"]

_LANDMARKS = 2_000
_FEW = 150  # images that decide width and scaling; 300 gave the same accuracy in 4 of 5 cases (2026-11-29)
_ALL_TRIED = 60  # images below which every scaling is tried with every width
_BLOCK = 8_192
_LEAST_DISTANCE = 1e-10  # squared; of rows of length 1, smaller ones are rounding errors, not differences
_LEAST_SHARE = 1e-5  # of the longest row's squared length, below which squared distances are rounding errors
_MOST_JITTERS = 6
_SCALINGS = (UnitRows.of, Standardiser.centring, Standardiser.of)  # the first is the default


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
        n_rows, width = training.features.shape
        if is_large(n_rows, max(width, len(plan.landmarks)), len(plan.landmarks)):
            self._fit_large(training, plan)
            return
        problem, expansion = self._problem(training, plan)
        held = None if training.smallest_class < 2 else held_out_at(problem, training, STRENGTHS)
        setting, temperature = chosen_setting(held, training)
        weight, bias = problem.solution(setting["strength"])
        if expansion is not None:
            weight = expansion.astype(np.float64) @ weight
        self._set(plan, setting, weight * temperature, bias * temperature)

    def _set(
        self, plan: _Plan, setting: dict[str, float], weight: NDArray[np.float64], bias: NDArray[np.float64]
    ) -> None:
        self.standardise_ = plan.standardise
        self.chosen_ = {"gamma": plan.gamma, **setting, "landmarks": float(len(plan.landmarks))}
        self.weight_, self.bias_ = weight.astype(np.float32), bias.astype(np.float32)

    def _fit_large(self, training: Training, plan: _Plan) -> None:
        """From statistics of the kernel's columns, block by block; the expansion is applied to their products."""
        self.standardise_, expansion = plan.standardise, self._expanded(training, plan)
        blocks = TrainingBlocks(training, len(plan.landmarks))
        columns = (replace(one, rows=self._kernel(plan.standardise(one.rows))) for one in blocks)
        statistics = RowStatistics.collected(columns, training.n_classes)
        problem = FoldedLeastSquares(statistics, partial(Moments.mapped, matrix=expansion))
        sample = statistics.sample
        setting, temperature = chosen_of_folds(problem, sample, sample.rows @ expansion, STRENGTHS)
        weight, bias = problem.solution(setting["strength"])
        self._set(plan, setting, expansion.astype(np.float64) @ weight * temperature, bias * temperature)

    def held_out(self, training: Training) -> HeldOut | None:
        """Scores at every strength, at the scaling and width that a fit would select."""
        if training.smallest_class < 2:
            return None
        problem, _ = self._problem(training, self._plan(training))
        return held_out_at(problem, training, STRENGTHS)

    def _problem(self, training: Training, plan: _Plan) -> tuple[LeastSquares, Array | None]:
        """The exact problem if every row is a landmark; else the expanded one and its expansion."""
        targets = one_hot(training.codes, training.n_classes)
        if len(plan.landmarks) == len(training.features):
            return KernelLeastSquares(self._among(training, plan), targets, training.weights), None
        expansion = self._expanded(training, plan)
        rows = self._kernel(plan.standardise(training.features))
        return LeastSquares(rows @ expansion, targets, training.weights), expansion

    def _expanded(self, training: Training, plan: _Plan) -> Array:
        return _nystroem(self._among(training, plan))

    def _among(self, training: Training, plan: _Plan) -> Array:
        """The kernel of the landmarks, which are kept for predictions."""
        self.gamma_, self.landmarks_ = plan.gamma, plan.standardise(taken(training.features, plan.landmarks))
        among: Array = np.exp(-plan.gamma * squared_distances(self.landmarks_, self.landmarks_))
        return among

    def _plan(self, training: Training) -> _Plan:
        """Landmarks, and the scaling and width with the least held-out error on a few of them.

        All pairs are tried on fewer than 60 images. On more, where errors are smooth in the width, the scaling is
        chosen at the middle width, and the width by steps from there: no difference in accuracy (-0.02 +- 0.02 points
        from 5 labels per class on, 2026-11-30), in a third of the time.
        """
        rng = np.random.default_rng([training.seed, 2])
        n_originals = len(training.originals)
        some = training.originals[np.sort(rng.permutation(n_originals)[: self.n_landmarks])]
        few, middle = _few(training, rng), len(self.widths) // 2
        scalings: list[Scaling] = [one(training.features) for one in _SCALINGS]
        if few.smallest_class < 2:  # nothing can be held out: the default, rows of length 1
            unit = _Distances(scalings[0], few).unit
            return _Plan(scalings[0], unit, some)
        tried = [_Distances(one, few) for one in scalings]
        if len(few.features) < _ALL_TRIED:
            pairs = [
                (one.error(width), number, width) for number, one in enumerate(tried) for width in self.widths
            ]
            _, number, width = min(pairs, key=lambda pair: pair[0])
            best = tried[number]
        else:
            errors = [one.error(self.widths[middle]) for one in tried]
            best = tried[int(np.argmin(errors))]
            width = _descended(self.widths, middle, min(errors), best.error)
        return _Plan(best.scaling, width * best.unit, some)

    def _kernel(self, features: Array) -> Array:
        """(n_images, n_landmarks), block by block so that no block of distances is large."""
        starts = range(0, max(len(features), 1), _BLOCK)  # without rows, one empty block
        blocks = [features[start : start + _BLOCK] for start in starts]
        return np.concatenate(
            [np.exp(-self.gamma_ * squared_distances(block, self.landmarks_)) for block in blocks]
        )

    def _probabilities(self, features: Array) -> Array:
        starts = range(0, max(len(features), 1), _BLOCK)  # the kernel of many rows would be large
        logits = [self._kernel(self.standardise_(features[i : i + _BLOCK])) @ self.weight_ for i in starts]
        return softmax(np.concatenate(logits) + self.bias_).astype(np.float32)

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
    """A kernel fit before its strength is selected; ``landmarks`` are indices of rows."""

    standardise: Scaling
    gamma: float
    landmarks: NDArray[np.intp]


class _Distances:
    """Squared distances between a few rows under one scaling, and the held-out error at a width."""

    def __init__(self, scaling: Scaling, few: Training) -> None:
        self.scaling, self._few = scaling, few
        rows = scaling(few.features)
        self._squared = squared_distances(rows, rows)
        median = float(np.median(self._squared[np.triu_indices(len(self._squared), 1)]))
        longest = float((rows**2).sum(axis=1).max())
        self.unit = 1.0 / max(median, _LEAST_DISTANCE, _LEAST_SHARE * longest)

    def error(self, width: float) -> float:
        """The least error of all strengths."""
        targets = one_hot(self._few.codes, self._few.n_classes)
        problem = KernelLeastSquares(np.exp(-width * self.unit * self._squared), targets, self._few.weights)
        return float(held_out_at(problem, self._few, STRENGTHS).errors.min())


def _descended(
    values: tuple[float, ...], start: int, error: float, error_of: Callable[[float], float]
) -> float:
    """The value at which an error is lowest, by steps from one position while it falls."""
    best = start
    for step in (-1, 1):
        here = best + step
        while 0 <= here < len(values) and (found := error_of(values[here])) < error:
            best, error, here = here, found, here + step
        if best != start:
            break
    return values[best]


def _few(training: Training, rng: np.random.Generator) -> Training:
    """At most 150 of the original images, at least two of each class where there are two."""
    images = rng.permutation(training.originals)
    codes = training.codes[images]
    nth = np.zeros(len(images), np.intp)  # how many of its class come before an image
    for code in range(training.n_classes):
        nth[codes == code] = np.arange((codes == code).sum())
    chosen = np.sort(images[np.argsort(nth >= 2, kind="stable")[:_FEW]])
    return Training(
        taken(training.features, chosen),
        np.unique(training.codes[chosen], return_inverse=True)[1].astype(np.int64),
        training.weights[chosen],
        training.images[chosen],
        training.seed,
        None if training.clusters is None else training.clusters[chosen],
    )


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
