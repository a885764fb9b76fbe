"""Other tests of the same difference, for benchmarks/verdicts.py: what they would have said of the same predictions.

Each takes the gains of a study, (n_rounds, n_images): 1 where only the probe is right, -1 where only the control is;
the fold of each image in each round, or None with a test set; and the group of each image, or None. It returns the
two-sided p-value that there is no difference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, stdtr

Gains = NDArray[np.float64]
Codes = NDArray[np.intp]
Rival = Callable[[Gains, "Codes | None", "Codes | None"], float]


def student(values: Gains) -> float:
    """Student's t for the mean of independent values."""
    return from_error(float(values.mean()), float(values.var(ddof=1)) / len(values), len(values) - 1)


def from_error(value: float, variance: float, freedom: float) -> float:
    """The p-value of a mean with this variance."""
    if variance <= 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(value) / np.sqrt(variance)))


def mcnemar(gains: Gains, *, part: float) -> float:
    """McNemar's test of the first round: exact (``part`` 1) or mid-p (1/2)."""
    wins, losses = int((gains[0] > 0).sum()), int((gains[0] < 0).sum())
    if wins == losses:
        return 1.0
    fewer, flips = min(wins, losses), wins + losses
    below = float(bdtr(fewer - 1, flips, 0.5)) if fewer else 0.0
    return min(1.0, 2 * (below + part * (float(bdtr(fewer, flips, 0.5)) - below)))


def wald(gains: Gains) -> float:
    """McNemar's asymptotic test, without a correction."""
    wins, losses = float((gains[0] > 0).sum()), float((gains[0] < 0).sum())
    return 1.0 if wins == losses else float(2 * ndtr(-abs(wins - losses) / np.sqrt(wins + losses)))


def two_way(gains: Gains) -> float:
    """Owen's conservative variance of a crossed design, which is that of the pigeonhole bootstrap; normal."""
    by_round, by_image = gains.mean(axis=1), gains.mean(axis=0)
    variance = by_round.var(ddof=1) / len(by_round) + by_image.var(ddof=1) / len(by_image)
    return from_error(float(gains.mean()), float(variance), 1e9)


def corrected_folds(gains: Gains, folds: Codes) -> float:
    """Nadeau and Bengio's corrected t over the folds of all rounds."""
    means = np.array(
        [one[codes == fold].mean() for one, codes in zip(gains, folds, strict=True) for fold in set(codes)]
    )
    n_folds = len(set(folds[0].tolist()))
    variance = means.var(ddof=1) * (1 / len(means) + 1 / (n_folds - 1))
    return from_error(float(gains.mean()), float(variance), len(means) - 1)


def averaged_rounds(gains: Gains) -> float:
    """Student's t over the images' means of the rounds."""
    return student(gains.mean(axis=0))


def by_group(gains: Gains, groups: Codes) -> float:
    """Student's t over the means of groups of one size."""
    means = gains.mean(axis=0)
    return student(np.bincount(groups, weights=means) / np.bincount(groups))


def group_signs(gains: Gains, groups: Codes) -> float:
    """All sign flips of the groups' sums, up to 10 groups; 4,096 random ones of more."""
    sums = np.bincount(groups, weights=gains.mean(axis=0))
    if len(sums) <= 10:
        signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], size=(4_096, len(sums)))
        signs[0] = 1
    return float((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).mean())


def by_fold(gains: Gains, folds: Codes) -> float:
    """Student's t over the means of the folds of one round, each with labels of its own."""
    return student(np.array([gains[0, folds[0] == fold].mean() for fold in sorted(set(folds[0].tolist()))]))


def of(kind: str, *, few: bool, grouped: bool) -> dict[str, Rival]:
    """The tests that fit a protocol, by name."""
    if grouped and not few:
        return {
            "t over groups": lambda g, f, c: by_group(g, c),
            "sign flips of groups": lambda g, f, c: group_signs(g, c),
        }
    if grouped:
        found: dict[str, Rival] = {"t over groups": lambda g, f, c: by_group(g, c)}
        return found | (
            {"t over draws": lambda g, f, c: student(g.mean(axis=1))} if kind == "external" else {}
        )
    if kind == "external" and few:
        return {
            "two-way variance": lambda g, f, c: two_way(g),
            "t over draws": lambda g, f, c: student(g.mean(axis=1)),
            "t over images": lambda g, f, c: averaged_rounds(g),
        }
    if kind == "external":
        return {
            "mid-p McNemar": lambda g, f, c: mcnemar(g, part=0.5),
            "exact McNemar": lambda g, f, c: mcnemar(g, part=1.0),
            "asymptotic McNemar": lambda g, f, c: wald(g),
            "t over images": lambda g, f, c: student(g[0]),
        }
    if few:
        return {"t over folds": lambda g, f, c: by_fold(g, f), "t over images": lambda g, f, c: student(g[0])}
    found = {
        "mid-p McNemar, one round": lambda g, f, c: mcnemar(g, part=0.5),
        "t over means of rounds": lambda g, f, c: averaged_rounds(g),
    }
    if kind == "folds":
        found["corrected t over folds"] = lambda g, f, c: corrected_folds(g, f)
    return found
