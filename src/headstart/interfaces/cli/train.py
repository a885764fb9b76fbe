"""The command train: a network from scratch, and what is printed about the model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.errors import SettingError
from headstart.interfaces.cli.console import check_output_folder, command_line, load_dataset, print_json
from headstart.interfaces.cli.options import (
    AllowLeaks,
    DataName,
    Device,
    Engine,
    HoldOut,
    Json,
    ModelName,
    ModelOutput,
    Policy,
    RunnerName,
    Seed,
    Strict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headstart.models.model import Model
    from headstart.strategies.result import LearnedModel
    from headstart.workflows.train import Trained, TrainingFiles, TrainingRequest

__all__ = ["learned_facts", "train"]

_OWN = "Default: set by the network."


NetworkName = Annotated[
    str, typer.Option(help="Network: best, cnn, mlp or mlp-wide. Each has its own default settings.")
]
Epochs = Annotated[int | None, typer.Option(min=1, help=f"Number of epochs. {_OWN}")]
BatchSize = Annotated[int | None, typer.Option(min=1, help=f"Images per batch. {_OWN}")]
Rate = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|auto",
        help=f"Highest learning rate of the schedule; auto selects it with a learning rate test. {_OWN}",
    ),
]
Schedule = Annotated[
    str | None, typer.Option(help=f"Learning rate schedule: constant, one-cycle or cosine. {_OWN}")
]
Optimizer = Annotated[str | None, typer.Option(help=f"Optimizer: adam, adamw, muon (torch) or sgd. {_OWN}")]
Decay = Annotated[float | None, typer.Option(min=0.0, help=f"Weight decay. {_OWN}")]
Smoothing = Annotated[float | None, typer.Option(min=0.0, max=0.99, help=f"Label smoothing. {_OWN}")]
EpochAugment = Annotated[
    str | None,
    typer.Option(
        help="Augmentation, drawn anew in every epoch: handwriting, many-hands, photo, strengths such as "
        f"shear=0.2,zoom=0.2, or none. {_OWN}"
    ),
]
Mixup = Annotated[
    float | None,
    typer.Option(min=0.0, help=f"Mixup strength (alpha); torch only. 0 turns it off. {_OWN}"),
]
Ema = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=0.99999,
        help=f"Decay of the exponential moving average of the weights; torch only. {_OWN}",
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(min=0, help=f"Epochs without improvement before early stopping. 0 turns it off. {_OWN}"),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Continue an interrupted run of the same command. A finished run is left as it is."
    ),
]
Every = Annotated[
    str,
    typer.Option(
        metavar="TIME", help="Time between checkpoints, which are written to OUTPUT.checkpoints: 30s, 5m, 1h."
    ),
]
Logs = Annotated[
    str | None,
    typer.Option(
        help="Additional logs, separated by commas: tensorboard, mlflow. OUTPUT.log/training.jsonl is always "
        "written."
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Repeat the training with N seeds, from --seed on, and report each and their mean, with an interval for "
        "new seeds and new images. The saved model is that of the first seed; the others train on one thread each, "
        "in processes or on a cluster.",
    ),
]


def train(
    data: DataName,
    output: ModelOutput,
    name: ModelName = None,
    network: NetworkName = "cnn",
    engine: Engine = None,
    device: Device = "auto",
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: Rate = None,
    schedule: Schedule = None,
    optimizer: Optimizer = None,
    weight_decay: Decay = None,
    label_smoothing: Smoothing = None,
    augment: EpochAugment = None,
    policy: Policy = None,
    holdout: HoldOut = None,
    mixup: Mixup = None,
    ema: Ema = None,
    patience: Patience = None,
    resume: Resume = False,
    checkpoint_every: Every = "60s",
    log: Logs = None,
    seed: Seed = 0,
    seeds: Seeds = 1,
    runner: RunnerName = None,
    strict: Strict = False,
    allow_leaks: AllowLeaks = False,
    json: Json = False,
) -> None:
    """Train a network from scratch; save the model with a report. Interrupted runs can be resumed.

    Example: headstart train mnist -o runs/best --network best
    """
    from headstart.data.names import comma_list
    from headstart.interfaces.cli.durations import parse_duration
    from headstart.workflows.train import TrainingFiles, TrainingRequest

    check_output_folder(output, "manifest.json")
    given = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": _rate(learning_rate),
        "schedule": schedule,
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "mixup": mixup,
        "ema": ema,
        "patience": patience,
        "seed": seed,
    }
    request = TrainingRequest(network, engine or "torch", device, augment, policy or "squish", _given(given))
    request = replace(request, holdout=holdout, name=name, n_seeds=seeds)
    every_s = parse_duration(checkpoint_every, "checkpoint-every", zero=True)
    files = TrainingFiles(output, resume, every_s, comma_list(log or ""))
    _print_done(_trained(data, request, files, _runner(seeds, runner), strict, allow_leaks), output, json)


def _runner(n_seeds: int, name: str | None) -> str | None:
    """The runner of further seeds; one seed is trained here, whatever HEADSTART_RUNNER says."""
    if n_seeds == 1 and name not in (None, "local"):
        raise SettingError(f"runner is {name!r}, expected it left out for one seed; add --seeds 5")
    return "local" if n_seeds == 1 else name


def _trained(
    data: str, request: TrainingRequest, files: TrainingFiles, runner: str | None, strict: bool, leaks: bool
) -> Trained | Model:
    """Train; where that is interrupted, say how to continue."""
    from headstart.system.progress import terminal_progress
    from headstart.system.runners import runner_named
    from headstart.workflows.train import checkpoints_of, run_training

    try:
        with terminal_progress() as progress, runner_named(runner, progress) as workers:
            dataset = load_dataset(data, strict=strict, progress=progress)
            return run_training(
                dataset,
                request,
                files,
                progress=progress,
                command=command_line(),
                allow_leaks=leaks,
                runner=workers,
            )
    except KeyboardInterrupt:
        _advise_resume(any(checkpoints_of(files.output).glob("step-*")))
        raise


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the user gave."""
    return {name: value for name, value in settings.items() if value is not None}


