"""The report of a recipe on a pretrained network: nothing here decides a number of the table."""

from __future__ import annotations

from collections.abc import Mapping
from time import strftime

import numpy as np

from headstart.data.images.augment import flip_warning, parse_augmentation
from headstart.data.images.thumbnails import examples_of
from headstart.evaluation.clusters import accuracy_score
from headstart.evaluation.compare import paired_difference
from headstart.evaluation.intervals import wilson
from headstart.evaluation.metrics import evaluate
from headstart.evaluation.records import Evaluation
from headstart.report.records import PlainTable, Report
from headstart.strategies.provenance import about_head, about_source, made_with
from headstart.strategies.result import LearnedModel
from headstart.workflows.comparison.present import choice_table
from headstart.workflows.comparison.table import Table
from headstart.workflows.recipes.bench import Bench
from headstart.workflows.recipes.recipe import Published

__all__ = ["frozen_facts", "frozen_result"]


def frozen_result(
    bench: Bench, table: Table, learned: LearnedModel, found: tuple[str, ...], facts: Mapping[str, str]
) -> Report:
    """The report of the recipe."""
    recipe, plans = bench.recipe, list(bench.plans.values())
    evaluations = _evaluations(bench, learned)
    remarks = [*table.remarks, *_augmentation_remarks(bench), *_first_images_remarks(bench), *found]
    if plans[0].choice is not None:
        remarks.insert(0, plans[0].choice.sentence)
    curves = [*bench.curves] if learned.curve is None else [learned.curve, *bench.curves]
    tables = [_published_table(recipe.published, table, len(bench.test))] if recipe.published else []
    tables += [] if plans[0].choice is None else [choice_table(plans[0].choice)]
    return Report(
        title=recipe.title,
        summary=recipe.summary,
        verdict=table.verdict,
        remarks=tuple(remarks),
        rows=table.rows,
        comparisons=table.comparisons,
        evaluations=evaluations,
        curves=tuple(curves),
        facts=facts,
        sizes={"train": len(bench.train), "test": len(bench.test), "classes": len(bench.train.classes)},
        examples=examples_of(bench.train),
        tables=tuple(tables),
    )


def _evaluations(bench: Bench, learned: LearnedModel) -> tuple[Evaluation, ...]:
    probs = bench.model_probabilities(learned)
    codes, title = bench.test.codes(bench.train.classes), f"The saved model on {bench.test.name}"
    return (evaluate(title, probs, codes, bench.train.classes, bench.test.cluster_codes),)


def _augmentation_remarks(bench: Bench) -> list[str]:
    """What the flip costs on these images, and how augmentation was decided on."""
    remarks = []
    textbook = bench.recipe.textbook
    if textbook is not None:
        warning = flip_warning(bench.train.classes, parse_augmentation(textbook.augment, textbook.copies))
        remarks += [warning] if warning else []
    if {"textbook", "textbook, no flip"} <= set(bench.hits):
        unflipped, flipped = (np.stack(bench.hits[name]) for name in ("textbook, no flip", "textbook"))
        cost = paired_difference(unflipped, flipped)
        remarks.append(
            "Leaving the flip out of the textbook's augmentation changes its accuracy by "
            f"{100 * cost.value:+.2f} points here [{100 * cost.low:+.2f}, {100 * cost.high:+.2f}], on the "
            "same test images."
        )
    trials = [plan.trials for plan in bench.plans.values() if plan.trials]
    if trials:
        taken = sum(plan.augmentation is not None for plan in bench.plans.values())
        means = {name: float(np.mean([dict(one)[name] for one in trials])) for name, _ in trials[0]}
        figures = " against ".join(f"{value:.2%} with {name}" for name, value in means.items())
        remarks.append(
            f"Augmented copies were used in {taken} of {len(trials)} draws, selected by "
            f"cross-validation on the training images: {figures}, on average."
        )
    return remarks


def _first_images_remarks(bench: Bench) -> list[str]:
    """Accuracy on as few test images as the textbook has."""
    n = bench.recipe.first_test_images
    if n is None or n >= len(bench.test):
        return []
    clusters = None if bench.test.cluster_codes is None else bench.test.cluster_codes[:n]
    score = accuracy_score(np.stack(bench.hits["probe"])[:, :n], clusters)
    return [
        f"On the first {n} test images alone, as the textbook has them, the probe gets {score.value:.2%} "
        f"[{score.low:.2%}, {score.high:.2%}]: with an interval that wide few methods differ significantly."
    ]


def _published_table(published: tuple[Published, ...], table: Table, n_test: int) -> PlainTable:
    """Published figures next to ours, each with its interval and source."""
    ours = [row for row in table.rows if row.strategy == "probe"][-1].accuracy
    lines = [("this run, probe", *_figures(ours.value, n_test), "this page")]
    lines += [(one.what, *_figures(one.accuracy, one.n_test), one.source) for one in published]
    return PlainTable(
        "Comparison with published figures",
        "Each with the interval that its number of test images allows. Data splits, networks and "
        "numbers of labels differ from those here, so the figures are no ranking.",
        ("what", "accuracy, %", "95 % interval", "test images", "source"),
        tuple(lines),
    )


def _figures(accuracy: float, n_test: int) -> tuple[str, str, str]:
    score = wilson(accuracy * n_test, n_test)
    return f"{100 * accuracy:.2f}", f"{100 * score.low:.1f} to {100 * score.high:.1f}", f"{n_test:,}"


def frozen_facts(bench: Bench, learned: LearnedModel, command: str, seconds: float) -> dict[str, str]:
    """What is necessary to get the figures again."""
    head, layer = learned.model.manifest.head, learned.model.manifest.source
    where = "" if "heads" in head else f" on {layer['tap']}, {layer['pooling']}"
    return {
        "command": command,
        "source": about_source(bench.source),
        "source_fingerprint": bench.source.fingerprint,
        "data": f"{bench.train.name}, fingerprint of the training images {bench.train.fingerprint}",
        "model_fingerprint": learned.model.manifest.source_fingerprint,
        "head": f"{about_head(head)}{where}",
        "seed": str(bench.seed),
        **made_with(),
        "everything": f"{seconds:.1f} s",
        "date": strftime("%Y-%m-%d"),
    }
