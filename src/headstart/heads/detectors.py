"""Detectors: scores of features that are larger for rows less like the training rows.

A detector predicts no class; `novelty` combines several and sets the threshold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.heads.base import Builder
from headstart.records import Array, Codes

__all__ = ["METHODS", "Detector", "Mahalanobis", "Neighbours", "Residual"]

_LEAST_SHARE = 1e-3  # of the total variance: assumed within classes of one image
_KEPT = 0.95  # share of the variance in the subspace of the known rows
_RANK = 256
_VALUES = 4_000_000  # that a detector stores, 16 MB: with VGG16's 25,088 features not every row
_EPS = 1e-12
_ROUNDING = 1e-4  # of the size of features: far more than runtimes and sizes of batches differ by


class Detector(ABC):
    """A score of features that is larger for rows less like those fitted on."""

    name: ClassVar[str]

    @staticmethod
    def usual(n_features: int) -> float:
        """The size of usual scores, which rounding is compared with."""
        return 1.0

    @classmethod
    @abstractmethod
    def fit(cls, rows: Array, codes: Codes) -> Self:
        """Learn what is known from rows (n, n_features) and their classes (n,)."""

    @abstractmethod
    def scores(self, rows: Array) -> Array:
        """How different each row is, (n,)."""

    @abstractmethod
    def append(self, builder: Builder, features: str) -> str:
        """The same as graph operations; a tensor of shape (n,)."""


@dataclass(frozen=True)
class Neighbours(Detector):
    """One minus the cosine to the k-th nearest known row, about the mean of all.

    Sun, Ming, Zhu, Li. Out-of-Distribution Detection with Deep Nearest Neighbors. ICML 2022,
    arXiv:2204.06507.
    """

    name: ClassVar[str] = "neighbours"
    mean: Array
    bank: Array  # (n_bank, n_features), of length 1
    k: int

    @classmethod
    def fit(cls, rows: Array, codes: Codes) -> Self:
        """Store the rows, or a random part of them where they are long."""
        mean, most = _mean(rows), max(50, _VALUES // rows.shape[1])
        if len(rows) > most:
            rows = rows[np.random.default_rng(0).permutation(len(rows))[:most]]
        return cls(mean, _unit(rows, mean), max(1, len(rows) // 200))

    def scores(self, rows: Array) -> Array:
        """Cosine distances."""
        cosines = _unit(rows, self.mean) @ self.bank.T
        nearest = np.partition(cosines, -self.k, axis=1)[:, -self.k]
        return (1.0 - nearest).astype(np.float32)

    def append(self, builder: Builder, features: str) -> str:
        """Two products and a top k."""
        unit = _append_unit(builder, features, self.mean)
        cosines = builder.add("MatMul", unit, builder.constant("novelty.bank", self.bank.T))
        k = builder.constant("novelty.k", np.array([self.k], np.int64))
        best = builder.add("TopK", cosines, k, n_outputs=2, axis=1)
        last = builder.add("ReduceMin", best, builder.constant("novelty.axis", np.array([1])), keepdims=0)
        return builder.add("Sub", builder.constant("novelty.one", np.array([1], np.float32)), last)


@dataclass(frozen=True)
class Mahalanobis(Detector):
    """Squared distance to the nearest class mean, in the covariance within classes.

    Lee, Lee, Lee, Shin. A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
    Attacks. NeurIPS 2018, arXiv:1807.03888; shrunk towards the identity as in Ledoit, Wolf. A
    well-conditioned estimator for large-dimensional covariance matrices. J. Multivariate Analysis 88 (2004).
    """

    name: ClassVar[str] = "mahalanobis"
    mean: Array
    floor: float  # variance in directions without any data
    directions: Array  # (n_features, rank), scaled
    means: Array  # (n_classes, n_features), about ``mean``

    @staticmethod
    def usual(n_features: int) -> float:
        """About one for each feature."""
        return float(n_features)

    @classmethod
    def fit(cls, rows: Array, codes: Codes) -> Self:
        """Class means and the covariance about them."""
        mean = _mean(rows)
        known = np.unique(codes)
        means = np.stack([_mean(rows[codes == code]) for code in known])
        within = (rows - means[np.searchsorted(known, codes)]).astype(np.float64)
        n, width = within.shape
        values, basis = _principal_directions(within)
        variances = values / n
        common = max(
            float(np.square(within).sum()) / n / width, _LEAST_SHARE * float(rows.var(axis=0).mean())
        )
        total = (variances**2).sum()
        spread = (np.square((within**2).sum(axis=1)).sum() / n - total) / n
        shrink = float(np.clip(spread / max(total - width * common**2, _EPS), 1e-3, 1.0))
        rounding = _ROUNDING**2 * float(np.square(rows).mean())  # below it, variance is noise
        floor = max(shrink * common, rounding, _EPS)
        gain = 1.0 / floor - 1.0 / ((1.0 - shrink) * variances + floor)
        directions = basis * np.sqrt(gain)
        return cls(
            mean.astype(np.float32),
            float(floor),
            directions.astype(np.float32),
            (means - mean).astype(np.float32),
        )

    @property
    def _scale(self) -> np.float32:
        return np.float32(self.floor**-0.5)

    def scores(self, rows: Array) -> Array:
        """Squared distances."""
        scale, centred = self._scale, rows - self.mean
        plain = _unclipped_distances(centred * scale, self.means * scale)
        inside = _unclipped_distances(centred @ self.directions, self.means @ self.directions)
        return (plain - inside).min(axis=1).astype(np.float32)  # type: ignore[no-any-return]

    def append(self, builder: Builder, features: str) -> str:
        """Distances in full and in the known directions, and the least of their differences."""
        scale = self._scale
        centred = builder.add("Sub", features, builder.constant("novelty.mean", self.mean))
        scaled = builder.add("Mul", centred, builder.constant("novelty.scale", np.array([scale])))
        plain = _append_distances(builder, scaled, self.means * scale, "novelty.means")
        inside = builder.add("MatMul", centred, builder.constant("novelty.directions", self.directions))
        inside = _append_distances(builder, inside, self.means @ self.directions, "novelty.inside")
        axis = builder.constant("novelty.axis", np.array([1]))
        return builder.add("ReduceMin", builder.add("Sub", plain, inside), axis, keepdims=0)


@dataclass(frozen=True)
class Residual(Detector):
    """The share of a row, about the mean, that lies outside the subspace of the known rows.

    Wang, Li, Feng, Zhang. ViM: Out-Of-Distribution with Virtual-logit Matching. CVPR 2022, arXiv:2203.10807.
    """

    name: ClassVar[str] = "residual"
    mean: Array
    basis: Array  # (n_features, rank), orthonormal

    @classmethod
    def fit(cls, rows: Array, codes: Codes) -> Self:
        """The directions that keep most of the variance."""
        mean = _mean(rows)
        centred = rows - mean
        values, basis = _principal_directions(centred)
        kept = np.cumsum(values) / max(float(np.square(centred).sum()), _EPS)
        rank = min(int(np.searchsorted(kept, _KEPT)) + 1, len(values))
        return cls(mean.astype(np.float32), basis[:, :rank].astype(np.float32))

    def scores(self, rows: Array) -> Array:
        """Shares, 0 to 1."""
        inside = _unit(rows, self.mean) @ self.basis
        return (1.0 - (inside**2).sum(axis=1)).astype(np.float32)  # type: ignore[no-any-return]

    def append(self, builder: Builder, features: str) -> str:
        """A product and a sum of squares."""
        unit = _append_unit(builder, features, self.mean)
        inside = builder.add("MatMul", unit, builder.constant("novelty.basis", self.basis))
        axis = builder.constant("novelty.axis", np.array([1]))
        share = builder.add("ReduceSumSquare", inside, axis, keepdims=0)
        return builder.add("Sub", builder.constant("novelty.one", np.array([1], np.float32)), share)


METHODS: tuple[type[Detector], ...] = (Mahalanobis, Neighbours, Residual)
"""Published scores; their mean decides."""


def _principal_directions(rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest squared singular values in descending order, and their right vectors as columns.

    NumPy's decomposition lets other threads run meanwhile, SciPy's of the largest values does not and is no faster.
    """
    n, width = rows.shape
    exact = rows.astype(np.float64)
    gram = exact @ exact.T if n <= width else exact.T @ exact
    rank = min(_RANK, max(16, _VALUES // (2 * width)))
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    kept = values > max(float(values[0]), _EPS) * 1e-9
    kept[0] = True  # equal rows keep one direction without variance: runtimes have no matrix without columns
    values, vectors = np.maximum(values[kept], 0.0), vectors[:, kept]
    return values, exact.T @ (vectors / np.sqrt(np.maximum(values, _EPS))) if n <= width else vectors


def _mean(rows: Array) -> Array:
    """The mean of rows, exact where all are the same."""
    mean: Array = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _unit(rows: Array, mean: Array) -> Array:
    """Rows about the mean, of length 1; shorter where the differences are those of rounding."""
    centred = rows - mean
    unit: Array = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), _shortest(mean))
    return unit


