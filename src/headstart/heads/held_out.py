"""Held-out scores of a head at every setting, and the one rule by which a setting is chosen from them.

Apart from the heads because selection of layer and head uses the same scores and the same rule: what is
judged is what is fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.training import Training
from headstart.records import Array

__all__ = ["HeldOut", "best_setting"]

Setting = Mapping[str, float]


@dataclass(frozen=True)
class HeldOut:
    """Scores of every image by fits that did not see it, nor any other image of its cluster.

    Attributes
    ----------
    settings : tuple of mapping of str to float
        What was tried, such as ``{"strength": 0.1}``.
    scores : ndarray of shape (n_settings, n_images, n_classes), float32
        The highest is the answer; scores of one head estimate class indicators, so that their squared
        error compares settings.
    errors : ndarray of shape (n_settings,), float64
        What decides between the settings: weighted mean squared error of the scores against the class
        indicators; of votes their calibrated loss.
    logits : ndarray of shape (n_settings, n_images, n_classes), float32
        What a temperature multiplies before the softmax; the scores themselves for most heads.
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
        targets = np.eye(scores.shape[2], dtype=np.float32)[training.codes[judged]]
        squares = ((scores - targets) ** 2).sum(axis=2)  # (n_settings, n_images)
        errors = np.average(squares, axis=1, weights=training.weights[judged])
        return cls(settings, scores, errors, scores if logits is None else logits)


def best_setting(held: HeldOut) -> int:
    """The place of the setting with the least error of its held-out scores.

    Parameters
    ----------
    held : HeldOut
        Of one head at one place.

    Returns
    -------
    int
        Place among ``held.settings``.

    Notes
    -----
    The error and not the accuracy: it changes with every image and not only with those near a class
    boundary, so it varies less from sample to sample.
    """
    return int(held.errors.argmin())
