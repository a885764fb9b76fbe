"""The report of a training: its data, its evaluation, its history and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from time import strftime
from typing import Any, Protocol

from headstart.data.checks.hold_out import holdout_sentence
from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation, flip_warning
from headstart.data.images.thumbnails import examples_of
from headstart.evaluation.records import Evaluation
from headstart.networks.rate_test import RateCurve
from headstart.records import Epoch, TrainSettings
from headstart.report.records import Figure, Gallery, PlainTable, Report
from headstart.report.svg import rate_test
from headstart.strategies.judge import HeldOutPredictions
from headstart.strategies.parts import TrainingParts
from headstart.strategies.provenance import made_with
from headstart.strategies.result import LearnedModel, best_epoch
from headstart.workflows.gallery import EvaluatedImages, galleries
from headstart.workflows.train.rate import RateChoice
from headstart.workflows.train.repeats import repeats_of
from headstart.workflows.train.seeds import SeedRun

__all__ = ["About", "TrainingRecord", "training_result"]

_NONE = "none"
_ALWAYS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "optimizer",
    "schedule",
    "weight_decay",
    "label_smoothing",
)


@dataclass(frozen=True)
class About:
    """The parts of the request that the report shows."""

    network: str
    engine: str
    augmentation: Augmentation | None
    command: str


class TrainingRecord(Protocol):
    """What a training keeps for its report."""

    settings: TrainSettings
    history: tuple[Epoch, ...]
    rate: RateChoice | None
    device: str


def training_result(
    dataset: Dataset,
    parts: TrainingParts,
    learned: LearnedModel,
    training: TrainingRecord,
    about: About,
    *,
    findings: tuple[str, ...],
    others: Sequence[SeedRun] = (),
) -> Report:
    """The report of a training; ``findings`` are the remarks of the data check, ``others`` further seeds."""
    predictions = learned.predictions
    evaluations = () if predictions is None else (predictions.evaluation(),)
    calibrations = () if predictions is None else (predictions.calibration(),)
    cluster_remark = () if predictions is None or predictions.remark is None else (predictions.remark,)
    first = (training.settings.seed, learned.seconds)
    repeats = repeats_of(predictions, first, others) if predictions is not None and others else None
    n_held = 0 if parts.held is None else len(parts.held)
    return Report(
        title=learned.model.manifest.name,
        summary=_summary(dataset, parts, learned, training, about.network),
        verdict=_verdict(about.network, predictions, evaluations)
        if repeats is None
        else repeats.verdict(about.network),
        remarks=(
            *(() if repeats is None else repeats.remarks),
            *cluster_remark,
            *learned.remarks,
            *_remarks(dataset, training, about.augmentation),
            *findings,
        ),
        rows=() if repeats is None else repeats.rows,
        protocol="" if repeats is None else repeats.protocol,
        comparisons=(),
        evaluations=evaluations,
        curves=() if learned.curve is None else (learned.curve,),
        facts=_facts(dataset, learned, training, about),
        sizes={"train": len(parts.fit), "validation": n_held, "classes": len(dataset.classes)},
        examples=examples_of(parts.fit),
        calibrations=calibrations,
        tables=(_settings_table(training, about),),
        judged_on="training" if predictions is None else predictions.judged_on,
        galleries=() if predictions is None else _galleries(predictions),
        figures=_figures(training.rate.curve if training.rate else None),
        kind="training",
    )


def _verdict(network: str, predictions: HeldOutPredictions | None, evaluations: Sequence[Evaluation]) -> str:
    if predictions is None:
        return (
            "Nothing could be held out: a class has images of one group only, or copies of one image. "
            "Add images to learn how accurate the network is on new ones."
        )
    found = evaluations[0].accuracy
    return (
        f"{network} classifies {100 * found.value:.1f} % of {found.n:,} {predictions.judged_on} images correctly "
        f"[{100 * found.low:.1f}, {100 * found.high:.1f}]."
    )


def _galleries(predictions: HeldOutPredictions) -> tuple[Gallery, ...]:
    images = predictions.images
    return galleries(
        EvaluatedImages(images, predictions.probabilities, images.codes(), images.classes), heats=0
    )


def _evaluation_text(parts: TrainingParts, learned: LearnedModel, settings: TrainSettings) -> str:
    if learned.predictions is None:
        return "It could not be evaluated on other images."
    n_judged = len(learned.predictions.images)
    if learned.predictions.judged_on == "cross-validated":
        return (
            f"The metrics are cross-validated: each of the {n_judged:,} images was classified by a network "
            "trained without its fold, copies and groups in one fold; the saved network learned from all."
        )
    text = f"The metrics are computed on {n_judged:,} validation images that it did not learn from"
    if settings.patience and parts.held is not None:
        text += f"; {len(parts.held) - n_judged:,} others were used for early stopping"
    return f"{text}. Test images, if there are any, were not used."


def _summary(
    dataset: Dataset, parts: TrainingParts, learned: LearnedModel, training: TrainingRecord, network: str
) -> str:
    epochs = len(training.history)
    evaluation = _evaluation_text(parts, learned, training.settings)
    return (
        f"The network {network} learned {len(dataset.classes)} classes from {len(parts.fit):,} images of "
        f"{dataset.name} in {epochs} epoch{'s' if epochs > 1 else ''}, {learned.seconds:.1f} s. {evaluation}"
    )


def _remarks(
    dataset: Dataset, training: TrainingRecord, augmentation: Augmentation | None
) -> tuple[str, ...]:
    held_out = holdout_sentence(dataset)
    remarks = [held_out] if held_out else []
    settings, n_epochs = training.settings, len(training.history)
    if settings.patience:
        best = best_epoch(training.history, settings)
        remarks.append(
            f"Training ran {n_epochs} of {settings.epochs} epochs and the weights of epoch {best} were kept."
        )
    rate = training.rate
    if rate is not None and (rate.curve is None or rate.doubt):
        remarks.append(f"Learning rate test: {rate.doubt or rate.sentence(settings)}.")
    warning = None if augmentation is None else flip_warning(dataset.classes, augmentation)
    return (*remarks, *([warning] if warning else []))


def _settings_table(training: TrainingRecord, about: About) -> PlainTable:
    plain, used = asdict(TrainSettings()), asdict(training.settings)
    shown = {name: value for name, value in used.items() if name in _ALWAYS or value != plain[name]}
    lines = [(name.replace("_", " "), _text(value)) for name, value in shown.items() if name != "seed"]
    operations = () if about.augmentation is None else about.augmentation.operations
    lines.append(
        ("augmentation", ", ".join(f"{name} {strength:g}" for name, strength in operations) or _NONE)
    )
    tested = training.rate is not None and training.rate.curve is not None
    found = " The learning rate was selected by a learning rate test." if tested else ""
    return PlainTable(
        "How it was trained",
        f"All settings are in the model's manifest.{found}",
        ("setting", "value"),
        tuple(lines),
    )


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _facts(
    dataset: Dataset, learned: LearnedModel, training: TrainingRecord, about: About
) -> Mapping[str, str]:
    return {
        "command": about.command,
        "network": about.network,
        "engine": f"{about.engine} on {training.device}",
        "data": f"{dataset.name}, fingerprint {dataset.fingerprint}",
        "model_fingerprint": learned.model.manifest.source_fingerprint,
        "seed": str(training.settings.seed),
        **made_with(about.engine),
        "learning": f"{learned.seconds:.1f} s",
        "date": strftime("%Y-%m-%d"),
    }


def _figures(rate: RateCurve | None) -> tuple[Figure, ...]:
    """The figure of a learning rate test, if there was one."""
    if rate is None:
        return ()
    return (
        Figure(
            "Learning rate test",
            "The rate rises with every step until the loss rises too. The line marks the rate used for "
            "training: the highest of its schedule.",
            rate_test(rate.rates, rate.losses, rate.suggestion),
        ),
    )
