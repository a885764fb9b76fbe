"""Paired comparisons on the same images: tests, intervals of differences, one verdict.

`clusters` has the variants for images that depend on each other, `spread` how far means are from the truth.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri  # scipy.stats takes a second to import

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.intervals import wilson
from headstart.evaluation.records import Difference
from headstart.evaluation.spread import Spread, of_draws

__all__ = ["agreeing", "mcnemar", "mean_difference", "paired_difference", "verdict"]

_LEVEL = 0.95


def mcnemar(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> float:
    """Two-sided mid-p that a and b, (n_images,) bool, are correct equally often.

    >>> a, b = np.array([True] * 9 + [False]), np.array([False] * 9 + [True])
    >>> round(mcnemar(a, b), 4)
    0.0117
    """
    # McNemar. Note on the sampling error of the difference between correlated proportions or percentages.
    # Psychometrika 12, 1947, doi:10.1007/BF02295996. Only images on which exactly one is correct count; under
    # the null hypothesis each is a fair coin. The mid-p counts half of the chance of the observed split: Fagerland,
    # Lydersen, Laake. The McNemar test for binary matched-pairs data: mid-p and asymptotic are better than exact
    # conditional. BMC Medical Research Methodology 13, 2013, doi:10.1186/1471-2288-13-91.
    correct_a, correct_b = _pair(correct_a, correct_b, ranks=(1,))
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    return _mid_p(only_a, only_b)


def paired_difference(
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    level: float = _LEVEL,
    overlap: float = 0.0,
) -> Difference:
    """Accuracy of a minus accuracy of b on the same images, with an interval and a p-value that agree.

    Parameters
    ----------
    correct_a, correct_b : ndarray of shape (n_images,) or (n_draws, n_images), bool
        Whether each prediction was correct, with the images in the same order. With several draws of the
        training labels, one row per draw, the same draw in the same row of both.
    level : float, default=0.95
        Confidence level of the interval, in (0, 1).
    overlap : float, default=0.0
        Share of training images that two draws have in common on average, from 0 to below 1: 0.25 for draws of 5 out
        of 20. Labels that many draws share are not drawn anew, and the interval becomes wider.

    Returns
    -------
    Difference
        In ``[-1, 1]``, positive where a is better; ``n`` is the number of images. The interval excludes 0 exactly
        if p is below ``1 - level``.

    Raises
    ------
    ShapeError
        If the two are not bool arrays of the same shape, 1-D or 2-D, without an empty axis.
    SettingError
        If ``level`` is outside (0, 1), or ``overlap`` outside [0, 1).

    Notes
    -----
    One draw: Newcombe's method 10 for the interval, McNemar's mid-p; where they disagree at the margin, the more
    cautious one counts. The target is these two models on new images.

    Several draws: images and draws are crossed, both are samples, and the target is the procedure on new labels and
    new images; see `spread.of_draws`. If no prediction varies between draws, the result is that of one draw.

    References
    ----------
    Newcombe. Improved confidence intervals for the difference between binomial proportions based on
    paired data. Statistics in Medicine 17, 1998,
    doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C.

    Examples
    --------
    >>> a = np.array([True] * 90 + [False] * 10)
    >>> b = np.array([True] * 80 + [False] * 20)
    >>> found = paired_difference(a, b)
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3), round(found.p_value, 4)
    (0.1, 0.039, 0.17, 0.001)
    """
    correct_a, correct_b = _pair(correct_a, correct_b, ranks=(1, 2))
    _check_level(level)
    if not 0 <= overlap < 1:
        raise SettingError(
            f"overlap is {overlap!r}, expected a share of at least 0 and below 1; 0 without one"
        )
    if correct_a.ndim == 1:
        return _one_draw(correct_a, correct_b, level)
    gain = correct_a.astype(np.float64) - correct_b  # (n_draws, n_images)
    if bool((gain == gain[:1]).all()):  # as one draw
        return _one_draw(correct_a[0], correct_b[0], level)
    return mean_difference(gain, of_draws(gain, overlap=overlap), level)


def mean_difference(
    gain: NDArray[np.float64], spread: Spread, level: float = _LEVEL, n_units: int | None = None
) -> Difference:
    """The mean of gains, (n_rounds, n_images), with the interval and p-value of its spread.

    The error is at least that of a share of predictions as large as the mean gain: of few images on which the two
    disagree, the spread is low by chance. ``n_units`` is as how many independent images those of clusters count.
    """
    _check_level(level)
    value, n_images = float(gain.mean()), gain.shape[1]
    least = abs(value) * (1 - abs(value)) / gain.size
    if np.ptp(gain) == 0:
        least = _wilson_variance(abs(value), n_units or n_images)
    spread = replace(spread, variance=max(spread.variance, least))
    half = spread.half_width(level)
    return Difference(value, max(value - half, -1.0), min(value + half, 1.0), spread.p_value(value), n_images)


def agreeing(found: Difference, level: float) -> Difference:
    """Interval and p-value made to agree: where one of them says that there may be no difference, both do."""
    if found.low <= 0 <= found.high:
        return replace(found, p_value=max(found.p_value, 1 - level))
    if found.p_value >= 1 - level:
        return replace(found, low=min(found.low, 0.0), high=max(found.high, 0.0))
    return found


def verdict(difference: Difference, margin: float = 0.0) -> str:
    """Result of a comparison in one phrase, read off its interval.

    Parameters
    ----------
    difference : Difference
        Accuracy of the strategy minus accuracy of the control.
    margin : float, default=0.0
        Largest difference, as a share, that counts as practically none.

    Returns
    -------
    str
        ``helps`` or ``hurts`` if the interval excludes 0; else ``practically equal`` if it is inside the margin (two
        one-sided tests: Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987), or ``cannot tell apart``.

    Raises
    ------
    SettingError
        If the margin is outside [0, 1).

    Examples
    --------
    >>> verdict(Difference(0.05, 0.02, 0.08, 0.001, 1000))
    'helps'
    >>> verdict(Difference(0.05, -0.02, 0.12, 0.2, 100))
    'cannot tell apart'
    >>> verdict(Difference(0.001, -0.004, 0.006, 0.7, 9000), margin=0.01)
    'practically equal'
    """
    if not 0 <= margin < 1:
        raise SettingError(
            f"margin is {margin!r}, expected a share of at least 0 and below 1; 0.01 is one point"
        )
    if difference.low > 0:
        return "helps"
    if difference.high < 0:
        return "hurts"
    inside = margin > 0 and -margin <= difference.low and difference.high <= margin
    return "practically equal" if inside else "cannot tell apart"


def _wilson_variance(share: float, n_images: int) -> float:
    """Variance of a share of images that is never 0: from the longer arm of Wilson's interval."""
    score = wilson(share * n_images, n_images, _LEVEL)
    return float((max(share - score.low, score.high - share) / ndtri(0.5 + _LEVEL / 2)) ** 2)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise SettingError(f"level is {level!r}, expected a number between 0 and 1; pass 0.95 for 95 %")


