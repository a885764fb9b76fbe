"""A training with a learning rate test before it, and checkpoints and logs during it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from threadpoolctl import threadpool_info

from headstart.networks.checkpoint_files import Snapshot
from headstart.networks.checkpoints import Checkpoints
from headstart.networks.contract import Trainable
from headstart.networks.logs.registry import make_log
from headstart.networks.logs.values import TrainingLog
from headstart.networks.rate_test import find_rate
from headstart.networks.training import AugmentBatch, OnStep, ValidationSet, fit
from headstart.records import Codes, Epoch, Images, TrainSettings
from headstart.system.progress import Progress
from headstart.system.threads import use_threads
from headstart.workflows.train.rate import RateChoice, choose_rate
from headstart.workflows.train.request import TrainingFiles, log_of

__all__ = ["MonitoredTraining", "RunCheckpoints"]
_CONTEXT = "around"  # key of a checkpoint's values for what the training loop does not know


class RunCheckpoints(Checkpoints):
    """Checkpoints that also hold what the training loop does not know, such as the machine."""

    context: Mapping[str, Any] = {}

    def keep(self, snapshot: Snapshot) -> None:
        """Write a checkpoint with these values, too."""
        super().keep(Snapshot(snapshot.arrays, {**snapshot.values, _CONTEXT: dict(self.context)}))


class MonitoredTraining:
    """Fits a network with a rate test, checkpoints and logs, and keeps what the report needs."""

    def __init__(
        self,
        checkpoints: RunCheckpoints,
        auto: bool,
        files: TrainingFiles,
        facts: Mapping[str, Any],
        progress: Progress,
    ) -> None:
        self._checkpoints, self._auto, self._progress = checkpoints, auto, progress
        self._files, self._facts = files, facts
        self._log: TrainingLog | None = None
        self.rate: RateChoice | None = None
        self.validation: ValidationSet | None = None
        self.history: tuple[Epoch, ...] = ()
        self.settings = TrainSettings()
        self.device = "cpu"

    def __call__(
        self,
        network: Trainable,
        images: Images,
        labels: Codes,
        settings: TrainSettings,
        *,
        validation: ValidationSet | None,
        on_step: OnStep,
        augment: AugmentBatch | None,
    ) -> tuple[tuple[Epoch, ...], TrainSettings]:
        """Train, from a checkpoint if there is one; returns the history and the settings used."""
        self.validation, self.device = validation, str(getattr(network, "device", "cpu"))
        before = self._before()
        context = before.get(_CONTEXT, {})
        if (threads := context.get("machine", {}).get("threads")) is not None:
            use_threads(threads)  # as the run began, whatever other programs do now
        if self._auto:
            self.rate = choose_rate(
                lambda: find_rate(network, images, labels, settings, augment=augment), context.get("rate")
            )
            settings = self.rate.applied(settings)
            self._progress.remark(self.rate.sentence(settings))
        self.settings = settings
        here = {"device": self.device, "threads": _n_threads()}
        self._remark_on_machine(context.get("machine", here), here)
        self._checkpoints.context = {"machine": here, "rate": None if self.rate is None else self.rate.note()}
        next_epoch = len(before["history"]) + 1 if before else None

        def log_step(done: int, total: int, loss: float, accuracy: float) -> None:
            if self._log is None:  # not earlier: a training that fails its checks leaves no log
                self._log = self._started_log(next_epoch)
            on_step(done, total, loss, accuracy)

        with self._checkpoints:
            self.history = fit(
                network,
                images,
                labels,
                settings,
                validation=validation,
                on_step=log_step,
                on_epoch=self._log_epoch,
                augment=augment,
                checkpoints=self._checkpoints,
            )
        return self.history, settings

    @property
    def log(self) -> TrainingLog:
        """The log; it exists from the first step on."""
        assert self._log is not None, "there is a log from the first step on"
        return self._log

    def _log_epoch(self, epoch: Epoch) -> None:
        self.log.epoch(epoch)

    def _before(self) -> dict[str, Any]:
        """What an interrupted run stored next to its arrays, or nothing."""
        found = self._checkpoints.found()
        for remark in self._checkpoints.remarks:
            self._progress.remark(remark)
        return {} if found is None else found.values

    def _started_log(self, next_epoch: int | None) -> TrainingLog:
        place = log_of(self._files.output)
        place.mkdir(parents=True, exist_ok=True)  # if this fails, so would saving the model, hours later
        log = make_log(
            self._files.logs,
            place,
            title=self._files.output.name,
            resume_epoch=next_epoch,
            remark=self._progress.remark,
        )
        log.started({**self._facts, "settings": asdict(self.settings), "device": self.device})
        return log

    def _remark_on_machine(self, was: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        other = [f"{name} {was.get(name)} before, {value} now" for name, value in here.items()
                 if was.get(name) != value]  # fmt: skip
        if other:
            self._progress.remark(
                f"the run was started in another environment ({', '.join(other)}): last bits may differ"
            )


def _n_threads() -> int:
    """The largest number of threads of a numerical library: sums depend on it in their last bits."""
    return max((int(one["num_threads"]) for one in threadpool_info()), default=1)
