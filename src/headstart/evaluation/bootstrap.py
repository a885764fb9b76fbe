"""An interval for any number that is computed from images: macro F1, a gap between classes, a loss.

In: a function of image indices, and what parts the images: strata or groups. Out: ``records.Score``.
Imports only errors and records of ours and the metrics next door; NumPy does the drawing. For whoever
needs an interval of a score that has none of its own; no study does yet.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.metrics import confusion
from headstart.records import Codes, Score

__all__ = ["bootstrap", "macro_f1"]


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    n_images: int,
    *,
    strata: NDArray[np.generic] | None = None,
    groups: NDArray[np.generic] | None = None,
    n_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Score:
    """Percentile bootstrap of a statistic of images.

    Parameters
    ----------
    statistic : callable
        Takes indices of images, ndarray of shape (n,), intp, in ``[0, n_images)`` and with repeats, and
        gives a number that is not NaN.
    n_images : int
        How many images there are, 1 or more.
    strata : ndarray of shape (n_images,), str or int, optional
        Images are drawn within each of these, so that each keeps its size: the true classes, say.
    groups : ndarray of shape (n_images,), str or int, optional
        Whole groups are drawn, such as writers, all images of a group together; 2 different ones or
        more. Without both, images are drawn from all.
    n_draws : int, default=2000
        Resamples, 100 or more.
    seed : int, default=0
        Of the resampling.
    level : float, default=0.95
        Confidence level, above 0 and below 1.

    Returns
    -------
    Score
        The statistic of all images with its interval, which always holds it; ``n`` is ``n_images``.

    Raises
    ------
    SettingError
        If both strata and groups are given, there are fewer than 2 groups, the statistic is NaN for
        some resample, or a number is out of its range.
    ShapeError
        If ``strata`` or ``groups`` does not have one entry per image.

    Notes
    -----
    Cost: ``n_draws`` + 1 calls of the statistic. Strata and groups at once are refused: groups cross
    strata (a writer writes letters of every class), so no resample keeps both whole; where images have
    groups, these are what was sampled, and groups alone is right. A percentile interval is too narrow
    for few images or groups (of 10 groups by a sixth or so), and has no width where the statistic
    cannot vary, as an accuracy of 1; for accuracies use ``wilson`` and ``clustered_score``.

    References
    ----------
    Efron and Tibshirani. An Introduction to the Bootstrap. Chapman and Hall 1993, section 13.3.
    Davison and Hinkley. Bootstrap Methods and their Application. Cambridge 1997, section 3.8 (whole
    groups with replacement, nothing drawn within them).

    Examples
    --------
    >>> right = np.arange(200) % 10 > 0
    >>> score = bootstrap(lambda images: right[images].mean(), 200)
    >>> round(score.value, 2), round(score.low, 2), round(score.high, 2), score.n
    (0.9, 0.85, 0.94, 200)
    """
    parts = _parts(n_images, strata, groups)
    if n_draws < 100:
        raise SettingError(f"n_draws is {n_draws!r}, need 100 or more; leave it at 2000")
    if not 0 < level < 1:
        raise SettingError(f"level is {level!r}, need a number between 0 and 1; pass 0.95 for 95 %")
    rng, found = np.random.default_rng(seed), np.empty(n_draws)
    value = float(statistic(np.arange(n_images, dtype=np.intp)))
    for draw in range(n_draws):
        found[draw] = statistic(_whole(parts, rng) if groups is not None else _within(parts, rng))
    if np.isnan(value) or np.isnan(found).any():
        raise SettingError(
            f"statistic is nan for {int(np.isnan(found).sum())} of {n_draws} resamples, need a number for "
            "each; let it say what holds when a class or group is not drawn"
        )
    low, high = np.quantile(found, [0.5 - level / 2, 0.5 + level / 2])
    return Score(value, float(min(low, value)), float(max(high, value)), n_images)


def macro_f1(codes: Codes, called: Codes, n_classes: int) -> float:
    """F1 averaged over classes, each counting the same however many images it has.

    Parameters
    ----------
    codes : ndarray of shape (n_images,), int
        True class of each image, in ``[0, n_classes)``.
    called : ndarray of shape (n_images,), int
        Called class of each image, in ``[0, n_classes)``.
    n_classes : int
        Number of classes, 1 or more.

    Returns
    -------
    float
        In ``[0, 1]``. Classes that neither occur nor are called are left out; without images 0.0.

    Raises
    ------
    ShapeError
        If ``codes`` or ``called`` is not a 1-D array of integers, or their lengths differ.
    SettingError
        If a code is outside ``[0, n_classes)``.

    References
    ----------
    Opitz and Burst. Macro F1 and Macro F1. 2019, arXiv:1911.03347 (the mean of F1, not F1 of means).

    Examples
    --------
    >>> round(macro_f1(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3), 4)
    0.7333
    """
    counts = confusion(codes, called, n_classes)
    hits, either = np.diagonal(counts), counts.sum(axis=0) + counts.sum(axis=1)
    there = either > 0
    return float((2 * hits[there] / either[there]).mean()) if there.any() else 0.0


def _parts(
    n_images: int, strata: NDArray[np.generic] | None, groups: NDArray[np.generic] | None
) -> list[NDArray[np.intp]]:
    """Indices of images by stratum or group, or all of them in one part."""
    if n_images < 1:
        raise SettingError(f"n_images is {n_images!r}, need 1 or more; pass the number of images")
    if strata is not None and groups is not None:
        raise SettingError(
            "strata and groups are both given, need one of them, because groups cross strata; "
            "pass groups alone where images have groups"
        )
    name, given = ("strata", strata) if groups is None else ("groups", groups)
    if given is None:
        return [np.arange(n_images, dtype=np.intp)]
    named = np.asarray(given)
    if named.shape != (n_images,):
        raise ShapeError(f"{name} has shape {named.shape}, need ({n_images},); pass one entry per image")
    _, codes, sizes = np.unique(named, return_inverse=True, return_counts=True)
    if name == "groups" and len(sizes) < 2:
        raise SettingError(
            f"groups holds {len(sizes)} group, need 2 or more to draw from; "
            "leave groups out and say that one group answers for all"
        )
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])


def _within(parts: list[NDArray[np.intp]], rng: np.random.Generator) -> NDArray[np.intp]:
    """As many images of each part as it has, with replacement."""
    return np.concatenate([part[rng.integers(0, len(part), len(part))] for part in parts])


def _whole(parts: list[NDArray[np.intp]], rng: np.random.Generator) -> NDArray[np.intp]:
    """As many parts as there are, with replacement, and all images of each."""
    return np.concatenate([parts[index] for index in rng.integers(0, len(parts), len(parts))])
