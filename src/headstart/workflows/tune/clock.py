"""Measures the steps of a search, and decides whether another step fits the time budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

__all__ = ["Clock"]


@dataclass
class Clock:
    """Time since a search began, against a budget in seconds; without a budget everything fits.

    >>> clock = Clock(60.0)
    >>> clock.fits(30.0), clock.fits(90.0), Clock().fits(1e9)
    (True, False, True)
    """

    budget_s: float | None = None
    begun: float = field(default_factory=perf_counter)
    costs: dict[str, list[float]] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return perf_counter() - self.begun

    def fits(self, seconds: float, share: float = 1.0) -> bool:
        """Whether so many more seconds end within a share of the budget."""
        return self.budget_s is None or self.elapsed_s + seconds <= share * self.budget_s

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Measure a step and record its cost."""
        begun = perf_counter()
        yield
        self.costs.setdefault(kind, []).append(perf_counter() - begun)

    def dearest(self, kind: str, last: int = 0) -> float:
        """Seconds of the longest step of a kind, or of its ``last`` steps; 0 before the first."""
        return max(self.costs.get(kind, [])[-last:], default=0.0)

    def mean(self, kind: str) -> float:
        """Mean seconds of a step of a kind; 0 before the first."""
        return self.total(kind) / max(len(self.costs.get(kind, [])), 1)

    def total(self, kind: str) -> float:
        """Seconds of all steps of a kind."""
        return sum(self.costs.get(kind, []))
