"""What learning gives: a model, the curve of its training and what else is known of it.

The same record for every strategy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.models.model import Model
from headstart.records import Array, Curve, Epoch, TrainSettings
from headstart.strategies.judge import TrainingJudged
from headstart.strategies.parts import TrainingParts
from headstart.strategies.select import Choice

__all__ = ["LearnedModel", "best_epoch", "epoch_curve"]


@dataclass(frozen=True)
class LearnedModel:
    """A model, the curve of its learning, and the seconds it took.

    ``choice`` says how its parts were selected, if they were; ``held_probs`` are its answers on the
    images held out, if any, (n_held, n_classes); ``parts`` which images it learned from; ``judged`` a
    network's answers about validation images that decided nothing. ``remarks`` say what went wrong in
    training.
    """

    model: Model
    curve: Curve | None
    seconds: float
    choice: Choice | None = None
    held_probs: Array | None = None
    parts: TrainingParts | None = None
    judged: TrainingJudged | None = None
    remarks: tuple[str, ...] = ()


def best_epoch(history: tuple[Epoch, ...], settings: TrainSettings) -> int | None:
    """Number of the epoch whose weights came back; None where the last ones stayed."""
    if not settings.patience:
        return None
    return min(history, key=lambda epoch: (not np.isfinite(epoch.val_loss), epoch.val_loss)).number


def epoch_curve(title: str, history: tuple[Epoch, ...], best: int | None) -> Curve:
    """A training history as a curve.

    Parameters
    ----------
    title : str
        Over the picture.
    history : tuple of Epoch
        What happened.
    best : int or None
        Number of the epoch whose weights came back, if training was stopped early.

    Returns
    -------
    Curve
    """
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
