"""Runs a training: settings, learning rate, checkpoints and logs; saves a model with its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.data.checks.hold_out import hold_out
from headstart.data.checks.refuse import checked
from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation, parse_augmentation
from headstart.errors import DivergedError, SettingError, nearest
from headstart.models.finished import finished_model, noted
from headstart.models.folder import check_output
from headstart.models.manifest import check_name
from headstart.models.model import Model
from headstart.networks.logs.registry import LOGS
from headstart.networks.specs import architecture, training_for
from headstart.records import TrainSettings
from headstart.report.page import render
from headstart.report.records import Report
from headstart.sources.networks import native_input
from headstart.strategies.judge import cross_validated_training
from headstart.strategies.parts import TrainingParts, training_parts
from headstart.strategies.provenance import made_with
from headstart.strategies.result import LearnedModel
from headstart.strategies.scratch import learn_network
from headstart.system.optional import require
from headstart.system.progress import SILENT, Progress
from headstart.system.runners import LOCAL, Runner
from headstart.workflows.train.monitor import MonitoredTraining, RunCheckpoints
from headstart.workflows.train.present import About, training_result
from headstart.workflows.train.request import TrainingFiles, TrainingRequest, checkpoints_of, log_of
from headstart.workflows.train.seeds import TrainingPlan, other_seeds

__all__ = ["Trained", "run_training"]

_AUTO, _NONE = "auto", "none"
_DECIDING = ("headstart", "kornia", "numpy", "pillow", "torch")
_LOG_PACKAGES = {"mlflow": "mlflow", "tensorboard": "tensorboardX"}


@dataclass(frozen=True)
class Trained:
    """The model of a training, its report and the file of its log."""

    learned: LearnedModel
    result: Report
    log: Path


def run_training(
    dataset: Dataset,
    request: TrainingRequest,
    files: TrainingFiles,
    *,
    progress: Progress = SILENT,
    command: str = "",
    allow_leaks: bool = False,
    runner: Runner = LOCAL,
) -> Trained | Model:
    """Train a network and save it with a report; checkpoints let an interrupted run resume.

    Parameters
    ----------
    dataset : Dataset
        Its ``test`` split, if any, is not used.
    request : TrainingRequest
        The network, its settings and its engine.
    files : TrainingFiles
        Where to write, and whether to resume an interrupted run.
    progress : Progress, optional
        Receives images done, loss and accuracy.
    command : str, default=''
        What the user typed, for the report.
    allow_leaks : bool, default=False
        Accept images or groups that are in two splits.
    runner : Runner, optional
        Where the trainings with further seeds run, on one thread each; the model is trained here.

    Returns
    -------
    Trained or Model
        The model is saved; checkpoints are deleted, the log stays. The figures are about validation
        images that decided nothing; without such images and with fewer than 500 training images, they are
        cross-validated. With ``resume``, if the same run is finished already: its model, unchanged.

    Raises
    ------
    SettingError
        If a setting is wrong, the output exists, checkpoints exist and ``resume`` is false, or what is
        there is of another run.
    DataError
        If a class has too few images, the splits have different classes, or an image or a group is in two
        splits and ``allow_leaks`` is false.
    MissingExtraError
        If the engine or the package of a log is not installed.
    DivergedError
        If the weights or the loss are not finite; nothing is saved, and the checkpoints are deleted.
    KeyboardInterrupt
        On a signal to stop; a checkpoint has been written.

    Notes
    -----
    A resumed run ends with the same weights, to the bit, as an uninterrupted one on the same machine with the
    same number of threads.
    """
    check_output(files.output)
    check_name(request.name)
    _check_logs(files.logs)
    settings, augmentation, auto = _settings(request)
    plan = TrainingPlan(settings, augmentation, auto)
    dataset, found = checked(dataset, allow_leaks=allow_leaks)
    dataset = hold_out(dataset, request.holdout, settings.seed)
    parts = training_parts(dataset, settings.seed)
    identity = _identity(dataset, request, settings, augmentation, auto)
    several = {"number of seeds": request.n_seeds} if request.n_seeds > 1 else {}
    if files.resume and not any(checkpoints_of(files.output).glob("step-*")):
        finished = finished_model(files.output, {**identity, **several})
        if finished is not None:
            return finished
    place, every_s = checkpoints_of(files.output), files.every_s
    checkpoints = RunCheckpoints(place, identity, interval_s=every_s, resume=files.resume)
    others = other_seeds(
        dataset, parts, request, plan, runner=runner, files=files, identity=identity, progress=progress
    )
    facts = _facts(dataset, parts, request, augmentation, command)
    training = MonitoredTraining(checkpoints, auto, files, facts, progress)
    try:
        learned = learn_network(
            dataset,
            network=request.network,
            engine=request.engine,
            settings=settings,
            augmentation=augmentation,
            policy=request.policy,
            device=request.device,
            fit_by=training,
            progress=progress,
        )
    except DivergedError:
        checkpoints.clear()  # nothing to resume
        raise
    if learned.predictions is None and parts.held is None:
        learned = _cross_validated(
            dataset, parts, request, learned, training, augmentation, progress=progress
        )
    learned = replace(learned, model=noted(learned.model, {**identity, **several}).named(request.name))
    runs = () if others is None else others.collect()
    about = About(request.network, request.engine, augmentation, command)
    result = training_result(dataset, parts, learned, training, about, findings=found.remarks, others=runs)
    learned.model.save(files.output, render(result))
    training.log.finished({
        **learned.model.manifest.scores, "seconds": learned.seconds, "model": str(files.output)
    })  # fmt: skip
    checkpoints.clear()
    return Trained(learned, result, log_of(files.output) / "training.jsonl")


def _facts(
    dataset: Dataset,
    parts: TrainingParts,
    request: TrainingRequest,
    augmentation: Augmentation | None,
    command: str,
) -> dict[str, Any]:
    """What the log says at the start."""
    return {
        "network": request.network,
        "engine": request.engine,
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint, "n_images": len(parts.fit)},
        "augmentation": None if augmentation is None else augmentation.parts(),
        "command": command,
        **made_with(request.engine),
    }


def _cross_validated(
    dataset: Dataset,
    parts: TrainingParts,
    request: TrainingRequest,
    learned: LearnedModel,
    training: MonitoredTraining,
    augmentation: Augmentation | None,
    *,
    progress: Progress,
) -> LearnedModel:
    """The model with cross-validated probabilities; their accuracy and answer sets are in its manifest."""
    spec = architecture(request.network, native_input(dataset, request.policy), len(dataset.classes))
    settings = training.settings
    predictions = cross_validated_training(
        parts.fit, spec, request.engine, settings, augmentation, progress=progress, device=request.device
    )
    if predictions is None:
        return learned
    found, manifest = predictions.evaluation().accuracy, learned.model.manifest
    scores = {"cv_accuracy": found.value, "cv_low": found.low, "cv_high": found.high}
    noted = replace(manifest, scores={**manifest.scores, **scores}, answer_sets=predictions.answer_sets())
    model = replace(learned.model, manifest=noted)
    return replace(learned, model=model, predictions=predictions)


def _check_logs(names: Sequence[str]) -> None:
    """Check the names of logs before anything is computed: the logs are made at the first step."""
    for name in names:
        if name not in LOGS:
            raise SettingError(f"log is {name!r}, expected one of {', '.join(LOGS)}; {nearest(name, LOGS)}")
        if find_spec(_LOG_PACKAGES[name]) is None:  # not imported yet: make_log sets it up first
            require(_LOG_PACKAGES[name], extra="track", for_=f"log {name!r}")


def _settings(request: TrainingRequest) -> tuple[TrainSettings, Augmentation | None, bool]:
    """The network's default settings with the given ones in their place; whether the rate is to be found."""
    if request.n_seeds < 1:
        raise SettingError(
            f"seeds is {request.n_seeds}, expected at least 1; 5 show how much the seed matters"
        )
    settings, preset = training_for(request.network)
    given = dict(request.settings)
    auto = given.get("learning_rate") == _AUTO
    if auto:
        del given["learning_rate"]
    text = preset if request.augment is None else request.augment
    augmentation = None if text in (None, _NONE) else parse_augmentation(str(text))
    return replace(settings, **given), augmentation, auto


def _identity(
    dataset: Dataset,
    request: TrainingRequest,
    settings: TrainSettings,
    augmentation: Augmentation | None,
    auto: bool,
) -> dict[str, Any]:
    """What must be the same to resume a run; other threads or another device cause a remark only.

    Resuming on another machine is worth more than the last bits of the weights.
    """
    return {
        "data": dataset.fingerprint,
        "classes": list(dataset.classes),
        "network": request.network,
        "engine": request.engine,
        "settings": {**asdict(settings), **({"learning_rate": _AUTO} if auto else {})},
        "augmentation": None if augmentation is None else asdict(augmentation),
        "versions": {name: _version(name) for name in _DECIDING},
        "spec": asdict(
            architecture(request.network, native_input(dataset, request.policy), len(dataset.classes))
        ),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
