"""Leave-one-out accuracy in closed form: which images a ridge fitted without them classifies correctly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.heads.least_squares import KernelLeastSquares
from headstart.heads.training import one_hot
from headstart.records import Codes

__all__ = ["leave_one_out"]


def leave_one_out(
    kernel: NDArray[np.float64],
    codes: Codes,
    images: NDArray[np.intp],
    units: NDArray[np.intp],
    strength: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which images are classified correctly by a ridge fitted without them, their copies and duplicates; exact.

    ``kernel`` (n_rows, n_rows): products of the rows, first the n_images images, then their augmented copies.
    ``codes`` (n_rows,): class of each row. ``images`` (n_rows,): which image each row shows. ``units``
    (n_images,): images that are left out together have the same number. ``strength`` is the penalty per row.
    Returns two masks (n_images,): which images could be left out without emptying a class, and which of these
    are right.

    Leaving images out makes their class rarer among the rest, which biases the head against it. So the rest
    is weighted to keep the shares of all classes: leaving m of the n images of a class out of a fit in which
    the other classes weigh (n - m) / n does it, with one decomposition for all such units.
    """
    n_images = int(images.max()) + 1
    own, folds = codes[:n_images], units[images]
    counts, targets = np.bincount(own), one_hot(codes, int(own.max()) + 1)
    testable, right = np.zeros(n_images, np.bool_), np.zeros(n_images, np.bool_)
    units_by_size: dict[tuple[int, int], list[int]] = {}
    for unit in np.unique(units):
        members = np.flatnonzero(units == unit)
        lost = np.bincount(own[members], minlength=len(counts))
        if (lost < counts)[own[members]].all():
            testable[members] = True
            one = int(own[members[0]]) if len(np.flatnonzero(lost)) == 1 else -1  # -1: a copy in two classes
            units_by_size.setdefault((one, len(members)), []).append(int(unit))
    for (one, m), same_size in units_by_size.items():
        kept = 1.0 if one < 0 else (counts[one] - m) / counts[one]
        weights = np.where(codes == one, 1.0, kept).astype(np.float32)
        scores = KernelLeastSquares(kernel, targets, weights).left_out((strength * kept,), folds)[
            0, :n_images
        ]
        here = np.isin(units, same_size)
        right[here] = scores[here].argmax(axis=1) == own[here]
    return testable, right