def _shortest(mean: Array) -> np.float32:
    return np.float32(max(_ROUNDING * float(np.linalg.norm(mean)), _EPS))


def _append_unit(builder: Builder, rows: str, mean: Array) -> str:
    centred = builder.add("Sub", rows, builder.constant("novelty.mean", mean))
    length = builder.add("ReduceL2", centred, builder.constant("novelty.axis", np.array([1])), keepdims=1)
    least = builder.constant("novelty.least", np.array([_shortest(mean)], np.float32))
    return builder.add("Div", centred, builder.add("Max", length, least))


def _unclipped_distances(rows: NDArray[np.floating[Any]], others: Array) -> Array:
    """Squared distances, not clipped at zero, as in the graph."""
    squares = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    distances: Array = (squares - 2.0 * (rows @ others.T)).astype(np.float32, copy=False)
    return distances


def _append_distances(builder: Builder, rows: str, others: Array, name: str) -> str:
    axis = builder.constant("novelty.axis", np.array([1]))
    own = builder.add("ReduceSumSquare", rows, axis, keepdims=1)
    twice = builder.constant(f"{name}.twice", np.ascontiguousarray(-2.0 * others.T, np.float32))
    squares = builder.constant(f"{name}.squares", (others**2).sum(axis=1).astype(np.float32))
    return builder.add("Add", builder.add("Add", own, builder.add("MatMul", rows, twice)), squares)
