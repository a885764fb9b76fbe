"""Accuracies and their differences on images that depend on each other, such as 91 photos by 10 writers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.compare import agreeing, mcnemar, mean_difference, paired_difference
from headstart.evaluation.intervals import SHARED, cross_validated, wilson
from headstart.evaluation.records import Difference, Score
from headstart.evaluation.spread import Spread, of_draws, of_fold_draws, of_folds

__all__ = [
    "accuracy_score",
    "cluster_remark",
    "clustered_difference",
    "clustered_score",
    "paired",
    "repeated",
]

_LEVEL = 0.95
_ASSUMED = 0.2
"""Assumed correlation within a group where there is no mistake to estimate it from.
Without it, 95 % intervals of an accuracy of 0.9 in 5 groups of 20 cover it in 88 and 76 of 100 test sets
where results correlate by 0.3 and 0.5; with it in 99 (2026-11, 3000 simulated test sets each)."""
_FEW_GROUPS = 5
_TRUSTED = 5
"""Number of mistakes at which the assumption counts half."""


def accuracy_score(
    correct: NDArray[np.bool_],
    clusters: NDArray[np.generic] | None = None,
    *,
    crossed: bool = False,
    folds: NDArray[np.intp] | None = None,
    overlap: float = 0.0,
    redrawn: bool = False,
) -> Score:
    """Accuracy with the interval that fits: by clusters, by draws of labels, by cross-validation, or Wilson's.

    ``correct``, (n_images,) or (n_draws, n_images), bool; images with the same entry in ``clusters`` depend on
    each other; ``crossed`` where the models share training images; ``folds``, (n_images,), where each fold of a
    cross-validation had labels of its own; ``overlap`` is the share of training images that two draws have in common.
    With several draws the target is the procedure on new labels and images. ``redrawn`` where rounds of a
    cross-validation are networks with seeds of their own: then it is the procedure with new seeds, too.

    >>> correct = np.arange(80) % 4 > 0
    >>> plain, crossed = accuracy_score(correct), accuracy_score(correct, crossed=True)
    >>> plain.value, crossed.low < plain.low
    (0.75, True)
    """
    n_images = correct.shape[-1]
    share = float(correct.mean()) if correct.size else 0.0
    grouped = clusters is not None and correct.size > 0 and repeated(clusters)
    if folds is not None and correct.size:
        values = correct.reshape(-1, n_images).mean(axis=0)
        return _sampled(share, of_fold_draws(values, folds, overlap), n_images, 1)
    several = correct.ndim == 2 and (redrawn or not crossed) and bool((correct != correct[:1]).any())
    times = 1 / SHARED if crossed else 1.0
    if grouped and clusters is not None:
        found = clustered_score(correct, clusters, crossed=crossed)
        if several and found.high - found.low < 1:
            codes = np.unique(clusters, return_inverse=True)[1]
            spread = of_draws(correct.astype(np.float64), codes, overlap).with_images(times)
            found = _wider(found, _sampled(share, spread, n_images, len(correct)))
        return found
    plain = cross_validated(share, n_images) if crossed else wilson(share * n_images, n_images)
    if several and correct.size:
        spread = of_draws(correct.astype(np.float64), overlap=overlap).with_images(times)
        found = _sampled(share, spread, n_images, len(correct))
        return _wider(found, plain) if crossed else found
    return plain


def _wider(one: Score, other: Score) -> Score:
    """The interval that holds both."""
    return replace(one, low=min(one.low, other.low), high=max(one.high, other.high))


def _sampled(share: float, spread: Spread, n_images: int, n_rounds: int) -> Score:
    """Wilson's interval for as many images as have this variance, by Student's t; at most one for each prediction."""
    counted = float(n_images)
    if spread.variance > 0:
        counted = min(counted * n_rounds, share * (1 - share) / spread.variance)
    ratio = float(ndtri(0.5 + _LEVEL / 2)) / float(stdtrit(spread.freedom, 0.5 + _LEVEL / 2))
    counted *= ratio**2
    return replace(wilson(share * counted, counted), value=share, n=n_images)


def clustered_score(
    correct: NDArray[np.bool_],
    clusters: NDArray[np.generic],
    level: float = _LEVEL,
    *,
    crossed: bool = False,
) -> Score:
    """Accuracy with an interval that accounts for the correlation within groups.

    Parameters
    ----------
    correct : ndarray of shape (n_images,) or (n_draws, n_images), bool
        Whether each prediction was correct; with several draws of the training labels one row per draw,
        and the accuracy is their mean.
    clusters : ndarray of shape (n_images,), str or int
        Cluster of each image, such as its writer. A single cluster says nothing about others: [0, 1].
    level : float, default=0.95
        Confidence level, in (0, 1).
    crossed : bool, default=False
        Whether the predictions come from the models of a cross-validation, which share training images:
        two thirds as many images count, as in `intervals.cross_validated`.

    Returns
    -------
    Score
        In ``[0, 1]``; ``n`` is the number of images. Never narrower than Wilson's interval for as
        many independent images.

    Raises
    ------
    ShapeError
        If ``correct`` is not a bool array of one of these shapes, is empty, or does not match ``clusters``.
    SettingError
        If ``level`` is outside (0, 1).

    Notes
    -----
    Wilson's interval for ``n_images / deff`` images, rounded down, times
    ``(t[n_images - 1] / t[n_groups - 1]) ** 2``: Korn and Graubard's correction, which makes few groups
    count as few. The design effect ``deff`` is the variance between whole groups (ultimate clusters,
    linearised ratio) over that of as many independent images; at least 1.

    A few mistakes contain almost no information about ``deff``, so with ``k`` mistakes (or correct
    predictions, if fewer) it is at least Kish's ``1 + (size - 1) * rho``, where ``size`` is the number of
    images in the group of an average image and ``rho = 0.2 / (1 + k / 5)``. The 0.2 is an assumption. With
    it, no simulated setting had a coverage below 95 of 100 (5 to 20 groups, 90 to 100 images, accuracies
    of 0.7 to 0.97, correlations up to 0.3). If in truth whole groups are correct or wrong together, a test
    set without mistakes cannot show it, and the interval is then too narrow. With several draws their mean
    is scored; the variation between draws is not in the interval.

    References
    ----------
    Korn and Graubard. Confidence Intervals for Proportions with Small Expected Number of Positive
    Counts Estimated from Survey Data. Survey Methodology 24, 1998, pages 193-201.
    Kish. Survey Sampling. Wiley 1965, chapter 5.
    Franco, Little, Louis, Slud. Comparative Study of Confidence Intervals for Proportions in Complex
    Sample Surveys. Journal of Survey Statistics and Methodology 7, 2019, PMC6690503 (Wilson's interval
    on the effective sample size is among the best, and all are too narrow for few clusters if the
    design effect is only estimated).

    Examples
    --------
    >>> groups = np.repeat(np.arange(10), 9)
    >>> correct = np.arange(90) % 9 < np.repeat([9, 9, 8, 9, 4, 9, 9, 7, 9, 8], 9)
    >>> score = clustered_score(correct, groups)
    >>> round(score.value, 3), round(score.low, 3), round(score.high, 3), score.n
    (0.9, 0.71, 0.971, 90)
    """
    draws, codes = _checked("correct", correct, clusters)
    if not 0 < level < 1:
        raise SettingError(f"level is {level!r}, expected a number between 0 and 1; pass 0.95 for 95 %")
    mean, sizes = draws.mean(axis=0), np.bincount(codes)
    n_images, value = len(mean), float(mean.mean())
    if len(sizes) == 1:
        return Score(value, 0.0, 1.0, n_images)
    # draw by draw: images of one cluster that always agree do so in each draw, and less in the mean of draws
    squares = [float(np.square(np.bincount(codes, weights=one - one.mean())).sum()) for one in draws]
    between = len(sizes) / (len(sizes) - 1) * float(np.mean(squares)) / n_images**2
    spread = float(np.mean([one.mean() * (1 - one.mean()) for one in draws])) / max(n_images - 1, 1)
    estimated = between / spread if spread else 1.0
    rare = min(value, 1 - value) * n_images
    deff = max(1.0, estimated, _assumed_effect(sizes, rare))
    shared = SHARED if crossed else 1.0
    counted = int(n_images / shared / deff * _few_groups(n_images, len(sizes), level) ** 2 + 1e-6)
    return replace(wilson(value * counted, counted, level), value=value, n=n_images)


def repeated(clusters: NDArray[np.generic] | None) -> bool:
    """Whether any two images belong to one group, or are copies of one image."""
    return clusters is not None and len(np.unique(clusters)) < len(clusters)


def paired(
    correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_], clusters: NDArray[np.generic] | None
) -> Difference:
    """Accuracy of a minus accuracy of b on the same images, by clusters where images have any."""
    if clusters is None or not repeated(clusters):
        return paired_difference(correct_a, correct_b)
    return clustered_difference(correct_a, correct_b, clusters)


def clustered_difference(
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    clusters: NDArray[np.generic],
    level: float = _LEVEL,
    *,
    crossed: bool = False,
    overlap: float = 0.0,
) -> Difference:
    """Accuracy of a minus accuracy of b on the same images, which come in clusters.

    Inputs as in `paired_difference`. Only whole clusters count, by Student's t: see `spread.of_draws`. ``crossed``
    where rounds are those of a cross-validation with all labels; ``overlap`` is the share of training images that two
    draws have in common. A single cluster says nothing about others: the interval is [-1, 1] and p is 1.

    >>> groups = np.repeat(np.arange(10), 9)
    >>> a = np.arange(90) % 9 < np.repeat([9, 9, 8, 9, 8, 9, 9, 7, 9, 8], 9)
    >>> b = np.arange(90) % 9 < np.repeat([7, 9, 8, 5, 7, 8, 9, 6, 8, 7], 9)
    >>> found = clustered_difference(a, b, groups)
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3), round(found.p_value, 3)
    (0.122, 0.027, 0.217, 0.017)
    """
    first, codes = _checked("correct_a", correct_a, clusters)
    second, _ = _checked("correct_b", correct_b, clusters)
    if first.shape != second.shape:
        raise ShapeError(
            f"correct_b has shape {second.shape}, expected {first.shape} to match correct_a; compare the same draws"
        )
    gain, sizes = first.astype(np.float64) - second, np.bincount(codes)
    if len(sizes) == 1:
        return Difference(float(gain.mean()), -1.0, 1.0, 1.0, gain.shape[1])
    spread = of_folds(gain, codes) if crossed else of_draws(gain, codes, overlap)
    n_units = max(len(sizes), int(gain.shape[1] / _assumed_effect(sizes, 0.0)))
    found = mean_difference(gain, spread, level, n_units=n_units)
    if spread.variance > 0:
        return found
    # all groups alike: each is a coin, and p is that of all coins falling on one side
    coins = (
        1.0 if found.value == 0 else mcnemar(np.ones(len(sizes), np.bool_), np.zeros(len(sizes), np.bool_))
    )
    return agreeing(replace(found, p_value=max(found.p_value, coins)), level)


def cluster_remark(clusters: NDArray[np.generic] | None, labels: NDArray[np.str_]) -> str | None:
    """Remark where all images, or all of a class of two or more, are of one cluster, or clusters are few."""
    if clusters is None:
        return None
    if len(labels) > 1 and len(np.unique(clusters)) == 1:
        return (
            "all images are of one group, or copies of one image: nothing is known of other groups, so "
            "intervals are 0 to 100 %"
        )
    names, sizes = np.unique(labels, return_counts=True)
    lonely = [
        str(name)
        for name, size in zip(names, sizes, strict=True)
        if size > 1 and len(np.unique(clusters[labels == name])) == 1
    ]
    n_groups = len(np.unique(clusters))
    if not lonely and len(labels) > 1 and n_groups < _FEW_GROUPS and len(clusters) > 2 * n_groups:
        return (
            f"the images are of {n_groups} groups, or copies of {n_groups} images, only: how much these differ is "
            f"hardly known from so few, so intervals are wide; {_FEW_GROUPS} or more are better"
        )
    if not lonely:
        return None
    listed = ", ".join(map(repr, lonely[:5])) + (f" and {len(lonely) - 5} more" if len(lonely) > 5 else "")
    return (
        f"all images of class {listed} are of one group, or copies of one image: the interval of its "
        "recall is 0 to 100 %"
    )


def _assumed_effect(sizes: NDArray[np.intp], rare: float) -> float:
    """Kish's design effect for the correlation that this many mistakes cannot rule out."""
    size = float((sizes**2).sum() / sizes.sum())
    return 1 + (size - 1) * _ASSUMED / (1 + rare / _TRUSTED)


def _few_groups(n_images: int, n_groups: int, level: float) -> float:
    """Student's quantile for as many images over that for as many groups, at most 1."""
    images, groups = (float(stdtrit(n - 1, 0.5 + level / 2)) for n in (n_images, n_groups))
    return images / groups


def _checked(
    name: str, correct: NDArray[np.bool_], clusters: NDArray[np.generic]
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Results as (n_draws, n_images) and clusters as codes from 0."""
    checked, named = np.asarray(correct), np.asarray(clusters)
    if checked.ndim not in (1, 2) or checked.size == 0 or checked.dtype != np.bool_:
        raise ShapeError(
            f"{name} has shape {checked.shape} and dtype {checked.dtype}, expected (n_images,) or "
            "(n_draws, n_images) of bool; pass predicted == labels"
        )
    if named.shape != checked.shape[-1:]:
        raise ShapeError(
            f"clusters has shape {named.shape}, expected {checked.shape[-1:]} to match {name}; "
            "pass one cluster per image"
        )
    return np.atleast_2d(checked), np.unique(named, return_inverse=True)[1]
