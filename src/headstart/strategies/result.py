"""The result of training, the same record for every strategy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.models.model import Model
from headstart.records import Array, Curve, Epoch, TrainSettings
from headstart.strategies.judge import HeldOutPredictions
from headstart.strategies.mixture import Mixture
from headstart.strategies.parts import TrainingParts
from headstart.strategies.select import Choice

__all__ = ["LearnedModel", "best_epoch", "epoch_curve"]


@dataclass(frozen=True)
class LearnedModel:
    """A model, its training curve, and the training time in seconds.

    ``choice`` is how layer and head were selected, if they were; ``held_probs`` are probabilities of the
    held-out images, (n_held, n_classes); ``predictions`` those of validation images that decided nothing;
    ``probe_probs`` those of the probe without unlabelled images, where some were given.
    ``remarks`` are warnings about the training; ``heads`` are those of a probe, without the rows they were fitted on.
    """

    model: Model
    curve: Curve | None
    seconds: float
    choice: Choice | None = None
    held_probs: Array | None = None
    parts: TrainingParts | None = None
    predictions: HeldOutPredictions | None = None
    remarks: tuple[str, ...] = ()
    probe_probs: Array | None = None
    heads: Mixture | None = None


def best_epoch(history: tuple[Epoch, ...], settings: TrainSettings) -> int | None:
    """Number of the epoch whose weights were restored; None where the last ones were kept."""
    if not settings.patience:
        return None
    return min(history, key=lambda epoch: (not np.isfinite(epoch.val_loss), epoch.val_loss)).number


def epoch_curve(title: str, history: tuple[Epoch, ...], best: int | None) -> Curve:
    """A training history as a curve; ``best`` is the epoch whose weights were restored."""
    return Curve(
        title,
        "epoch",
        tuple(float(one.number) for one in history),
        tuple(one.train_loss for one in history),
        tuple(one.val_loss for one in history),
        tuple(one.train_accuracy for one in history),
        tuple(one.val_accuracy for one in history),
        None if best is None else float(best),
    )
