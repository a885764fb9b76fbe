"""Chooses the learning rate of a training by a rate test, or takes the network's default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from headstart.errors import SettingError
from headstart.networks.rate_test import FlatLossError, RateCurve
from headstart.records import TrainSettings

__all__ = ["RateChoice", "choose_rate"]

_FLAT = "flat"  # key of a note: why no rate was suggested


@dataclass(frozen=True)
class RateChoice:
    """The result of a rate test; if it suggests no rate, ``curve`` is None and ``flat`` says why."""

    curve: RateCurve | None
    flat: str = ""

    def applied(self, settings: TrainSettings) -> TrainSettings:
        """The settings with the suggested rate, or unchanged."""
        return settings if self.curve is None else replace(settings, learning_rate=self.curve.suggestion)

    def sentence(self, settings: TrainSettings) -> str:
        """Which rate is used, and why."""
        if self.curve is None:
            own = f"the network's default {settings.learning_rate:.2g} is used"
            return f"no learning rate was suggested, {own}: {self.flat}"
        return f"learning rate {self.curve.suggestion:.2g}, found by a rate test"

    @property
    def doubt(self) -> str:
        """What is doubtful about the curve; empty if nothing."""
        return "" if self.curve is None else self.curve.remark

    def note(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {_FLAT: self.flat} if self.curve is None else asdict(self.curve)


def choose_rate(test: Callable[[], RateCurve], noted: Mapping[str, Any] | None = None) -> RateChoice:
    """Run a rate test, or restore ``noted``; SettingError if the loss diverges at once or is not finite."""
    if noted is not None:
        return _restored(noted)
    try:
        return RateChoice(test())
    except FlatLossError as error:
        return RateChoice(None, str(error).partition(", expected")[0])
    except SettingError as error:
        raise SettingError(f"learning rate was not found: {error}; or give a number for it") from error


def _restored(noted: Mapping[str, Any]) -> RateChoice:
    if _FLAT in noted:
        return RateChoice(None, str(noted[_FLAT]))
    rates, losses = tuple(noted["rates"]), tuple(noted["losses"])
    return RateChoice(RateCurve(rates, losses, float(noted["suggestion"]), str(noted["remark"])))
