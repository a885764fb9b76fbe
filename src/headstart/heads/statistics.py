"""What least squares must know of rows, whose size does not grow with their number.

Counts, means and products of features, by fold; and a random sample of the rows. Statistics of parts of the rows add
up to those of all, so that blocks, files and processes may each make their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, ShapeError
from headstart.heads.moments import GatheredMoments, Moments, total
from headstart.heads.row_blocks import N_FOLDS, Given, GivenBlocks, RowBlock
from headstart.heads.scaling import Scaling
from headstart.heads.training import Training
from headstart.records import Array, Codes

__all__ = ["RowStatistics", "Sample", "Survey", "row_statistics"]

Exact = NDArray[np.float64]

_NO_ROWS = "blocks have no rows, expected at least one image of two classes; pass blocks with rows"
_SAMPLE_VALUES = 2**23  # 32 MiB: of 512 features 16,384 rows
_WIDE_SAMPLE_VALUES = 2**25  # of more than 1,024 features, whose products are larger
_Group = tuple[int, bool]  # fold, and whether rows are evaluated
_ByFold = tuple[Moments | None, ...]
_ALWAYS = (-1, False)
# three of ten folds are held out of so many rows with so many inputs: of 5,120 each fold costs 200 MiB and a
# decomposition of 10 s, and three tenths of the rows are enough to select one strength
_WIDE, _MANY, _MANY_OF_EACH, _FEW_FOLDS = 1_024, 10_000, 100, 3


@dataclass(frozen=True)
class Sample:
    """At most ``size`` rows, drawn in proportion to their weights: those with the smallest draws.

    A draw is a random number in [0, 1) divided by the weight, so that parts merge in any order, and rare classes of
    balanced rows are not lost (Duffield, Lund, Thorup. Priority Sampling for Estimation of Arbitrary Subset Sums.
    Journal of the ACM 54, 2007).
    """

    size: int
    rows: Array
    codes: Codes
    weights: Exact
    folds: NDArray[np.intp]
    clusters: NDArray[np.intp]
    draws: Exact

    @classmethod
    def of(cls, block: RowBlock, size: int, below: float | None = None) -> Sample:
        """From the rows of a block that are evaluated; only draws below a bound can be among the smallest."""
        weights = np.ones(len(block.rows)) if block.weights is None else block.weights.astype(np.float64)
        draws = block.draws / 2.0**64 / weights
        wanted = block.evaluated if below is None else block.evaluated & (draws < below)
        here = np.flatnonzero(wanted)
        here = here[np.argsort(draws[here], kind="stable")[:size]]
        return cls(
            size,
            np.array(block.rows[here], np.float32),
            block.codes[here],
            weights[here],
            block.folds[here].astype(np.intp),
            block.clusters[here].astype(np.intp),
            draws[here],
        )

    @property
    def bound(self) -> float | None:
        """The largest draw of a full sample; None while it is not full."""
        return float(self.draws[-1]) if len(self.draws) == self.size else None

    @property
    def represented(self) -> Exact:
        """The weight that each row stands for, 1 on average; of all rows where they are all in the sample."""
        found = self.weights if self.bound is None else np.maximum(self.weights, 1.0 / self.bound)
        return np.asarray(found / found.mean())

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
        weights, clusters = self.represented[kept].astype(np.float32), self.clusters[kept]
        return Training(self.rows[kept], codes, weights, np.arange(len(codes)), seed, clusters)

    def standardised(self, standardise: Scaling) -> Sample:
        """With rows after a scaling."""
        return replace(self, rows=standardise(self.rows))


@dataclass(frozen=True)
class RowStatistics:
    """What a ridge fit must know of rows: their moments by fold, and a sample of them.

    ``judged`` are those of the rows that are evaluated when their fold is held out, ``copies`` those of augmented
    copies of their images; None where a fold has none. ``always`` are those of the folds that are never held out:
    most, from 10,000 rows with more than 1,024 features on, 100 of each class. ``counts`` are rows by class,
    (n_classes,).
    """

    counts: NDArray[np.int64]
    judged: _ByFold
    copies: _ByFold
    always: Moments | None
    sample: Sample

    @classmethod
    def collected(cls, blocks: Iterable[RowBlock], n_classes: int) -> RowStatistics:
        """Of all blocks, one after the other; DataError if there are none."""
        counts, sampler = np.zeros(n_classes, np.int64), _Sampler(_SAMPLE_VALUES)
        groups = _Groups(n_classes)
        for block in blocks:
            counts += np.bincount(block.codes, minlength=n_classes)
            groups.add(block, counts)
            sampler.add(block)
        return cls(counts, *groups.moments(), sampler.drawn())

    def whole(self) -> Moments:
        """Of all rows."""
        return total([*self.judged, *self.copies, self.always])

    def without(self, fold: int) -> Moments:
        """Of the rows that are not in a fold: summed, not subtracted from the whole, which would cost digits."""
        parts = [one for some in (self.judged, self.copies) for at, one in enumerate(some) if at != fold]
        return total([*parts, self.always])

    def classes_only_in(self, fold: int) -> NDArray[np.bool_]:
        """Which classes have no row outside a fold, (n_classes,)."""
        parts = [one for some in (self.judged, self.copies) for at, one in enumerate(some) if at != fold]
        learned = [one.class_weights > 0 for one in (*parts, self.always) if one is not None]
        return ~np.any(learned, axis=0) if learned else np.ones(len(self.counts), np.bool_)

    def __add__(self, other: RowStatistics) -> RowStatistics:
        """Of the rows of both."""
        if len(self.counts) != len(other.counts):
            raise ShapeError(
                f"statistics are of {len(self.counts)} classes, expected {len(other.counts)} as in the others; make "
                "all of them with the same classes"
            )
        both = RowStatistics(
            self.counts + other.counts,
            tuple(map(_both, self.judged, other.judged)),
            tuple(map(_both, self.copies, other.copies)),
            _both(self.always, other.always),
            self.sample + other.sample,
        )
        there = [fold for fold, one in enumerate(both.judged) if one is not None]
        return both._narrowed() if _few_are_enough(both.counts, both.sample.rows.shape[1], there) else both

    def _narrowed(self) -> RowStatistics:
        """With the few folds that are held out of many rows with many inputs."""
        rest = [*self.judged[_FEW_FOLDS:], *self.copies[_FEW_FOLDS:], self.always]
        none = (None,) * (N_FOLDS - _FEW_FOLDS)
        always = total(rest) if any(rest) else None
        return replace(
            self,
            judged=self.judged[:_FEW_FOLDS] + none,
            copies=self.copies[:_FEW_FOLDS] + none,
            always=always,
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
        width = block.rows.shape[1]
        size = max(
            1, (max(_WIDE_SAMPLE_VALUES, self._n_values) if width > _WIDE else self._n_values) // width
        )
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
        11 times n_features squared in float64, 4 times from 10,000 rows with more than 1,024 features on, 100 of each
        class, and a sample of the rows of 32 or 128 MiB. It can be pickled.

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


class _Groups:
    """Moments by fold and by whether rows are evaluated; of rows that are never held out in one."""

    def __init__(self, n_classes: int) -> None:
        self._groups: dict[_Group, GatheredMoments] = defaultdict(lambda: GatheredMoments(n_classes))
        self._n_folds = N_FOLDS

    def add(self, block: RowBlock, counts: NDArray[np.int64]) -> None:
        """All rows of a block; ``counts`` are the rows of each class so far."""
        found = {_ALWAYS: block.folds >= self._n_folds}
        for fold in range(self._n_folds):
            inside = block.folds == fold
            found |= {(fold, True): inside & block.evaluated, (fold, False): inside & ~block.evaluated}
        for group, rows in found.items():
            if rows.any():
                self._groups[group].add(block, np.flatnonzero(rows))
        there = [fold for fold, evaluated in self._groups if evaluated]
        if self._n_folds > _FEW_FOLDS and _few_are_enough(counts, block.rows.shape[1], there):
            self._n_folds = _FEW_FOLDS
            for group in [one for one in self._groups if one[0] >= _FEW_FOLDS]:
                self._groups[_ALWAYS].join(self._groups.pop(group))

    def moments(self) -> tuple[_ByFold, _ByFold, Moments | None]:
        """Of the rows evaluated, of their copies, and of those never held out."""
        found = {group: one.moments() for group, one in self._groups.items()}
        judged, copies = (tuple(found.get((fold, one)) for fold in range(N_FOLDS)) for one in (True, False))
        return judged, copies, found.get(_ALWAYS)


def _few_are_enough(counts: NDArray[np.int64], n_inputs: int, there: Sequence[int]) -> bool:
    """Whether three folds decide as well as ten: of these rows by class, with rows to evaluate in these folds."""
    many = int(counts.sum()) >= _MANY and int(counts.min()) >= _MANY_OF_EACH
    return n_inputs > _WIDE and many and set(range(_FEW_FOLDS)) <= set(there)


def _both(one: Moments | None, other: Moments | None) -> Moments | None:
    return one + other if one is not None and other is not None else one or other
