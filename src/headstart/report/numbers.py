"""How the report writes numbers: with a true minus sign, and a dash where nothing was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headstart.evaluation.records import Score

__all__ = [
    "about",
    "count",
    "decimals",
    "fact_name",
    "labels",
    "number",
    "p_value",
    "percent",
    "points",
    "seconds",
    "span",
]

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


_FACT_NAMES = {
    "everything": "total time",
    "judged_by": "test set",
    "learning": "training time",
    "learning_the_head": "training time of the head",
    "learning_the_source": "training time of the source",
    "learnt from": "train",
    "searching": "search time",
    "use_it": "command to use it",
    "ways": "candidates",
}


def fact_name(key: str) -> str:
    """The name that a report prints for a key of its facts or sizes.

    >>> fact_name("judged_by"), fact_name("source_fingerprint")
    ('test set', 'source fingerprint')
    """
    return _FACT_NAMES.get(key, key.replace("_", " "))


def number(value: float, spec: str) -> str:
    """Write a number by a format, with a true minus sign, or a dash where there is none."""
    return format(value, spec).replace("-", "−") if math.isfinite(value) else "–"


def percent(share: float) -> str:
    """Write 0.9731 as 97.3."""
    return number(100 * share, ".1f")


def span(score: Score) -> str:
    """Write the interval of a share in per cent, such as 88.0–91.5."""
    return f"{percent(score.low)}–{percent(score.high)}"


def points(share: float) -> str:
    """Write a difference of shares in percentage points, with its sign."""
    return number(100 * share, "+.1f")


def p_value(p: float) -> str:
    """Write a p-value to three places, or < 0.001."""
    return "< 0.001" if p < 0.001 else number(p, ".3f")


def count(n: int) -> str:
    """Write 60000 as 60,000."""
    return f"{n:,}"


def about(n: int) -> str:
    """Write an estimated count to two figures, rounded up: 4312 as 4,400."""
    unit = 10 ** max(len(str(abs(n))) - 2, 0)
    return count(-(-n // unit) * unit)


def decimals(value: float) -> str:
    """Write a loss or another score that is not a share to three places."""
    return number(value, ".3f")


def seconds(value: float) -> str:
    """Write seconds to two figures where they are few: 0.1234 as 0.12, 1234.5 as 1,234."""
    return number(value, ",.0f" if value >= 10 else ".2g")


def labels(values: Sequence[float], *, even: bool = False) -> list[str]:
    """Write the values along an axis: as decimals, or all as powers of ten where one is very large or small.

    With ``even`` all values get as many decimals as the longest of them.

    >>> labels([0.2, 0.5, 1.0]), labels([1e-4, 1e-3, 1e-2]), labels([0.85, 0.9, 1.0], even=True)
    (['0.2', '0.5', '1'], ['10⁻⁴', '10⁻³', '10⁻²'], ['0.85', '0.90', '1.00'])
    """
    far = [value for value in values if _far(value)]
    if even and not far:
        decimals = max((len(f"{value:.6g}".partition(".")[2]) for value in values), default=0)
        return [number(value, f",.{decimals}f") for value in values]
    powers = bool(far) and all(value > 0 and f"{value:.6e}".startswith("1.000000") for value in values)
    return [_power(value) if powers or _far(value) else _near(value) for value in values]


def _far(value: float) -> bool:
    """Whether a value has too many zeros to be read at a glance."""
    return value != 0 and not 1e-3 <= abs(value) < 1e6


def _near(value: float) -> str:
    return number(value, ",.0f" if abs(value) >= 1000 else ".4g")


def _power(value: float) -> str:
    """Write a value as a power of ten, with a factor where it is not one."""
    factor, power = f"{value:.3e}".split("e")
    factor = factor.rstrip("0").rstrip(".")
    ten = f"10{str(int(power)).translate(_SUPERSCRIPTS)}"
    return ten if factor == "1" else f"{factor}·{ten}".replace("-", "−")
