"""A transfer as a user asks for it: examine the data, choose, fit, measure on images held out, report.

In: a source, a Dataset, a Probe. Out: the model and a StudyResult about images that it did not learn from.
Must not import an engine at the top. Called by the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import strftime

from headstart.choose import Choice
from headstart.comparison import FINETUNE, Table, run_table
from headstart.controls import FeatureOptions, majority, probe
from headstart.data.dataset import Dataset
from headstart.data.doctor import Checkup, examine
from headstart.data.heldout import hold_out, holdout_sentence
from headstart.errors import DataError
from headstart.evaluation.calibration import reliability
from headstart.evaluation.metrics import evaluate
from headstart.features import PLAIN, Extraction
from headstart.imaging.augment import flip_warning
from headstart.imaging.thumbs import examples_of
from headstart.opened_model import attempt, depth_table
from headstart.opening import Opening
from headstart.protocol import Protocol, Strategy
from headstart.provenance import about_head, about_source, made_with
from headstart.records import Calibration, Evaluation, PlainTable, Row, Source, StudyResult
from headstart.sources import open_source
from headstart.strategies import CHOSEN, Learning, Learnt, Probe, learn_head, training_parts

__all__ = ["Transferred", "check_up", "choice_table", "run_transfer", "short_name"]

_SHOWN = 12  # trials in a report


@dataclass(frozen=True)
class Transferred:
    """What was learnt, and what is known of it."""

    learnt: Learnt
    result: StudyResult


def check_up(dataset: Dataset, *, allow_leaks: bool = False, near: bool = False) -> Checkup:
    """The doctor's cheap part, before anything is learnt: refuse what would make every number a lie.

    Parameters
    ----------
    dataset : Dataset
        All splits.
    allow_leaks : bool, default=False
        Go on with images that are in two splits.
    near : bool, default=False
        Look for near duplicates too, which opens every picture.

    Returns
    -------
    Checkup
        Its remarks belong into the report.

    Raises
    ------
    DataError
        If a class has fewer than two images, the splits have other classes, or an image is in two splits.
    """
    found = examine(dataset, near=near)
    counts = dataset.counts() if dataset.splits is None else dataset.split("train").counts()
    few = [name for name, count in counts.items() if count < 2]
    if few:
        raise DataError(
            f"class {few[0]!r} of dataset {dataset.name!r} has {counts[few[0]] or 'no'} training image, "
            "need at least 2 to learn from one and judge by the other; add images, or leave the class out "
            "with a view"
        )
    if found.label_problems:
        raise DataError(
            f"dataset {dataset.name!r}: {found.label_problems[0]}, need the same names in every split; "
            "rename the folders"
        )
    leaks = [pair for pair in found.pairs if pair.leak]
    if leaks and not allow_leaks:
        raise DataError(
            f"dataset {dataset.name!r} has {len(leaks)} image(s) in two splits, such as {leaks[0].first!r} "
            f"and {leaks[0].second!r}, need splits that share none; remove them (headstart inspect lists "
            "all), or go on with --allow-leaks"
        )
    return found


def run_transfer(
    source: Source,
    dataset: Dataset,
    wanted: Probe = CHOSEN,
    *,
    seed: int = 0,
    options: Extraction = PLAIN,
    allow_leaks: bool = False,
    command: str = "",
    opening: Opening | None = None,
    holdout: float | None = None,
) -> Transferred:
    """Teach a frozen source new classes, and say how well that went beside the plainest alternatives.

    Parameters
    ----------
    source : Source
        Frozen.
    dataset : Dataset
        Its ``test`` split, if any, is not looked at.
    wanted : Probe, optional
        What is given; the rest is chosen by cross-validation on the training images.
    seed : int, default=0
        Decides folds, held-out images and views.
    options : Extraction, optional
        Cache, runtime and precision.
    allow_leaks : bool, default=False
        Go on with images that are in two splits.
    command : str, default=''
        What the user typed, for the report.
    opening : Opening, optional
        Try fine-tuning too, and keep what is better on images held out. Default: the probe alone.
    holdout : float, optional
        Share of the images to hold out as a test set; see `data.heldout.hold_out`.

    Returns
    -------
    Transferred
        Its figures are about validation images: the dataset's own ``val`` split, or a held-out tenth.
        Where there are too few images for that, they are the winner's of the cross-validation.

    Raises
    ------
    HeadstartError
        Of the kind that fits; before anything is computed where that can be.
    """
    dataset = hold_out(dataset, holdout, seed, source.seen)
    found = check_up(dataset, allow_leaks=allow_leaks)
    learnt = learn_head(source, dataset, wanted, seed=seed, options=options)
    parts = training_parts(dataset, seed)
    probed, tried = learnt, None
    if opening is not None:
        tried = attempt(source, dataset, learnt, wanted, opening, parts, seed=seed, options=options)
        learnt = tried.learnt
    warnings = [] if wanted.augmentation is None else [flip_warning(dataset.classes, wanted.augmentation)]
    held_out = holdout_sentence(dataset)
    remarks = (
        *([held_out] if held_out else []),
        *([tried.sentence] if tried else []),
        *([learnt.choice.sentence] if learnt.choice else []),
        *(text for text in warnings if text),
        *found.remarks,
    )
    table = _table(source, probed, learnt, parts, seed, options)
    evaluations: tuple[Evaluation, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    if parts.held is not None and learnt.held_probs is not None:
        codes, title = parts.held.codes(dataset.classes), f"Validation images of {dataset.name}"
        evaluations = (evaluate(title, learnt.held_probs, codes, dataset.classes, seed),)
        calibrations = (reliability(f"How far to believe it: {title}", learnt.held_probs, codes),)
    n_held = 0 if parts.held is None else len(parts.held)
    result = StudyResult(
        kind="transfer",
        title=f"{short_name(source.name)} to {dataset.name}",
        summary=_summary(learnt, n_held),
        verdict=table.verdict,
        remarks=(*table.remarks, *remarks),
        rows=table.rows,
        comparisons=table.comparisons,
        evaluations=evaluations,
        curves=() if learnt.curve is None else (learnt.curve,),
        facts=_facts(source, dataset, learnt, command),
        sizes={"train": len(parts.fit), "validation": n_held, "classes": len(dataset.classes)},
        examples=examples_of(parts.fit),
        calibrations=calibrations,
        tables=(
            *([depth_table(tried.decision)] if tried and tried.decision.trials else []),
            *([choice_table(learnt.choice)] if learnt.choice else []),
        ),
        judged_on="validation" if n_held else "cross-validated training",
    )
    return Transferred(learnt, result)


def short_name(source: str) -> str:
    """A source's name without the folders above it.

    Examples
    --------
    >>> short_name("timm:local-dir:/home/me/weights/resnet50"), short_name("timm:vgg16")
    ('resnet50', 'timm:vgg16')
    """
    return source.rstrip("/").rpartition("/")[2] if "/" in source else source


def choice_table(choice: Choice) -> PlainTable:
    """The best trials of a choice, a line each."""
    lines = tuple(
        (
            f"{one.head} on {one.tap}, {one.pooling}",
            f"{one.strength:g}",
            f"{100 * one.accuracy.value:.2f}",
            f"{100 * one.accuracy.low:.1f} to {100 * one.accuracy.high:.1f}",
            f"{one.error:.4f}",
        )
        for one in choice.trials[:_SHOWN]
    )
    left = len(choice.trials) - len(lines)
    return PlainTable(
        "How tap, pooling and head were chosen",
        f"{choice.n_folds}-fold cross-validation on {choice.n_images:,} training images, {choice.n_tried} "
        f"ways in {choice.seconds:.1f} s; each line with its best strength. The first was taken: its own "
        f"figure flatters it a little, as it was picked for it.{f' {left} more follow.' if left else ''}",
        ("head, tap, pooling", "strength", "accuracy, %", "95 % interval", "squared error"),
        lines,
    )


def _table(
    source: Source, learnt: Learnt, kept: Learnt, parts: Learning, seed: int, options: Extraction
) -> Table:
    """The probe, and the model if it is another, beside raw pixels and the commonest class."""
    answers, opened = learnt.held_probs, None if kept is learnt else kept.held_probs
    if parts.held is None or answers is None:
        choice = learnt.choice
        rows = () if choice is None else (Row("probe", None, choice.best.accuracy, 1, 0.0, learnt.seconds),)
        said = (
            "Too few images to hold some out, and nothing was cross-validated: how good it is, is open."
            if choice is None
            else f"In cross-validation the probe gets {choice.best.accuracy.value:.2%} right "
            f"[{choice.best.accuracy.low:.2%}, {choice.best.accuracy.high:.2%}]; too few images to hold some "
            "out, so no control was compared."
        )
        return Table(rows, (), said, ())
    raw = FeatureOptions(head="kernel", extraction=options)
    strategies: dict[str, Strategy] = {"probe": lambda learn, asked, seed: answers}
    if source.name != "pixels":  # with it nothing is transferred: there is no verdict to give
        strategies["raw pixels"] = probe(open_source("pixels", parts.fit), parts.fit, parts.held, raw)
        strategies["majority"] = majority(parts.fit)
    if opened is not None:
        strategies[FINETUNE] = lambda learn, asked, seed: opened
    protocol = Protocol((), 1, seed, shown=(FINETUNE,))  # no test against the probe: these images chose
    return run_table(strategies, parts.fit, parts.held, protocol, progress=options.progress)


def _summary(learnt: Learnt, n_held: int) -> str:
    manifest = learnt.model.manifest
    source = manifest.source
    state = "fine-tuned" if manifest.strategy == "finetune" else "frozen"
    name = short_name(source["name"]).removesuffix(", fine-tuned")
    where = f"{name}, {state}, read at {source['tap']} ({source['pooling']})"
    judged = (
        f"The figures are about {n_held:,} validation images that it did not learn from"
        if n_held
        else "The figure is the cross-validation's own"
        if learnt.choice
        else "Nothing was measured"
    )
    return (
        f"A {manifest.head['name']} head on {where} learnt {len(manifest.classes)} classes from "
        f"{manifest.data['n_images']:,} images. {judged}."
    )


def _facts(source: Source, dataset: Dataset, learnt: Learnt, command: str) -> Mapping[str, str]:
    return {
        "command": command,
        "source": about_source(source),
        "source_fingerprint": source.fingerprint,
        "data": f"{dataset.name}, fingerprint {dataset.fingerprint}",
        "model_fingerprint": learnt.model.manifest.source_fingerprint,
        "head": about_head(learnt.model.manifest.head),
        "seed": str(learnt.model.manifest.seed),
        **made_with(),
        "learning": f"{learnt.seconds:.1f} s, features included",
        "date": strftime("%Y-%m-%d"),
    }
