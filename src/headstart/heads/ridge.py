"""Ridge and kernel ridge: least squares on class indicators, every strength judged by exact leave-one-out.

In: features, codes. Out: weights. Must not import a network or a graph. Called by registry.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from headstart.records import Array, Codes

__all__ = ["KernelHead", "RidgeHead"]

_STRENGTHS = tuple(10.0**power for power in np.arange(-8, 1.5, 0.5).tolist())
_LANDMARKS = 2_000
_FEW = 1_000
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

    def _fit(self, features: Array, codes: Codes, seed: int, watch: Watch | None) -> None:
        standardise = Standardiser.of(features)
        found = _ridge(standardise(features), one_hot(codes, len(self.classes_)), self.strengths)
        temperature = fit_temperature(found.left_out, codes)
        self.chosen_ = {"strength": found.strength, "temperature": temperature}
        self.weight_, self.bias_ = standardise.fold(found.weight * temperature, found.bias * temperature)


class KernelHead(Head):
    """Kernel ridge with a Gaussian kernel, the strongest plain classifier on raw pixels.

    Parameters
    ----------
    widths : sequence of float, default=(0.25, 0.5, 1.0, 2.0, 4.0)
        Kernel exponents to choose from, in units of one over the median squared distance.
    n_landmarks : int, default=2000
        Up to so many images the kernel is exact; above, it is expanded on so many of them
        (Nystroem), and the width is chosen on these alone.

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

    def _fit(self, features: Array, codes: Codes, seed: int, watch: Watch | None) -> None:
        rng = np.random.default_rng([seed, 2])
        chosen = rng.permutation(len(features))[: self.n_landmarks]
        self.landmarks_ = features[chosen]
        targets = one_hot(codes, len(self.classes_))
        squared = _squared_distances(self.landmarks_, self.landmarks_)
        unit = 1.0 / max(float(np.median(squared[np.triu_indices(len(squared), 1)])), 1e-12)
        few = slice(0, _FEW)  # enough to choose a width by; the landmarks are in random order
        tried = [
            (
                _ridge(
                    _features(np.exp(-width * unit * squared[few, few])), targets[chosen[few]], _STRENGTHS
                ).error,
                width,
            )
            for width in self.widths
        ]
        self.gamma_ = min(tried)[1] * unit
        kernel = np.exp(-self.gamma_ * squared)
        expansion = _nystroem(kernel)
        rows = kernel if len(features) == len(chosen) else self._kernel(features)
        found = _ridge(rows @ expansion, targets if len(rows) > len(chosen) else targets[chosen], _STRENGTHS)
        temperature = fit_temperature(found.left_out, codes if len(rows) > len(chosen) else codes[chosen])
        self.chosen_ = {"gamma": self.gamma_, "strength": found.strength, "landmarks": float(len(chosen))}
        self.weight_ = (expansion.astype(np.float64) @ found.weight * temperature).astype(np.float32)
        self.bias_ = (found.bias * temperature).astype(np.float32)

    def _kernel(self, features: Array) -> Array:
        """(n_images, n_landmarks), block by block so that no block of distances is large."""
        starts = range(0, max(len(features), 1), _BLOCK)  # no rows are one empty block
        blocks = [features[start : start + _BLOCK] for start in starts]
        return np.concatenate(
            [np.exp(-self.gamma_ * _squared_distances(block, self.landmarks_)) for block in blocks]
        )

    def _probabilities(self, features: Array) -> Array:
        return softmax(self._kernel(features) @ self.weight_ + self.bias_).astype(np.float32)

    def _append(self, builder: Builder, features: str) -> str:
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
class _Solution:
    """Weights for the best strength, with the scores of each row when it was left out."""

    strength: float
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    left_out: NDArray[np.float64]
    error: float


def _ridge(rows: Array, targets: Array, strengths: tuple[float, ...]) -> _Solution:
    """Ridge with intercept: minimise mean squared error + strength * squared weights."""
    centre, middle = rows.mean(axis=0, dtype=np.float64), targets.mean(axis=0, dtype=np.float64)
    centred = rows - centre.astype(np.float32)
    values, left = _decompose(centred)  # (rank,), (n, rank) orthonormal
    projected = (left.T @ (targets - middle.astype(np.float32))).astype(np.float64)  # (rank, k)
    n, best = len(rows), None
    for strength in strengths:
        shrink = values / (values + strength * n)
        fitted = left @ (shrink[:, None] * projected).astype(np.float32) + middle
        leverage = (left**2) @ shrink.astype(np.float32) + 1.0 / n
        left_out = targets - (targets - fitted) / np.maximum(1.0 - leverage, 1e-6)[:, None]
        error = float(((targets - left_out) ** 2).mean())
        if best is None or error < best[0]:
            best = error, strength, left_out
    assert best is not None, "there is at least one strength"
    error, strength, left_out = best
    inner = (left / (values + strength * n).astype(np.float32)) @ projected.astype(np.float32)
    weight = (centred.T @ inner).astype(np.float64)
    return _Solution(strength, weight, middle - centre @ weight, left_out.astype(np.float64), error)


def _decompose(rows: Array) -> tuple[NDArray[np.float64], Array]:
    """Squared singular values (rank,) and left singular vectors (n, rank), by the smaller Gram matrix."""
    n, width = rows.shape
    gram = rows @ rows.T if n <= width else rows.T @ rows
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    kept = values > max(values[-1], 1e-30) * 1e-7  # below lies the rounding of float32 products
    values, vectors = values[kept], vectors[:, kept]
    left = vectors if n <= width else rows @ (vectors / np.sqrt(values)).astype(np.float32)
    return values, left.astype(np.float32)


def _squared_distances(rows: Array, others: Array) -> Array:
    """(n_rows, n_others), never below zero."""
    squares = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    distances: Array = np.maximum(squares - 2.0 * (rows @ others.T), 0.0)
    return distances


def _features(kernel: Array) -> Array:
    """Rows whose products are the kernel, for the landmarks themselves."""
    return kernel @ _nystroem(kernel)


def _nystroem(kernel: Array) -> Array:
    """(m, r): takes kernel values against m landmarks to features whose products are the kernel.

    The inverse Cholesky factor, transposed, after a jitter that rounding needs.
    """
    from scipy.linalg import cholesky, solve_triangular

    jittered = kernel.astype(np.float64) + 1e-6 * np.eye(len(kernel))
    factor = cholesky(jittered, lower=True)
    return solve_triangular(factor, np.eye(len(kernel)), lower=True).T.astype(np.float32)  # type: ignore[no-any-return]
