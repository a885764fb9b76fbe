"""Carry out the recipe of the few letters: train on digits, save, load, freeze, teach letters, be judged.

In: a LettersRecipe and where to find data. Out: a Report and the models. Must not import an engine
at the top. Called by the command line through run.
"""

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
    """What the recipe found: the network that learnt digits, the model of the letters, and the study."""

    source: Model
    learnt: LearnedModel
    result: Report


@dataclass(frozen=True)
class _Parts:
    """Everything that both judgements need."""

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
    opening: FinetuneOptions | None = None,
) -> Letters:
    """Run the experiment from digits to a verdict on letters by other people.

    Parameters
    ----------
    recipe : LettersRecipe
        What to do.
    data, test : str, optional
        The letters to learn, and those to be judged by, instead of the recipe's.
    engine : str, optional
        What trains the networks. Default: the recipe's, or NumPy where torch is missing.
    seed : int
        Decides weights, folds and views.
    controls : bool
        Run what transfer has to beat.
    keep : bool
        Keep trained networks in the cache and find them there again.
    options : Extraction
        Cache, runtime and precision.
    command : str
        What the user typed, for the report.
    opening : FinetuneOptions, optional
        Fine-tune beside the probe, so.

    Returns
    -------
    Letters
        The letters by other people were used once, after everything was selected.

    Raises
    ------
    HeadstartError
        Of the kind that fits.
    """
    dataset, external = load(data or recipe.data), load(test or recipe.test)
    parts = _parts(recipe, engine, seed, keep, options)
    alone = _left_out(parts, dataset, controls=controls)
    chosen = StudyRequest(
        probe=parts.probe,
        labels_per_class=(),
        controls=("majority", "raw pixels", "random frozen", "scratch") if controls else (),
        seed=seed,
        extra={_TEXTBOOK: lambda setup: _textbook(parts, setup.pool, setup.test)},
        shown=() if controls else (_TEXTBOOK,),  # without controls there is no verdict
        spec=_prepared_alike(parts),
        scratch=(recipe.scratch, recipe.scratch),
        finetune=opening,
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
    learnt = learn_head(parts.source, dataset, parts.probe, seed=seed, options=options)
    compared = _configurations(parts, dataset)
    result = replace(
        judged,
        evaluations=(*judged.evaluations, *alone.evaluations),
        calibrations=(*judged.calibrations, *alone.calibrations),
        curves=tuple(one for one in (parts.trained.curve,) if one is not None),
        tables=(_left_out_table(parts, dataset, alone), _compared_table(parts, compared)),
        remarks=(*judged.remarks, *_said_of_source(parts)),
    )
    return Letters(parts.trained.model, learnt, result)


def _prepared_alike(parts: _Parts) -> NetworkSpec:
    """The trained network's layers for letters prepared as the source's are: its control starts level."""
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
    probe = Probe(recipe.layer, "flat", recipe.head, parse_augmentation(recipe.views_augment, recipe.views))
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
    """The textbook's preparation: the middle of the picture, shrunk, dark and light exchanged."""
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


def _textbook(parts: _Parts, pool: Dataset, asked: Dataset) -> Strategy:
    reader = Reader(parts.textbook, pool, asked, parts.options)
    return chosen_probe(reader, Probe(parts.recipe.textbook_layer, "flat", parts.recipe.textbook_head))


def _left_out(parts: _Parts, dataset: Dataset, *, controls: bool) -> Report:
    """Every letter judged by a model that learnt from the others."""
    wanted = StudyRequest(
        probe=parts.probe,
        kind="leave-one-out",
        labels_per_class=(),
        controls=("raw pixels",) if controls else (),
        seed=parts.seed,
        extra={_TEXTBOOK: lambda setup: _textbook(parts, setup.pool, setup.test)},
        shown=() if controls else (_TEXTBOOK,),
    )
    return run_study(parts.source, dataset, wanted, trained=parts.trained.model, options=parts.options)


def _left_out_table(parts: _Parts, dataset: Dataset, alone: Report) -> PlainTable:
    """The 27 themselves: left out one at a time, and as the textbook counts, on what was learnt."""
    reader = Reader(parts.source, dataset, dataset, parts.options, parts.probe.augmentation, parts.seed)
    everyone, codes = np.arange(len(dataset)), dataset.codes()
    ways = {"probe": chosen_probe(reader, parts.probe), _TEXTBOOK: _textbook(parts, dataset, dataset)}
    learnt = {
        name: int((way(everyone, everyone, parts.seed).argmax(axis=1) == codes).sum())
        for name, way in ways.items()
    }
    n = len(dataset)
    lines = tuple(
        (
            row.strategy,
            f"{round(row.accuracy.value * n)} of {n}",
            f"{100 * row.accuracy.low:.1f} to {100 * row.accuracy.high:.1f}",
            f"{learnt[row.strategy]} of {n}" if row.strategy in learnt else "",
        )
        for row in alone.rows
    )
    return PlainTable(
        f"The {n} letters themselves",
        "Each letter classified by a model trained on the others (leave-one-out), and what the textbook "
        "reports: accuracy on the training images themselves, which says nothing about new ones.",
        ("strategy", "left out, right", "95 % interval, %", "training images, right"),
        lines,
    )


def _configurations(parts: _Parts, dataset: Dataset) -> Choice:
    """Layers, heads and strengths compared on the letters alone, one left out at a time."""
    places = [(name, "flat") for name in parts.source.layers if name.startswith(_COMPARED)]
    reader = Reader(parts.source, dataset, dataset, parts.options)
    reader.read(places)
    return choose(
        {place: reader.rows(place) for place in places},
        dataset.codes(),
        seed=parts.seed,
    )


def _compared_table(parts: _Parts, compared: Choice) -> PlainTable:
    """The comparison under a title that says what it is for: nothing was chosen by it."""
    recipe = parts.recipe
    return replace(
        choice_table(compared),
        title="Configurations compared, on the letters alone",
        caption=f"Leave-one-out cross-validation on the {compared.n_images} letters without augmentation, "
        f"{compared.n_tried} candidates, the least loss first. So few letters hardly show a difference: "
        f"the recipe's own ({recipe.head} on {recipe.layer}, {recipe.views} augmented copies) was "
        "selected on digits.",
    )


def _said_of_source(parts: _Parts) -> tuple[str, ...]:
    scores, seconds = parts.trained.model.manifest.scores, parts.trained.seconds
    if "val_accuracy" not in scores:
        return ()
    return (
        f"The network itself reads {scores['val_accuracy']:.2%} of held-out digits; training took "
        f"{seconds:.0f} s, and is done once: the cache keeps it.",
    )
