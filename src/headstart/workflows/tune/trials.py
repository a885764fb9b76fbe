"""One trial of a search over training: a network trained with drawn settings, in this process or in a worker."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter, time

from headstart.networks.contract import TrainableNetwork
from headstart.networks.engines.registry import make_network
from headstart.networks.training import OnStep, measure
from headstart.workflows.tune.regime import Regime
from headstart.workflows.tune.setup import EpochProgress, TrialSetup, packed_hits

__all__ = ["EndedTrial", "TrialTask", "Trials"]


@dataclass(frozen=True)
class TrialTask:
    """A trial to be done: its number and settings.

    ``medians`` are those of the other trials, by epoch: a trial below them is stopped. ``until`` is the time, in
    seconds as ``time.time`` counts them, at which the trial is stopped; None for a trial that is always finished.
    """

    number: int
    regime: Regime
    medians: Mapping[int, float]
    until: float | None = None
    note: str = ""


@dataclass(frozen=True)
class EndedTrial:
    """What is known of a trial at its end; ``accuracies`` are those after each epoch.

    ``hits`` are as `packed_hits` writes them, None for a trial that was stopped. ``loss`` may be infinite.
    """

    number: int
    accuracies: tuple[float, ...]
    accuracy: float
    loss: float
    hits: tuple[str, ...] | None
    seconds: float

    @property
    def known(self) -> bool:
        """Whether anything is known: not of a trial that time stopped in its first epoch."""
        return self.hits is not None or bool(self.accuracies)


@dataclass(frozen=True)
class Trials:
    """Does trials of one search."""

    setup: TrialSetup

    def __call__(self) -> Callable[[TrialTask], EndedTrial]:
        """The function that does one."""
        setup = self.setup
        make_network(
            setup.spec, setup.engine, setup.seed, setup.device
        )  # imports PyTorch before threads are limited
        return self.done

    def done(self, task: TrialTask) -> EndedTrial:
        """One training, evaluated after every epoch, stopped if it is below the medians or time is up."""
        begun, watch = perf_counter(), _Watch(self.setup, task)
        hits = None
        with self.setup.threads():
            try:
                network = self.setup.trained(task.regime, watch.on_step_of)
            except _StoppedError:
                pass
            else:  # so that the best need not be trained again; not used by trials
                hits = tuple(packed_hits(network, self.setup))
        seconds = perf_counter() - begun
        return EndedTrial(task.number, tuple(watch.accuracies), watch.accuracy, watch.loss, hits, seconds)


class _StoppedError(Exception):
    """A trial is not worth more epochs, or time is up."""


class _Watch:
    """Evaluates a training after every epoch, and stops it."""

    def __init__(self, setup: TrialSetup, task: TrialTask) -> None:
        self._setup, self._task = setup, task
        self._progress = EpochProgress(
            setup.progress, f"trial {task.number + 1}", task.regime.epochs * len(setup.fit[1]), task.note
        )
        self.accuracies: list[float] = []
        self.accuracy, self.loss = 0.0, math.inf

    def on_step_of(self, network: TrainableNetwork) -> OnStep:
        """Called after every step of the training of this network."""

        def on_step(done: int, total: int, train_loss: float, train_accuracy: float) -> None:
            late = self._task.until is not None and time() > self._task.until
            if not self._progress(done, total):
                if late:
                    raise _StoppedError
                return
            self.loss, self.accuracy = measure(network, *self._setup.selection)
            self.accuracies.append(self.accuracy)
            if not math.isfinite(self.loss):
                self.loss, self.accuracy = math.inf, 0.0
                raise _StoppedError
            if len(self.accuracies) < self._task.regime.epochs and (late or self._below_median()):
                raise _StoppedError

        return on_step

    def _below_median(self) -> bool:
        """Whether the best epoch so far is below the median of the others at this epoch."""
        median = self._task.medians.get(len(self.accuracies))
        return median is not None and max(self.accuracies) < median
