"""Paired comparisons on the same images: exact tests, intervals of differences, one verdict.

`clusters` has the variants for images that depend on each other, `resampled` those for cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri, stdtr, stdtrit  # scipy.stats takes a second to import

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.intervals import wilson
from headstart.evaluation.records import Difference

__all__ = ["holm", "mcnemar", "paired_difference", "redrawn_difference", "verdict"]

_LEVEL = 0.95


def mcnemar(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> float:
    """Exact two-sided p-value that a and b, (n_images,) bool, are correct equally often.

    >>> a, b = np.array([True] * 9 + [False]), np.array([False] * 9 + [True])
    >>> round(mcnemar(a, b), 4)
    0.0215
    """
    # McNemar. Note on the sampling error of the difference between correlated proportions or percentages.
    # Psychometrika 12, 1947, doi:10.1007/BF02295996. Only images on which exactly one is correct count; under
    # the null hypothesis each is a fair coin.
    correct_a, correct_b = _pair(correct_a, correct_b, ranks=(1,))
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    return _exact(only_a, only_b)


def paired_difference(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> Difference:
    """Accuracy of a minus accuracy of b on the same images, with a 95 % interval and a p-value.

    Parameters
    ----------
    correct_a, correct_b : ndarray of shape (n_images,) or (n_draws, n_images), bool
        Whether each prediction was correct, with the images in the same order. With several draws of the
        training labels, one row per draw, the same draw in the same row of both.

    Returns
    -------
    Difference
        In ``[-1, 1]``, positive where a is better; ``n`` is the number of images.

    Raises
    ------
    ShapeError
        If the two are not bool arrays of the same shape, 1-D or 2-D, without an empty axis.

    Notes
    -----
    One draw: Newcombe's method 10 for the interval, exact McNemar for the p-value. The result is about these
    two models, and interval and p-value can disagree at the margin.

    Several draws: images and draws are crossed, both are samples, and the result is about the procedure. The
    variance of the mean is ``s2_images / n_images + s2_draws / n_draws`` (variances of the difference
    averaged over the other axis), and at least the variance of single predictions over their number; the
    quantile is Student's t with ``n_draws - 1`` degrees of freedom. This counts the noise of single
    predictions twice and lets the few draws decide the quantile, so it is conservative. If nothing varies
    at all, the result is that of one draw.

    References
    ----------
    Newcombe. Improved confidence intervals for the difference between binomial proportions based on
    paired data. Statistics in Medicine 17, 1998,
    doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C.
    Owen. The pigeonhole bootstrap. Annals of Applied Statistics 1, 2007, arXiv:0712.1111 (why both
    axes count when they are crossed).

    Examples
    --------
    >>> a = np.array([True] * 90 + [False] * 10)
    >>> b = np.array([True] * 80 + [False] * 20)
    >>> found = paired_difference(a, b)
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3), round(found.p_value, 4)
    (0.1, 0.039, 0.17, 0.002)
    """
    correct_a, correct_b = _pair(correct_a, correct_b, ranks=(1, 2))
    if correct_a.ndim == 1:
        return _one_draw(correct_a, correct_b)
    if len(correct_a) == 1:
        return _one_draw(correct_a[0], correct_b[0])
    gain = correct_a.astype(np.float64) - correct_b  # (n_draws, n_images)
    if np.ptp(gain) == 0:
        return _one_draw(correct_a[0], correct_b[0])
    n_draws, n_images = gain.shape
    error = _crossed_error(gain)
    value, half = float(gain.mean()), error * float(stdtrit(n_draws - 1, 0.5 + _LEVEL / 2))
    p_value = float(2 * stdtr(n_draws - 1, -abs(value) / error))
    return Difference(value, max(value - half, -1.0), min(value + half, 1.0), p_value, n_images)


def redrawn_difference(differences: Sequence[Difference], overall: Difference) -> Difference:
    """Mean of the differences from every draw of a control, with an interval that holds for one more draw.

    ``overall`` is the difference over all draws together. A control such as a random network is one draw of
    many, and the question is whether the strategy could be another such draw.

    >>> one, other = Difference(0.12, 0.07, 0.17, 1e-5, 400), Difference(0.08, 0.03, 0.13, 0.002, 400)
    >>> found = redrawn_difference([one, other], Difference(0.1, 0.06, 0.14, 1e-5, 400))
    >>> round(found.value, 3), round(found.low, 2), round(found.high, 2)
    (0.1, -0.09, 0.29)
    """
    if not differences:
        raise ShapeError("differences are 0, expected at least 1; pass one for every draw")
    # Two variances add up: that of the mean difference on these images, bounded from above by the variance of
    # one draw's difference, on average, and by that of `overall`, the smaller of them; and that between draws,
    # once for the strategy and 1 / n_draws for the mean of the control. Where a draw is of labels too, both
    # learn from the same labels, so their difficulty cancels. The second variance is estimated from few
    # draws, so the sum is read on Student's t with Satterthwaite's degrees of freedom (An Approximate
    # Distribution of Estimates of Variance Components. Biometrics Bulletin 2, 1946, doi:10.2307/3002019).
    n_draws, gains = len(differences), [one.value for one in differences]
    between = float(np.var(gains, ddof=1)) * (1 + 1 / n_draws) if n_draws > 1 else 0.0
    if between == 0:
        return differences[0] if n_draws == 1 else _averaged(differences)
    own = min(float(np.mean([_variance(one) for one in differences])), _variance(overall))
    freedom = (own + between) ** 2 / (between**2 / (n_draws - 1))
    value, error = float(np.mean(gains)), float(np.sqrt(own + between))
    half = error * float(stdtrit(freedom, 0.5 + _LEVEL / 2))
    p_value = float(2 * stdtr(freedom, -abs(value) / error))
    return Difference(value, max(value - half, -1.0), min(value + half, 1.0), p_value, differences[0].n)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values for multiple testing by Holm's step-down method; in the given order, may be empty.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    # Holm. A Simple Sequentially Rejective Multiple Test Procedure. Scandinavian Journal of Statistics 6,
    # 1979, JSTOR 4615733: the chance of any false positive stays at alpha or below, however the tests depend
    # on each other.
    raw = np.asarray(p_values, dtype=np.float64)
    if raw.size and not (raw.min() >= 0 and raw.max() <= 1):
        raise SettingError(
            f"p_values is {list(p_values)!r}, expected numbers from 0 to 1; leave out tests that were not made"
        )
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(stepped, 1.0)
    return tuple(float(p) for p in adjusted)


def verdict(difference: Difference, p_adjusted: float, alpha: float = 0.05) -> str:
    """Result of a comparison in one phrase: ``helps``, ``hurts`` or ``cannot tell apart``.

    Parameters
    ----------
    difference : Difference
        Accuracy of the strategy minus accuracy of the control.
    p_adjusted : float
        Its p-value after Holm's adjustment, in ``[0, 1]``.
    alpha : float, default=0.05
        Accepted chance of any false positive in the whole study.

    Returns
    -------
    str
        ``helps``, ``hurts`` or ``cannot tell apart``.

    Raises
    ------
    SettingError
        If ``p_adjusted`` is outside ``[0, 1]`` or NaN.

    Examples
    --------
    >>> verdict(Difference(0.05, 0.02, 0.08, 0.001, 1000), 0.004)
    'helps'
    >>> verdict(Difference(0.05, -0.02, 0.12, 0.2, 100), 0.8)
    'cannot tell apart'
    """
    if not 0 <= p_adjusted <= 1:
        raise SettingError(
            f"p_adjusted is {p_adjusted!r}, expected a number from 0 to 1; pass what holm gave"
        )
    if p_adjusted >= alpha or difference.value == 0:
        return "cannot tell apart"
    return "helps" if difference.value > 0 else "hurts"


def _variance(difference: Difference) -> float:
    """Variance that the width of an interval implies for a normal distribution; never too small."""
    return float(((difference.high - difference.low) / 2 / ndtri(0.5 + _LEVEL / 2)) ** 2)


def _averaged(differences: Sequence[Difference]) -> Difference:
    """Mean of several differences, with the widest interval and the largest p-value among them."""
    value = float(np.mean([one.value for one in differences]))
    low, high = min(one.low for one in differences), max(one.high for one in differences)
    return Difference(value, low, high, max(one.p_value for one in differences), differences[0].n)


def _crossed_error(gain: NDArray[np.float64]) -> float:
    """Standard error of the mean where images and draws are both samples."""
    n_draws, n_images = gain.shape
    by_image = float(gain.mean(axis=0).var(ddof=1)) if n_images > 1 else 0.0
    crossed = by_image / n_images + float(gain.mean(axis=1).var(ddof=1)) / n_draws
    # row and column means can be equal by accident while the predictions vary
    return float(np.sqrt(max(crossed, float(gain.var(ddof=1)) / gain.size)))


def _one_draw(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> Difference:
    """Newcombe's interval and exact McNemar for one pair of models."""
    both, only_a = int((correct_a & correct_b).sum()), int((correct_a & ~correct_b).sum())
    only_b, n_images = int((correct_b & ~correct_a).sum()), len(correct_a)
    neither = n_images - both - only_a - only_b
    low, high = _newcombe(both, only_a, only_b, neither)
    return Difference((only_a - only_b) / n_images, low, high, _exact(only_a, only_b), n_images)


def _newcombe(both: int, only_a: int, only_b: int, neither: int) -> tuple[float, float]:
    """Newcombe (1998, paired), method 10: Wilson's limits squared and added, less their correlation."""
    n = both + only_a + only_b + neither
    a, b = wilson(both + only_a, n, _LEVEL), wilson(both + only_b, n, _LEVEL)
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


def _exact(only_a: int, only_b: int) -> float:
    """Two-sided tail of a fair coin; doubling is exact because it is symmetric."""
    return float(min(1.0, 2 * bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


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
