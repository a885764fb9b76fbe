"""The request of a recipe: options that replace what the recipe says.

Apart from the run, so that every kind of recipe can use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.report.records import Report
from headstart.sources.features import Extraction
from headstart.strategies.finetune.options import FinetuneOptions
from headstart.system.cache import Cache
from headstart.system.progress import SILENT, Progress

__all__ = ["Outcome", "RecipeOptions"]


@dataclass(frozen=True)
class RecipeOptions:
    """Options of a run; ``data``, ``engine``, ``source``, ``size_px`` and ``test`` replace the recipe's own.

    Without torch a recipe that names it uses the NumPy engine, with a remark. Without ``controls`` there is no
    verdict. ``command`` is the command line, for the report. ``finetune`` adds the strategy finetune.
    ``allow_leaks`` continues although an image is in two splits. ``precision`` is fp32, the default, or int8,
    for a recipe on a pretrained network.
    """

    data: str | None = None
    engine: str | None = None
    seed: int = 0
    controls: bool = True
    cache: Cache | None = None
    runtime: str = "openvino"
    command: str = ""
    source: str | None = None
    size_px: int | None = None
    test: str | None = None
    progress: Progress = SILENT
    finetune: FinetuneOptions | None = None
    allow_leaks: bool = False
    precision: str | None = None

    @property
    def extraction(self) -> Extraction:
        """How features are computed."""
        return Extraction(self.cache, self.runtime, self.precision, self.progress)


@dataclass(frozen=True)
class Outcome:
    """The report of a recipe and the folder it was written to."""

    result: Report
    folder: Path
    report: Path
