"""The request of a study and its options as text, which a command checks before anything expensive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.names import comma_list
from headstart.errors import SettingError, nearest
from headstart.records import NetworkSpec, TrainSettings
from headstart.strategies.finetune.options import FinetuneOptions, parse_strategies
from headstart.strategies.fits import Strategy
from headstart.strategies.places import CHOSEN, Probe
from headstart.workflows.comparison.protocol import EvaluationSetup
from headstart.workflows.study.contestants import CONTROLS, SCRATCH, SCRATCH_VERY_FEW

__all__ = ["StudyRequest", "check_controls", "check_numbers", "parse_controls", "parse_labels"]

# as accurate as the best of three settings, and 1 to 5 points more than 150 steps at 1 to 50 labels per class (the
# small CNN on MNIST and USPS, 5 draws each, 2026-11-30)
_SCRATCH = TrainSettings(epochs=12, min_steps=600, batch_size=32, learning_rate=3e-3, schedule="one-cycle")


@dataclass(frozen=True)
class StudyRequest:
    """What a study compares and how; what is None is chosen by rule.

    ``kind`` is the protocol's; ``labels_per_class`` the budgets of the learning curve, () for none;
    ``with_all`` adds all labels; ``controls`` some of `CONTROLS`. ``extra`` are further strategies, made from
    the setup: they count as controls, except those named in ``shown``. ``spec`` is the network that is
    trained from scratch, ``scratch`` its settings (with all labels, with fewer), ``scratch_very_few``
    those for fewer than 100 images, where they differ, ``engine`` what trains it (None: torch if installed).
    ``networks`` random ones stand for one where there is one round. ``finetune`` adds the strategy of that name with
    these options, ``unlabelled`` the probe that also learns from these images, as `load_unlabelled` gives them.
    Differences within ``margin``, a share, count as practically none.
    """

    probe: Probe = CHOSEN
    kind: str | None = None
    labels_per_class: tuple[int, ...] | None = None
    with_all: bool = True
    draws: int = 20
    controls: tuple[str, ...] = CONTROLS
    allow_leaks: bool = False
    seed: int = 0
    extra: Mapping[str, Callable[[EvaluationSetup], Strategy]] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    spec: NetworkSpec | None = None
    scratch: tuple[TrainSettings, TrainSettings] = (_SCRATCH, _SCRATCH)
    scratch_very_few: TrainSettings | None = SCRATCH_VERY_FEW
    engine: str | None = None
    networks: int | None = None
    finetune: FinetuneOptions | None = None
    unlabelled: Dataset | None = None
    margin: float = 0.01


def parse_controls(text: str, strategies: str = "probe") -> tuple[str, ...]:
    """Parse all, none or comma-separated names; the strategy ``scratch`` adds that control."""
    named = comma_list(text)
    chosen = {"all": CONTROLS, "none": ()}.get(text, named)
    check_controls(chosen)
    also = SCRATCH in parse_strategies(strategies) and SCRATCH not in chosen
    return (*chosen, SCRATCH) if also else chosen


def check_controls(names: Sequence[str]) -> None:
    """Raise `SettingError` for a name that is no control."""
    unknown = [name for name in names if name not in CONTROLS]
    if unknown:
        raise SettingError(
            f"control is {unknown[0]!r}, expected one of {', '.join(CONTROLS)}; "
            f"{nearest(unknown[0], CONTROLS)}"
        )


def check_numbers(request: StudyRequest) -> None:
    """Raise `SettingError` for a margin, a number of draws or of labels that is none."""
    if not 0 <= request.margin < 1:
        raise SettingError(
            f"margin is {100 * request.margin:g} points, expected at least 0 and below 100; leave it out for 1"
        )
    for name, value in (
        ("draws", request.draws),
        *(("labels per class", one) for one in request.labels_per_class or ()),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise SettingError(
                f"{name} is {value!r}, expected a whole number of at least 1; give one such as 5"
            )


def parse_labels(text: str | None) -> tuple[tuple[int, ...] | None, bool]:
    """Parse comma-separated numbers of labels per class, and ``all``: budgets, and whether all labels is one.

    >>> parse_labels("5, 10"), parse_labels("all"), parse_labels(None)
    (((5, 10), False), ((), True), (None, True))
    """
    if text is None:
        return None, True
    words = comma_list(text)
    numbers = [word for word in words if word != "all"]
    if not words or not all(word.isdecimal() and int(word) >= 1 for word in numbers):
        raise SettingError(
            f"labels is {text!r}, expected whole numbers of at least 1, and all; such as 1,5,10,all"
        )
    return tuple(sorted({int(word) for word in numbers})), "all" in words
