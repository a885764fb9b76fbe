"""Intervals for proportions and for F1: how far a number can be trusted.

In: counts of successes, a confusion matrix. Out: ``records.Score``.
Imports only errors and records of ours; owns SciPy's normal quantile. Called by metrics, compare and
studies.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from headstart.errors import SettingError, ShapeError
from headstart.records import Score

__all__ = ["N_DRAWS", "SHARED", "bootstrap_f1", "bootstrap_macro", "cross_validated", "wilson"]

SHARED = 1.5
"""Images of a cross-validation that tell as much as one independent image."""

N_DRAWS = 2000
"""Bootstrap draws behind every interval of F1."""


def wilson(successes: float, n: float, level: float = 0.95) -> Score:
    """Wilson's score interval for a proportion.

    Parameters
    ----------
    successes : float
        How many of ``n`` succeeded, in ``[0, n]``. May be fractional: the mean count over several
        draws of the training labels.
    n : float
        Trials, 0 or more; fractional where trials depend on each other and count for less.
    level : float, default=0.95
        Confidence level, above 0 and below 1.

    Returns
    -------
    Score
        ``successes / n`` with its interval, in ``[0, 1]``. Without trials the value is 0.0 by
        convention and the interval all of ``[0, 1]``: nothing is known.

    Raises
    ------
    SettingError
        If ``n`` is negative, ``successes`` is outside ``[0, n]`` or ``level`` is outside (0, 1).

    References
    ----------
    Wilson. Probable Inference, the Law of Succession, and Statistical Inference. Journal of the
    American Statistical Association 22, 1927, doi:10.1080/01621459.1927.10502953.
    Newcombe. Two-sided confidence intervals for the single proportion: comparison of seven methods.
    Statistics in Medicine 17, 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E.

    Examples
    --------
    >>> score = wilson(81, 263)
    >>> round(score.value, 4), round(score.low, 4), round(score.high, 4), score.n
    (0.308, 0.2553, 0.3662, 263)
    >>> wilson(0, 0)
    Score(value=0.0, low=0.0, high=1.0, n=0)
    """
    if n < 0:
        raise SettingError(f"n is {n!r}, need 0 or more; pass the number of images")
    if not 0 <= successes <= n:
        raise SettingError(
            f"successes is {successes!r}, need a number from 0 to n = {n}; pass a count, not a share"
        )
    if not 0 < level < 1:
        raise SettingError(f"level is {level!r}, need a number between 0 and 1; pass 0.95 for 95 %")
    if n == 0:
        return Score(0.0, 0.0, 1.0, 0)
    share = successes / n
    z2 = float(ndtri(0.5 + level / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n) / (1 + z2 / n)
    # the exact ends are 0 and 1 there; rounding must not move them inside the estimate
    low = 0.0 if successes == 0 else float(max(centre - half, 0.0))
    high = 1.0 if successes == n else float(min(centre + half, 1.0))
    return Score(float(share), low, high, int(n))


def cross_validated(share: float, n: int, level: float = 0.95) -> Score:
    """Interval for the accuracy of cross-validated answers, pooled over folds.

    Parameters
    ----------
    share : float
        Answers that were right, in ``[0, 1]``.
    n : int
        Images, each answered once.
    level : float, default=0.95
        Confidence level, above 0 and below 1.

    Returns
    -------
    Score
        Wilson's interval for two thirds as many independent images; ``n`` is the number of images.

    Raises
    ------
    SettingError
        As `wilson`.

    Notes
    -----
    The models of the folds share most of the images that they learn from, so their answers depend on each
    other, and Wilson's own interval is too narrow: of 60 coin-toss labelings and of 60 real samples of 80
    photos, selection nested in 10 folds, it held the truth in 90 %; with two thirds of the images in 95 %
    (2026-11-29, docs/decisions/0014).

    References
    ----------
    Bates, Hastie, Tibshirani. Cross-validation: what does it estimate and how well does it do it? Journal
    of the American Statistical Association 119 (2024), arXiv:2104.00673.

    Examples
    --------
    >>> found, plain = cross_validated(0.5, 80), wilson(40, 80)
    >>> found.n, found.low < plain.low, round(found.high, 3)
    (80, True, 0.63)
    """
    counted = n / SHARED
    return replace(wilson(share * counted, counted, level), value=share, n=n)


def bootstrap_f1(confusion: NDArray[np.int64], seed: int = 0, level: float = 0.95) -> tuple[Score, ...]:
    """F1 of every class with a bootstrap interval, stratified by true class.

    Parameters
    ----------
    confusion : ndarray of shape (n_classes, n_classes), int64
        ``confusion[i, j]`` counts images of class i that were called class j.
    seed : int, default=0
        Of the resampling.
    level : float, default=0.95
        Confidence level of the percentile interval, above 0 and below 1.

    Returns
    -------
    tuple of Score
        One per class, in order; ``n`` is the number of images of that class. A class that neither
        occurs nor is called has F1 0.0 with the interval ``[0, 1]``.

    Raises
    ------
    ShapeError
        If ``confusion`` is not a square matrix of counts.
    SettingError
        If ``level`` is outside (0, 1).

    Notes
    -----
    Resampling the images of one true class is one multinomial over its row, so ``N_DRAWS`` resamples
    cost O(N_DRAWS * non-zero cells) however many images there are. A class without a mistake, or
    never right, gives the same F1 in every resample, and a bootstrap interval of no width; there the
    interval is Wilson's for ``J = TP / (TP + FP + FN)``, carried over by ``F1 = 2 J / (1 + J)``.

    References
    ----------
    Efron and Tibshirani. An Introduction to the Bootstrap. Chapman and Hall 1993, section 13.3.

    Examples
    --------
    >>> first, second = bootstrap_f1(np.array([[45, 5], [10, 40]]))
    >>> round(first.value, 3), first.low < first.value < first.high, first.n
    (0.857, True, 50)
    """
    counts = _checked(confusion, level)
    hits, called = _resampled(counts, np.random.default_rng(seed))
    draws = 2 * hits / np.maximum(called + counts.sum(axis=1), 1)
    ends = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return tuple(
        _f1_score(counts, i, (float(low), float(high)), level) for i, (low, high) in enumerate(ends.T)
    )


def bootstrap_macro(
    confusion: NDArray[np.int64], seed: int = 0, level: float = 0.95
) -> tuple[Score, Score, Score]:
    """Precision, recall and F1 averaged over the classes that have images, each class counting the same.

    Parameters
    ----------
    confusion : ndarray of shape (n_classes, n_classes), int64
        ``confusion[i, j]`` counts images of class i that were called class j.
    seed : int, default=0
        Of the resampling.
    level : float, default=0.95
        Confidence level of the percentile interval, above 0 and below 1.

    Returns
    -------
    precision, recall, f1 : Score
        ``n`` is the number of images. A class without images is left out, but images that were wrongly called
        it still count against their own classes. Without any image the values are 0.0 and the intervals
        ``[0, 1]``.

    Raises
    ------
    ShapeError
        If ``confusion`` is not a square matrix of counts.
    SettingError
        If ``level`` is outside (0, 1).

    Notes
    -----
    Resampled as in `bootstrap_f1`. Where all resamples agree (no mistake at all) an end of the interval is
    the mean of the classes' own ends, which is wider than needed rather than too narrow.

    Examples
    --------
    >>> precision, recall, f1 = bootstrap_macro(np.array([[45, 5, 0], [10, 40, 0], [0, 0, 0]]))
    >>> round(recall.value, 2), recall.low < 0.85 < recall.high, recall.n
    (0.85, True, 100)
    """
    counts = _checked(confusion, level)
    n_images, here = int(counts.sum()), counts.sum(axis=1) > 0
    if not n_images:
        return (Score(0.0, 0.0, 1.0, 0),) * 3
    actual, called = counts.sum(axis=1)[here], counts.sum(axis=0)[here]
    right = np.diagonal(counts)[here]
    hits, drawn = (values[:, here] for values in _resampled(counts, np.random.default_rng(seed)))
    f1 = bootstrap_f1(counts, seed, level)
    parts = [
        (right / np.maximum(called, 1), hits / np.maximum(drawn, 1), _wilsons(right, called, level)),
        (right / actual, hits / actual, _wilsons(right, actual, level)),
        (2 * right / (called + actual), 2 * hits / (drawn + actual), [f1[i] for i in np.flatnonzero(here)]),
    ]
    return tuple(_macro_score(*part, n_images, level) for part in parts)  # type: ignore[return-value]


def _wilsons(right: NDArray[np.int64], of: NDArray[np.int64], level: float) -> list[Score]:
    return [wilson(int(one), int(n), level) for one, n in zip(right, of, strict=True)]


def _macro_score(
    values: NDArray[np.float64],
    draws: NDArray[np.float64],
    scores: list[Score],
    n_images: int,
    level: float,
) -> Score:
    """The mean over classes with the percentiles of its resamples, or the classes' own ends."""
    value, means = float(values.mean()), draws.mean(axis=1)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    if means.min() == means.max():
        low, high = np.mean([one.low for one in scores]), np.mean([one.high for one in scores])
    return Score(value, float(min(low, value)), float(max(high, value)), n_images)


