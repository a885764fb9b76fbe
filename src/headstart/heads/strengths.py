"""The strength of a least-squares head and the temperature of its scores, selected by held-out scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.heads.base import fit_temperature
from headstart.heads.folded_least_squares import FoldedLeastSquares
from headstart.heads.held_out import HeldOut, best_setting
from headstart.heads.least_squares import LeastSquares
from headstart.heads.statistics import Sample
from headstart.heads.training import Training
from headstart.records import Array

__all__ = ["STRENGTHS", "chosen_of_folds", "chosen_setting", "held_out_at"]

STRENGTHS = tuple(10.0**power for power in np.arange(-8, 1.5, 0.5).tolist())
"""Penalties per image on standardised features that are tried."""
_DEFAULT = {"strength": 0.1}  # where a class has one image or one group, and nothing can be held out
_DEFAULT_TEMPERATURE = 5.0  # scores are between 0 and 1: a margin of 0.5 is then a probability of 92 %


def held_out_at(problem: LeastSquares, training: Training, strengths: tuple[float, ...]) -> HeldOut:
    """Scores of every original image at every strength, by fits without it and those that belong to it."""
    folds, judged = training.left_out_with(), training.originals
    scores = problem.left_out(strengths, folds).take(judged, axis=1)
    return HeldOut.of(tuple({"strength": strength} for strength in strengths), scores, training)


def chosen_setting(held: HeldOut | None, training: Training) -> tuple[dict[str, float], float]:
    """The best setting and the temperature of its scores; the default where nothing can be held out."""
    if held is None:
        return dict(_DEFAULT), _DEFAULT_TEMPERATURE
    best, judged = best_setting(held), training.originals
    temperature = fit_temperature(
        held.logits[best].astype(np.float64), training.codes[judged], training.weights[judged]
    )
    return dict(held.settings[best]), temperature


def chosen_of_folds(
    problem: FoldedLeastSquares, sample: Sample, rows: Array, strengths: Sequence[float]
) -> tuple[dict[str, float], float]:
    """The strength with the least error on held-out folds, and the temperature of the scores of a sample of them."""
    if not problem.folds:
        return dict(_DEFAULT), _DEFAULT_TEMPERATURE
    strength = strengths[0 if len(strengths) == 1 else int(problem.errors(strengths).argmin())]
    here = problem.evaluated(sample)
    if not here.any():  # rows with so many inputs that few are sampled
        return {"strength": strength}, _DEFAULT_TEMPERATURE
    scores = problem.left_out(sample, rows, strength)[here].astype(np.float64)
    weights = sample.represented[here].astype(np.float32)
    return {"strength": strength}, fit_temperature(scores, sample.codes[here], weights)
