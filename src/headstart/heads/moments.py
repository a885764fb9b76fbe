"""Counts, means and products of rows, in float64; those of parts of the rows add up to those of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ShapeError
from headstart.heads.row_blocks import RowBlock
from headstart.records import Codes

__all__ = ["GatheredMoments", "Moments", "total"]

Exact = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Weighted sums of products of rows (n_rows, n_inputs) about their mean, in float64.

    ``class_weights`` (n_classes,) are the sums of the weights of each class, ``mean`` (n_inputs,) is the weighted
    mean of the rows, ``products`` (n_inputs, n_inputs) are ``sum(w (x - mean)(x - mean)^T)``, and ``sums`` (n_inputs,
    n_classes) are ``sum(w (x - mean))`` over each class. ``plain_mean`` and ``plain_squares`` (n_inputs,) are mean
    and sum of squares about it without weights, by which features are scaled.

    Products about the mean keep their digits where the mean is much larger than the spread; sums are merged as in
    Chan, Golub, LeVeque. Algorithms for Computing the Sample Variance. The American Statistician 37, 1983.
    """

    n_rows: int
    class_weights: Exact
    mean: Exact
    products: Exact
    sums: Exact
    plain_mean: Exact
    plain_squares: Exact

    @classmethod
    def of(
        cls, rows: NDArray[Any], codes: Codes, n_classes: int, weights: NDArray[np.floating[Any]] | None
    ) -> Moments:
        """Of rows that are sorted by class."""
        exact, n = rows.astype(np.float64), len(rows)
        plain = exact.mean(axis=0)
        exact -= plain
        counts = np.bincount(codes, minlength=n_classes)
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        if weights is None:
            sums = np.zeros((rows.shape[1], n_classes))
            sums[:, codes[starts]] = np.add.reduceat(exact, starts).T
            products = exact.T @ exact  # of one matrix: half the work of another product
            return cls(n, counts.astype(np.float64), plain, products, sums, plain, np.diag(products).copy())
        squares, wide = np.einsum("ij,ij->j", exact, exact), weights.astype(np.float64)
        shift = wide @ exact / wide.sum()
        exact -= shift
        exact *= np.sqrt(wide)[:, None]
        products = exact.T @ exact
        exact *= np.sqrt(wide)[:, None]
        sums = np.zeros((rows.shape[1], n_classes))
        sums[:, codes[starts]] = np.add.reduceat(exact, starts).T
        totals = np.bincount(codes, wide, n_classes).astype(np.float64)
        return cls(n, totals, plain + shift, products, sums, plain, squares)

    @property
    def weight(self) -> float:
        """Sum of the weights."""
        return float(self.class_weights.sum())

    @property
    def target_mean(self) -> Exact:
        """Weighted mean of the class indicators, (n_classes,)."""
        return self.class_weights / self.weight

    @property
    def variance(self) -> Exact:
        """Of each input, without weights, (n_inputs,)."""
        return self.plain_squares / self.n_rows

    def __add__(self, other: Moments) -> Moments:
        """Of the rows of both."""
        if self.sums.shape != other.sums.shape:
            raise ShapeError(
                f"statistics are of {self.sums.shape} features and classes, expected {other.sums.shape} as in the "
                "others; make all of them from one source and the same classes"
            )
        total, gap = self.weight + other.weight, other.mean - self.mean
        n_rows, plain_gap = self.n_rows + other.n_rows, other.plain_mean - self.plain_mean
        mean = self.mean + gap * (other.weight / total)
        products = np.multiply.outer(gap * (self.weight * other.weight / total), gap)
        products += self.products
        products += other.products
        sums = self.sums + np.outer(self.mean - mean, self.class_weights)
        sums += other.sums + np.outer(other.mean - mean, other.class_weights)
        return Moments(
            n_rows,
            self.class_weights + other.class_weights,
            mean,
            products,
            sums,
            self.plain_mean + plain_gap * (other.n_rows / n_rows),
            self.plain_squares + other.plain_squares + plain_gap**2 * (self.n_rows * other.n_rows / n_rows),
        )

    def scaled(self, mean: NDArray[Any], scale: NDArray[Any]) -> Moments:
        """Of ``(rows - mean) * scale``."""
        wide = scale.astype(np.float64)
        products = self.products * wide
        products *= wide[:, None]
        return Moments(
            self.n_rows,
            self.class_weights,
            (self.mean - mean) * wide,
            products,
            self.sums * wide[:, None],
            (self.plain_mean - mean) * wide,
            self.plain_squares * wide**2,
        )

    def mapped(self, matrix: NDArray[Any]) -> Moments:
        """Of ``rows @ matrix`` (n_inputs, n_outputs)."""
        wide = matrix.astype(np.float64)
        products = wide.T @ self.products @ wide
        sums = wide.T @ self.sums
        mean = self.mean @ wide
        return Moments(self.n_rows, self.class_weights, mean, products, sums, mean, np.diag(products).copy())


class GatheredMoments:
    """Moments of rows that come in parts, which are kept until a merge costs less than their products."""

    def __init__(self, n_classes: int) -> None:
        self._n_classes, self._n_rows = n_classes, 0
        self._parts: list[RowBlock] = []
        self._moments: Moments | None = None

    def add(self, block: RowBlock, rows: NDArray[np.intp]) -> None:
        """Some rows of a block."""
        self._parts.append(block.part(rows))
        self._n_rows += len(rows)
        if 2 * self._n_rows >= block.rows.shape[1]:
            self._merge()

    def join(self, other: GatheredMoments) -> None:
        """The rows of another, too."""
        self._parts += other._parts
        self._n_rows += other._n_rows
        known = [one for one in (self._moments, other._moments) if one is not None]
        self._moments = total(known) if known else None

    def moments(self) -> Moments:
        """Of all rows so far."""
        self._merge()
        assert self._moments is not None, "a group is made for its first rows"
        return self._moments

    def _merge(self) -> None:
        if not self._parts:
            return
        codes = np.concatenate([one.codes for one in self._parts])
        order = np.argsort(codes, kind="stable")
        rows = np.concatenate([one.rows for one in self._parts])[order]
        weights = [one.weights for one in self._parts if one.weights is not None]
        self._parts, self._n_rows = [], 0
        wide = np.concatenate(weights)[order] if weights else None
        found = Moments.of(rows, codes[order], self._n_classes, wide)
        self._moments = found if self._moments is None else self._moments + found


def total(moments: Iterable[Moments | None]) -> Moments:
    """The sum of those that are there; at least one must be."""
    return reduce(add, (one for one in moments if one is not None))
