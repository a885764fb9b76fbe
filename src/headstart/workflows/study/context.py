"""What the contestants of a study are made from; apart from the request, which names contestants."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.models.model import Model
from headstart.records import NetworkSpec, Source, TrainSettings
from headstart.sources.features import Extraction
from headstart.strategies.finetune.decide import Finetuner
from headstart.strategies.fits import Chooser, Reader
from headstart.strategies.places import Probe
from headstart.workflows.comparison.protocol import EvaluationSetup

__all__ = ["StudyContext"]


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
    scratch_others: tuple[TrainSettings, ...]
    engine: str | None
    seed: int
    setup: EvaluationSetup
    reader: Reader
    plain: Reader
    chooser: Chooser
    options: Extraction
    finetuner: Finetuner | None = None
