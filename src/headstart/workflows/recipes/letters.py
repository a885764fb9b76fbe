"""The recipe of the few letters: train on digits, freeze, teach letters, test on letters by other people."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.readers.load import load
from headstart.graph import layers
from headstart.models.model import Model
from headstart.records import NetworkSpec, Source, TrainSettings
from headstart.report.records import PlainTable, Report
from headstart.sources.features import Extraction
from headstart.sources.networks import fingerprint, spec_source
from headstart.strategies.finetune.options import FinetuneOptions
from headstart.strategies.fits import Reader, Strategy, chosen_probe
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.strategies.result import LearnedModel
from headstart.strategies.select import Choice, choose
from headstart.workflows.comparison.present import choice_table
from headstart.workflows.recipes.recipe import LettersRecipe
from headstart.workflows.study import StudyRequest, run_study
from headstart.workflows.train.store import trained_network

__all__ = ["Letters", "run_letters"]

_TEXTBOOK = "textbook"
_COMPARED = ("block", "hidden")  # layers behind a ReLU


@dataclass(frozen=True)
class Letters:
    """The network trained on digits, the model of the letters, and the study."""

    source: Model
    learned: LearnedModel
    result: Report


@dataclass(frozen=True)
class _Parts:
    """What both evaluations need."""

    recipe: LettersRecipe
    trained: LearnedModel
    source: Source
    textbook: Source
    probe: Probe
    seed: int
    options: Extraction


def run_letters(
    recipe: LettersRecipe,
    *,
    data: str | None,
    test: str | None,
    engine: str | None,
    seed: int,
    controls: bool,
    keep: bool,
    options: Extraction,
    command: str,
    finetune: FinetuneOptions | None = None,
    allow_leaks: bool = False,
) -> Letters:
    """Train on digits, teach the letters, and study them; the letters by other people are used once, at the end.

    ``data`` and ``test`` replace the recipe's letters; ``keep`` stores trained networks in the cache.
    """
    dataset, external = load(data or recipe.data), load(test or recipe.test)
    parts = _parts(recipe, engine, seed, keep, options)
    left_out = _left_out(parts, dataset, controls=controls, allow_leaks=allow_leaks)
    chosen = StudyRequest(
        probe=parts.probe,
        labels_per_class=(),
        controls=("majority", "HOG", "raw pixels", "random frozen", "scratch") if controls else (),
        seed=seed,
        extra={_TEXTBOOK: lambda setup: _textbook(parts, setup.pool, setup.test)},
        shown=() if controls else (_TEXTBOOK,),  # without controls there is no verdict
        spec=_scratch_spec(parts),
        scratch=(recipe.scratch, recipe.scratch),
        scratch_very_few=None,
        finetune=finetune,
        allow_leaks=allow_leaks,
    )
    judged = run_study(
        parts.source,
        dataset,
        chosen,
        external=external,
        trained=parts.trained.model,
        options=options,
        title=recipe.title,
        summary=recipe.summary,
        command=command,
    )
    learned = learn_head(parts.source, dataset, parts.probe, seed=seed, options=options)
    compared = _configurations(parts, dataset)
    result = replace(
        judged,
        evaluations=(*judged.evaluations, *left_out.evaluations),
        calibrations=(*judged.calibrations, *left_out.calibrations),
        curves=tuple(one for one in (parts.trained.curve,) if one is not None),
        tables=(_left_out_table(parts, dataset, left_out), _compared_table(parts, compared)),
        remarks=(*judged.remarks, *_source_remarks(parts)),
    )
    return Letters(parts.trained.model, learned, result)


def _scratch_spec(parts: _Parts) -> NetworkSpec:
    """The trained network's layers with the source's preparation, so that its control starts with the same images."""
    spec = parts.trained.model.manifest.network
    assert spec is not None, "a network we trained has a spec"
    return replace(spec, input=replace(spec.input, policy=parts.recipe.policy))


def _parts(recipe: LettersRecipe, engine: str | None, seed: int, keep: bool, options: Extraction) -> _Parts:
    digits = load(recipe.source_data)
    engine = engine or (recipe.engine if find_spec("torch") is not None else "scratch")
    augmentation = None if recipe.augment is None else parse_augmentation(recipe.augment, 1)

    def trained(settings: TrainSettings, augmented: bool) -> LearnedModel:
        return trained_network(
            digits,
            network=recipe.network,
            engine=engine,
            settings=replace(settings, seed=seed),
            augmentation=augmentation if augmented else None,
            keep=keep,
            progress=options.progress,
        )

    ours, plain = trained(recipe.training, True), trained(recipe.textbook_training, False)
    source = ours.model.source(f"{recipe.network} trained on {digits.name}")
    probe = Probe(recipe.layer, "flat", recipe.head, parse_augmentation(recipe.copies_augment, recipe.copies))
    return _Parts(
        recipe,
        ours,
        replace(source, input=replace(source.input, policy=recipe.policy)),
        _inverted(plain.model, recipe),
        probe,
        seed,
        options,
    )


def _inverted(model: Model, recipe: LettersRecipe) -> Source:
    """The textbook's preparation: the middle of the image, shrunk, dark and light exchanged."""
    spec = model.manifest.network
    assert spec is not None, "a network we trained has a spec"
    frame = replace(
        spec.input,
        mean=(1.0,) * spec.input.channels,
        std=(-1.0,) * spec.input.channels,
        policy="crop",
        crop_share=recipe.crop_share,
    )
    spec = replace(spec, input=frame)
    made = spec_source(
        "the same network as the textbook trains it", spec, layers.network_graph(spec, model.weights)
    )
    # the graph says nothing of how much of the picture is cut out
    return replace(made, fingerprint=fingerprint(made.graph + repr(frame).encode()))


