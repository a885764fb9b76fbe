"""How sure a number is: metrics with intervals, paired comparisons, verdicts.

Names load on first use: `records` is imported everywhere and must not bring SciPy with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["clustered_score", "evaluate", "paired_difference", "verdict", "wilson"]

if TYPE_CHECKING:
    from headstart.evaluation.clusters import clustered_score
    from headstart.evaluation.compare import paired_difference, verdict
    from headstart.evaluation.intervals import wilson
    from headstart.evaluation.metrics import evaluate

_HOMES = {
    "clustered_score": "clusters",
    "evaluate": "metrics",
    "paired_difference": "compare",
    "verdict": "compare",
    "wilson": "intervals",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