def _advise_resume(kept: bool) -> None:
    if kept:
        print("headstart: interrupted; continue with the same command and --resume", file=sys.stderr)


def _print_done(done: Trained | Model, output: Path, json: bool) -> None:
    from headstart.models.model import Model

    if isinstance(done, Model):
        _print_finished(done, output, json)
    else:
        _print_trained(done, output, json)


def _rate(text: str | None) -> float | str | None:
    """A number, or ``auto`` for the learning rate test."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise SettingError(f"learning_rate is {text!r}, expected a number above 0, or auto") from None


def _print_finished(model: Model, output: Path, json: bool) -> None:
    """Print the result of a run that had finished before."""
    from headstart.strategies.result import LearnedModel

    seconds = float(model.manifest.timing.get("learning_s", 0.0))
    if json:
        print_json({**learned_facts(LearnedModel(model, None, seconds), output), "already_finished": True})
        return
    scores = _shown(model.manifest.scores)
    print(f"{output}: this run was finished before; its model is unchanged{scores}")


def _shown(scores: Mapping[str, Any]) -> str:
    listed = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.items())
    return f" ({listed} on held-out training images)" if listed else ""


def _print_trained(done: Trained, output: Path, json: bool) -> None:
    learned, report = done.learned, output / "report.html"
    if json:
        more = {"report": str(report), "log": str(done.log), "result": done.result}
        print_json({**learned_facts(learned, output), **more})
        return
    manifest = learned.model.manifest
    print(f"{output}: {manifest.name}, {len(manifest.classes)} classes, trained in {learned.seconds:.1f} s")
    print(f"\n{done.result.verdict}")
    for remark in done.result.remarks:
        print(f"- {remark}")
    print(f"Report: {report}\nLog: {done.log}")


def learned_facts(learned: LearnedModel, output: Path) -> dict[str, Any]:
    """What a JSON result contains about a model; accuracies have intervals."""
    manifest = learned.model.manifest
    return {
        "model": str(output),
        "classes": manifest.classes,
        "scores": _scores(learned),
        "head": manifest.head,
        "learning_s": round(learned.seconds, 3),
    }


def _scores(learned: LearnedModel) -> dict[str, Any]:
    """The scores on held-out images; accuracies with intervals."""
    from headstart.evaluation.clusters import accuracy_score
    from headstart.evaluation.records import Score

    scores: dict[str, Any] = dict(learned.model.manifest.scores)
    if "cv_accuracy" in scores:
        low, high = scores.pop("cv_low"), scores.pop("cv_high")
        n_images = int(learned.model.manifest.data["n_images"])
        scores["cv_accuracy"] = Score(scores["cv_accuracy"], low, high, n_images)
    if "val_accuracy" in scores and learned.predictions is not None:
        scores["val_accuracy"] = learned.predictions.evaluation().accuracy
    elif "val_accuracy" in scores and learned.parts is not None and learned.parts.held is not None:
        held = learned.parts.held
        assert learned.held_probs is not None, "held-out images were predicted"
        right = learned.held_probs.argmax(axis=1) == held.codes(learned.model.classes)
        scores["val_accuracy"] = accuracy_score(right, held.cluster_codes)
    return scores
