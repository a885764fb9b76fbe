"""How much of a time budget is left, and what the steps of a search cost.

In: a budget in seconds. Out: whether a step that takes so long still fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

__all__ = ["Clock"]


@dataclass
class Clock:
    """Time since a search began, against its budget.

    Parameters
    ----------
    budget_s : float, optional
        Seconds. None: no limit, everything fits.
    begun : float, optional
        `time.perf_counter` at the beginning. Default: now.

    Examples
    --------
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
        """Whether so many seconds more end within a share of the budget."""
        return self.budget_s is None or self.elapsed_s + seconds <= share * self.budget_s

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Measure a step and keep what it cost."""
        begun = perf_counter()
        yield
        self.costs.setdefault(kind, []).append(perf_counter() - begun)

    def dearest(self, kind: str, last: int = 0) -> float:
        """Seconds of the longest step of a kind, or of the ``last`` so many; 0 before the first."""
        return max(self.costs.get(kind, [])[-last:], default=0.0)

    def mean(self, kind: str) -> float:
        """Seconds of a step of a kind on average; 0 before the first."""
        return self.total(kind) / max(len(self.costs.get(kind, [])), 1)

    def total(self, kind: str) -> float:
        """Seconds of all steps of a kind."""
        return sum(self.costs.get(kind, []))
