"""Held-out scores of a head at every setting, and the rule that selects a setting from them.

Selection of layer and head uses the same scores and the same rule as a fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.training import Training, one_hot
from headstart.records import Array

__all__ = ["HeldOut", "best_setting"]

Setting = Mapping[str, float]


@dataclass(frozen=True)
class HeldOut:
    """Scores of every image from fits without this image and the others of its cluster.

    ``settings`` are what was tried, such as ``{"strength": 0.1}``; ``scores`` (n_settings, n_images,
    n_classes), float32, estimate class indicators, so that their squared error compares settings. ``errors``
    (n_settings,), which decide, are the weighted mean squared errors of the scores, for votes their
    calibrated losses. ``logits``, shaped like the scores, are what a temperature multiplies; for most heads
    the scores themselves.
    """

    settings: tuple[Setting, ...]
    scores: Array
    errors: NDArray[np.float64]
    logits: Array

    @classmethod
    def of(
        cls,
        settings: tuple[Setting, ...],
        scores: Array,
        training: Training,
        logits: Array | None = None,
    ) -> HeldOut:
        """Scores of the originals of a training set, with their errors."""
        judged = training.originals
        targets = one_hot(training.codes[judged], scores.shape[2])
        squares = ((scores - targets) ** 2).sum(axis=2)  # (n_settings, n_images)
        errors = np.average(squares, axis=1, weights=training.weights[judged])
        return cls(settings, scores, errors, scores if logits is None else logits)


def best_setting(held: HeldOut) -> int:
    """Index of the setting with the least held-out error."""
    # the error, not the accuracy: it changes with every image and not only with those near a class boundary,
    # so it varies less from sample to sample
    return int(held.errors.argmin())
