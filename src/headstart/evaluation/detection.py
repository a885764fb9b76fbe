"""How well novel pictures are found: area under the curve, detection at a rate, against a baseline.

In: scores of known and of novel images, larger where stranger. Out: ``records.Detection``. Imports only
errors and records of ours and its neighbours. Called by the command line and benchmarks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.evaluation.intervals import wilson
from headstart.records import Answered, Detection, Score

__all__ = ["auroc", "detection"]

_Z = 1.959963984540054


def auroc(known: NDArray[np.floating], novel: NDArray[np.floating]) -> Score:
    """The chance that a novel image scores higher than a known one; ties count half.

    Parameters
    ----------
    known, novel : ndarray of shape (n,)
        Scores, larger where stranger.

    Returns
    -------
    Score
        With DeLong's 95 % interval, on the logit scale so that it stays within (0, 1); ``n`` images in
        all. Where the two are parted wholly, the interval is that of one more image on the wrong side.

    Raises
    ------
    DataError
        If either is empty.

    References
    ----------
    DeLong, DeLong, Clarke-Pearson. Comparing the areas under two or more correlated receiver operating
    characteristic curves. Biometrics 44 (1988).

    Examples
    --------
    >>> found = auroc(np.array([0.1, 0.2, 0.3, 0.6]), np.array([0.4, 0.5, 0.9]))
    >>> round(found.value, 4), found.n
    (0.8333, 7)
    """
    if not len(known) or not len(novel):
        raise DataError(f"images number {len(known)} known and {len(novel)} novel, need some of each")
    m, n = len(known), len(novel)
    above = _placements(np.asarray(novel, np.float64), np.asarray(known, np.float64))  # of each novel image
    below = 1.0 - _placements(np.asarray(known, np.float64), np.asarray(novel, np.float64))
    value = float(above.mean())
    variance = (above.var(ddof=1) / n if n > 1 else 0.0) + (below.var(ddof=1) / m if m > 1 else 0.0)
    if variance <= 0 or not 0 < value < 1:
        bound = wilson(round(value * min(m, n)), min(m, n))
        return Score(value, min(bound.low, value), max(bound.high, value), m + n)
    middle, spread = np.log(value / (1 - value)), np.sqrt(variance) / (value * (1 - value))
    low, high = (1 / (1 + np.exp(-(middle + side * _Z * spread))) for side in (-1, 1))
    return Score(value, float(low), float(high), m + n)


def detection(title: str, known: Answered, novel: Answered, rate: float = 0.05) -> Detection:
    """Judge a model's novelty by images of its classes and images of none, and its probabilities beside it.

    Parameters
    ----------
    title : str
        What was measured on what.
    known, novel : Answered
        The model's answers to either.
    rate : float, default=0.05
        Share of the known images that may be refused when the curves are read.

    Returns
    -------
    Detection
        Shares have Wilson's 95 % intervals.

    Raises
    ------
    DataError
        If the model has no novelty, or there are no images.

    References
    ----------
    Hendrycks, Gimpel. A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
    Networks. ICLR 2017, arXiv:1610.02136: the largest probability.
    """
    if known.novelty is None or novel.novelty is None:
        raise DataError(
            "model has no novelty, need one that learnt from 8 images or more; teach it again with more"
        )
    plain = [-one.probabilities.max(axis=1).astype(np.float64) for one in (known, novel)]
    return Detection(
        title,
        auroc(known.novelty, novel.novelty),
        auroc(*plain),
        _share(novel.novelty > 1),
        _share(known.novelty > 1),
        rate,
        _share(novel.novelty > np.quantile(known.novelty, 1 - rate)),
        _share(plain[1] > np.quantile(plain[0], 1 - rate)),
    )


def _share(found: NDArray[np.bool_]) -> Score:
    return wilson(int(found.sum()), len(found))


def _placements(ones: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each of ``ones`` the share of ``others`` below it, ties half."""
    ordered = np.sort(others)
    below, upto = (np.searchsorted(ordered, ones, side=side) for side in ("left", "right"))
    return (below + upto) / (2.0 * len(others))