def _one_draw(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_], level: float) -> Difference:
    """Newcombe's interval and McNemar's mid-p for one pair of models."""
    both, only_a = int((correct_a & correct_b).sum()), int((correct_a & ~correct_b).sum())
    only_b, n_images = int((correct_b & ~correct_a).sum()), len(correct_a)
    neither = n_images - both - only_a - only_b
    low, high = _newcombe(both, only_a, only_b, neither, level)
    value = (only_a - only_b) / n_images
    return agreeing(Difference(value, low, high, _mid_p(only_a, only_b), n_images), level)


def _newcombe(both: int, only_a: int, only_b: int, neither: int, level: float) -> tuple[float, float]:
    """Newcombe (1998, paired), method 10: Wilson's limits squared and added, less their correlation."""
    n = both + only_a + only_b + neither
    a, b = wilson(both + only_a, n, level), wilson(both + only_b, n, level)
    phi = _phi(both, only_a, only_b, neither)
    down, up = (a.value - a.low, b.high - b.value), (a.high - a.value, b.value - b.low)
    delta, epsilon = (np.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0)) for x, y in (down, up))
    value = (only_a - only_b) / n
    return float(max(value - delta, -1.0)), float(min(value + epsilon, 1.0))


def _phi(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Correlation of the two results, shrunk towards 0 by half an image as in method 10."""
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    excess, half = both * neither - only_a * only_b, (both + only_a + only_b + neither) / 2
    return float((excess if excess < 0 else max(excess - half, 0.0)) / np.sqrt(float(margins)))


def _mid_p(only_a: int, only_b: int) -> float:
    """Two-sided tail of a fair coin, half of the observed split's chance taken off."""
    fewer, flips = min(only_a, only_b), only_a + only_b
    if only_a == only_b:
        return 1.0
    tail, observed = bdtr(fewer, flips, 0.5), bdtr(fewer, flips, 0.5)
    observed -= bdtr(fewer - 1, flips, 0.5) if fewer else 0.0
    return float(min(1.0, 2 * tail - observed))


def _pair(
    correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_], *, ranks: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both as checked bool arrays of one shape."""
    correct_a, correct_b = np.asarray(correct_a), np.asarray(correct_b)
    wanted = "(n_images,)" if ranks == (1,) else "(n_images,) or (n_draws, n_images)"
    for name, correct in (("correct_a", correct_a), ("correct_b", correct_b)):
        if correct.ndim not in ranks or correct.size == 0 or correct.dtype != np.bool_:
            raise ShapeError(
                f"{name} has shape {correct.shape} and dtype {correct.dtype}, expected {wanted} of bool; "
                "pass predicted == labels"
            )
    if correct_a.shape != correct_b.shape:
        raise ShapeError(
            f"correct_b has shape {correct_b.shape}, expected {correct_a.shape} to match correct_a; "
            "compare on the same images in the same order"
        )
    return correct_a, correct_b
