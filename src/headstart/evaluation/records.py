"""What evaluation returns: scores with intervals, differences, metrics of one model on one test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "Calibration",
    "ClassScore",
    "Detection",
    "Difference",
    "Evaluated",
    "Evaluation",
    "ReliabilityBin",
    "Score",
]


@dataclass(frozen=True)
class Score:
    """An estimate with its 95 % interval and the number of images behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """A paired difference of accuracies (0 - 1) with its 95 % interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p_value: float
    n: int


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one class on the test images."""

    name: str
    precision: Score
    recall: Score
    f1: Score


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one model on one test set.

    ``confusion[i][j]`` counts images of class i that were predicted as class j; ``loss`` is in nats per
    image; ``macro`` averages over the classes that have images.
    """

    title: str
    classes: tuple[str, ...]
    accuracy: Score
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassScore, ...]
    macro: ClassScore | None = None

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without an image."""
        return tuple(name for name, row in zip(self.classes, self.confusion, strict=True) if not sum(row))


@dataclass(frozen=True)
class Evaluated:
    """Metrics of one model on one dataset, and which images they are about.

    ``evaluation`` and ``calibration`` are about the images that ``about`` names: ``new images``; ``images
    learned from`` where none is new; ``images`` where the model does not record what it learned from. ``new``
    and ``learned`` are the accuracies on each kind, None without images of it, and ``counts`` their numbers.
    ``warnings`` are sentences without which the figures would be misread.
    """

    title: str
    about: str
    split: str
    new: Score | None
    learned: Score | None
    counts: Mapping[str, int]
    evaluation: Evaluation
    calibration: Calibration
    detection: Detection | None = None
    n_groups: int = 0
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions with a confidence in (``low``, ``high``], and the share of them that was correct."""

    low: float
    high: float
    confidence: float
    accuracy: Score


@dataclass(frozen=True)
class Calibration:
    """How reliable the probabilities are; empty bins are left out.

    ``ece`` is the expected calibration error (0 - 1), ``brier`` the Brier score over all classes (0 - 2),
    ``nll`` the loss in nats per image.
    """

    title: str
    ece: float
    brier: float
    nll: float
    n: int
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Detection:
    """How well images of none of the classes are separated from images of the classes.

    ``auroc`` and ``baseline_auroc`` (of the largest probability) are the chance that a novel image scores
    higher than a known one. ``detected`` and ``falsely_rejected`` are shares at the model's own threshold;
    ``detected_at_rate`` and ``baseline_detected_at_rate`` are shares of the novel images where ``rate`` of
    these known images is rejected.
    """

    title: str
    auroc: Score
    baseline_auroc: Score
    detected: Score
    falsely_rejected: Score
    rate: float
    detected_at_rate: Score
    baseline_detected_at_rate: Score
