"""How far probabilities can be believed: reliability by confidence, expected calibration error, Brier.

It measures and changes nothing; the temperature is fitted elsewhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError
from headstart.evaluation.clusters import accuracy_score
from headstart.evaluation.metrics import cross_entropy
from headstart.evaluation.records import Calibration, ReliabilityBin
from headstart.records import Codes

__all__ = ["reliability"]


def reliability(
    title: str,
    probs: NDArray[np.floating],
    codes: Codes,
    n_bins: int = 10,
    *,
    together: NDArray[np.generic] | None = None,
    crossed: bool = False,
) -> Calibration:
    """Compare how sure a model was with how often it was right.

    Parameters
    ----------
    title : str
        What was measured on what, for the reader of the report.
    probs : ndarray of shape (n_images, n_classes), float
        Class probabilities; rows sum to 1 within 1e-3. The first highest column is the class called,
        its probability the confidence.
    codes : ndarray of shape (n_images,), int
        True class of each image, in ``[0, n_classes)``.
    n_bins : int, default=10
        Bins of equal width over ``(0, 1]``, 1 or more.
    together : ndarray of shape (n_images,), str or int, optional
        Images with the same entry depend on each other, and intervals count that.
    crossed : bool, default=False
        The probabilities are those of models that share training images.

    Returns
    -------
    Calibration
        Bins that hold no image are left out; the accuracy of the others has a 95 % interval.

    Raises
    ------
    ShapeError
        If ``probs`` is not 2-D, is empty, or does not match ``codes``.
    SettingError
        If ``probs`` holds anything but rows of probabilities, a code has no column, or ``n_bins`` is
        below 1.

    Notes
    -----
    The expected calibration error is ``sum_b (n_b / n) |accuracy_b - confidence_b|``: only of the class
    called, and never 0 by chance: of a perfectly calibrated model it is some
    ``sqrt(2 / pi) * sum_b sqrt(n_b accuracy_b (1 - accuracy_b)) / n``, so compare it only on as many
    images and bins. The Brier score is ``sum_k (probs[i, k] - [codes[i] = k]) ** 2``, averaged over
    images: 0 for certain and right, 2 for certain and wrong. Bins keep their width however few images
    there are, so that figures of two test sets can be laid over each other.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger. On Calibration of Modern Neural Networks. ICML 2017,
    arXiv:1706.04599, section 2, equation 3.
    Brier. Verification of Forecasts Expressed in Terms of Probability. Monthly Weather Review 78, 1950,
    doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    Examples
    --------
    >>> probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    >>> found = reliability("toy", probs, np.array([0, 1, 1, 1]))
    >>> round(found.ece, 3), round(found.brier, 3), [one.accuracy.value for one in found.bins]
    (0.35, 0.51, [1.0, 1.0, 0.5])
    """
    if n_bins < 1:
        raise SettingError(f"n_bins is {n_bins!r}, expected 1 or more; leave it at 10")
    loss = cross_entropy(probs, codes)  # refuses what are no probabilities or do not match
    table, true = np.asarray(probs, dtype=np.float64), np.asarray(codes)
    right = table.argmax(axis=1) == true
    sure = np.minimum(table.max(axis=1), 1.0)
    edges = np.arange(n_bins + 1) / n_bins
    places = np.searchsorted(edges, sure, side="left") - 1  # a confidence on an edge is in the bin below
    bins = tuple(
        ReliabilityBin(
            float(edges[place]),
            float(edges[place + 1]),
            float(sure[places == place].mean()),
            accuracy_score(
                right[places == place],
                None if together is None else together[places == place],
                crossed=crossed,
            ),
        )
        for place in np.unique(places)
    )
    n_images = len(true)
    ece = sum(one.accuracy.n * abs(one.accuracy.value - one.confidence) for one in bins) / n_images
    misses = table.copy()
    misses[np.arange(n_images), true] -= 1
    brier = float((misses**2).sum(axis=1).mean())
    return Calibration(title, float(ece), brier, loss, n_images, bins)
