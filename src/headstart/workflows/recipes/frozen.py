"""A recipe on a pretrained network: select, fit, compare with the textbook and the controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np

from headstart.data.checks.refuse import checked
from headstart.data.dataset import Dataset, check_same_classes
from headstart.data.images.augment import Augmentation, parse_augmentation
from headstart.data.splits import folds
from headstart.errors import RecipeError
from headstart.heads.held_out import best_setting
from headstart.heads.registry import make_head
from headstart.heads.training import Training
from headstart.records import Array, Source
from headstart.report.records import Report
from headstart.sources.features import AugmentedCopy, Extraction, Place
from headstart.sources.precision import in_precision_of, precise
from headstart.sources.registry import kind_named, kind_of, open_source
from headstart.strategies.copies import copy_rows
from headstart.strategies.fits import Reader, Strategy
from headstart.strategies.mixture import mixed
from headstart.strategies.parts import training_parts
from headstart.strategies.places import Probe, Reading, choose_places
from headstart.strategies.probe import learn_head, training_rows
from headstart.strategies.result import LearnedModel
from headstart.system.threads import threads_for
from headstart.workflows.comparison.baselines import gradient_histograms, raw_pixels
from headstart.workflows.comparison.controls import majority
from headstart.workflows.comparison.protocol import Protocol, rounds_of
from headstart.workflows.comparison.table import Table, run_table
from headstart.workflows.comparison.verdict import FLOAT, PROBE
from headstart.workflows.recipes.ahead import ReadAhead
from headstart.workflows.recipes.bench import AUGMENT_FOLDS, Bench, DrawPlan, Indices
from headstart.workflows.recipes.present import frozen_facts, frozen_result
from headstart.workflows.recipes.recipe import FrozenRecipe, Textbook
from headstart.workflows.recipes.split import with_test_split

__all__ = ["Frozen", "run_frozen"]

_PAIRS = ((FLOAT, PROBE),)


@dataclass(frozen=True)
class Frozen:
    """The report of a recipe on a pretrained network, and the model of its first draw."""

    learned: LearnedModel
    result: Report


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
    allow_leaks: bool = False,
) -> Frozen:
    """Everything is selected by cross-validation on the training images of each draw; the test images come last.

    ``dataset`` has the splits train and test; ``size_px`` is the input side of a timm network (None: the
    recipe's, or the network's own). In int8 the source is calibrated on training images, and with ``controls`` the
    probe in fp32 has a row.
    """
    begun = perf_counter()
    dataset, found = checked(dataset, allow_leaks=allow_leaks)
    dataset = with_test_split(dataset, seed)
    wanted_px = size_px or (recipe.size_px if kind_named(source_name).takes_size else None)
    source = open_source(source_name, dataset, seed, wanted_px)
    train, test = training_parts(dataset, seed).fit, dataset.split("test")
    check_same_classes(train, test)
    if not kind_of(source).takes_size:  # a textbook reads the last maps of a network for photos
        recipe = replace(recipe, textbook=None)
    recipe = replace(recipe, size_px=wanted_px)
    ready = precise(source, lambda: train, options)
    exact = None if ready.source is source else source
    options = replace(ready.options, precision="fp32")  # as the saved model computes
    bench = Bench(recipe, ready.source, train, test, options, seed, exact)
    protocol = _protocol(recipe, train, seed)
    with ReadAhead(options) as bench.ahead:
        learned, table = _compared(bench, dataset, protocol, controls=controls)
    facts = frozen_facts(bench, learned, command, perf_counter() - begun)
    return Frozen(learned, frozen_result(bench, table, learned, found.remarks, facts))


def _compared(
    bench: Bench, dataset: Dataset, protocol: Protocol, *, controls: bool
) -> tuple[LearnedModel, Table]:
    """Select on every draw, fit the model, and compare all strategies."""
    train, test = bench.train, bench.test
    rounds = rounds_of(train, len(test), protocol.labels_per_class, protocol)
    draws = [one[0].train for each in rounds.values() for one in each]
    textbook = {} if bench.recipe.textbook is None else _textbooks(bench, bench.recipe.textbook, draws)
    for number, indices in enumerate(draws):
        bench.plans[indices.tobytes()] = _planned(bench, indices, bench.seed + number)
    _read_test(bench)
    learned = _model(bench, dataset, draws[0])
    strategies = {"probe": _recorded(bench, "probe", _probe(bench, learned)), **textbook}
    if textbook and any(plan.augmentation for plan in bench.plans.values()):
        strategies["probe, no augmentation"] = _recorded(bench, "probe, no augmentation", _plain(bench))
    if controls and bench.exact is not None:
        strategies[FLOAT] = _elsewhere(bench, bench.exact, copies=True)
    if controls:
        strategies |= _controls(bench)
    return learned, run_table(strategies, train, test, protocol, progress=bench.options.progress)


def _protocol(recipe: FrozenRecipe, train: Dataset, seed: int) -> Protocol:
    shown = ("probe, no augmentation", "textbook", "textbook, no flip", "textbook, no augmentation", FLOAT)
    wanted, smallest = recipe.labels_per_class, min(train.counts().values())
    if wanted is None:
        return Protocol((), 1, seed, True, shown, pairs=_PAIRS)
    if wanted >= smallest:
        raise RecipeError(
            f"recipe {recipe.name!r} uses {wanted} labels per class, expected fewer than the {smallest} "
            f"images of the smallest class of {train.name!r}; choose larger data with --data"
        )
    return Protocol((wanted,), recipe.draws, seed, False, shown, pairs=_PAIRS)


def _planned(bench: Bench, indices: Indices, seed: int) -> DrawPlan:
    """Select layer and head on one draw, then whether augmented copies help there."""
    recipe, some = bench.recipe, bench.train.subset(indices)
    also = [] if recipe.textbook is None else [_textbook_place(bench.source)]
    wanted = Probe(head=recipe.head)
    readings, choice = choose_places(bench.source, some, wanted, seed, bench.options, also)
    if recipe.augment is None:
        return DrawPlan(readings, choice, None)
    augmentation, head = parse_augmentation(recipe.augment, recipe.copies), readings[0].head
    # the other places are read in the same pass, for the fits to come
    places = [one.place for one in readings]
    (rows, *_), _, images = training_rows(bench.source, some, places, augmentation, seed, bench.options)
    n = len(some)
    plain = _cross_validated(head, rows[:n], some, np.arange(n), seed)
    augmented = _cross_validated(head, rows, some, images, seed)
    trials = (("no augmentation", plain), (f"{recipe.augment}, {recipe.copies} augmented copies", augmented))
    return DrawPlan(readings, choice, augmentation if augmented > plain else None, trials)


def _cross_validated(head: str, rows: Array, some: Dataset, images: Indices, seed: int) -> float:
    """Accuracy on images held out with all their augmented copies; only the images themselves are counted.

    Exactly, from one fit on all rows, where the head has that; else by five fits.
    """
    codes, labels = some.codes(), some.labels
    clusters = None if some.cluster_codes is None else some.cluster_codes[images]
    training = Training(rows, codes[images], np.ones(len(rows), np.float32), images, seed, clusters)
    with threads_for(rows.size):
        held_out = make_head(head).held_out(training)
    if held_out is not None:
        return float((held_out.scores[best_setting(held_out)].argmax(axis=1) == codes).mean())
    right = 0
    for learn, held in folds(labels, AUGMENT_FOLDS, seed, some.cluster_codes):
        known = np.isin(images, learn)
        units = None if clusters is None else clusters[known]
        fitted = make_head(head).fit(
            rows[known], labels[images[known]], images=images[known], clusters=units, seed=seed
        )
        right += int((fitted.predict(rows[held]) == labels[held]).sum())
    return right / len(some)


def _read_test(bench: Bench) -> None:
    """Features of the test images at every place that some draw uses, in one pass."""
    places = [one.place for plan in bench.plans.values() for one in plan.readings]
    if bench.recipe.textbook is not None:
        places.append(_textbook_place(bench.source))
    bench.read_test(places)


def _model(bench: Bench, dataset: Dataset, indices: Indices) -> LearnedModel:
    """The first draw's selection as a model; its validation images are not among its training images."""
    plan = bench.plans[indices.tobytes()]
    if bench.recipe.labels_per_class is not None:
        dataset = replace(bench.train.subset(indices), splits=None)
    learned = learn_head(
        bench.source,
        dataset,
        Probe(augmentation=plan.augmentation),
        readings=plan.readings,
        seed=bench.seed,
        options=bench.options,
    )
    return replace(learned, choice=plan.choice)


