"""The importance of each setting in a search over features: the share of the variance that it explains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from headstart.report.records import Factor
from headstart.workflows.tune.records import NO_AUGMENTATION, FeatureTrial, Way

__all__ = ["explained", "factors_of"]


def explained(values: Sequence[object], scores: Sequence[float]) -> float:
    """Share of the variance of scores that one setting explains by itself, 0 to 1; 0 if nothing varies.

    The variance between the means of the values over the variance of all scores: the main effect of a
    functional analysis of variance if all combinations were tried (Hutter, Hoos, Leyton-Brown, ICML 2014).

    >>> explained(["a", "a", "b", "b"], [0.1, 0.3, 0.7, 0.9])
    0.9
    """
    marks = np.asarray(scores, np.float64)
    total = 0.0 if len(marks) < 2 else float(((marks - marks.mean()) ** 2).sum())
    if total <= 1e-18:  # rounding alone
        return 0.0
    between = 0.0
    for value in set(values):
        here = marks[[other == value for other in values]]
        between += len(here) * float(here.mean() - marks.mean()) ** 2
    return round(between / total, 12)


def factors_of(trials: Sequence[FeatureTrial]) -> tuple[Factor, ...]:
    """The settings by importance, each over the trials in which it varied.

    Preparation, layer, pooling, head and augmentation are compared at their best strength, as a user who
    leaves strengths to the head would. A strength is compared within its head.
    """
    plain = [one for one in trials if one.augment == NO_AUGMENTATION]
    settled = _settled(plain)
    augmented = {(one.where, one.head) for one in trials if one.augment != NO_AUGMENTATION}
    both = _settled([one for one in trials if (one.where, one.head) in augmented])
    found = [
        _factor("preparation", settled, lambda one: one.where.policy),
        _factor("layer", settled, lambda one: one.where.layer),
        _factor("pooling", settled, lambda one: one.where.pooling),
        _factor("head", settled, lambda one: one.head),
        _factor("augmentation", both, lambda one: one.augment),
    ]
    for head in dict.fromkeys(one.head for one in plain):
        what = "neighbours" if head == "neighbours" else f"strength of {head}"
        found.append(_factor(what, [one for one in plain if one.head == head], lambda one: one.strength))
    varied = [one for one in found if len(one.values) > 1]
    return tuple(sorted(varied, key=lambda one: -one.importance))


def _factor(
    name: str, trials: Sequence[FeatureTrial], value_of: Callable[[FeatureTrial], str | float]
) -> Factor:
    """A setting's importance, and the best score with each of its values."""
    values = [value_of(one) for one in trials]
    scores = [one.accuracy.value for one in trials]
    distinct = list(dict.fromkeys(values))
    numbers = all(isinstance(value, float) for value in distinct)
    if numbers:
        distinct.sort()
    best = tuple(max(s for v, s in zip(values, scores, strict=True) if v == value) for value in distinct)
    return Factor(name, explained(values, scores), tuple(distinct), best, numbers and bool(distinct))


def _settled(trials: Sequence[FeatureTrial]) -> list[FeatureTrial]:
    """The best strength of each combination."""
    best: dict[Way, FeatureTrial] = {}
    for trial in sorted(trials, key=lambda one: one.rank):
        best.setdefault(trial.way, trial)
    return list(best.values())
