"""The rounds of a result table: every strategy at every budget on its splits, here or in other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from headstart.records import Array
from headstart.strategies.fits import Strategy
from headstart.system.progress import Progress
from headstart.system.runners import Runner
from headstart.workflows.comparison.protocol import Protocol, TrainTest
from headstart.workflows.comparison.verdict import labels_text

__all__ = ["Job", "Round", "Rounds", "done", "jobs_of"]

Round = tuple[NDArray[np.bool_], float, Array]
"""Which predictions are right, (n_test,); seconds; probabilities, (n_test, n_classes)."""


@dataclass(frozen=True, eq=False)
class Job:
    """One strategy at one budget in one round, or in the same round with another network, where it is ``redrawn``."""

    name: str
    budget: int | None
    splits_of_round: Sequence[TrainTest]
    seed: int
    redrawn: bool


def jobs_of(
    strategies: Mapping[str, Strategy],
    rounds_by_budget: Mapping[int | None, Sequence[Sequence[TrainTest]]],
    protocol: Protocol,
) -> list[Job]:
    """What is to be done: strategy after strategy, budget after budget."""
    jobs = []
    for budget, rounds in rounds_by_budget.items():
        for name in strategies:
            own = _own_rounds(rounds, name, protocol)
            again = protocol.networks if name in protocol.redrawn and len(own) == 1 else 1
            jobs += [
                Job(name, budget, one, protocol.seed + number, name in protocol.redrawn)
                for number, one in enumerate([*own] * again)
            ]
    return jobs


@dataclass(frozen=True)
class Rounds:
    """Does jobs, in this process or in a worker."""

    strategies: Mapping[str, Strategy]
    codes: NDArray[np.int64]

    def __call__(self) -> Callable[[Sequence[Job]], list[Round]]:
        """The function that does some jobs."""
        return lambda jobs: [self.done(job) for job in jobs]

    def done(self, job: Job) -> Round:
        """Do one job."""
        return _round(self.strategies[job.name], job.splits_of_round, self.codes, job.seed)


def done(
    jobs: Sequence[Job], away: Sequence[Job], rounds: Rounds, runner: Runner, progress: Progress
) -> dict[tuple[str, int | None], list[tuple[Job, Round]]]:
    """Every job with its result, by strategy and budget; those of ``away`` by a runner, while the others run here."""
    groups, found = _grouped(away), dict[Job, Round]()
    names = {job.name for job in away}
    theirs = {name: one for name, one in rounds.strategies.items() if name in names}
    results = runner.map(Rounds(theirs, rounds.codes), groups) if groups else iter(())
    ours = set(jobs).difference(away)
    for job in jobs:
        if job in ours:
            progress.step(f"{job.name}, {labels_text(job.budget)}", 0, 0)
            found[job] = rounds.done(job)
    for n_done, (number, some) in enumerate(results):
        progress.step(f"{groups[number][0].name} and others, in other processes", n_done, len(groups))
        found.update(zip(groups[number], some, strict=True))
    cells: dict[tuple[str, int | None], list[tuple[Job, Round]]] = {}
    for job in jobs:
        cells.setdefault((job.name, job.budget), []).append((job, found[job]))
    return cells


def _grouped(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that a worker does together, since they share a random network; those with many labels first."""
    groups: dict[tuple[str, int, int | None], list[Job]] = {}
    for job in reversed(jobs):
        groups.setdefault((job.name, job.seed, None if job.redrawn else job.budget), []).append(job)
    return list(groups.values())


def _own_rounds(
    rounds: Sequence[Sequence[TrainTest]], name: str, protocol: Protocol
) -> Sequence[Sequence[TrainTest]]:
    """The rounds of a strategy: the first few where each costs a training, of a cross-validation one."""
    if name not in protocol.slow:
        return rounds
    return rounds[: 1 if protocol.crossed else protocol.slow_draws]


def _round(
    strategy: Strategy, splits_of_round: Sequence[TrainTest], codes: NDArray[np.int64], seed: int
) -> Round:
    """One strategy in one round."""
    begun, right = perf_counter(), np.zeros(len(codes), np.bool_)
    probabilities: Array | None = None
    for part in splits_of_round:
        probs = strategy(part.train, part.test, seed)
        right[part.test] = probs.argmax(axis=1) == codes[part.test]
        probabilities = (
            np.zeros((len(codes), probs.shape[1]), np.float32) if probabilities is None else probabilities
        )
        probabilities[part.test] = probs
    assert probabilities is not None, "a round probabilities every image"
    return right, perf_counter() - begun, probabilities
