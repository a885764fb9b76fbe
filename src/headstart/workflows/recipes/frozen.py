"""Carry out a recipe on a network that others trained: choose, fit, compare with textbook and controls.

In: a FrozenRecipe and where to find data and source. Out: a StudyResult and a folder with model and report.
Called by the command line through run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter, strftime

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.refuse import checked
from headstart.data.dataset import Dataset, check_same_classes
from headstart.data.images.augment import Augmentation, flip_warning, parse_augmentation
from headstart.data.images.thumbnails import examples_of
from headstart.data.splits import folds
from headstart.errors import RecipeError
from headstart.evaluation.compare import paired_difference
from headstart.evaluation.intervals import wilson
from headstart.evaluation.metrics import evaluate
from headstart.heads.registry import make_head
from headstart.records import Array, Curve, Evaluation, PlainTable, Source, StudyResult
from headstart.sources.features import Extraction, Place, extract, extract_all
from headstart.sources.registry import open_source
from headstart.strategies.fits import FeatureOptions, Strategy, probe
from headstart.strategies.learn import Learnt, Probe, choose_place, learn_head, training_parts, training_rows
from headstart.strategies.provenance import about_head, about_source, made_with
from headstart.strategies.select import Choice
from headstart.workflows.comparison.controls import majority
from headstart.workflows.comparison.present import choice_table
from headstart.workflows.comparison.protocol import Protocol, rounds_of
from headstart.workflows.comparison.table import Table, run_table
from headstart.workflows.recipes.recipe import FrozenRecipe, Published, Textbook

__all__ = ["Frozen", "run_frozen"]

_FOLDS = 5  # of the trial of augmentation, whose fits have no closed form
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Frozen:
    """What a frozen recipe found, and the model of its first draw."""

    learnt: Learnt
    result: StudyResult


@dataclass(frozen=True)
class _Plan:
    """What cross-validation chose for one draw of labels, with the accuracies that decided on the views."""

    place: Place
    head: str
    choice: Choice | None
    augmentation: Augmentation | None
    trials: tuple[tuple[str, float], ...] = ()


@dataclass
class _Bench:
    """The parts that every strategy shares; ``hits`` notes who was right on which test image, by draw."""

    recipe: FrozenRecipe
    source: Source
    train: Dataset
    test: Dataset
    options: Extraction
    seed: int
    plans: dict[bytes, _Plan] = field(default_factory=dict)
    hits: dict[str, list[NDArray[np.bool_]]] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    answered: list[Array] = field(default_factory=list)

    def answers(self, place: Place) -> Array:
        """Features of the test images."""
        return extract(self.test, self.source, tap=place[0], pooling=place[1], options=self.options)

    def asked(self, learnt: Learnt) -> Array:
        """The saved model's answers on the test images, asked once."""
        if not self.answered:
            options = self.options
            self.answered.append(
                learnt.model.probabilities(self.test, runtime_name=options.runtime, progress=options.progress)
            )
        return self.answered[0]


def run_frozen(
    recipe: FrozenRecipe,
    dataset: Dataset,
    *,
    source_name: str,
    seed: int,
    controls: bool,
    options: Extraction,
    command: str,
    size_px: int | None = None,
) -> Frozen:
    """Run an experiment on a frozen network, from features to a result.

    Parameters
    ----------
    recipe : FrozenRecipe
        What to do.
    dataset : Dataset
        With the splits ``train`` and ``test``.
    source_name : str
        As `sources.open_source` takes it.
    seed : int
        Draws labels, folds and views.
    controls : bool
        Run what transfer has to beat.
    options : Extraction
        Cache, runtime and precision.
    command : str
        What the user typed, for the report.
    size_px : int, optional
        Side of a timm network's input. Default: the recipe's, or the network's own.

    Returns
    -------
    Frozen
        Everything was chosen by cross-validation on the training images of each draw; the test
        images were opened for the final answers only.

    Raises
    ------
    HeadstartError
        Of the kind that fits.
    """
    begun = perf_counter()
    dataset, found = checked(dataset)
    wanted_px = size_px or (recipe.size_px if "timm:" in source_name else None)
    source = open_source(source_name, dataset, seed, wanted_px)
    train, test = training_parts(dataset, seed).fit, dataset.split("test")
    check_same_classes(train, test)
    if not source.candidates:  # a textbook reads maps; pixels and rows have none
        recipe = replace(recipe, textbook=None)
    recipe = replace(recipe, size_px=wanted_px)
    bench = _Bench(recipe, source, train, test, options, seed)
    protocol = _protocol(recipe, train, seed)
    rounds = rounds_of(train, len(test), protocol.labels_per_class, protocol)
    draws = [one[0].learn for each in rounds.values() for one in each]
    for number, indices in enumerate(draws):
        bench.plans[indices.tobytes()] = _planned(bench, indices, seed + number)
    _read_test(bench)
    learnt = _model(bench, dataset, draws[0])
    strategies = {"probe": _noted(bench, "probe", _probe(bench, learnt))}
    if recipe.textbook is not None:
        strategies |= _textbooks(bench, recipe.textbook)
    if controls:
        strategies |= _controls(bench)
    table = run_table(strategies, train, test, protocol, progress=options.progress)
    result = _result(
        bench, table, learnt, found.remarks, _facts(bench, learnt, command, perf_counter() - begun)
    )
    return Frozen(learnt, result)


