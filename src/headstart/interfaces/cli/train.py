"""The verb that trains a network from nothing: train.

In: words. Out: text and files. Imports nothing heavy at the top: ``headstart --help`` must answer at once.
Called by cli, which takes it among its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.errors import SettingError
from headstart.interfaces.cli.console import (
    AllowLeaks,
    Device,
    Engine,
    HoldOut,
    Json,
    Output,
    Policy,
    Seed,
    Strict,
    print_json,
    told,
    typed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headstart.models.model import Model
    from headstart.strategies.result import Learnt
    from headstart.workflows.train import Trained

__all__ = ["learnt_facts", "training_app"]

training_app = typer.Typer()

_OWN = "Default: the network's own."


NetworkName = Annotated[
    str, typer.Option(help="best, cnn, mlp or mlp-wide; each comes with settings of its own.")
]
Epochs = Annotated[int | None, typer.Option(min=1, help=_OWN)]
BatchSize = Annotated[int | None, typer.Option(min=1, help=_OWN)]
Rate = Annotated[
    str | None,
    typer.Option(metavar="NUMBER|auto", help=f"Peak of the schedule; auto finds it by a test. {_OWN}"),
]
Schedule = Annotated[str | None, typer.Option(help=f"constant, one-cycle or cosine. {_OWN}")]
Optimizer = Annotated[str | None, typer.Option(help=f"adam, adamw, muon (torch) or sgd. {_OWN}")]
Decay = Annotated[float | None, typer.Option(min=0.0, help=_OWN)]
Smoothing = Annotated[float | None, typer.Option(min=0.0, max=0.99, help=_OWN)]
NewViews = Annotated[
    str | None,
    typer.Option(
        help="A new view of every image in every epoch: handwriting, many-hands, photo, or such as "
        f"shear=0.2,zoom=0.2; or none. {_OWN}"
    ),
]
Mixup = Annotated[
    float | None, typer.Option(min=0.0, help="Mix pairs of images, so strongly; torch only. 0 does not.")
]
Ema = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=0.99999, help="Share that a running mean of the weights keeps at a step; torch only."
    ),
]
Patience = Annotated[
    int | None, typer.Option(min=0, help="Epochs without improvement before stopping; 0 never stops.")
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on where an interrupted run of the same command was; leave a finished one alone."
    ),
]
Every = Annotated[
    str, typer.Option(metavar="TIME", help="How often OUTPUT.checkpoints gets one: 30s, 5m, 1h.")
]
Logs = Annotated[
    str | None,
    typer.Option(help="Beside OUTPUT.log/training.jsonl: tensorboard, mlflow, between commas."),
]


@training_app.command()
def train(
    data: Annotated[str, typer.Argument(help="Dataset: a name, a folder of class folders, or a table.")],
    output: Output,
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
    augment: NewViews = None,
    policy: Policy = None,
    holdout: HoldOut = None,
    mixup: Mixup = None,
    ema: Ema = None,
    patience: Patience = None,
    resume: Resume = False,
    checkpoint_every: Every = "60s",
    log: Logs = None,
    seed: Seed = 0,
    strict: Strict = False,
    allow_leaks: AllowLeaks = False,
    json: Json = False,
) -> None:
    """Train a network from nothing; save the model with a report. An interrupted run can go on.

    Example: headstart train mnist -o runs/best --network best
    """
    from headstart.data.readers.load import load
    from headstart.interfaces.cli.durations import parse_duration
    from headstart.models.model import check_output
    from headstart.system.progress import terminal_progress
    from headstart.workflows.train import TrainingFiles, TrainingRequest, checkpoints_of, run_training

    check_output(output)
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
    given = {name: value for name, value in given.items() if value is not None}
    wanted = TrainingRequest(network, engine or "torch", device, augment, policy or "squish", given, holdout)
    every_s = parse_duration(checkpoint_every, "checkpoint-every", zero=True)
    keeping = TrainingFiles(output, resume, every_s, _listed(log))
    try:
        with terminal_progress() as progress:
            dataset = told(load(data, strict=strict))
            done = run_training(
                dataset, wanted, keeping, progress=progress, command=typed(), allow_leaks=allow_leaks
            )
    except KeyboardInterrupt:
        _say_how_to_go_on(any(checkpoints_of(output).glob("step-*")))
        raise
    _print_done(done, output, json)


def _say_how_to_go_on(kept: bool) -> None:
    if kept:
        print("headstart: interrupted; go on with the same command and --resume", file=sys.stderr)


def _print_done(done: Trained | Model, output: Path, json: bool) -> None:
    from headstart.models.model import Model

    if isinstance(done, Model):
        _print_finished(done, output, json)
    else:
        _print_trained(done, output, json)


def _rate(text: str | None) -> float | str | None:
    """A number, or a word for the test of rates."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise SettingError(f"learning_rate is {text!r}, need a number above 0, or auto") from None


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(name for part in (text or "").split(",") if (name := part.strip()))


