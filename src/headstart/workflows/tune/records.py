"""Records of a search over features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from headstart.evaluation.records import Difference, Score
from headstart.report.records import Factor

__all__ = ["NO_AUGMENTATION", "FeatureTrial", "FeatureTuning", "Rival", "Way", "Where"]

NO_AUGMENTATION = "none"
"""The augmentation of trials without any."""


class Where(NamedTuple):
    """How images are prepared, and where features are read."""

    policy: str
    layer: str
    pooling: str


Way = tuple[Where, str, str]
"""Place, head and augmentation: what a fit depends on."""


@dataclass(frozen=True)
class FeatureTrial:
    """One combination, and its scores on images left out of the fit.

    ``error`` is the mean squared error of its held-out scores, ``loss`` their calibrated cross-entropy in
    nats. ``settled`` says that the head itself would choose this strength. ``handicap`` is added to the loss where
    place or preparation are not the default; see `strategies.select.PRIOR_NATS`.
    """

    where: Where
    head: str
    strength: float
    augment: str
    accuracy: Score
    error: float
    loss: float
    settled: bool
    handicap: float = 0.0

    @property
    def title(self) -> str:
        """For tables and sentences."""
        augmentation = "" if self.augment == NO_AUGMENTATION else f", augmentation {self.augment}"
        return f"{self.head} on {self.where.layer}, {self.where.pooling}, {self.where.policy}{augmentation}"

    @property
    def way(self) -> Way:
        """All but the strength, which the head chooses."""
        return self.where, self.head, self.augment

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Sort key, the best first among those whose strength the head would choose."""
        return (not self.settled, self.loss + self.handicap, -self.accuracy.value)


@dataclass(frozen=True)
class Rival:
    """An alternative with less search or none, on the same outer folds; ``lead`` is tuning's advantage.

    The interval and p-value of the lead are those of a t-test over images, or over clusters.
    """

    name: str
    accuracy: Score
    spread: float
    lead: Difference


@dataclass(frozen=True)
class FeatureTuning:
    """The result of an exhaustive search over features.

    ``nested`` is the accuracy of the search itself: repeated without each outer fold, its winner fitted and
    evaluated on that fold. The winner's own accuracy is the maximum of many, and optimistic. ``picks`` are
    the winners without each outer fold. ``lead`` compares the winner with ``runner_up``, the best of
    another place, preparation or augmentation; both are equally optimistic. ``left_out`` names what was not
    tried, and why.
    """

    trials: tuple[FeatureTrial, ...]
    nested: Score
    spread: float
    repeats: int
    n_outer: int
    n_images: int
    picks: tuple[FeatureTrial, ...]
    rivals: tuple[Rival, ...]
    runner_up: FeatureTrial | None
    lead: Difference | None
    factors: tuple[Factor, ...]
    seconds: float
    left_out: tuple[str, ...] = ()

    @property
    def best(self) -> FeatureTrial:
        """The winner."""
        return self.trials[0]

    @property
    def optimism(self) -> float:
        """By how much the winner's own accuracy exceeds the nested one (-1 to 1)."""
        return self.best.accuracy.value - self.nested.value