def _protocol(recipe: FrozenRecipe, train: Dataset, seed: int) -> Protocol:
    shown = ("probe, no views", "textbook", "textbook, no flip", "textbook, no views")
    wanted, smallest = recipe.labels_per_class, min(train.counts().values())
    if wanted is None:
        return Protocol((), 1, seed, True, shown)
    if wanted >= smallest:
        raise RecipeError(
            f"recipe {recipe.name!r} asks for {wanted} labels per class, need fewer than the {smallest} "
            f"images of the smallest class of {train.name!r}; choose larger data with --data"
        )
    return Protocol((wanted,), recipe.draws, seed, False, shown)


def _planned(bench: _Bench, indices: Indices, seed: int) -> _Plan:
    """Choose place and head on one draw, then whether views help there."""
    recipe, some = bench.recipe, bench.train.subset(indices)
    place, head, choice = choose_place(bench.source, some, Probe(head=recipe.head), seed, bench.options)
    if recipe.augment is None:
        return _Plan(place, head, choice, None)
    augmentation = parse_augmentation(recipe.augment, recipe.views)
    with_views = training_rows(bench.source, some, place, augmentation, seed, bench.options)
    n = len(some)
    plain = _cross_validated(head, with_views[0][:n], some.labels, np.arange(n), seed)
    viewed = _cross_validated(head, *with_views, seed)
    trials = (("no views", plain), (f"{recipe.augment}, {recipe.views} views", viewed))
    return _Plan(place, head, choice, augmentation if viewed > plain else None, trials)


def _cross_validated(head: str, rows: Array, labels: NDArray[np.str_], images: Indices, seed: int) -> float:
    """Accuracy on images left out with all their views, judged by the images themselves."""
    n_images = int(images.max()) + 1
    right = 0
    for learn, held in folds(labels[:n_images], _FOLDS, seed):
        known = np.isin(images, learn)
        fitted = make_head(head).fit(rows[known], labels[known], images=images[known], seed=seed)
        right += int((fitted.predict(rows[held]) == labels[held]).sum())
    return right / n_images


def _read_test(bench: _Bench) -> None:
    """All places that some draw will ask for, in one pass over the test images."""
    places = [plan.place for plan in bench.plans.values()]
    if bench.recipe.textbook is not None:
        places.append(_textbook_place(bench.source))
    extract_all(bench.test, bench.source, list(dict.fromkeys(places)), options=bench.options)


def _model(bench: _Bench, dataset: Dataset, indices: Indices) -> Learnt:
    """The first draw's choice as a model; it learns from the draw and is watched on what it was not given."""
    plan = bench.plans[indices.tobytes()]
    wanted = Probe(*plan.place, plan.head, plan.augmentation)
    if bench.recipe.labels_per_class is None:
        learnt = learn_head(bench.source, dataset, wanted, seed=bench.seed, options=bench.options)
    else:
        some = replace(bench.train.subset(indices), splits=None)
        learnt = learn_head(bench.source, some, wanted, seed=bench.seed, options=bench.options)
    return replace(learnt, choice=plan.choice)


def _probe(bench: _Bench, learnt: Learnt) -> Strategy:
    """The chosen way on each draw; with all labels it is the saved model itself."""

    def strategy(learn: Indices, asked: Indices, seed: int) -> Array:
        if bench.recipe.labels_per_class is None:
            return bench.asked(learnt)
        return _fitted(bench, learn, bench.plans[learn.tobytes()], seed)

    return strategy


