"""What a head learns from: rows of features, their classes, how much each counts, which belong together.

In: checked arrays. Out: one record with the partings that learning needs. Imports data's splits.
Must not import a network or a graph. Called by the heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headstart.data.splits import folds, holdout
from headstart.records import Array, Codes

__all__ = ["Training", "class_weights"]

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Training:
    """Rows to learn from.

    Attributes
    ----------
    features : ndarray of shape (n_rows, n_features), float32
        One row per image, or several: the image itself first, then augmented views.
    codes : ndarray of shape (n_rows,), int64
        Class of each row.
    weights : ndarray of shape (n_rows,), float32
        How much each row counts; 1 on average.
    images : ndarray of shape (n_rows,), int
        Which image each row shows; rows of one image are held out together.
    seed : int
        Decides what is held out.
    """

    features: Array
    codes: Codes
    weights: Array
    images: Rows
    seed: int

    @property
    def n_classes(self) -> int:
        """Classes, each with a row."""
        return int(self.codes.max()) + 1

    @property
    def weighted(self) -> bool:
        """Whether some rows count more than others."""
        return bool(np.ptp(self.weights) > 0)

    @cached_property
    def originals(self) -> Rows:
        """The first row of each image, in the order of the images: what a head is judged on."""
        return np.unique(self.images, return_index=True)[1]

    @property
    def has_views(self) -> bool:
        """Whether an image has more than one row."""
        return len(self.originals) < len(self.codes)

    @property
    def smallest_class(self) -> int:
        """Images of the smallest class."""
        return int(np.bincount(self.codes[self.originals]).min())

    def parted(self, share: float) -> tuple[Rows, Rows]:
        """Rows to learn from, and originals of a stratified share of the images."""
        rest, held = holdout(self.codes[self.originals], share, self.seed)
        return self._rows_of(rest), self.originals[held]

    def folded(self, k: int) -> list[tuple[Rows, Rows]]:
        """The same for each of k folds."""
        parts = folds(self.codes[self.originals], k, self.seed)
        return [(self._rows_of(rest), self.originals[held]) for rest, held in parts]

    def fold_numbers(self, k: int) -> Rows:
        """The fold of every row, (n_rows,)."""
        numbers = np.empty(len(self.originals), np.intp)
        for number, (_, held) in enumerate(folds(self.codes[self.originals], k, self.seed)):
            numbers[held] = number
        return numbers[np.unique(self.images, return_inverse=True)[1]]

    def _rows_of(self, chosen: Rows) -> Rows:
        """All rows of these images (positions among `originals`)."""
        wanted = np.zeros(len(self.originals), np.bool_)
        wanted[chosen] = True
        return np.flatnonzero(wanted[np.unique(self.images, return_inverse=True)[1]])


def class_weights(codes: Codes, shares: Sequence[float] | None = None) -> Array:
    """Weights with which every class counts as much as its share, 1 on average; alike by default.

    Examples
    --------
    >>> class_weights(np.array([0, 0, 1, 1, 1, 1])).tolist()
    [1.5, 1.5, 0.75, 0.75, 0.75, 0.75]
    >>> class_weights(np.array([0, 1, 1]), [0.5, 0.5]).tolist()
    [1.5, 0.75, 0.75]
    """
    counts = np.bincount(codes)
    wanted = np.full(len(counts), 1 / len(counts)) if shares is None else np.asarray(shares) / np.sum(shares)
    weights: Array = (len(codes) * wanted[codes] / counts[codes]).astype(np.float32)
    return weights
