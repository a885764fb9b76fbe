"""How well novel images are detected: area under the curve, and the share detected at a given rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.evaluation.clusters import accuracy_score
from headstart.evaluation.intervals import wilson
from headstart.evaluation.records import Detection, Score
from headstart.records import Prediction

__all__ = ["auroc", "detection"]

_Z = 1.959963984540054  # the normal quantile of 0.975
Clusters = NDArray[np.generic] | None  # (n_images,): images with the same entry depend on each other


def auroc(
    known: NDArray[np.floating],
    novel: NDArray[np.floating],
    clusters: Clusters = None,
    novel_clusters: Clusters = None,
) -> Score:
    """Chance that a novel image scores higher than a known one, with a 95 % interval; ties count half.

    Images with the same entry in ``clusters`` or ``novel_clusters`` depend on each other. DataError if there
    are no known or no novel images.

    >>> found = auroc(np.array([0.1, 0.2, 0.3, 0.6]), np.array([0.4, 0.5, 0.9]))
    >>> round(found.value, 4), found.n
    (0.8333, 7)
    """
    if not len(known) or not len(novel):
        raise DataError(
            f"there are {len(known)} known and {len(novel)} novel images, expected at least 1 of each"
        )
    # DeLong, DeLong, Clarke-Pearson. Comparing the areas under two or more correlated receiver operating
    # characteristic curves. Biometrics 44 (1988); between clusters: Obuchowski. Nonparametric Analysis of
    # Clustered ROC Curve Data. Biometrics 53 (1997). On the logit scale the interval stays within (0, 1);
    # where the two are separated completely it is Wilson's for as many clusters as the smaller side has.
    m, n = len(known), len(novel)
    above = _placements(np.asarray(novel, np.float64), np.asarray(known, np.float64))  # of each novel image
    below = 1.0 - _placements(np.asarray(known, np.float64), np.asarray(novel, np.float64))
    value = float(above.mean())
    sides = (above, novel_clusters), (below, clusters)
    fewest = min(len(one) if same is None else len(np.unique(same)) for one, same in sides)
    if fewest == 1 < min(m, n):
        return Score(value, 0.0, 1.0, m + n)
    variance = sum(_variance(one, same) for one, same in sides)
    if variance <= 0 or not 0 < value < 1:
        bound = wilson(round(value * fewest), fewest)
        return Score(value, min(bound.low, value), max(bound.high, value), m + n)
    middle, spread = np.log(value / (1 - value)), np.sqrt(variance) / (value * (1 - value))
    low, high = (1 / (1 + np.exp(-(middle + side * _Z * spread))) for side in (-1, 1))
    return Score(value, float(low), float(high), m + n)


def _variance(placements: NDArray[np.float64], clusters: Clusters) -> float:
    """Variance of a mean of placements, between clusters; 0 for one image."""
    numbers = np.arange(len(placements)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    totals = np.bincount(numbers, weights=placements - placements.mean())
    n_clusters = len(totals)
    return n_clusters / max(n_clusters - 1, 1) * float(totals @ totals) / len(placements) ** 2


def detection(
    title: str,
    known: Prediction,
    novel: Prediction,
    rate: float = 0.05,
    *,
    clusters: Clusters = None,
    novel_clusters: Clusters = None,
) -> Detection:
    """Measure how well a model's novelty, and its largest probability, separate known from novel images.

    ``rate`` is the share of known images that may be rejected where the curves are read. DataError if the
    model has no novelty.
    """
    if known.novelty is None or novel.novelty is None:
        raise DataError(
            "model has no novelty, expected one that learned from 8 images or more; make it again from more"
        )
    # the baseline: Hendrycks, Gimpel. A Baseline for Detecting Misclassified and Out-of-Distribution Examples
    # in Neural Networks. ICLR 2017, arXiv:1610.02136
    plain = [-one.probabilities.max(axis=1).astype(np.float64) for one in (known, novel)]
    same = clusters, novel_clusters
    return Detection(
        title,
        auroc(known.novelty, novel.novelty, *same),
        auroc(plain[0], plain[1], *same),
        accuracy_score(novel.novelty > 1, novel_clusters),
        accuracy_score(known.novelty > 1, clusters),
        rate,
        accuracy_score(novel.novelty > np.quantile(known.novelty, 1 - rate), novel_clusters),
        accuracy_score(plain[1] > np.quantile(plain[0], 1 - rate), novel_clusters),
    )


def _placements(ones: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of ``others`` below each of ``ones``, ties half."""
    ordered = np.sort(others)
    below, upto = (np.searchsorted(ordered, ones, side=side) for side in ("left", "right"))
    return (below + upto) / (2.0 * len(others))
