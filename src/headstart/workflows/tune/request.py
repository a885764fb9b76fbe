"""What a search was asked for, as its parts need it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.data.dataset import Dataset

__all__ = ["Search", "SearchSetting"]


@dataclass(frozen=True)
class SearchSetting:
    """What was asked for."""

    name: str
    dataset: Dataset
    search: Search
    seed: int
    command: str
    data: str

    @property
    def train(self) -> Dataset:
        """The images that a search may look at."""
        return self.dataset if self.dataset.splits is None else self.dataset.split("train")


@dataclass(frozen=True)
class Search:
    """What is searched and for how long; None leaves it to the data.

    ``policies``, ``augments`` (names of presets), ``views`` and ``size_px`` are of a search over features;
    ``n_trials``, ``engine`` and ``storage`` (an SQLite file) of one over training. ``budget_s`` is in
    seconds for everything, and of both.
    """

    policies: tuple[str, ...] | None = None
    augments: tuple[str, ...] | None = None
    views: int | None = None
    size_px: int | None = None
    n_trials: int | None = None
    engine: str | None = None
    storage: Path | None = None
    budget_s: float | None = None
