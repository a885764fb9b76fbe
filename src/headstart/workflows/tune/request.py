"""The request of a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.data.dataset import Dataset

__all__ = ["Search", "SearchRequest"]


@dataclass(frozen=True)
class SearchRequest:
    """A search with its source or network, its data and its seed."""

    name: str
    dataset: Dataset
    search: Search
    seed: int
    command: str
    data: str

    @property
    def train(self) -> Dataset:
        """The images that a search may use."""
        return self.dataset if self.dataset.splits is None else self.dataset.split("train")


@dataclass(frozen=True)
class Search:
    """What is searched and for how long; what is None is chosen by the data.

    ``policies``, ``augments`` (names of presets), ``n_copies`` and ``size_px`` are for a search over features;
    ``n_trials``, ``at_once`` (trials drawn together), ``engine`` and ``storage`` (an SQLite file) for one over
    training. ``budget_s`` is in seconds for everything, and for both.
    """

    policies: tuple[str, ...] | None = None
    augments: tuple[str, ...] | None = None
    n_copies: int | None = None
    size_px: int | None = None
    n_trials: int | None = None
    at_once: int | None = None
    engine: str | None = None
    storage: Path | None = None
    budget_s: float | None = None