def _fitted(bench: _Bench, indices: Indices, plan: _Plan, seed: int, watched: str | None = None) -> Array:
    """Fit on all of a draw as planned and answer the test images.

    ``watched`` titles a curve, drawn once: of another fit, which spares a tenth to be watched by.
    """
    some = bench.train.subset(indices)
    rows, labels, images = training_rows(
        bench.source, some, plan.place, plan.augmentation, seed, bench.options
    )
    classes = bench.train.classes
    if watched is not None and not any(curve.title == watched for curve in bench.curves):
        _, held = folds(some.labels, 10, seed)[0]
        learn, watch = ~np.isin(images, held), (rows[held], some.labels[held])
        shown = make_head(plan.head).fit(
            rows[learn], labels[learn], classes=classes, images=images[learn], seed=seed, watch=watch
        )
        bench.curves += [] if shown.curve_ is None else [replace(shown.curve_, title=watched)]
    head = make_head(plan.head).fit(rows, labels, classes=classes, images=images, seed=seed)
    return head.probabilities(bench.answers(plan.place))


def _textbooks(bench: _Bench, textbook: Textbook) -> dict[str, Strategy]:
    """The textbook's way, with its augmentation, without the flip in it, and without any."""
    whole = parse_augmentation(textbook.augment, textbook.views)
    ways = {"textbook": whole}
    if whole.flips:
        ways["textbook, no flip"] = parse_augmentation(
            f"{textbook.augment},flip=0,flip_vertical=0", textbook.views
        )
    place = _textbook_place(bench.source)

    def way(name: str, augmentation: Augmentation | None) -> Strategy:
        plan = _Plan(place, textbook.head, None, augmentation)
        return _noted(
            bench,
            name,
            lambda learn, asked, seed: _fitted(bench, learn, plan, seed, f"{name}: {textbook.head} head"),
        )

    strategies = {name: way(name, augmentation) for name, augmentation in ways.items()}
    strategies["textbook, no views"] = way("textbook, no views", None)
    if any(plan.augmentation for plan in bench.plans.values()):
        strategies["probe, no views"] = _noted(
            bench,
            "probe, no views",
            lambda learn, asked, seed: _fitted(
                bench, learn, replace(bench.plans[learn.tobytes()], augmentation=None), seed
            ),
        )
    return strategies


def _textbook_place(source: Source) -> Place:
    """The last maps, averaged."""
    maps = [tap for tap, shape in source.taps.items() if len(shape) > 1]
    return (maps[-1], "avg") if maps else (source.default_tap, "flat")


def _controls(bench: _Bench) -> dict[str, Strategy]:
    raw = FeatureOptions(head="kernel", extraction=bench.options)
    pixels = open_source("pixels", bench.train)
    strategies = {"raw pixels": _noted(bench, "raw pixels", probe(pixels, bench.train, bench.test, raw))}
    strategies["majority"] = majority(bench.train)
    if bench.source.name.startswith("timm:"):
        strategies["random frozen"] = _random(bench)
    return strategies


def _random(bench: _Bench) -> Strategy:
    """The same network with random weights, read and fitted where the probe is."""
    drawn = open_source(f"random:{bench.source.name}", bench.train, bench.seed, bench.recipe.size_px)

    def strategy(learn: Indices, asked: Indices, seed: int) -> Array:
        plan = bench.plans[learn.tobytes()]
        other = replace(bench, source=drawn)
        return _fitted(other, learn, replace(plan, augmentation=None), seed)

    return strategy


def _noted(bench: _Bench, name: str, strategy: Strategy) -> Strategy:
    """The same strategy; who was right is noted, for comparisons that the table does not make."""
    codes = bench.test.codes(bench.train.classes)

    def noting(learn: Indices, asked: Indices, seed: int) -> Array:
        probs = strategy(learn, asked, seed)
        bench.hits.setdefault(name, []).append(probs.argmax(axis=1) == codes)
        return probs

    return noting