def _checked(confusion: NDArray[np.int64], level: float) -> NDArray[np.int64]:
    """A square matrix of counts."""
    counts = np.asarray(confusion)
    square = counts.ndim == 2 and counts.size > 0 and counts.shape[0] == counts.shape[1]
    if not square or not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0:
        raise ShapeError(
            f"confusion has shape {counts.shape} and dtype {counts.dtype}, need (n_classes, n_classes) "
            "of counts; make it with: confusion(labels, predicted, n_classes)"
        )
    if not 0 < level < 1:
        raise SettingError(f"level is {level!r}, need a number between 0 and 1; pass 0.95 for 95 %")
    return counts


def _resampled(
    counts: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right answers and calls by resample and class, each (N_DRAWS, n_classes)."""
    hits = np.zeros((N_DRAWS, len(counts)))
    called = np.zeros((N_DRAWS, len(counts)))
    actual = counts.sum(axis=1)
    for true, row in enumerate(counts):
        filled = np.flatnonzero(row)
        if filled.size == 0:
            continue
        drawn = rng.multinomial(actual[true], row[filled] / actual[true], size=N_DRAWS)
        called[:, filled] += drawn
        hits[:, true] = drawn[:, filled == true].sum(axis=1)
    return hits, called


def _f1_score(counts: NDArray[np.int64], index: int, ends: tuple[float, float], level: float) -> Score:
    """F1 of one class with the ends of its resamples, or Wilson's where they say nothing."""
    low, high = ends
    hits, actual = int(counts[index, index]), int(counts[index].sum())
    union = actual + int(counts[:, index].sum()) - hits
    value = 2 * hits / max(union + hits, 1)
    if hits in (0, union):
        shared = wilson(hits, union, level)
        low, high = 2 * shared.low / (1 + shared.low), 2 * shared.high / (1 + shared.high)
    return Score(value, min(low, value), max(high, value), actual)
