"""Leave-one-out accuracy in closed form: which images a ridge fitted without them classifies correctly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.heads.least_squares import KernelLeastSquares
from headstart.heads.training import one_hot
from headstart.records import Codes

__all__ = ["left_out_right"]


def left_out_right(
    kernel: NDArray[np.float64],
    codes: Codes,
    images: NDArray[np.intp],
    units: NDArray[np.intp],
    strength: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which images a ridge names rightly that has not seen them, nor their views or copies; exact.

    Parameters
    ----------
    kernel : ndarray of shape (n_rows, n_rows), float64
        Products of the rows; the first n_images rows are the images, the others their views.
    codes : ndarray of shape (n_rows,), int64
        Class of each row.
    images : ndarray of shape (n_rows,), int
        Which image each row shows.
    units : ndarray of shape (n_images,), int
        Images that are left out together have the same number.
    strength : float
        The penalty per row.

    Returns
    -------
    judged : ndarray of shape (n_images,), bool
        False where leaving the unit out would leave a class without any image.
    right : ndarray of shape (n_images,), bool

    Notes
    -----
    What is left out makes its class rarer among the rest, and a head that heeds that answers the others.
    So the rest is weighed to keep the shares of all classes: leaving m of the n images of a class out of
    a fit in which the other classes weigh (n - m) / n does it, with one decomposition for all such units.
    """
    n_images = int(images.max()) + 1
    own, folds = codes[:n_images], units[images]
    counts, targets = np.bincount(own), one_hot(codes, int(own.max()) + 1)
    judged, right = np.zeros(n_images, np.bool_), np.zeros(n_images, np.bool_)
    alike: dict[tuple[int, int], list[int]] = {}
    for unit in np.unique(units):
        members = np.flatnonzero(units == unit)
        lost = np.bincount(own[members], minlength=len(counts))
        if (lost < counts)[own[members]].all():
            judged[members] = True
            one = int(own[members[0]]) if len(np.flatnonzero(lost)) == 1 else -1  # -1: a copy in two classes
            alike.setdefault((one, len(members)), []).append(int(unit))
    for (one, m), wanted in alike.items():
        kept = 1.0 if one < 0 else (counts[one] - m) / counts[one]
        weights = np.where(codes == one, 1.0, kept).astype(np.float32)
        scores = KernelLeastSquares(kernel, targets, weights).left_out(strength * kept, folds)[:n_images]
        here = np.isin(units, wanted)
        right[here] = scores[here].argmax(axis=1) == own[here]
    return judged, right
