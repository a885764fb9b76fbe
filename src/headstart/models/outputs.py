"""What a graph returned, checked: probabilities are numbers from 0 to 1, one for each class of every image."""

from __future__ import annotations

import numpy as np

from headstart.errors import ModelError
from headstart.records import Array, Prediction

__all__ = ["check_count", "checked_outputs"]

_ROUNDING = 1e-2  # bf16 has 8 bits


def checked_outputs(outputs: tuple[Array, ...], n_classes: int, name: str) -> tuple[Array, ...]:
    """Probabilities, and novelty if there is one; ModelError for NaN, for no probabilities, for other shapes."""
    probabilities, *others = outputs
    shapes = [one.shape for one in outputs]
    if probabilities.shape[1:] != (n_classes,) or any(one.shape != probabilities.shape[:1] for one in others):
        raise ModelError(
            f"model {name!r} gives outputs of shape {' and '.join(map(str, shapes))}, expected a probability of each "
            f"of {n_classes} classes for every image; copy the model again, or train it again"
        )
    valid = np.all((probabilities >= -_ROUNDING) & (probabilities <= 1 + _ROUNDING), axis=1)
    for novelty in others:
        valid &= ~np.isnan(novelty)
    if not np.all(valid):
        raise ModelError(
            f"model {name!r} gives values that are not probabilities for {int((~valid).sum())} of "
            f"{len(probabilities)} images, expected numbers from 0 to 1; copy the model again, or train it again"
        )
    return outputs


def check_count(prediction: Prediction, n_images: int, name: str) -> None:
    """ModelError where a graph returned more or fewer rows than it got images."""
    if len(prediction.probabilities) != n_images:
        raise ModelError(
            f"model {name!r} gives {len(prediction.probabilities)} predictions for {n_images} images, expected one "
            "for each; copy the model again, or train it again"
        )