def _result(
    bench: _Bench, table: Table, learnt: Learnt, found: tuple[str, ...], facts: Mapping[str, str]
) -> StudyResult:
    recipe, plans = bench.recipe, list(bench.plans.values())
    evaluations = _evaluations(bench, learnt)
    remarks = [*table.remarks, *_said_of_views(bench), *_said_of_first(bench), *found]
    if plans[0].choice is not None:
        remarks.insert(0, plans[0].choice.sentence)
    curves = [*bench.curves] if learnt.curve is None else [learnt.curve, *bench.curves]
    tables = [_published_table(recipe.published, table, len(bench.test))] if recipe.published else []
    tables += [] if plans[0].choice is None else [choice_table(plans[0].choice)]
    return StudyResult(
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


def _evaluations(bench: _Bench, learnt: Learnt) -> tuple[Evaluation, ...]:
    probs = bench.asked(learnt)
    codes, title = bench.test.codes(bench.train.classes), f"The saved model on {bench.test.name}"
    return (evaluate(title, probs, codes, bench.train.classes, bench.seed),)


def _said_of_views(bench: _Bench) -> list[str]:
    """What the flip cost here, and how the views were decided on."""
    said = []
    textbook = bench.recipe.textbook
    if textbook is not None:
        warning = flip_warning(bench.train.classes, parse_augmentation(textbook.augment, textbook.views))
        said += [warning] if warning else []
    if {"textbook", "textbook, no flip"} <= set(bench.hits):
        pair = (np.stack(bench.hits[name]) for name in ("textbook, no flip", "textbook"))
        cost = paired_difference(*pair)
        said.append(
            "Leaving the flip out of the textbook's augmentation changes its accuracy by "
            f"{100 * cost.value:+.2f} points here [{100 * cost.low:+.2f}, {100 * cost.high:+.2f}], on the "
            "same test images."
        )
    trials = [plan.trials for plan in bench.plans.values() if plan.trials]
    if trials:
        taken = sum(plan.augmentation is not None for plan in bench.plans.values())
        means = {name: float(np.mean([dict(one)[name] for one in trials])) for name, _ in trials[0]}
        figures = " against ".join(f"{value:.2%} with {name}" for name, value in means.items())
        said.append(
            f"Views were taken in {taken} of {len(trials)} draws, by {_FOLDS}-fold cross-validation on the "
            f"training images: {figures}, on average."
        )
    return said


def _said_of_first(bench: _Bench) -> list[str]:
    """The same answers judged on as few test images as the textbook has."""
    n = bench.recipe.first_test_images
    if n is None or n >= len(bench.test):
        return []
    score = wilson(float(np.stack(bench.hits["probe"])[:, :n].mean()) * n, n)
    return [
        f"On the first {n} test images alone, as the textbook has them, the probe gets {score.value:.2%} "
        f"[{score.low:.2%}, {score.high:.2%}]: an interval that wide parts few methods."
    ]


def _published_table(published: tuple[Published, ...], table: Table, n_test: int) -> PlainTable:
    """Figures of others beside ours, each with its interval, where they say what it is of."""
    ours = [row for row in table.rows if row.strategy == "probe"][-1].accuracy
    lines = [("this run, probe", *_figures(ours.value, n_test), "this page")]
    lines += [(one.what, *_figures(one.accuracy, one.n_test), one.source) for one in published]
    return PlainTable(
        "Beside published figures",
        "Each with the interval that its number of test images allows. Other data splits, networks and "
        "budgets than ours: to be read beside it, not as a contest.",
        ("what", "accuracy, %", "95 % interval", "test images", "source"),
        tuple(lines),
    )


def _figures(accuracy: float, n_test: int) -> tuple[str, str, str]:
    score = wilson(accuracy * n_test, n_test)
    return f"{100 * accuracy:.2f}", f"{100 * score.low:.1f} to {100 * score.high:.1f}", f"{n_test:,}"


def _facts(bench: _Bench, learnt: Learnt, command: str, seconds: float) -> dict[str, str]:
    head, tap = learnt.model.manifest.head, learnt.model.manifest.source
    return {
        "command": command,
        "source": about_source(bench.source),
        "source_fingerprint": bench.source.fingerprint,
        "data": f"{bench.train.name}, fingerprint of the training images {bench.train.fingerprint}",
        "model_fingerprint": learnt.model.manifest.source_fingerprint,
        "head": f"{about_head(head)} on {tap['tap']}, {tap['pooling']}",
        "seed": str(bench.seed),
        **made_with(),
        "everything": f"{seconds:.1f} s",
        "date": strftime("%Y-%m-%d"),
    }
