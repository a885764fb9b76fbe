"""What a search over features tries and finds, as plain records.

Apart from the search itself, which is long enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from headstart.evaluation.records import Difference, Score
from headstart.report.records import Factor

__all__ = ["NO_VIEWS", "FeatureTrial", "FeatureTuning", "Rival", "Way", "Where"]

NO_VIEWS = "none"
"""Name of the augmentation that is none."""


class Where(NamedTuple):
    """How images are prepared, and where features are read."""

    policy: str
    layer: str
    pooling: str


Way = tuple[Where, str, str]
"""Place, head and augmentation: what a fit depends on."""


@dataclass(frozen=True)
class FeatureTrial:
    """One combination, and how it did on images left out of its fit.

    ``error`` is the mean squared error of its held-out scores, ``loss`` their calibrated cross-entropy in
    nats. ``settled`` says that the head itself chooses this strength when it is fitted.
    """

    where: Where
    head: str
    strength: float
    augment: str
    accuracy: Score
    error: float
    loss: float
    settled: bool

    @property
    def title(self) -> str:
        """For tables and sentences."""
        views = "" if self.augment == NO_VIEWS else f", views {self.augment}"
        return f"{self.head} on {self.where.layer}, {self.where.pooling}, {self.where.policy}{views}"

    @property
    def way(self) -> Way:
        """All but the strength, which the head chooses."""
        return self.where, self.head, self.augment

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Sorts the best first, among those whose strength is the head's own choice."""
        return (not self.settled, self.loss, -self.accuracy.value)


@dataclass(frozen=True)
class Rival:
    """A way with less search or none, on the same outer folds; ``lead`` is by how much tuning beats it.

    The lead's interval and p-value are those of the corrected resampled t-test.
    """

    name: str
    accuracy: Score
    spread: float
    lead: Difference


@dataclass(frozen=True)
class FeatureTuning:
    """What an exhaustive search found, and what it is worth.

    ``nested`` is the accuracy of the search itself: run again without each outer fold, its winner
    fitted and asked about that fold. The winner's own accuracy is the best of many, and flatters.
    ``picks`` are the winners without each outer fold. ``lead`` is the winner's over ``runner_up``, the best
    of another place, preparation or augmentation; both share the flattery. ``left_out`` names what was
    not tried, and why.
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
        """The one to take."""
        return self.trials[0]

    @property
    def optimism(self) -> float:
        """By how much the winner's own accuracy is above the nested one (-1 to 1)."""
        return self.best.accuracy.value - self.nested.value
