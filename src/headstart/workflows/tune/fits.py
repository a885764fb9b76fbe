"""Fits of a search over features in other processes, ahead of when the search takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from headstart.system.progress import SILENT, Progress
from headstart.system.runners import LOCAL, Runner
from headstart.workflows.tune.search import FeatureSearch, Fit, Found, Hits

__all__ = ["HERE", "FitRunner"]


@dataclass(frozen=True)
class _Fits:
    """Does fits on features that every worker has."""

    search: FeatureSearch

    def __call__(self) -> Callable[[Fit], Found | Hits]:
        return self.search.fitted


@dataclass(frozen=True)
class FitRunner:
    """Does fits by a runner; one that runs here does none ahead, and the search does each when it needs it."""

    runner: Runner = field(default=LOCAL)
    progress: Progress = SILENT

    def ahead(self, search: FeatureSearch, fits: Sequence[Fit], what: str) -> None:
        """Do fits now, if that is in other processes; the search takes their results."""
        if not self.runner.remote or not fits:
            return
        fits = list({fit.key: fit for fit in fits}.values())
        names = {name for (_, _, name) in (fit.way for fit in fits)}
        places = {fit.way[0] for fit in fits}
        sent = replace(  # what these fits need, and the default place
            search,
            features={at: rows for at, rows in search.features.items() if at in {*places, search.default}},
            copies={name: search.copies[name] for name in search.copies if name in names},
            ahead={},
        )
        done = {}
        for number, result in self.runner.map(_Fits(sent), fits):
            done[fits[number].key] = result
            self.progress.step(what, len(done), len(fits))
        search.ahead.update(done)


HERE = FitRunner()
