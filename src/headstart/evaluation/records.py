"""What is measured: scores with intervals, differences, metrics of one model on one test set."""

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
    """How one model did on one test set; ``confusion[i][j]`` counts class i called class j.

    ``macro`` holds the averages over the classes that have images.
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
    """How one model did on one dataset, and what the figures are about.

    ``evaluation`` and ``calibration`` are about the images that ``about`` names: ``new images``; ``images
    learned from`` where none is new; ``images`` where the model does not say what it learned from. ``new``
    and ``learned`` are the accuracies on either kind, None without images of it. ``counts`` says how many
    images were of which kind. ``warnings`` are sentences without which the figures would be misread.
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
    """Answers of about the same confidence, (``low``, ``high``], and how many of them were right."""

    low: float
    high: float
    confidence: float
    accuracy: Score


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be believed.

    ``ece`` is the expected calibration error (0 - 1), ``brier`` the Brier score over all classes
    (0 - 2), ``nll`` the loss in nats per image; ``n`` images. Empty bins are left out.
    """

    title: str
    ece: float
    brier: float
    nll: float
    n: int
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Detection:
    """How well pictures of none of the classes are told from those of the classes.

    ``auroc`` and ``baseline_auroc`` (of the largest probability) are the chance that a novel picture looks
    stranger than a known one. ``detected`` and ``falsely_rejected`` are shares at the model's own threshold,
    ``detected_at_rate`` and ``baseline_detected_at_rate`` of the novel where ``rate`` of these known ones is
    refused.
    """

    title: str
    auroc: Score
    baseline_auroc: Score
    detected: Score
    falsely_rejected: Score
    rate: float
    detected_at_rate: Score
    baseline_detected_at_rate: Score
