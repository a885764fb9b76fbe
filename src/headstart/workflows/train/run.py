"""A training as a user asks for it: settings, learning rate, checkpoints, logs; a model with its report.

In: a Dataset, a network's name, where to write. Out: a model folder, and beside it a log; while it trains,
checkpoints too. Must not import an engine at the top. Called by the verb train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from headstart.data.checks.hold_out import hold_out
from headstart.data.checks.refuse import checked
from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation, parse_augmentation
from headstart.errors import DivergedError, SettingError, nearest
from headstart.models.finished import finished_model, noted
from headstart.models.model import Model, check_output
from headstart.networks.checkpoints import Checkpoints, Snapshot
from headstart.networks.logs.log import LOGS, TrainingLog, make_log
from headstart.networks.rate_test import find_rate
from headstart.networks.specs import architecture, training_for
from headstart.networks.training import Held, OnStep, Views, fit
from headstart.records import (
    Codes,
    Epoch,
    Images,
    Report,
    Trainable,
    TrainSettings,
)
from headstart.report.page import render
from headstart.sources.networks import native_input
from headstart.strategies.judge import cross_validated_training
from headstart.strategies.parts import Learning, training_parts
from headstart.strategies.provenance import made_with
from headstart.strategies.result import Learnt
from headstart.strategies.scratch import learn_network
from headstart.system.optional import require
from headstart.system.progress import SILENT, Progress
from headstart.workflows.train.present import About, training_result
from headstart.workflows.train.rate import RateChoice, choose_rate

__all__ = ["Keeping", "Trained", "Training", "checkpoints_of", "log_of", "run_training"]

_AUTO, _NONE = "auto", "none"
_AROUND = "around"  # where a checkpoint's values have what the loop knows nothing of
_DECIDING = ("headstart", "kornia", "numpy", "pillow", "torch")
_LOG_PACKAGES = {"mlflow": "mlflow", "tensorboard": "tensorboardX"}


@dataclass(frozen=True)
class Training:
    """What is trained and how; what is None or absent is as it belongs to the network.

    ``policy`` says how pictures are fitted. ``settings`` are fields of `records.TrainSettings`; a
    ``learning_rate`` of ``"auto"`` is found by a test. ``augment`` is as
    `imaging.augment.parse_augmentation` takes it, or ``"none"``. ``holdout`` is the share of the images that
    is held out as a test set.
    """

    network: str = "cnn"
    engine: str = "torch"
    device: str = "auto"
    augment: str | None = None
    policy: str = "squish"
    settings: Mapping[str, Any] = field(default_factory=dict)
    holdout: float | None = None


@dataclass(frozen=True)
class Keeping:
    """Where a training is written: the model folder, and beside it checkpoints and logs."""

    output: Path
    resume: bool = False
    every_s: float = 60.0
    logs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """What was learnt, what is known of it, and the file of the log."""

    learnt: Learnt
    result: Report
    log: Path


def checkpoints_of(output: Path) -> Path:
    """Where a training's checkpoints lie while it is under way.

    Examples
    --------
    >>> checkpoints_of(Path("runs/best")).as_posix()
    'runs/best.checkpoints'
    """
    return _beside(output, ".checkpoints")


def log_of(output: Path) -> Path:
    """Where a training's log lies, while it is under way and after.

    Examples
    --------
    >>> log_of(Path("runs/best")).as_posix()
    'runs/best.log'
    """
    return _beside(output, ".log")


def _beside(output: Path, ending: str) -> Path:
    place = output if output.name not in ("", "..") else output.resolve()
    return place.with_name(f"{place.name}{ending}")


def run_training(
    dataset: Dataset,
    wanted: Training,
    keeping: Keeping,
    *,
    progress: Progress = SILENT,
    command: str = "",
    allow_leaks: bool = False,
) -> Trained | Model:
    """Train a network, save it with a report, and keep it on the way so that an interrupted run goes on.

    Parameters
    ----------
    dataset : Dataset
        Its ``test`` split, if any, is not looked at.
    wanted : Training
        What and how.
    keeping : Keeping
        Where to, and whether to go on with what an interrupted run left there.
    progress : Progress, optional
        Told about images, loss and accuracy.
    command : str, default=''
        What the user typed, for the report.
    allow_leaks : bool, default=False
        Go on with images or groups that are in two splits.

    Returns
    -------
    Trained or Model
        The model is saved; checkpoints are deleted, the log stays. Figures are about validation images that
        decided nothing; of fewer than 500 training images without validation images, by cross-validation.
        With ``resume``, where the same run is finished already: its model, which stays as it is.

    Raises
    ------
    SettingError
        If a setting is wrong, something is in the way of the output, checkpoints lie there and ``resume``
        is false, or they, or with ``resume`` the finished model, are of another run.
    DivergedError
        If training gave numbers that are not finite; nothing is saved, and the checkpoints are deleted.
    HeadstartError
        Else as `strategies.learn_network`.
    KeyboardInterrupt
        If a signal asked to stop; a checkpoint was written before.

    Notes
    -----
    An interrupted run that is gone on with has the same weights, to the bit, as one that was not, on the
    same machine with the same number of threads.
    """
    check_output(keeping.output)
    _check_logs(keeping.logs)
    settings, augmentation, auto = _settled(wanted)
    dataset, found = checked(dataset, allow_leaks=allow_leaks)
    dataset = hold_out(dataset, wanted.holdout, settings.seed)
    parts = training_parts(dataset, settings.seed)
    identity = _identity(dataset, wanted, settings, augmentation, auto)
    if keeping.resume and not any(checkpoints_of(keeping.output).glob("step-*")):
        finished = finished_model(keeping.output, identity)
        if finished is not None:
            return finished
    place, every_s = checkpoints_of(keeping.output), keeping.every_s
    kept = _Kept(place, identity, interval_s=every_s, resume=keeping.resume)
    facts = {
        "network": wanted.network,
        "engine": wanted.engine,
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint, "n_images": len(parts.fit)},
        "augmentation": None if augmentation is None else augmentation.parts(),
        "command": command,
        **made_with(wanted.engine),
    }
    attended = _Attended(kept, auto, keeping, facts, progress)
    try:
        learnt = learn_network(
            dataset,
            network=wanted.network,
            engine=wanted.engine,
            settings=settings,
            augmentation=augmentation,
            policy=wanted.policy,
            device=wanted.device,
            fit_by=attended,
            progress=progress,
        )
    except DivergedError:
        kept.clear()  # nothing to go on with
        raise
    if learnt.judged is None and parts.held is None:
        learnt = _cross_validated(dataset, parts, wanted, learnt, attended, augmentation, progress=progress)
    learnt = replace(learnt, model=noted(learnt.model, identity))
    about = About(wanted.network, wanted.engine, augmentation, command)
    result = training_result(dataset, parts, learnt, attended, about, found.remarks)
    learnt.model.save(keeping.output, render(result))
    attended.log.finished({
        **learnt.model.manifest.scores, "seconds": learnt.seconds, "model": str(keeping.output)
    })  # fmt: skip
    kept.clear()
    return Trained(learnt, result, log_of(keeping.output) / "training.jsonl")


def _cross_validated(
    dataset: Dataset,
    parts: Learning,
    wanted: Training,
    learnt: Learnt,
    attended: _Attended,
    augmentation: Augmentation | None,
    *,
    progress: Progress,
) -> Learnt:
    """The same network with cross-validated answers, and its accuracy by them in its manifest."""
    spec = architecture(wanted.network, native_input(dataset, wanted.policy), len(dataset.classes))
    settings = attended.settings
    judged = cross_validated_training(
        parts.fit, spec, wanted.engine, settings, augmentation, progress=progress, device=wanted.device
    )
    if judged is None:
        return learnt
    found, manifest = judged.evaluation().accuracy, learnt.model.manifest
    scores = {"cv_accuracy": found.value, "cv_low": found.low, "cv_high": found.high}
    model = replace(learnt.model, manifest=replace(manifest, scores={**manifest.scores, **scores}))
    return replace(learnt, model=model, judged=judged)


def _check_logs(names: Sequence[str]) -> None:
    """Before anything is computed: the logs themselves are made at the first step."""
    for name in names:
        if name not in LOGS:
            raise SettingError(f"log is {name!r}, need one of {', '.join(LOGS)}; {nearest(name, LOGS)}")
        if find_spec(_LOG_PACKAGES[name]) is None:  # not imported yet: its maker sets it up first
            require(_LOG_PACKAGES[name], extra="track", for_=f"log {name!r}")


def _settled(wanted: Training) -> tuple[TrainSettings, Augmentation | None, bool]:
    """The network's own settings with those given in their place; whether the rate is to be found."""
    settings, preset = training_for(wanted.network)
    given = dict(wanted.settings)
    auto = given.get("learning_rate") == _AUTO
    if auto:
        del given["learning_rate"]
    text = preset if wanted.augment is None else wanted.augment
    augmentation = None if text in (None, _NONE) else parse_augmentation(str(text))
    return replace(settings, **given), augmentation, auto


