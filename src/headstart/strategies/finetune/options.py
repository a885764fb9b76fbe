"""Options of fine-tuning: the strategies, how many layers are unfrozen, and what replaces the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from headstart.data.images.augment import Augmentation
from headstart.data.names import comma_list
from headstart.errors import SettingError, nearest
from headstart.records import DEVICES, TrainSettings
from headstart.system.optional import require

__all__ = [
    "DEPTHS",
    "FOR",
    "STRATEGIES",
    "FinetuneOptions",
    "depths_of",
    "parse_finetune",
    "parse_strategies",
    "parse_transfer",
]

STRATEGIES = ("probe", "finetune", "scratch")
"""How much is trained: a head alone, some of the source too, or a whole network."""

DEPTHS = ("head", "last", "2", "all", "auto")

FOR = "strategy 'finetune'"
"""What torch is required for, in errors."""

_NAMES = {one.name for one in fields(TrainSettings)}


@dataclass(frozen=True)
class FinetuneOptions:
    """How many parts of a source are unfrozen and how they are trained; what is None is decided by `rules`.

    ``unfreeze`` is ``head`` (nothing of the network), ``last`` (its last part), a number of parts, ``all``,
    or ``auto``: the best of several depths on held-out images. ``dropout`` is the share of the head's
    inputs that a step drops. ``alpha`` in (0, 1] interpolates from the weights before training to those
    after it, 1 is after (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903). ``settings`` are fields of
    `TrainSettings` that replace the rule's.
    """

    unfreeze: str = "auto"
    augmentation: Augmentation | None = None
    device: str = "auto"
    dropout: float | None = None
    alpha: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        depths_of(self.unfreeze)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise SettingError(f"dropout is {self.dropout!r}, expected a share in [0, 1); 0 drops nothing")
        if self.alpha is not None and not 0 < self.alpha <= 1:
            raise SettingError(
                f"alpha is {self.alpha!r}, expected a share in (0, 1]; 1 uses the trained weights only"
            )
        if self.device not in DEVICES:
            raise SettingError(
                f"device is {self.device!r}, expected one of {', '.join(DEVICES)}; auto selects the fastest"
            )
        for name in self.settings:
            if name not in _NAMES:
                raise SettingError(
                    f"setting {name!r} is unknown, expected one of TrainSettings, {nearest(name, _NAMES)}"
                )


def depths_of(unfreeze: str) -> tuple[str, ...]:
    """The depths that a value of ``unfreeze`` stands for; SettingError if there are none.

    >>> depths_of("auto"), depths_of("3")
    (('last', '2', 'all'), ('3',))
    """
    if unfreeze == "auto":
        return ("last", "2", "all")
    if unfreeze in DEPTHS or (unfreeze.isdecimal() and int(unfreeze) >= 1):
        return (unfreeze,)
    raise SettingError(
        f"unfreeze is {unfreeze!r}, expected head, last, all, auto or a number of parts of at least 1; "
        f"{nearest(unfreeze, DEPTHS)}"
    )


def parse_strategies(text: str) -> tuple[str, ...]:
    """The strategies that a comma-separated text names; the probe is always among them.

    >>> parse_strategies("finetune, scratch")
    ('probe', 'finetune', 'scratch')
    """
    names = comma_list(text)
    for name in names:
        if name not in STRATEGIES:
            raise SettingError(
                f"strategy is {name!r}, expected some of {', '.join(STRATEGIES)}; {nearest(name, STRATEGIES)}"
            )
    return tuple(one for one in STRATEGIES if one == "probe" or one in names)


def parse_finetune(strategies: str, unfreeze: str = "auto", device: str = "auto") -> FinetuneOptions | None:
    """Options of fine-tuning if it is among the strategies; checks first that torch is installed.

    SettingError if a name is unknown, or ``unfreeze`` or ``device`` are given without fine-tuning.
    """
    if "finetune" in parse_strategies(strategies):
        require("torch", extra="train", for_=FOR)
        return FinetuneOptions(unfreeze, device=device)
    for name, value in (("unfreeze", unfreeze), ("device", device)):
        if value != "auto":
            raise SettingError(
                f"{name} is {value!r} without the strategy finetune, expected both or neither; "
                "name finetune among the strategies"
            )
    return None


def parse_transfer(strategy: str, unfreeze: str = "auto", device: str = "auto") -> FinetuneOptions | None:
    """As `parse_finetune`, for one strategy that makes a model: probe or finetune."""
    if strategy not in STRATEGIES[:2]:
        raise SettingError(
            f"strategy is {strategy!r}, expected probe or finetune; to train from scratch use: headstart train"
        )
    return parse_finetune(strategy, unfreeze, device)
