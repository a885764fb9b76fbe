"""How reliable probabilities are: reliability by confidence, expected calibration error, Brier score."""

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
    clusters: NDArray[np.generic] | None = None,
    crossed: bool = False,
) -> Calibration:
    """Compare confidences with accuracies, in ``n_bins`` bins of equal width over (0, 1].

    ``clusters`` and ``crossed`` as in `evaluate`. ShapeError or SettingError if ``probs`` holds anything but
    rows of probabilities that match ``codes``.

    >>> probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    >>> found = reliability("toy", probs, np.array([0, 1, 1, 1]))
    >>> round(found.ece, 3), round(found.brier, 3), [one.accuracy.value for one in found.bins]
    (0.35, 0.51, [1.0, 1.0, 0.5])
    """
    if n_bins < 1:
        raise SettingError(f"n_bins is {n_bins!r}, expected 1 or more; leave it at 10")
    loss = cross_entropy(probs, codes)  # also checks both arguments
    table, true = np.asarray(probs, dtype=np.float64), np.asarray(codes)
    correct = table.argmax(axis=1) == true
    sure = np.minimum(table.max(axis=1), 1.0)
    edges = np.arange(n_bins + 1) / n_bins
    places = np.searchsorted(edges, sure, side="left") - 1  # a confidence on an edge is in the bin below
    bins = tuple(
        ReliabilityBin(
            float(edges[place]),
            float(edges[place + 1]),
            float(sure[places == place].mean()),
            accuracy_score(
                correct[places == place],
                None if clusters is None else clusters[places == place],
                crossed=crossed,
            ),
        )
        for place in np.unique(places)
    )
    # Guo, Pleiss, Sun, Weinberger. On Calibration of Modern Neural Networks. ICML 2017, arXiv:1706.04599,
    # section 2, equation 3, of the predicted class only. Never 0 by chance: a perfectly calibrated model has
    # about sqrt(2 / pi) * sum_b sqrt(n_b accuracy_b (1 - accuracy_b)) / n, so it compares only between equal
    # numbers of images and bins.
    n_images = len(true)
    ece = sum(one.accuracy.n * abs(one.accuracy.value - one.confidence) for one in bins) / n_images
    # Brier. Verification of Forecasts Expressed in Terms of Probability. Monthly Weather Review 78, 1950,
    # doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; 0 if certain and correct, 2 if certain and wrong
    misses = table.copy()
    misses[np.arange(n_images), true] -= 1
    brier = float((misses**2).sum(axis=1).mean())
    return Calibration(title, float(ece), brier, loss, n_images, bins)
