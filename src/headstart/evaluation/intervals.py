"""Intervals for proportions of independent or cross-validated images.

`clusters` has those for images that depend on each other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from headstart.errors import SettingError
from headstart.evaluation.records import Score

__all__ = ["SHARED", "cross_validated", "wilson"]

SHARED = 1.5
"""Cross-validated images that carry as much information as one independent image."""
# The models of the folds share most of their training images, so their predictions depend on each other
# (Bates, Hastie, Tibshirani. Cross-validation: what does it estimate and how well does it do it? Journal of
# the American Statistical Association 119 (2024), arXiv:2104.00673). On 60 coin-toss labelings and 60 real
# samples of 80 photos, with selection nested in 10 folds, Wilson's own interval covered the truth in 90 %,
# with two thirds of the images in 95 % (2026-11-29, docs/decisions/0014).


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
        Confidence level, in (0, 1).

    Returns
    -------
    Score
        ``successes / n`` with its interval, in ``[0, 1]``. Without trials the value is 0.0 by
        convention and the interval ``[0, 1]``.

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
        raise SettingError(f"n is {n!r}, expected 0 or more; pass the number of images")
    if not 0 <= successes <= n:
        raise SettingError(
            f"successes is {successes!r}, expected a number from 0 to n = {n}; pass a count, not a share"
        )
    if not 0 < level < 1:
        raise SettingError(f"level is {level!r}, expected a number between 0 and 1; pass 0.95 for 95 %")
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
    """Interval for an accuracy pooled over folds: Wilson's for two thirds as many independent images.

    >>> found, plain = cross_validated(0.5, 80), wilson(40, 80)
    >>> found.n, found.low < plain.low, round(found.high, 3)
    (80, True, 0.63)
    """
    counted = n / SHARED
    return replace(wilson(share * counted, counted, level), value=share, n=n)
