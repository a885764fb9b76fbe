"""The search space of a training: ranges, and how a trial is drawn from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.workflows.tune.regime import Regime

__all__ = ["LEAST_DECAY", "Range", "drawn_params", "params_of", "regime_of"]


LEAST_DECAY = 1e-6  # the lower end of a logarithmic scale, which stands for 0


@dataclass(frozen=True)
class Range:
    """The range of one setting, on the scale it is drawn on; ``base`` is that of a logarithm."""

    low: float
    high: float
    base: int = 0
    whole: bool = False


SPACE: dict[str, Range] = {
    "learning_rate": Range(-4.0, -1.5, 10),
    "batch_size": Range(4, 9, 2, whole=True),
    "epochs": Range(2, 30, whole=True),
    "label_smoothing": Range(0.0, 0.2),
    "weight_decay": Range(-6.0, -2.0, 10),
    "width": Range(-1.0, 1.0, 2),
    "dropout": Range(0.0, 0.5),
}


_DIGITS = 3  # of rounded settings, so that they can be typed


def drawn_params(trial: Any) -> Regime:
    """Let Optuna suggest every setting, each on its own scale; its importance is measured on that, too."""
    values = {
        name: trial.suggest_int(name, int(one.low), int(one.high))
        if one.whole
        else trial.suggest_float(name, one.low, one.high)
        for name, one in SPACE.items()
    }
    return regime_of(values)


def regime_of(parameters: Mapping[str, float]) -> Regime:
    """From the scales of drawing to settings; the smallest weight decay becomes 0."""
    plain = {
        name: float(f"{one.base ** parameters[name] if one.base else parameters[name]:.{_DIGITS}g}")
        for name, one in SPACE.items()
    }
    decay = plain["weight_decay"]
    return Regime(
        learning_rate=plain["learning_rate"],
        batch_size=int(plain["batch_size"]),
        epochs=int(plain["epochs"]),
        label_smoothing=plain["label_smoothing"],
        weight_decay=0.0 if decay <= LEAST_DECAY else decay,
        width=plain["width"],
        dropout=plain["dropout"],
    )


def params_of(regime: Regime) -> dict[str, float]:
    """From settings to the scales of drawing: the inverse of `regime_of`."""
    found = {}
    for name, one in SPACE.items():
        value = max(float(getattr(regime, name)), LEAST_DECAY if name == "weight_decay" else 0.0)
        scaled = math.log(value, one.base) if one.base else value
        found[name] = round(scaled) if one.whole else round(scaled, 9)
    return found
