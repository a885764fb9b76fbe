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
    """How a recipe is carried out, beside what the recipe says.

    ``data``, ``engine``, ``source``, ``size_px`` and ``test`` stand in for the recipe's own where given.
    A recipe that names torch runs on the scratch engine, with a remark, where torch is not installed. Without
    ``controls`` there is no verdict. ``command`` is what the user typed, for the report. ``opening`` asks for
    the strategy finetune beside the probe, and says how.
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
    opening: FinetuneOptions | None = None

    @property
    def extraction(self) -> Extraction:
        """How features are computed."""
        return Extraction(self.cache, self.runtime, None, self.progress)


@dataclass(frozen=True)
class Outcome:
    """What a recipe found and where it was written."""

    result: Report
    folder: Path
    report: Path
