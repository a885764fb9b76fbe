"""What a contestant is and what it is made from; apart from the registry, so that its members can import this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headstart.models.model import Model
from headstart.records import NetworkSpec, Source, TrainSettings
from headstart.report.entries import Entry
from headstart.sources.features import Extraction
from headstart.strategies.finetune.decide import Finetuner
from headstart.strategies.fits import Chooser, Reader, Strategy
from headstart.strategies.places import Probe
from headstart.strategies.unlabelled import Unlabelled
from headstart.workflows.comparison.protocol import EvaluationSetup

__all__ = ["Contestant", "ReadyStrategy", "StudyContext"]


@dataclass(frozen=True)
class StudyContext:
    """One running study; ``plain`` reads images as they are, ``reader`` as the source prepares them.

    ``spec`` is the network trained from scratch, if one is given, and ``scratch`` its settings (with all
    labels, with fewer).
    """

    source: Source
    trained: Model | None
    probe: Probe
    spec: NetworkSpec | None
    scratch: tuple[TrainSettings, TrainSettings]
    scratch_very_few: TrainSettings | None
    engine: str | None
    seed: int
    setup: EvaluationSetup
    reader: Reader
    plain: Reader
    chooser: Chooser
    options: Extraction
    finetuner: Finetuner | None = None
    unlabelled: Unlabelled | None = None


@dataclass(frozen=True)
class ReadyStrategy:
    """A strategy ready to run, or None where it does not apply; ``remark`` is for readers of the report."""

    strategy: Strategy | None
    remark: str = ""


@dataclass(frozen=True)
class Contestant(Entry):
    """A strategy or a control: how the report shows it, and how a study makes it.

    ``make`` is None for strategies that recipes make themselves. ``redrawn``: its frozen random weights are
    drawn again in every round. ``parallel``: with few images it runs in processes of its own. ``pixels``: it computes
    from images, so it is left out where the features alone are known.
    """

    control: bool = False
    make: Callable[[StudyContext], ReadyStrategy] | None = None
    redrawn: bool = False
    parallel: bool = False
    pixels: bool = False
