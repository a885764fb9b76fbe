"""What a graph returned, checked: probabilities are numbers from 0 to 1, one for each class."""

from __future__ import annotations

import numpy as np

from headstart.errors import ModelError
from headstart.records import Prediction

__all__ = ["checked_prediction"]

_ROUNDING = 1e-2  # bf16 has 8 bits


def checked_prediction(prediction: Prediction, n_classes: int, name: str) -> Prediction:
    """The prediction; ModelError for NaN, for values that are no probabilities, and for other shapes."""
    probabilities, novelty = prediction.probabilities, prediction.novelty
    if probabilities.shape[1:] != (n_classes,) or (
        novelty is not None and novelty.shape != probabilities.shape[:1]
    ):
        novelties = "" if novelty is None else f" and novelties of shape {novelty.shape}"
        raise ModelError(
            f"model {name!r} gives probabilities of shape {probabilities.shape}{novelties}, expected "
            f"(n_images, {n_classes}); copy the model again, or train it again"
        )
    valid = np.all((probabilities >= -_ROUNDING) & (probabilities <= 1 + _ROUNDING), axis=1)
    if novelty is not None:
        valid &= ~np.isnan(novelty)
    if not valid.all():
        raise ModelError(
            f"model {name!r} gives values that are not probabilities for {int((~valid).sum())} of {len(valid)} "
            "images, expected numbers from 0 to 1; copy the model again, or train it again"
        )
    return prediction
