"""Scalings that heads put features through before they compare or combine them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.heads.base import Builder
from headstart.records import Array
from headstart.system.mapped import parts_of

__all__ = ["Scaling", "Standardiser", "UnitRows", "append_unit_rows", "unit_rows"]

_BLOCK = 4_096
_LEAST_LENGTH = 1e-6  # of a row; all zeros stay zeros


class Scaling(Protocol):
    """A function of single rows, fitted on training rows, in NumPy and in a graph."""

    def __call__(self, features: Array) -> Array:
        """Scaled rows."""
        ...

    def append(self, builder: Builder, features: str) -> str:
        """The same as graph operations."""
        ...


@dataclass(frozen=True)
class UnitRows:
    """Rows are brought to length 1, and the mean of the training rows is subtracted.

    So only the direction of a row counts, as with cosine similarity: of one or two images per class the length
    says more about an image's contrast than about its class.
    """

    mean: Array

    @classmethod
    def of(cls, features: Array) -> UnitRows:
        """Fitted to training rows only."""
        parts = parts_of(features, _BLOCK)
        sums = sum(unit_rows(features[here]).sum(axis=0, dtype=np.float64) for here in parts)
        return cls(np.asarray(sums / len(features), np.float32))

    def __call__(self, features: Array) -> Array:
        """Scaled rows."""
        rows = unit_rows(features)
        rows -= self.mean
        return rows

    def append(self, builder: Builder, features: str) -> str:
        """The same as graph operations."""
        rows = append_unit_rows(builder, features, "head")
        return builder.add("Sub", rows, builder.constant("head.mean", self.mean), name="head.centred")


def unit_rows(features: Array) -> Array:
    """Rows brought to length 1; all zeros stay zeros."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, np.float32(_LEAST_LENGTH)), np.float32)


def append_unit_rows(builder: Builder, features: str, prefix: str) -> str:
    """The same as graph operations; ``prefix`` begins the names of the results."""
    axis = builder.constant("head.row", np.array([1], np.int64))
    least = builder.constant("head.least", np.array([_LEAST_LENGTH], np.float32))
    length = builder.add("ReduceL2", features, axis, name=f"{prefix}.length", keepdims=1)
    return builder.add("Div", features, builder.add("Max", length, least), name=f"{prefix}.unit")


@dataclass(frozen=True)
class Standardiser:
    """Centres features and brings them to one scale, so that penalties mean the same on all features.

    Every feature is divided by its standard deviation, shrunk towards the common one (a tenth of the mean
    variance is added, and 10 / n_rows of it: with five images a feature's own deviation is mostly chance, and
    a constant feature has none), and by sqrt(n_features), so that rows have a squared length near 1.
    """

    mean: Array
    scale: Array

    @classmethod
    def of(cls, features: Array) -> Standardiser:
        """Fitted to training rows only."""
        return cls.of_moments(*_moments(features), len(features))

    @classmethod
    def of_moments(
        cls, mean: NDArray[np.float64], variance: NDArray[np.float64], n_rows: int
    ) -> Standardiser:
        """Fitted to training rows with this mean and variance of each feature."""
        common = float(variance.mean()) or 1.0
        shrunk = variance + (0.1 + 10.0 / n_rows) * common
        scale = 1.0 / np.sqrt(shrunk * len(mean))
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    @classmethod
    def centring(cls, features: Array) -> Standardiser:
        """Features keep their scales; rows are centred and have a squared length near 1."""
        mean, variance = _moments(features)
        total = float(variance.sum()) or 1.0
        return cls(mean.astype(np.float32), np.full(len(mean), total**-0.5, np.float32))

    def __call__(self, features: Array) -> Array:
        """Standardised rows."""
        rows: Array = features - self.mean
        rows *= self.scale  # in place: saves a second copy of many rows
        return rows

    def append(self, builder: Builder, features: str) -> str:
        """The same as graph operations."""
        centred = builder.add("Sub", features, builder.constant("head.mean", self.mean), name="head.centred")
        return builder.add("Mul", centred, builder.constant("head.scale", self.scale), name="head.standard")

    def fold(self, weight: NDArray[Any], bias: NDArray[Any]) -> tuple[Array, Array]:
        """Weights (n_features, k) and bias that give the same results on unstandardised features."""
        folded = weight * self.scale[:, None].astype(np.float64)
        return folded.astype(np.float32), (bias - self.mean.astype(np.float64) @ folded).astype(np.float32)


def _moments(features: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of each feature in float64, block by block: a copy of all would double the memory."""
    parts = parts_of(features, _BLOCK)
    mean = sum(features[here].sum(axis=0, dtype=np.float64) for here in parts) / len(features)
    squares = sum(((features[here] - mean) ** 2).sum(axis=0) for here in parts_of(features, _BLOCK))
    return np.asarray(mean), np.asarray(squares / len(features))
