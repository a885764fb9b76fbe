"""The rows that a head learns from, and how all heads split them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.splits import fewest_per_class, folds, holdout
from headstart.errors import DataError, SettingError, ShapeError
from headstart.records import Array, Codes
from headstart.system.mapped import parts_of

__all__ = ["Training", "class_weights", "one_hot", "shares_of_classes"]

Rows = NDArray[np.intp]

_FOLDS = 500  # with at most this many clusters, each is a fold
_FOLD_ROWS = 50  # rows per fold otherwise: small folds cost little and are close to leave-one-out
_CHECKED_ROWS = 4_096  # rows that are checked together


@dataclass(frozen=True)
class Training:
    """Rows to learn from: features, classes, weights, and which rows are held out together.

    With augmentation an image has several rows, its own first. ``weights`` are 1 on average, ``images`` says
    which image each row shows, ``clusters`` which images are held out together (copies of one image, images
    of one group; None: each image alone), ``seed`` decides what is held out. DataError if a feature is not finite.
    """

    features: Array
    codes: Codes
    weights: Array
    images: Rows
    seed: int
    clusters: Rows | None = None

    def __post_init__(self) -> None:
        """No head can learn from NaN, and some would do so without an error."""
        # a mask of all rows would take a quarter of their memory
        if not all(np.isfinite(self.features[here]).all() for here in parts_of(self.features, _CHECKED_ROWS)):
            raise DataError("features are not finite, expected moderate numbers; take another layer")

    @property
    def n_classes(self) -> int:
        """Number of classes, each with a row."""
        return int(self.codes.max()) + 1

    @property
    def weighted(self) -> bool:
        """Whether the weights differ."""
        return bool(np.ptp(self.weights) > 0)

    @cached_property
    def originals(self) -> Rows:
        """The first row of each image, in the order of the images; heads are evaluated on these."""
        if (np.diff(self.images) > 0).all():  # each row another image: nothing to sort
            return np.arange(len(self.images))
        return np.unique(self.images, return_index=True)[1]

    @cached_property
    def cluster_codes(self) -> Rows:
        """Which rows are held out together, (n_rows,): those of a cluster, else those of an image."""
        return self.images if self.clusters is None else self.clusters

    @cached_property
    def smallest_class(self) -> int:
        """Number of clusters of the class with the fewest: what can be held out of it, one at a time."""
        return fewest_per_class(self.codes, self.cluster_codes)

    def split(self, share: float) -> tuple[Rows, Rows]:
        """Rows to learn from, and originals of a stratified share of the images, in whole clusters."""
        rest, held = holdout(self.codes[self.originals], share, self.seed, self._units)
        return self._rows_of(rest), self.originals[held]

    def folded(self, k: int) -> list[tuple[Rows, Rows]]:
        """The same for each of k folds; for more folds where k would hold out a whole class at once."""
        n_clusters = len(np.unique(self.cluster_codes))
        for more in range(k, n_clusters + 1):
            try:
                parts = folds(self.codes[self.originals], more, self.seed, self._units)
            except DataError:
                if more == n_clusters:
                    raise
            else:
                break
        return [(self._rows_of(rest), self.originals[held]) for rest, held in parts]

    def left_out_with(self) -> Rows | None:
        """Number of the fold that each row is left out with, (n_rows,); None: each row alone.

        Folds hold whole clusters: one each up to 500 clusters, else several, of about 50 rows at most.
        """
        n_clusters = len(np.unique(self.cluster_codes))
        if n_clusters == len(self.codes):
            return None
        return self.dealt(max(_FOLDS, len(self.codes) // _FOLD_ROWS))

    def dealt(self, k: int) -> Rows:
        """Number of one of at most k folds of each row, (n_rows,): whole clusters, dealt at random."""
        found, numbers = np.unique(self.cluster_codes, return_inverse=True)
        if k >= len(found):
            return numbers
        deal: Rows = np.random.default_rng([self.seed, 12]).permutation(len(found)) % k
        return deal[numbers]

    @property
    def _units(self) -> Rows | None:
        """The cluster of each image; None where each is alone."""
        return None if self.clusters is None else self.clusters[self.originals]

    def _rows_of(self, chosen: Rows) -> Rows:
        """All rows of these images (positions among `originals`)."""
        wanted = np.zeros(len(self.originals), np.bool_)
        wanted[chosen] = True
        return np.flatnonzero(wanted[np.unique(self.images, return_inverse=True)[1]])


def class_weights(codes: Codes, shares: Sequence[float] | None = None) -> Array:
    """Weights, 1 on average, with which every class has its share of the total; equal shares by default.

    >>> class_weights(np.array([0, 1, 1]), [0.5, 0.5]).tolist()
    [1.5, 0.75, 0.75]
    """
    return shares_of_classes(np.bincount(codes), shares)[codes]


def shares_of_classes(counts: NDArray[np.integer[Any]], shares: Sequence[float] | None = None) -> Array:
    """The weight of a row of each class, (n_classes,): see `class_weights`; ``counts`` are rows by class."""
    if shares is not None and len(shares) != len(counts):
        raise ShapeError(f"shares are {len(shares)}, expected {len(counts)}; pass one for each class")
    if shares is not None and not min(shares) > 0:
        raise SettingError(
            f"shares are {min(shares)} at the least, expected all above 0; leave the class out"
        )
    wanted = np.full(len(counts), 1 / len(counts)) if shares is None else np.asarray(shares) / np.sum(shares)
    weights: Array = (counts.sum() * wanted / counts).astype(np.float32)
    return weights


def one_hot(codes: Codes, n_classes: int) -> Array:
    """(n, n_classes) of zeros and ones."""
    return np.eye(n_classes, dtype=np.float32)[codes]