def _identity(
    dataset: Dataset, wanted: Training, settings: TrainSettings, augmentation: Augmentation | None, auto: bool
) -> dict[str, Any]:
    """What must be the same for a run to go on; threads and device are remarked on only.

    A run that moves to another machine is worth more than its last bits.
    """
    return {
        "data": dataset.fingerprint,
        "classes": list(dataset.classes),
        "network": wanted.network,
        "engine": wanted.engine,
        "settings": {**asdict(settings), **({"learning_rate": _AUTO} if auto else {})},
        "augmentation": None if augmentation is None else asdict(augmentation),
        "versions": {name: _version(name) for name in _DECIDING},
        "spec": asdict(
            architecture(wanted.network, native_input(dataset, wanted.policy), len(dataset.classes))
        ),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


class _Kept(Checkpoints):
    """Checkpoints that hold, beside what the loop keeps, what else a run must not forget."""

    around: Mapping[str, Any] = {}

    def keep(self, snapshot: Snapshot) -> None:
        super().keep(Snapshot(snapshot.arrays, {**snapshot.values, _AROUND: dict(self.around)}))


class _Attended:
    """Fits with a rate test before, checkpoints and logs beside; remembers what the report tells."""

    def __init__(
        self, kept: _Kept, auto: bool, keeping: Keeping, facts: Mapping[str, Any], progress: Progress
    ) -> None:
        self._kept, self._auto, self._progress = kept, auto, progress
        self._keeping, self._facts = keeping, facts
        self._log: TrainingLog | None = None
        self.rate: RateChoice | None = None
        self.validation: Held | None = None
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
        validation: Held | None,
        on_step: OnStep,
        views: Views | None,
    ) -> tuple[tuple[Epoch, ...], TrainSettings]:
        self.validation, self.device = validation, str(getattr(network, "device", "cpu"))
        before = self._before()
        around = before.get(_AROUND, {})
        if self._auto:
            self.rate = choose_rate(
                lambda: find_rate(network, images, labels, settings, views=views), around.get("rate")
            )
            settings = self.rate.applied(settings)
            self._progress.remark(self.rate.sentence(settings))
        self.settings = settings
        here = {"device": self.device, "threads": _n_threads()}
        self._remark_on_machine(around.get("machine", here), here)
        self._kept.around = {"machine": here, "rate": None if self.rate is None else self.rate.note()}
        next_epoch = len(before["history"]) + 1 if before else None

        def told(done: int, total: int, loss: float, accuracy: float) -> None:
            if self._log is None:  # not before: a training that is refused leaves no log
                self._log = self._begun(next_epoch)
            on_step(done, total, loss, accuracy)

        with self._kept:
            self.history = fit(
                network,
                images,
                labels,
                settings,
                validation=validation,
                on_step=told,
                on_epoch=self._told_epoch,
                views=views,
                checkpoints=self._kept,
            )
        return self.history, settings

    @property
    def log(self) -> TrainingLog:
        """There since the first step."""
        assert self._log is not None, "a training has a step before it has anything to tell"
        return self._log

    def _told_epoch(self, epoch: Epoch) -> None:
        self.log.epoch(epoch)

    def _before(self) -> dict[str, Any]:
        """What an interrupted run noted beside its arrays, or nothing."""
        found = self._kept.found()
        for remark in self._kept.remarks:
            self._progress.remark(remark)
        return {} if found is None else found.values

    def _begun(self, next_epoch: int | None) -> TrainingLog:
        place = log_of(self._keeping.output)
        place.mkdir(parents=True, exist_ok=True)  # where this fails the model would too, hours later
        log = make_log(
            self._keeping.logs,
            place,
            title=self._keeping.output.name,
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
                f"the run began elsewhere ({', '.join(other)}): it goes on, but not to the same bits"
            )


def _n_threads() -> int:
    """Of whatever computes here with most of them: sums depend on how many add."""
    return max((int(one["num_threads"]) for one in threadpool_info()), default=1)
