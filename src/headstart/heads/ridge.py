"""Ridge and kernel ridge: least squares on class indicators, every strength judged by exact left-out answers.

In: features, codes. Out: weights. Must not import a network or a graph. Called by registry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError
from headstart.heads.base import (
    AffineHead,
    Builder,
    Head,
    Standardiser,
    Watch,
    append_softmax,
    fit_temperature,
    one_hot,
    softmax,
)
from headstart.heads.least_squares import KernelLeastSquares, LeastSquares
from headstart.heads.training import Training
from headstart.records import Array

__all__ = ["KernelHead", "RidgeHead", "squared_distances"]

_FOLDS = 10
_STRENGTHS = tuple(10.0**power for power in np.arange(-8, 1.5, 0.5).tolist())
_LANDMARKS = 2_000
_FEW = 300  # decides width and scaling; by 600 the held-out accuracy was the same in 6 of 7 cases
_BLOCK = 8_192


class RidgeHead(AffineHead):
    """Ridge regression on one-hot targets; probabilities by a temperature on its scores.

    Parameters
    ----------
    strengths : sequence of float, optional
        Penalties per image on standardised features to choose from by leave-one-out squared
        error. Default: from 1e-8 to 10 in half powers of ten.

    Notes
    -----
    One eigendecomposition of the smaller Gram matrix gives the leave-one-out residuals of every
    strength, (y - f) / (1 - h), exactly. The temperature is fitted to the leave-one-out scores.
    Where images have several rows, ten folds of whole images are left out instead, as exactly.

    References
    ----------
    Golub, Heath, Wahba. Generalized Cross-Validation as a Method for Choosing a Good Ridge
    Parameter. Technometrics 21 (1979).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(40, 3)).astype(np.float32) + np.repeat([[0.0], [4.0]], 20, axis=0)
    >>> head = RidgeHead().fit(features, np.repeat(["ant", "bee"], 20))
    >>> head.predict(features[[0, 39]]).tolist()
    ['ant', 'bee']
    """

    name = "ridge"

    def __init__(self, strengths: tuple[float, ...] = _STRENGTHS) -> None:
        if not strengths or min(strengths) <= 0:
            raise SettingError(f"strengths are {strengths!r}, need at least one and all above 0")
        self.strengths = tuple(strengths)

    def _fit(self, training: Training, watch: Watch | None) -> None:
        standardise = Standardiser.of(training.features)
        problem = LeastSquares(
            standardise(training.features), one_hot(training.codes, training.n_classes), training.weights
        )
        strength, temperature = _chosen(problem, training, self.strengths)
        weight, bias = problem.solution(strength)
        self.chosen_ = {"strength": strength, "temperature": temperature}
        self.weight_, self.bias_ = standardise.fold(weight * temperature, bias * temperature)


class KernelHead(Head):
    """Kernel ridge with a Gaussian kernel, the strongest plain classifier on raw pixels.

    Parameters
    ----------
    widths : sequence of float, default=(0.25, 0.5, 1.0, 2.0, 4.0)
        Kernel exponents to choose from, in units of one over the median squared distance.
    n_landmarks : int, default=2000
        Up to so many images the kernel is exact; above, it is expanded on so many of them
        (Nystroem), and the width is chosen on these alone.

    Notes
    -----
    Features are centred, and each brought to one scale if that gives the lesser leave-one-out error;
    so raw pixels keep theirs and the features of a network mostly do not.

    References
    ----------
    Williams, Seeger. Using the Nystroem Method to Speed Up Kernel Machines. NIPS 2000.
    """

    name = "kernel"

    def __init__(
        self, widths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0), n_landmarks: int = _LANDMARKS
    ) -> None:
        if not widths or min(widths) <= 0 or n_landmarks < 2:
            raise SettingError(
                f"widths are {widths!r}, n_landmarks {n_landmarks}, need widths above 0 and 2 landmarks"
            )
        self.widths, self.n_landmarks = tuple(widths), n_landmarks

    @property
    def n_features(self) -> int:
        """Features per row that the head was fitted on."""
        return int(self.landmarks_.shape[1])

    def _fit(self, training: Training, watch: Watch | None) -> None:
        rng = np.random.default_rng([training.seed, 2])
        some = training.originals[rng.permutation(len(training.originals))[: self.n_landmarks]]
        targets = one_hot(training.codes, training.n_classes)
        self.standardise_, self.gamma_ = self._chosen(training, some, targets)
        features = self.standardise_(training.features)
        self.landmarks_ = features[some]
        squared = squared_distances(self.landmarks_, self.landmarks_)
        kernel = np.exp(-self.gamma_ * squared)
        expansion = _nystroem(kernel)
        problem = LeastSquares(self._kernel(features) @ expansion, targets, training.weights)
        strength, temperature = _chosen(problem, training, _STRENGTHS)
        weight, bias = problem.solution(strength)
        self.chosen_ = {"gamma": self.gamma_, "strength": strength, "landmarks": float(len(some))}
        self.weight_ = (expansion.astype(np.float64) @ weight * temperature).astype(np.float32)
        self.bias_ = (bias * temperature).astype(np.float32)

    def _chosen(
        self, training: Training, some: NDArray[np.intp], targets: Array
    ) -> tuple[Standardiser, float]:
        """The scaling and kernel exponent with the least leave-one-out error on a few of the landmarks."""
        few, best = some[:_FEW], None
        scalings = (Standardiser.of(training.features), Standardiser.centring(training.features))
        for scaling in scalings:
            rows = scaling(training.features[few])
            squared = squared_distances(rows, rows)
            unit = 1.0 / max(float(np.median(squared[np.triu_indices(len(squared), 1)])), 1e-12)
            for width in self.widths:
                kernel = np.exp(-width * unit * squared)
                problem = KernelLeastSquares(kernel, targets[few], training.weights[few])
                error = float(problem.errors(_STRENGTHS).min())
                if best is None or error < best[0]:
                    best = error, scaling, width * unit
        assert best is not None, "there is at least one width"
        return best[1], best[2]

    def _kernel(self, features: Array) -> Array:
        """(n_images, n_landmarks), block by block so that no block of distances is large."""
        starts = range(0, max(len(features), 1), _BLOCK)  # no rows are one empty block
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


def _chosen(problem: LeastSquares, training: Training, strengths: tuple[float, ...]) -> tuple[float, float]:
    """The strength with the least left-out error, and the temperature of its left-out scores."""
    folds = None
    if training.has_views:  # an image must not be judged by a fit that saw a view of it
        k = min(_FOLDS, training.smallest_class)
        folds = training.fold_numbers(k) if k > 1 else None
    judged, best = training.originals, None
    for strength in strengths:
        scores = problem.left_out(strength, folds)[judged]
        targets = one_hot(training.codes[judged], training.n_classes)
        error = float((training.weights[judged, None] * (targets - scores) ** 2).mean())
        if best is None or error < best[0]:
            best = error, strength, scores
    assert best is not None, "there is at least one strength"
    temperature = fit_temperature(
        best[2].astype(np.float64), training.codes[judged], training.weights[judged]
    )
    return best[1], temperature


def squared_distances(rows: Array, others: Array) -> Array:
    """Squared Euclidean distances, (n_rows, n_others), never below zero."""
    squares = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    distances: Array = np.maximum(squares - 2.0 * (rows @ others.T), 0.0)
    return distances


def _nystroem(kernel: Array) -> Array:
    """(m, r): takes kernel values against m landmarks to features whose products are the kernel.

    The inverse Cholesky factor, transposed, after a jitter that rounding needs.
    """
    from scipy.linalg import cholesky, solve_triangular

    jitter = max(1e-6, 3e-7 * len(kernel))  # above the rounding of a float32 kernel's eigenvalues
    jittered = kernel.astype(np.float64) + jitter * np.eye(len(kernel))
    factor = cholesky(jittered, lower=True)
    return solve_triangular(factor, np.eye(len(kernel)), lower=True).T.astype(np.float32)  # type: ignore[no-any-return]
