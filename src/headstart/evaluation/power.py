"""How many test images a difference would need to be significant: the advice after "cannot tell apart"."""

from __future__ import annotations

from math import ceil, log2, sqrt

from scipy.special import ndtri, stdtrit

from headstart.errors import SettingError
from headstart.evaluation.spread import Spread

__all__ = ["MOST_IMAGES", "images_for_spread", "images_to_settle"]

MOST_IMAGES = 10_000_000
"""A difference that needs more test images than this counts as none."""


def images_to_settle(
    only_a: float, only_b: float, n_images: int, *, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Test images that McNemar's test needs to find a difference as large as the observed one, or None.

    Only a, or only b, is correct on ``only_a`` and ``only_b`` of ``n_images`` (fractional for means over
    draws). None if there is no difference, or more than ``MOST_IMAGES`` would be needed.

    >>> images_to_settle(10, 5, 100)
    469
    >>> images_to_settle(5, 5, 100) is None
    True
    """
    if n_images < 1:
        raise SettingError(f"n_images is {n_images!r}, expected 1 or more; pass the number of test images")
    # written so that NaN fails too
    if not (only_a >= 0 and only_b >= 0 and only_a + only_b <= n_images * (1 + 1e-9)):
        raise SettingError(
            f"only_a and only_b are {only_a!r} and {only_b!r}, expected 0 or more and n_images = {n_images} "
            "together at most; pass counts, not shares"
        )
    for name, chance in (("alpha", alpha), ("power", power)):
        if not 0 < chance < 1:
            raise SettingError(f"{name} is {chance!r}, expected a number between 0 and 1; leave it out")
    # Connor. Sample Size for Testing Differences in Proportions for the Paired-Sample Design. Biometrics 43,
    # 1987, doi:10.2307/2531961, page 209; Miettinen. The Matched Pairs Design in the Case of All-or-None
    # Responses. Biometrics 24, 1968, doi:10.2307/2528039:
    #     ((z[1 - alpha / 2] sqrt(s) + z[power] sqrt(s - d ** 2)) / d) ** 2
    # with s the share of images on which exactly one is correct and d its part for a less its part for b; and at
    # least so many that a run of such images, all for one side, would be significant.
    #
    # With this many images McNemar's mid-p finds the difference in 79 to 89 of 100 studies at the defaults, most
    # where only one of the two is ever right alone. The result says how large a test set is worth collecting, no
    # more: it takes the observed difference as the true one (Hoenig and Heisey. The Abuse of Power. American
    # Statistician 55, 2001, doi:10.1198/000313001300339897).
    discordant, gap = min((only_a + only_b) / n_images, 1.0), abs(only_a - only_b) / n_images
    if gap == 0:
        return None
    root = float(ndtri(1 - alpha / 2)) * sqrt(discordant) + float(ndtri(power)) * sqrt(
        max(discordant - gap**2, 0.0)
    )
    shortest_run = ceil(-log2(alpha))  # the mid-p of such a run, a half to this power, is at most alpha
    needed = ceil(max((max(root, 0.0) / gap) ** 2, shortest_run / discordant))
    return needed if needed <= MOST_IMAGES else None


def images_for_spread(
    spread: Spread, value: float, n_images: int, *, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Test images with which a mean of this value and spread would differ from 0 in 80 % of studies, or None.

    None if it is 0, if more than ``MOST_IMAGES`` would be needed, or if the part of the spread that images do not
    reduce is too large. The degrees of freedom of the images grow with them, those of the draws do not.

    >>> images_for_spread(Spread(0.02**2, 99.0), 0.05, 100)
    128
    >>> images_for_spread(Spread(0.02**2, 99.0, 0.02**2), 0.05, 100) is None
    True
    """
    if value == 0 or spread.variance <= 0:
        return None

    def enough(images: float) -> bool:
        expected = spread.with_images(images / n_images)
        quantile = float(stdtrit(max(expected.freedom, 1.0), 1 - alpha / 2)) + float(ndtri(power))
        return abs(value) >= quantile * sqrt(expected.variance)

    if not enough(MOST_IMAGES):
        return None
    low, high = 1, MOST_IMAGES
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high
