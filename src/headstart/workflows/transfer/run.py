"""Runs a transfer: check the data, select, fit, evaluate on other images, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import strftime
from typing import Any

from headstart.data.checks.hold_out import hold_out, holdout_sentence
from headstart.data.checks.refuse import checked
from headstart.data.checks.seen import seen_remark
from headstart.data.checks.unlabelled import usable
from headstart.data.dataset import Dataset
from headstart.data.images.augment import flip_warning
from headstart.data.images.thumbnails import examples_of
from headstart.errors import SettingError
from headstart.evaluation.calibration import reliability
from headstart.evaluation.metrics import evaluate
from headstart.evaluation.records import Calibration, Evaluation
from headstart.models.answer_sets import answer_sets_note
from headstart.models.manifest import Manifest, check_name
from headstart.models.novelty_rate import NoveltyRate, checked_rate, novelty_sentence
from headstart.records import Source
from headstart.report.records import Gallery, PlainTable, Report
from headstart.sources.features import PLAIN, Extraction
from headstart.sources.precision import INT8, check_saved, precise
from headstart.sources.registry import kind_of
from headstart.strategies.embedded import (
    WITHOUT_CONTROLS,
    about_features,
    left_out_sentence,
    on_known_features,
)
from headstart.strategies.finetune.model import Attempt, attempt, depth_table
from headstart.strategies.finetune.options import FinetuneOptions
from headstart.strategies.parts import TrainingParts, training_parts
from headstart.strategies.places import CHOSEN, Probe
from headstart.strategies.probe import learn_head
from headstart.strategies.provenance import about_head, about_source, made_with
from headstart.strategies.result import LearnedModel
from headstart.strategies.unlabelled import Unlabelled
from headstart.workflows.comparison.present import choice_table, short_name
from headstart.workflows.comparison.verdict import PROBE
from headstart.workflows.gallery import EvaluatedImages, galleries
from headstart.workflows.transfer.judge import PIXEL_CONTROLS, TransferEvaluation, judged

__all__ = ["Transferred", "run_transfer"]

_FINETUNE_HELD = 0.2


@dataclass(frozen=True)
class Transferred:
    """The model of a transfer and its report."""

    learned: LearnedModel
    result: Report


def run_transfer(
    source: Source,
    dataset: Dataset,
    probe: Probe = CHOSEN,
    *,
    seed: int = 0,
    options: Extraction = PLAIN,
    allow_leaks: bool = False,
    command: str = "",
    finetune: FinetuneOptions | None = None,
    judge: bool = True,
    holdout: float | None = None,
    unlabelled: Dataset | None = None,
    name: str | None = None,
    novelty_rate: NoveltyRate = None,
) -> Transferred:
    """Fit a head for new classes on a frozen source, and report how accurate it is next to simple controls.

    Parameters
    ----------
    source : Source
        Frozen.
    dataset : Dataset
        Its ``test`` split, if any, is not used.
    probe : Probe, optional
        Layer, pooling and head; what is None is selected by cross-validation on the training images.
    seed : int, default=0
        Of folds, held-out images and augmented copies.
    options : Extraction, optional
        Cache, runtime and precision. The precision is fp32, or int8: the source is calibrated on at most 100 of the
        images that are learned from, and its accuracy is compared with that in fp32. The saved model computes in it.
    allow_leaks : bool, default=False
        Accept images or groups that are in two splits.
    command : str, default=''
        What the user typed, for the report.
    finetune : FinetuneOptions, optional
        Try fine-tuning too, and keep it if it beats the probe on images held out of the training images.
        Default: the probe alone.
    judge : bool, default=True
        Measure the accuracy. False makes the model only.
    holdout : float, optional
        Share of the images, in (0, 1), to hold out as a test set; see `data.checks.hold_out.hold_out`.
    unlabelled : Dataset, optional
        Images without labels, as `load_unlabelled` gives them: labels are propagated to them if that is better on
        left-out images. Copies of the dataset's images are left out, and of many 5,000 are used.
    name : str, optional
        Name of the model. Default: made from the names of source and dataset.
    novelty_rate : float, 'off' or None
        Share of the images of the classes that may be refused as none of these; ``off`` refuses none. Default: 0.05.

    Returns
    -------
    Transferred
        Its figures are about images that nothing was trained or selected on: the dataset's own ``val``
        split; else a held-out tenth if that is 50 images or more, or a held-out fifth if fine-tuning is
        tried; else all training images by nested cross-validation.

    Raises
    ------
    DataError
        If a class has fewer than two training images, the splits have different classes, or an image or
        a group is in two splits and ``allow_leaks`` is false.
    SettingError
        If the head is unknown, the holdout is not a share, the name is empty or has several lines, or the source
        cannot be computed in the precision.
    UnknownLayerError
        If the source has no such layer.
    SourceError, MissingExtraError
        With ``finetune``, if the source cannot be fine-tuned or torch is not installed.
    """
    check_name(name)
    checked_rate(novelty_rate)
    _check_precision(source, finetune, options)
    probe, options = on_known_features(source, [dataset], probe, options, finetune=finetune is not None)
    options.progress.step(f"look for copies in {dataset.name}", 0, 0)
    dataset, found = checked(dataset, allow_leaks=allow_leaks)
    dataset, share = hold_out(dataset, holdout, seed, source.seen), _held_share(finetune)
    ready = precise(source, lambda: training_parts(dataset, seed, share).fit, options)
    plain, source = None if ready.source is source else source, ready.source
    options = replace(ready.options, precision="fp32")  # as the saved model computes
    others, left_aside = _usable(source, unlabelled, dataset, finetune, seed, options)
    options.progress.step("select layer, pooling and head", 0, 0)
    learned = learn_head(
        source, dataset, probe, unlabelled=others, seed=seed, options=options, held_share=share
    )
    parts, kept, tried = learned.parts, learned, None
    assert parts is not None, "learn_head splits the dataset"
    if finetune is not None:
        tried = attempt(source, dataset, learned, probe, finetune, parts, seed=seed, options=options)
        kept = tried.learned
    evaluation = None
    if judge:
        evaluation = judged(
            source, learned, kept, parts, probe, seed=seed, options=options, unlabelled=others, plain=plain
        )
    options.progress.step("report", 0, 0)
    kept = _recorded(kept, evaluation, name, novelty_rate)
    flips = None if probe.augmentation is None else flip_warning(dataset.classes, probe.augmentation)
    texts = _texts(kept.model.manifest, learned, tried, holdout_sentence(dataset), flips, left_aside)
    remarks = () if evaluation is None else _judged_remarks(evaluation, source, dataset)
    result = Report(
        kind="transfer",
        title=name or f"{short_name(source.name)} to {dataset.name}",
        summary=_summary(kept, evaluation),
        verdict=_verdict(evaluation, without=bool(_left_out(source, dataset))),
        remarks=(*remarks, *texts, *found.remarks),
        curves=() if kept.curve is None else (kept.curve,),
        facts=_facts(source, dataset, kept, command),
        sizes=_sizes(parts, evaluation, dataset),
        examples=examples_of(parts.fit),
        tables=_tables(tried, learned),
        **_measured(evaluation, dataset, source),
    )
    return Transferred(kept, result)


def _texts(
    manifest: Manifest,
    learned: LearnedModel,
    tried: Attempt | None,
    held_out: str | None,
    flips: str | None,
    left_aside: Sequence[str],
) -> list[str]:
    """What the report says of the holdout, fine-tuning, the selection, augmentation and novelty."""
    chosen = None if learned.choice is None else learned.choice.sentence
    first = [held_out, None if tried is None else tried.sentence, chosen, flips, *learned.remarks]
    return [one for one in (*first, *left_aside, novelty_sentence(manifest)) if one]


def _check_precision(source: Source, finetune: FinetuneOptions | None, options: Extraction) -> None:
    """SettingError for a precision that no saved model computes in, or in which no network is trained."""
    check_saved(options.precision)
    if finetune is not None and INT8 in (options.precision, source.precision):
        raise SettingError(
            f"strategy is 'finetune' for source {source.name!r} in int8, expected one in fp32, because a network is "
            "trained in floats; leave one of the two out"
        )


def _usable(
    source: Source,
    unlabelled: Dataset | None,
    dataset: Dataset,
    finetune: FinetuneOptions | None,
    seed: int,
    options: Extraction,
) -> tuple[Unlabelled | None, tuple[str, ...]]:
    """The unlabelled images that may be used, and remarks on the others."""
    if unlabelled is None:
        return None, ()
    if finetune is not None:
        raise SettingError(
            "unlabelled images are given with the strategy finetune, expected the strategy probe; leave one of them "
            "out"
        )
    images, remarks = usable(unlabelled, dataset, seed)
    return Unlabelled(source, images, options), remarks


def _tables(tried: Attempt | None, learned: LearnedModel) -> tuple[PlainTable, ...]:
    """How the depth of fine-tuning, and layer, pooling and head were selected."""
    depths = [depth_table(tried.decision)] if tried and tried.decision.trials else []
    return (*depths, *([choice_table(learned.choice)] if learned.choice else []))


def _measured(evaluation: TransferEvaluation | None, dataset: Dataset, source: Source) -> dict[str, Any]:
    """The parts of a report that are about images that were not learned from."""
    if evaluation is None:
        return {"rows": (), "comparisons": (), "evaluations": (), "judged_on": "training"}
    return {
        "rows": evaluation.table.rows,
        "comparisons": evaluation.table.comparisons,
        "evaluations": (_evaluation(evaluation, dataset),),
        "protocol": evaluation.protocol,
        "calibrations": (_calibration(evaluation, dataset),),
        "galleries": _galleries(evaluation, dataset, source),
        "judged_on": evaluation.judged_on,
    }


def _judged_remarks(evaluation: TransferEvaluation, source: Source, dataset: Dataset) -> tuple[str, ...]:
    """Remarks on images that the source has seen, on controls without images, and on the table."""
    known = seen_remark("the source", evaluation.images.images, source.seen)
    return (*([known] if known else []), *_left_out(source, dataset), *evaluation.table.remarks)


def _left_out(source: Source, dataset: Dataset) -> tuple[str, ...]:
    """A remark if controls are left out because the images are not there."""
    return left_out_sentence(PIXEL_CONTROLS if kind_of(source).pretrained else (), dataset)


def _held_share(finetune: FinetuneOptions | None) -> float | None:
    """A fifth if fine-tuning is tried, else by the rule of `training_parts`.

    Cross-validating fine-tuning would take ten times as long as fine-tuning itself.
    """
    return None if finetune is None else _FINETUNE_HELD


def _recorded(
    kept: LearnedModel, evaluation: TransferEvaluation | None, name: str | None, novelty_rate: NoveltyRate
) -> LearnedModel:
    """The model with its name and rate; its manifest has its cross-validated accuracy and left-out scores."""
    kept = replace(kept, model=kept.model.named(name).with_novelty_rate(novelty_rate))
    if evaluation is None:
        return kept
    manifest = kept.model.manifest
    codes = evaluation.images.codes(manifest.classes)
    sets = answer_sets_note(
        evaluation.probabilities,
        codes,
        evaluation.images.cluster_codes,
        evaluation.judged_on,
        crossed=evaluation.crossed,
    )
    scores: dict[str, Any] = {}
    if evaluation.crossed:
        score = next(row.accuracy for row in evaluation.table.rows if row.strategy == evaluation.name)
        scores = {"cv_accuracy": score.value, "cv_low": score.low, "cv_high": score.high}
    noted = replace(manifest, answer_sets=sets, scores={**manifest.scores, **scores})
    return replace(kept, model=replace(kept.model, manifest=noted))


def _verdict(evaluation: TransferEvaluation | None, *, without: bool) -> str:
    if evaluation is None:
        return (
            "Nothing could be held out: a class has images of one group only, or copies of one image. "
            "Add images to learn how accurate the model is on new ones."
        )
    score = next(row.accuracy for row in evaluation.table.rows if row.strategy == evaluation.name)
    text = (
        f"{100 * score.value:.1f} % of {score.n:,} {evaluation.judged_on} images are classified correctly "
        f"[{100 * score.low:.1f}, {100 * score.high:.1f}]."
    )
    controlled = any(one.strategy == PROBE for one in evaluation.table.comparisons)
    text = f"{text} {evaluation.table.verdict}" if controlled else text
    return f"{text} {WITHOUT_CONTROLS}" if without else text


def _sizes(parts: TrainingParts, evaluation: TransferEvaluation | None, dataset: Dataset) -> dict[str, int]:
    sizes = {"train": len(parts.fit), "classes": len(dataset.classes)}
    return sizes if evaluation is None else {**sizes, evaluation.judged_on: len(evaluation.images)}


def _evaluation(evaluation: TransferEvaluation, dataset: Dataset) -> Evaluation:
    """The detailed metrics; accuracy keeps the interval of the table."""
    title = f"{evaluation.judged_on.capitalize()} images of {dataset.name}"
    codes = evaluation.images.codes(dataset.classes)
    clusters = evaluation.images.cluster_codes
    found = evaluate(
        title, evaluation.probabilities, codes, dataset.classes, clusters, crossed=evaluation.crossed
    )
    score = next(row.accuracy for row in evaluation.table.rows if row.strategy == evaluation.name)
    return replace(found, accuracy=score)


def _calibration(evaluation: TransferEvaluation, dataset: Dataset) -> Calibration:
    title = f"Calibration: {evaluation.judged_on} images of {dataset.name}"
    codes, clusters = evaluation.images.codes(dataset.classes), evaluation.images.cluster_codes
    return reliability(title, evaluation.probabilities, codes, clusters=clusters, crossed=evaluation.crossed)


def _galleries(evaluation: TransferEvaluation, dataset: Dataset, source: Source) -> tuple[Gallery, ...]:
    codes = evaluation.images.codes(dataset.classes)
    return galleries(
        EvaluatedImages(evaluation.images, evaluation.probabilities, codes, dataset.classes, source.input),
        heats=0,
    )


def _summary(learned: LearnedModel, evaluation: TransferEvaluation | None) -> str:
    manifest = learned.model.manifest
    source = manifest.source
    state = "fine-tuned" if manifest.strategy == "finetune" else "frozen"
    state += f", in {INT8}" if source.get("precision") == INT8 else ""
    name = short_name(source["name"]).removesuffix(", fine-tuned")
    heads = manifest.head.get("heads")
    if heads is None:
        what = f"A {manifest.head['name']} head on {name}, {state}, at layer {source['tap']} ({source['pooling']})"
    else:
        places = ", ".join(f"{one['name']} at {one['tap']} ({one['pooling']})" for one in heads)
        what = f"The mean of {len(heads)} heads on {name}, {state} ({places}),"
    learned_from = (
        f"{what} learned {len(manifest.classes)} classes from {manifest.data['n_images']:,} images."
    )
    return learned_from if evaluation is None else f"{learned_from} {evaluation.protocol}"


def _facts(source: Source, dataset: Dataset, learned: LearnedModel, command: str) -> Mapping[str, str]:
    return {
        "command": command,
        "source": about_source(source),
        "precision": source.precision,
        "source_fingerprint": source.fingerprint,
        "data": f"{dataset.name}, fingerprint {dataset.fingerprint}",
        **about_features(dataset),
        "model_fingerprint": learned.model.manifest.source_fingerprint,
        "head": about_head(learned.model.manifest.head),
        "seed": str(learned.model.manifest.seed),
        **made_with(),
        "learning": f"{learned.seconds:.1f} s, features included",
        "date": strftime("%Y-%m-%d"),
    }
