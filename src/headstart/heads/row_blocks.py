"""Training rows block by block, so that heads can learn from more rows than fit into memory.

Rows come from a matrix, which may be memory-mapped, or from blocks that a caller reads one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, SettingError, ShapeError, UnknownClassError, unknown
from headstart.heads.training import Training, shares_of_classes
from headstart.records import Array, Codes
from headstart.system.mapped import LARGE_VALUES, parts_of

__all__ = [
    "BLOCK_VALUES",
    "N_FOLDS",
    "Given",
    "GivenBlocks",
    "RowBlock",
    "RowBlocks",
    "TrainingBlocks",
    "check_counts",
    "codes_of",
    "is_large",
    "rows_for",
]

N_FOLDS = 10
"""Folds that are held out in turn; each costs a matrix of products of the features."""
_ROWS_PER_FEATURE = 8  # below, the products of the features would be as large as the rows
BLOCK_VALUES = 2**22
"""Numbers in a block of rows: 32 MiB in float64."""

Labels = NDArray[np.str_]
Given = Iterable[tuple[Any, ...]] | Callable[[], Iterable[tuple[Any, ...]]]
"""Pairs of rows and label names, or triples with cluster numbers; or a function that starts reading them."""


def is_large(n_rows: int, n_inputs: int, n_products: int | None = None) -> bool:
    """Whether rows of so many inputs are learned from block by block; products are of the inputs or of others.

    >>> is_large(60_000, 512), is_large(1_000_000, 512)
    (False, True)
    """
    return n_rows * n_inputs > LARGE_VALUES and n_rows >= _ROWS_PER_FEATURE * (n_products or n_inputs)


@dataclass(frozen=True)
class RowBlock:
    """Some rows (n, n_features) float32 with their classes and weights.

    ``folds`` in 0 to ``N_FOLDS - 1`` say what is held out together, ``clusters`` why; ``draws``, uint64, are random
    and decide which rows are sampled; ``judged`` is false for augmented copies, which are learned from only.
    """

    rows: Array
    codes: Codes
    weights: NDArray[np.floating[Any]] | None
    folds: NDArray[np.integer[Any]]
    clusters: NDArray[np.integer[Any]]
    draws: NDArray[np.uint64]
    judged: NDArray[np.bool_] | None = None

    @property
    def evaluated(self) -> NDArray[np.bool_]:
        """Which rows are evaluated when they are held out, (n,)."""
        return np.ones(len(self.rows), np.bool_) if self.judged is None else self.judged

    def part(self, rows: NDArray[np.intp]) -> RowBlock:
        """Copies of some rows, in this order."""
        return RowBlock(
            self.rows[rows],
            self.codes[rows],
            None if self.weights is None else self.weights[rows],
            self.folds[rows],
            self.clusters[rows],
            self.draws[rows],
            None if self.judged is None else self.judged[rows],
        )


class RowBlocks(Protocol):
    """What a head learns from, block by block; every iteration starts again at the first row."""

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def seed(self) -> int:
        """Of folds and samples."""
        ...

    @property
    def weighted(self) -> bool:
        """Whether the weights of rows differ."""
        ...

    def __iter__(self) -> Iterator[RowBlock]: ...


class TrainingBlocks:
    """The blocks of a training set; pages of a mapped file are released after they were read.

    With ``width``, blocks have so few rows that as many with this number of inputs are small, too.
    """

    def __init__(self, training: Training, width: int = 0) -> None:
        self._training, self.seed = training, training.seed
        self._width = max(width, training.features.shape[1])
        self.n_classes, self.weighted = training.n_classes, training.weighted
        self._folds = training.dealt(N_FOLDS).astype(np.uint8)
        self._judged: NDArray[np.bool_] | None = None
        if len(training.originals) < len(training.codes):
            self._judged = np.zeros(len(training.codes), np.bool_)
            self._judged[training.originals] = True

    def __iter__(self) -> Iterator[RowBlock]:
        whole = self._training
        for here in parts_of(whole.features, rows_for(self._width)):
            yield RowBlock(
                whole.features[here],
                whole.codes[here],
                whole.weights[here] if self.weighted else None,
                self._folds[here],
                whole.cluster_codes[here],
                _mixed(np.arange(here.start, here.stop), self.seed),
                None if self._judged is None else self._judged[here],
            )


class GivenBlocks:
    """Blocks that a caller reads; labels and features are checked as they come.

    ``given`` is something to iterate over, or a function that starts an iteration; an iterator can be read only once.
    Without ``classes``, or where weights depend on how many images a class has, a first pass reads the labels.
    ``weights`` (n_classes,) are those of a row of each class, where they are known. ``first_row`` is the number of
    the first row among all, where others have the rows before it.
    """

    def __init__(
        self,
        given: Given,
        *,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        balance: bool = False,
        shares: Sequence[float] | None = None,
        weights: Sequence[float] | None = None,
        first_row: int = 0,
    ) -> None:
        self._given, self._first, self.seed = given, first_row, seed
        self._n_passes, self._width, self._n_rows = 0, 0, -1
        self._weights: Array | None = None if weights is None else np.asarray(weights, np.float32)
        counted = balance or shares is not None
        counts = self._counted() if classes is None or counted else {}
        self.classes = tuple(sorted(counts)) if classes is None else tuple(str(one) for one in classes)
        self.n_classes = len(self.classes)
        if self.n_classes < 2:
            raise UnknownClassError(
                f"classes are {list(self.classes)}, expected at least 2 classes with an image each; add images"
            )
        if counted:
            numbers = np.array([counts.get(name, 0) for name in self.classes])
            check_counts(numbers, self.classes)
            self._weights = shares_of_classes(numbers, None if balance else shares)
        if self._weights is not None and self._weights.shape != (self.n_classes,):
            raise ShapeError(
                f"weights have shape {self._weights.shape}, expected ({self.n_classes},); pass one for each class"
            )
        self.weighted = self._weights is not None

    def __iter__(self) -> Iterator[RowBlock]:
        order = {name: code for code, name in enumerate(self.classes)}
        first = self._first
        for given in self._passed():
            rows, labels, own = self._checked(given)
            for here in parts_of(rows, rows_for(rows.shape[1])):
                numbers = np.arange(first + here.start, first + here.stop)
                clusters = numbers if own is None else own[here]
                codes = codes_of(labels[here], order)
                yield RowBlock(
                    _finite(rows[here]),
                    codes,
                    None if self._weights is None else self._weights[codes],
                    (_mixed(clusters, self.seed + 1) % np.uint64(N_FOLDS)).astype(np.uint8),
                    clusters,
                    _mixed(numbers, self.seed),
                )
            first += len(rows)

    def _counted(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for given in self._passed():
            for name, number in zip(*np.unique(np.asarray(given[1]), return_counts=True), strict=True):
                counts[str(name)] = counts.get(str(name), 0) + int(number)
        return counts

    def _passed(self) -> Iterator[tuple[Any, ...]]:
        given = self._given() if callable(self._given) else self._given
        self._n_passes += 1
        if self._n_passes > 1 and isinstance(given, Iterator) and not callable(self._given):
            raise SettingError(
                "blocks are an iterator, which can be read once, expected a list or a function that starts reading, "
                "because they are read several times; give classes, and head ridge without balance reads them once"
            )
        n_rows = 0
        for block in given:
            if not isinstance(block, (tuple, list)) or len(block) not in (2, 3):
                raise ShapeError(
                    f"a block is a {type(block).__name__}, expected a tuple of features, labels and any clusters; "
                    "pass pairs"
                )
            yield block
            n_rows += len(block[1])
        if self._n_rows not in (-1, n_rows):
            raise DataError(
                f"blocks have {n_rows:,} rows in a second pass, expected {self._n_rows:,} as in the first; pass a "
                "function that starts reading again"
            )
        self._n_rows = n_rows

    def _checked(self, given: tuple[Any, ...]) -> tuple[Any, Labels, NDArray[np.integer[Any]] | None]:
        """Rows, labels and clusters of a block; ShapeError where they do not match."""
        rows, labels = np.asarray(given[0]), np.asarray(given[1])
        self._width = self._width or (rows.shape[1] if rows.ndim == 2 else 0)
        clusters = np.asarray(given[2]) if len(given) > 2 else None
        lengths = {len(one) for one in (labels, clusters) if one is not None}
        if rows.ndim != 2 or rows.shape[1] != self._width or not self._width or lengths != {len(rows)}:
            raise ShapeError(
                f"features of a block have shape {rows.shape}, expected ({len(labels)}, "
                f"{self._width or 'n_features'}) to match its labels and the first block; pass blocks of one matrix"
            )
        if clusters is not None and clusters.dtype.kind not in "iu":
            raise ShapeError(
                f"clusters of a block are {clusters.dtype}, expected whole numbers; number the names of groups"
            )
        return rows, labels, clusters


def rows_for(width: int) -> int:
    """Rows of a block with so many inputs: 32 MiB in float64."""
    return max(1, BLOCK_VALUES // max(width, 1))


def check_counts(counts: NDArray[np.integer[Any]], classes: Sequence[str]) -> None:
    """UnknownClassError if a class has no row."""
    if not counts.all():
        raise UnknownClassError(
            f"class {classes[int(np.argmin(counts))]!r} has no image, expected at least 2 classes with an image "
            "each; add images"
        )


def codes_of(labels: Labels, order: Mapping[str, int]) -> Codes:
    """Class of each label; UnknownClassError if one is not among the classes."""
    names, inverse = np.unique(labels, return_inverse=True)
    for name in names.tolist():
        if str(name) not in order:
            raise UnknownClassError(unknown("label", str(name), order))
    return np.array([order[str(name)] for name in names.tolist()], np.int64)[inverse]


def _finite(rows: NDArray[Any]) -> Array:
    """The rows in float32; DataError if one is not finite."""
    with np.errstate(over="ignore"):  # said below
        found: Array = np.ascontiguousarray(rows, np.float32)
    if not np.isfinite(found).all():
        raise DataError("features are not finite, expected moderate numbers; take another layer")
    return found


def _mixed(numbers: NDArray[np.integer[Any]], seed: int) -> NDArray[np.uint64]:
    """Random bits that hang on each number and the seed alone, so that blocks and their order do not count."""
    # the finalizer of SplitMix64: Steele, Lea, Flood. Fast splittable pseudorandom number generators. OOPSLA 2014
    bits = numbers.astype(np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (2 * seed + 1)) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(31))