def _textbook(parts: _Parts, pool: Dataset, test: Dataset) -> Strategy:
    reader = Reader(parts.textbook, pool, test, parts.options)
    return chosen_probe(reader, Probe(parts.recipe.textbook_layer, "flat", parts.recipe.textbook_head))


def _left_out(parts: _Parts, dataset: Dataset, *, controls: bool, allow_leaks: bool) -> Report:
    """Every letter classified by a model trained on the others."""
    request = StudyRequest(
        probe=parts.probe,
        kind="leave-one-out",
        labels_per_class=(),
        controls=("HOG", "raw pixels") if controls else (),
        seed=parts.seed,
        extra={_TEXTBOOK: lambda setup: _textbook(parts, setup.pool, setup.test)},
        shown=() if controls else (_TEXTBOOK,),
        allow_leaks=allow_leaks,
    )
    return run_study(parts.source, dataset, request, trained=parts.trained.model, options=parts.options)


def _left_out_table(parts: _Parts, dataset: Dataset, left_out: Report) -> PlainTable:
    """The letters themselves: leave-one-out, and the textbook's accuracy on its own training images."""
    reader = Reader(parts.source, dataset, dataset, parts.options, parts.probe.augmentation, parts.seed)
    everyone, codes = np.arange(len(dataset)), dataset.codes()
    ways = {"probe": chosen_probe(reader, parts.probe), _TEXTBOOK: _textbook(parts, dataset, dataset)}
    learned = {
        name: int((way(everyone, everyone, parts.seed).argmax(axis=1) == codes).sum())
        for name, way in ways.items()
    }
    n = len(dataset)
    lines = tuple(
        (
            row.strategy,
            f"{round(row.accuracy.value * n)} of {n}",
            f"{100 * row.accuracy.low:.1f} to {100 * row.accuracy.high:.1f}",
            f"{learned[row.strategy]} of {n}" if row.strategy in learned else "",
        )
        for row in left_out.rows
    )
    return PlainTable(
        f"The {n} letters themselves",
        "Each letter classified by a model trained on the others (leave-one-out). The last column is "
        "what the textbook reports: training accuracy, which is no estimate of the accuracy on new images.",
        ("strategy", "left out, right", "95 % interval, %", "training images, right"),
        lines,
    )


def _configurations(parts: _Parts, dataset: Dataset) -> Choice:
    """Layers, heads and strengths compared on the letters alone, by leave-one-out."""
    places = [(name, "flat") for name in parts.source.layers if name.startswith(_COMPARED)]
    reader = Reader(parts.source, dataset, dataset, parts.options)
    reader.read(places)
    return choose(
        {place: reader.rows(place) for place in places},
        dataset.codes(),
        seed=parts.seed,
    )


def _compared_table(parts: _Parts, compared: Choice) -> PlainTable:
    """The comparison as a table; nothing was selected by it."""
    recipe = parts.recipe
    return replace(
        choice_table(compared),
        title="Configurations compared, on the letters alone",
        caption=f"Leave-one-out cross-validation on the {compared.n_images} letters without augmentation, "
        f"{compared.n_tried} candidates, the lowest loss first. With so few letters the differences are small; "
        f"the setting of the recipe ({recipe.head} on {recipe.layer}, {recipe.copies} augmented copies) was "
        "selected on digits.",
    )


def _source_remarks(parts: _Parts) -> tuple[str, ...]:
    scores, seconds = parts.trained.model.manifest.scores, parts.trained.seconds
    if "val_accuracy" not in scores:
        return ()
    return (
        f"The network itself classifies {scores['val_accuracy']:.2%} of the held-out digits correctly; it was "
        f"trained once, in {seconds:.0f} s, and is cached.",
    )