def _probe(bench: Bench, learned: LearnedModel) -> Strategy:
    """The selected probe on each draw; with all labels it is the saved model itself."""

    def strategy(train: Indices, test: Indices, seed: int) -> Array:
        if bench.recipe.labels_per_class is None:
            return bench.model_probabilities(learned)
        return _fitted(bench, train, bench.plans[train.tobytes()], seed)

    return strategy


def _fitted(
    bench: Bench,
    indices: Indices,
    plan: DrawPlan,
    seed: int,
    watched: str | None = None,
    like: Augmentation | None = None,
) -> Array:
    """Fit on a whole draw as planned and predict the test images.

    ``watched`` titles a training curve, drawn once, from another fit that holds out a tenth for validation. ``like``
    is an augmentation whose copies of this draw were read before, if it is another.
    """
    some = bench.train.subset(indices)
    places = [one.place for one in plan.readings]
    found, labels, images = training_rows(
        bench.source, some, places, plan.augmentation, seed, bench.options, like=like
    )
    classes, (rows, *_), head = bench.train.classes, found, plan.readings[0].head
    if watched is not None and not any(curve.title == watched for curve in bench.curves):
        _, held = folds(some.labels, 10, seed)[0]
        learn, watch = ~np.isin(images, held), (rows[held], some.labels[held])
        shown = make_head(head).fit(
            rows[learn], labels[learn], classes=classes, images=images[learn], seed=seed, watch=watch
        )
        bench.curves += [] if shown.curve_ is None else [replace(shown.curve_, title=watched)]
    predictions = [
        make_head(one.head)
        .fit(features, labels, classes=classes, images=images, seed=seed)
        .probabilities(bench.test_rows(one.place))
        for one, features in zip(plan.readings, found, strict=True)
    ]
    return mixed(predictions)


