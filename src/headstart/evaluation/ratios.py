"""Precision, recall and F1 by class and averaged over classes, with intervals that account for clusters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from headstart.evaluation.clusters import accuracy_score
from headstart.evaluation.intervals import SHARED
from headstart.evaluation.records import ClassScore, Score
from headstart.records import Codes

__all__ = ["averages", "class_scores"]

_LEVEL = 0.95
Scores = tuple[Score, Score, Score]


def class_scores(
    true: Codes,
    predicted: Codes,
    n_classes: int,
    clusters: NDArray[np.generic] | None = None,
    *,
    crossed: bool = False,
) -> list[Scores]:
    """Precision, recall and F1 of every class with 95 % intervals.

    ``F1 = 2 J / (1 + J)``, J being the share of hits among the images that are of the class or predicted as
    it: F1 has the interval of that share, so it has a width whatever the model predicts.
    """
    # Simulated coverage of 95 % intervals of precision, recall, F1 and averages (2026-11-29, 1,000 test sets
    # each): 91 to 100 % with 2, 3 and 10 classes and 40 to 300 independent images, also if only one class is
    # predicted; in 20 clusters of 10 images, 92 to 100 % if correlated by 1, 90 to 100 % if by one half.
    codes = None if clusters is None else np.unique(clusters, return_inverse=True)[1]

    def share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Score:
        return accuracy_score(hits[among], None if codes is None else codes[among], crossed=crossed)

    found = []
    for code in range(n_classes):
        actual, chosen = true == code, predicted == code
        hits = actual & chosen
        jaccard = share(hits, actual | chosen)
        value, low, high = (2 * one / (1 + one) for one in (jaccard.value, jaccard.low, jaccard.high))
        f1 = Score(value, low, high, int(actual.sum()))
        found.append((share(hits, chosen), share(hits, actual), f1))
    return found


def averages(
    true: Codes,
    predicted: Codes,
    rows: Sequence[ClassScore],
    clusters: NDArray[np.generic] | None = None,
    *,
    crossed: bool = False,
) -> Scores:
    """Precision, recall and F1 averaged over the classes that have images, with 95 % intervals.

    Each arm of an interval is the longer of two: the arms of the classes squared and added (Zou and Donner,
    Statistics in Medicine 27, 2008, doi:10.1002/sim.3095), which has a width without any mistake, and
    Student's t on the linearised variance between clusters, which counts what the classes have in common.
    """
    n_images, present = len(true), np.unique(true)
    if not n_images:
        return (Score(0.0, 0.0, 1.0, 0),) * 3
    numbers = np.arange(n_images) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    influence = np.zeros((3, n_images))
    for code in present:
        actual, chosen = true == code, predicted == code
        hits = (actual & chosen).astype(np.float64)
        both = actual.astype(np.float64) + chosen
        row = rows[code]
        influence[0] += (hits - row.precision.value * chosen) / max(chosen.sum(), 1)
        influence[1] += (hits - row.recall.value * actual) / actual.sum()
        influence[2] += (2 * hits - row.f1.value * both) / both.sum()
    kinds = [[getattr(rows[code], name) for code in present] for name in ("precision", "recall", "f1")]
    precision, recall, f1 = (
        _average(scores, one / len(present), numbers, n_images, crossed=crossed)
        for scores, one in zip(kinds, influence, strict=True)
    )
    return precision, recall, f1


def _average(
    scores: Sequence[Score],
    influence: NDArray[np.float64],
    numbers: NDArray[np.intp],
    n_images: int,
    *,
    crossed: bool,
) -> Score:
    value = float(np.mean([one.value for one in scores]))
    totals = np.bincount(numbers, weights=influence)
    n_clusters = len(totals)
    if n_clusters == 1 and n_images > 1:
        return Score(value, 0.0, 1.0, n_images)
    variance = n_clusters / max(n_clusters - 1, 1) * float(totals @ totals) * (SHARED if crossed else 1.0)
    linear = float(stdtrit(max(n_clusters - 1, 1), 0.5 + _LEVEL / 2)) * float(np.sqrt(variance))
    down, up = (
        max(float(np.sqrt(sum(arm**2 for arm in arms))) / len(scores), linear)
        for arms in ([one.value - one.low for one in scores], [one.high - one.value for one in scores])
    )
    return Score(value, max(value - down, 0.0), min(value + up, 1.0), n_images)
