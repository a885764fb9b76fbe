"""From values to positions: scales that include what is to be drawn, and round numbers along them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scale", "round_scale"]


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high`` along a length; ``log`` for a logarithmic scale of positive values.

    >>> Scale(0.0, 4.0).at(1.0), Scale(1.0, 100.0, log=True).at(10.0)
    (0.25, 0.5)
    """

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Position of a value, 0 - 1; values off the scale are clipped."""
        low, high, here = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return min(max((here - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def ticks(self, most: int = 5) -> tuple[float, ...]:
        """At most ``most`` round values on the scale.

        >>> Scale(0.62, 1.0).ticks(), Scale(1e-4, 0.3, log=True).ticks()
        ((0.7, 0.8, 0.9, 1.0), (0.0001, 0.001, 0.01, 0.1))
        """
        return _powers(self.low, self.high, most) if self.log else _steps(self.low, self.high, most)


def round_scale(values: Iterable[float], *, most: int = 5) -> Scale:
    """A linear scale that includes all finite values and ends at round numbers; 0 to 1 without values.

    >>> round_scale([0.72, 0.964])
    Scale(low=0.7, high=1.0, log=False)
    """
    kept = [value for value in values if math.isfinite(value)]
    if not kept:
        return Scale(0.0, 1.0)
    low, high = min(kept), max(kept)
    step = _step((high - low) or abs(high) * 0.1 or 1.0, most)
    ends = (math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9))
    first, last = ends if ends[0] < ends[1] else (ends[0] - 1, ends[1] + 1)
    return Scale(_tidy(first * step), _tidy(last * step))


def _step(room: float, most: int) -> float:
    """The smallest step of 1, 2 or 5 times a power of ten that divides the range ``most`` times or fewer."""
    power = 10.0 ** math.floor(math.log10(room / most))
    return next(power * factor for factor in (1, 2, 5, 10, 20) if room / (power * factor) <= most - 1 + 1e-9)


def _steps(low: float, high: float, most: int) -> tuple[float, ...]:
    if not high > low:
        return (low,)
    step = _step(high - low, most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(_tidy(index * step) for index in range(first, last + 1))


def _powers(low: float, high: float, most: int) -> tuple[float, ...]:
    """Powers of ten, every second or so where there are many; 1, 2, 5 between where there are few."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first >= 1:
        return tuple(_tidy(10.0**power) for power in range(first, last + 1, -(-(last - first + 1) // most)))
    around = (factor * 10.0**power for power in range(first - 1, last + 2) for factor in (1, 2, 5))
    return tuple(_tidy(value) for value in around if low * (1 - 1e-9) <= value <= high * (1 + 1e-9))


def _tidy(value: float) -> float:
    """Remove rounding errors, so that 0.30000000000000004 is 0.3."""
    return float(f"{value:.12g}")