def _print_finished(model: Model, output: Path, json: bool) -> None:
    """A run that has nothing left to do."""
    from headstart.strategies.result import Learnt

    seconds = float(model.manifest.timing.get("learning_s", 0.0))
    if json:
        print_json({**learnt_facts(Learnt(model, None, seconds), output), "already_finished": True})
        return
    scores = _shown(model.manifest.scores)
    print(f"{output}: this run is finished already; its model was left as it is{scores}")


def _shown(scores: Mapping[str, Any]) -> str:
    listed = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.items())
    return f" ({listed} on held-out training images)" if listed else ""


def _print_trained(done: Trained, output: Path, json: bool) -> None:
    learnt, report = done.learnt, output / "report.html"
    if json:
        more = {"report": str(report), "log": str(done.log), "result": done.result}
        print_json({**learnt_facts(learnt, output), **more})
        return
    manifest = learnt.model.manifest
    print(f"{output}: {manifest.name}, {len(manifest.classes)} classes, trained in {learnt.seconds:.1f} s")
    print(f"\n{done.result.verdict}")
    for remark in done.result.remarks:
        print(f"- {remark}")
    print(f"Report: {report}\nLog: {done.log}")


def learnt_facts(learnt: Learnt, output: Path) -> dict[str, Any]:
    """What was learnt, for machines.

    Parameters
    ----------
    learnt : Learnt
        A model, and how it was learnt.
    output : Path
        Where it was saved.

    Returns
    -------
    dict of str to object
        Shares of images among the scores come with their intervals.
    """
    manifest = learnt.model.manifest
    return {
        "model": str(output),
        "classes": manifest.classes,
        "scores": _scores(learnt),
        "head": manifest.head,
        "learning_s": round(learnt.seconds, 3),
    }


def _scores(learnt: Learnt) -> dict[str, Any]:
    """What was measured on images that were not learned from; shares with their intervals."""
    from headstart.evaluation.clusters import accuracy_score
    from headstart.records import Score

    scores: dict[str, Any] = dict(learnt.model.manifest.scores)
    if "cv_accuracy" in scores:
        low, high = scores.pop("cv_low"), scores.pop("cv_high")
        n_images = int(learnt.model.manifest.data["n_images"])
        scores["cv_accuracy"] = Score(scores["cv_accuracy"], low, high, n_images)
    if "val_accuracy" in scores and learnt.judged is not None:
        scores["val_accuracy"] = learnt.judged.evaluation().accuracy
    elif "val_accuracy" in scores and learnt.parts is not None and learnt.parts.held is not None:
        held = learnt.parts.held
        assert learnt.held_probs is not None, "images held out were answered"
        right = learnt.held_probs.argmax(axis=1) == held.codes(learnt.model.classes)
        scores["val_accuracy"] = accuracy_score(right, held.together)
    return scores