def _textbooks(bench: Bench, textbook: Textbook, draws: Sequence[Indices]) -> dict[str, Strategy]:
    """The textbook's probe: with its augmentation, without the flip in it, and without any.

    Where it reads is known, so features of its copies are computed while others are selected and fitted.
    """
    whole = parse_augmentation(textbook.augment, textbook.copies)
    ways: dict[str, Augmentation | None] = {"textbook": whole}
    if whole.flips:
        ways["textbook, no flip"] = parse_augmentation(
            f"{textbook.augment},flip=0,flip_vertical=0", textbook.copies
        )
    ways["textbook, no augmentation"] = None
    place = _textbook_place(bench.source)
    for name, augmentation in ways.items():
        for number, indices in enumerate(draws):
            if augmentation is not None:
                read = partial(_read_copies, bench, indices, place, augmentation, bench.seed + number, whole)
                bench.ahead.start((name, indices.tobytes()), read)

    def way(name: str, augmentation: Augmentation | None) -> Strategy:
        plan = DrawPlan((Reading(place, textbook.head),), None, augmentation)

        def strategy(train: Indices, test: Indices, seed: int) -> Array:
            bench.ahead.wait((name, train.tobytes()))
            return _fitted(bench, train, plan, seed, f"{name}: {textbook.head} head", whole)

        return _recorded(bench, name, strategy)

    return {name: way(name, augmentation) for name, augmentation in ways.items()}


def _read_copies(
    bench: Bench, indices: Indices, place: Place, augmentation: Augmentation, seed: int, like: Augmentation
) -> None:
    """Read the augmented copies of a draw, not the images themselves: those are read at several places at once."""
    for number in range(augmentation.n_copies):
        copy = AugmentedCopy(augmentation, seed, number)
        copy_rows(bench.train.subset(indices), bench.source, [place], copy, bench.ahead.options, like)


def _plain(bench: Bench) -> Strategy:
    """The selected probe without augmented copies."""
    return lambda train, test, seed: _fitted(
        bench, train, replace(bench.plans[train.tobytes()], augmentation=None), seed
    )


def _textbook_place(source: Source) -> Place:
    """The last maps, averaged."""
    maps = [layer for layer, shape in source.layers.items() if len(shape) > 1]
    return (maps[-1], "avg") if maps else (source.default_layer, "flat")


def _controls(bench: Bench) -> dict[str, Strategy]:
    drawn = bench.drawn
    pool = bench.train if len(drawn) == len(bench.train) else bench.train.subset(drawn)
    reader = Reader(bench.source, pool, bench.test, bench.options)
    strategies = {
        name: _recorded(bench, name, _among(drawn, made))
        for name, made in (("HOG", gradient_histograms(reader)), ("raw pixels", raw_pixels(reader)))
    }
    strategies["majority"] = majority(bench.train)
    if (redraw := kind_of(bench.source).redraw) is not None:
        network = redraw(bench.source, bench.train, bench.seed, bench.recipe.size_px)
        network = in_precision_of(bench.source, network, lambda: bench.train, bench.options)
        strategies["random frozen"] = _elsewhere(bench, network, copies=False)
    return strategies


def _among(drawn: Indices, strategy: Strategy) -> Strategy:
    """A strategy whose pool is the images of all draws, for indices into all training images."""
    return lambda train, test, seed: strategy(np.searchsorted(drawn, train), test, seed)


def _elsewhere(bench: Bench, network: Source, *, copies: bool) -> Strategy:
    """Another network, read and fitted where the probe is, with its augmented copies or without."""
    other = replace(bench, source=network)
    places = [one.place for plan in bench.plans.values() for one in plan.readings]

    def strategy(train: Indices, test: Indices, seed: int) -> Array:
        other.read_test(places)  # of all draws in one pass
        plan = bench.plans[train.tobytes()]
        return _fitted(other, train, plan if copies else replace(plan, augmentation=None), seed)

    return strategy


def _recorded(bench: Bench, name: str, strategy: Strategy) -> Strategy:
    """The same strategy; its hits are recorded for comparisons that the table does not make."""
    codes = bench.test.codes(bench.train.classes)

    def recording(train: Indices, test: Indices, seed: int) -> Array:
        probs = strategy(train, test, seed)
        bench.hits.setdefault(name, []).append(probs.argmax(axis=1) == codes)
        return probs

    return recording
