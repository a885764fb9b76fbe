"""What least squares must know of rows, whose size does not grow with their number.

Counts, means and products of features, by fold; and a random sample of the rows. Statistics of parts of the rows add
up to those of all, so that blocks, files and processes may each make their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, ShapeError
from headstart.heads.row_blocks import N_FOLDS, Given, GivenBlocks, RowBlock
from headstart.heads.scaling import Scaling
from headstart.heads.training import Training
from headstart.records import Array, Codes

__all__ = ["Moments", "RowStatistics", "Sample", "Survey", "row_statistics", "total"]

Exact = NDArray[np.float64]

_NO_ROWS = "blocks have no rows, expected at least one image of two classes; pass blocks with rows"
_SAMPLE_VALUES = 2**23  # 32 MiB: of 512 features 16,384 rows


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
        return Moments(
            self.n_rows,
            self.class_weights,
            (self.mean - mean) * wide,
            self.products * wide * wide[:, None],
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


@dataclass(frozen=True)
class Sample:
    """At most ``size`` rows, drawn at random: those with the smallest draws, so that parts merge in any order."""

    size: int
    rows: Array
    codes: Codes
    weights: Exact
    folds: NDArray[np.intp]
    clusters: NDArray[np.intp]
    draws: NDArray[np.uint64]

    @classmethod
    def of(cls, block: RowBlock, size: int, below: int | None = None) -> Sample:
        """From the rows of a block that are evaluated; only draws below a bound can be among the smallest."""
        wanted = np.ones(len(block.rows), np.bool_) if block.judged is None else block.judged.copy()
        if below is not None:
            wanted &= block.draws < np.uint64(below)
        here = np.flatnonzero(wanted)
        here = here[np.argsort(block.draws[here], kind="stable")[:size]]
        weights = np.ones(len(block.rows)) if block.weights is None else block.weights
        return cls(
            size,
            np.array(block.rows[here], np.float32),
            block.codes[here],
            weights[here].astype(np.float64),
            block.folds[here].astype(np.intp),
            block.clusters[here].astype(np.intp),
            block.draws[here],
        )

    @property
    def bound(self) -> int | None:
        """The largest draw of a full sample; None while it is not full."""
        return int(self.draws[-1]) if len(self.draws) == self.size else None

    def __add__(self, other: Sample) -> Sample:
        """Of the rows of both."""
        return self.joined([other])

    def joined(self, others: Sequence[Sample]) -> Sample:
        """Of the rows of all."""
        parts = [one for one in (self, *others) if len(one.draws)]
        if len(parts) < 2:
            return parts[0] if parts else self
        order = np.argsort(np.concatenate([one.draws for one in parts]), kind="stable")[: self.size]
        names = ("rows", "codes", "weights", "folds", "clusters", "draws")
        columns = (np.concatenate([getattr(one, name) for one in parts])[order] for name in names)
        return Sample(self.size, *columns)

    def training(self, seed: int) -> Training:
        """The rows as a training set, without classes of which one cluster was drawn, renumbered."""
        n_clusters = np.bincount(np.unique(np.stack([self.codes, self.clusters]), axis=1)[0])
        kept = n_clusters[self.codes] > 1
        kept |= not kept.any()
        codes = np.unique(self.codes[kept], return_inverse=True)[1].astype(np.int64)
        weights, clusters = self.weights[kept].astype(np.float32), self.clusters[kept]
        return Training(self.rows[kept], codes, weights, np.arange(len(codes)), seed, clusters)

    def standardised(self, standardise: Scaling) -> Sample:
        """With rows after a scaling."""
        return replace(self, rows=standardise(self.rows))


@dataclass(frozen=True)
class RowStatistics:
    """What a ridge fit must know of rows: their moments by fold, and a sample of them.

    ``judged`` are those of the rows that are evaluated when their fold is held out, ``copies`` those of augmented
    copies, which are learned from only; None where a fold has none. ``counts`` are rows by class, (n_classes,).
    """

    counts: NDArray[np.int64]
    judged: tuple[Moments | None, ...]
    copies: tuple[Moments | None, ...]
    sample: Sample

    @classmethod
    def collected(cls, blocks: Iterable[RowBlock], n_classes: int) -> RowStatistics:
        """Of all blocks, one after the other; DataError if there are none."""
        counts, sampler = np.zeros(n_classes, np.int64), _Sampler(_SAMPLE_VALUES)
        judged: list[Moments | None] = [None] * N_FOLDS
        copies: list[Moments | None] = [None] * N_FOLDS
        for block in blocks:
            counts += np.bincount(block.codes, minlength=n_classes)
            wanted = np.ones(len(block.rows), np.bool_) if block.judged is None else block.judged
            for found, some in ((judged, wanted), (copies, ~wanted)):
                for fold, moments in _by_fold(block, n_classes, some):  # one at a time: they are large
                    known = found[fold]
                    found[fold] = moments if known is None else known + moments
            sampler.add(block)
        return cls(counts, tuple(judged), tuple(copies), sampler.drawn())

    def __add__(self, other: RowStatistics) -> RowStatistics:
        """Of the rows of both."""
        return RowStatistics(
            self.counts + other.counts,
            tuple(map(_both, self.judged, other.judged)),
            tuple(map(_both, self.copies, other.copies)),
            self.sample + other.sample,
        )


@dataclass(frozen=True)
class Survey:
    """What scaling and the selection of a setting must know of rows: moments of each feature, and a sample."""

    n_rows: int
    counts: NDArray[np.int64]
    mean: Exact
    squares: Exact
    sample: Sample

    @property
    def variance(self) -> Exact:
        """Of each feature, (n_features,)."""
        return self.squares / self.n_rows

    @classmethod
    def collected(cls, blocks: Iterable[RowBlock], n_classes: int, sampled: int) -> Survey:
        """Of all blocks, with so many values in the sample; DataError if there are none."""
        counts, sampler = np.zeros(n_classes, np.int64), _Sampler(sampled)
        n_rows, mean, squares = 0, np.zeros(1), np.zeros(1)
        for block in blocks:
            exact = block.rows.astype(np.float64)
            own, n_both = exact.mean(axis=0), n_rows + len(exact)
            exact -= own
            gap = own - mean
            squares = squares + np.einsum("ij,ij->j", exact, exact) + gap**2 * (n_rows * len(exact) / n_both)
            mean = mean + gap * (len(exact) / n_both)
            n_rows = n_both
            counts += np.bincount(block.codes, minlength=n_classes)
            sampler.add(block)
        return cls(n_rows, counts, mean, squares, sampler.drawn())


class _Sampler:
    """Draws a sample from blocks; few candidates are kept until there are more, because a merge copies the sample."""

    def __init__(self, n_values: int) -> None:
        self._n_values, self._candidates = n_values, 0
        self._sample: Sample | None = None
        self._parts: list[Sample] = []

    def add(self, block: RowBlock) -> None:
        """See what of a block is among the smallest draws."""
        size = max(1, self._n_values // block.rows.shape[1])
        one = Sample.of(block, size, None if self._sample is None else self._sample.bound)
        self._parts.append(one)
        self._candidates += len(one.draws)
        if self._sample is None or self._candidates > size // 4:
            self._sample, self._candidates = self.drawn(), 0

    def drawn(self) -> Sample:
        """The sample so far; DataError if there was no block."""
        parts = [*([] if self._sample is None else [self._sample]), *self._parts]
        if not parts:
            raise DataError(_NO_ROWS)
        self._parts = []
        return parts[0].joined(parts[1:])


def row_statistics(
    blocks: Given,
    classes: Sequence[str],
    *,
    seed: int = 0,
    first_row: int = 0,
    weights: Sequence[float] | None = None,
) -> RowStatistics:
    """What `RidgeHead.fit_statistics` learns from, of some of the rows; statistics of parts are added.

    Parameters
    ----------
    blocks : iterable of tuple, or function that returns one
        As in `Head.fit_blocks`; read once.
    classes : sequence of str
        All classes in order, the same for every part; a part may lack some.
    seed : int, default=0
        Of folds and sample, the same for every part.
    first_row : int, default=0
        Number of the first row among those of all parts. It decides which rows are held out and sampled.
    weights : sequence of float, optional
        Weight of a row of each class, as ``training.shares_of_classes`` gives them. Default: all rows are equal.

    Returns
    -------
    RowStatistics
        11 times n_features squared in float64, and a sample of the rows of 32 MiB. It can be pickled.

    Raises
    ------
    ShapeError, DataError, UnknownClassError
        As `Head.fit_blocks`.

    Examples
    --------
    >>> from headstart.heads.ridge import RidgeHead
    >>> shards = [[(np.full((4, 2), number, np.float32), np.repeat(name, 4))] for number, name in enumerate("ab")]
    >>> first, second = (row_statistics(one, "ab", first_row=4 * number) for number, one in enumerate(shards))
    >>> RidgeHead().fit_statistics(first + second, "ab").predict(np.ones((1, 2), np.float32)).tolist()
    ['b']
    """
    given = GivenBlocks(blocks, classes=classes, seed=seed, weights=weights, first_row=first_row)
    return RowStatistics.collected(given, given.n_classes)


def _by_fold(block: RowBlock, n_classes: int, wanted: NDArray[np.bool_]) -> Iterator[tuple[int, Moments]]:
    """Folds of the wanted rows, and the moments of each."""
    order = np.lexsort((block.codes, block.folds))
    order = order[wanted[order]]
    ends = np.searchsorted(block.folds[order], np.arange(N_FOLDS + 1))
    for fold, (first, last) in enumerate(pairwise(ends)):
        if first < last:
            here = order[first:last]
            weights = None if block.weights is None else block.weights[here]
            yield fold, Moments.of(block.rows[here], block.codes[here], n_classes, weights)


def _both(one: Moments | None, other: Moments | None) -> Moments | None:
    return one + other if one is not None and other is not None else one or other


def total(moments: Iterable[Moments | None]) -> Moments:
    """The sum of those that are there; at least one must be."""
    return reduce(add, (one for one in moments if one is not None))
