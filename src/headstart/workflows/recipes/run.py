"""Carry a recipe out: train the source, freeze it, fit the head, run the controls, write the report.

In: a Recipe and where to find data. Out: a Report and a folder with models, result and report.
Called by the command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, strftime

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset, check_same_classes
from headstart.data.readers.load import load
from headstart.data.splits import holdout
from headstart.data.subsets import apply_subset
from headstart.errors import SettingError, UnknownLayerError, nearest
from headstart.evaluation.metrics import evaluate
from headstart.evaluation.records import Evaluation
from headstart.heads.registry import make_head
from headstart.networks.specs import architecture
from headstart.records import Array
from headstart.report.records import Report
from headstart.sources.networks import native_input
from headstart.strategies.finetune.decide import FINETUNE_NAMES, Finetuner, finetune_strategies, sentence_of
from headstart.strategies.fits import Chooser, FeatureOptions, Reader, Strategy, probe
from headstart.strategies.parts import training_parts
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.strategies.provenance import about_head, made_with
from headstart.strategies.result import LearnedModel
from headstart.strategies.scratch import learn_network
from headstart.system.cache import NullCache
from headstart.workflows.comparison.baselines import network_from_scratch
from headstart.workflows.comparison.controls import collapse, frozen_controls
from headstart.workflows.comparison.protocol import Protocol
from headstart.workflows.comparison.table import Table, run_table
from headstart.workflows.comparison.verdict import FINETUNE, PROBE
from headstart.workflows.recipes.folder import check_folder, write_result
from headstart.workflows.recipes.frozen import run_frozen
from headstart.workflows.recipes.letters import run_letters
from headstart.workflows.recipes.options import Outcome, RecipeOptions
from headstart.workflows.recipes.recipe import FrozenRecipe, LettersRecipe, Recipe

__all__ = ["run_recipe", "with_test_split"]

_TEST_SHARE = 0.3
_AS_WRITTEN = RecipeOptions()
_NO_TORCH = (
    "torch is not installed, so the NumPy engine trains the network; "
    "for torch: pip install 'headstart[train]'"
)


@dataclass(frozen=True)
class _Run:
    """One run under way: both halves of the transfer, and who trains."""

    recipe: Recipe
    options: RecipeOptions
    source: Dataset
    target: Dataset
    engine: str
    remarks: tuple[str, ...]

    @cached_property
    def train(self) -> Dataset:
        """The target images that labels are drawn from."""
        return training_parts(self.target, self.options.seed).fit

    @cached_property
    def test(self) -> Dataset:
        """The target images that every figure of the table is about."""
        return self.target.split("test")


def run_recipe(
    recipe: Recipe | FrozenRecipe | LettersRecipe,
    folder: str | os.PathLike[str],
    options: RecipeOptions = _AS_WRITTEN,
) -> Outcome:
    """Run a classic experiment from data to report.

    Parameters
    ----------
    recipe : Recipe, FrozenRecipe or LettersRecipe
        What to do.
    folder : path
        Gets ``model/`` and, where a network was trained, ``source/`` (model folders), ``result.json``,
        ``card.md`` and ``report.html``: new, empty, or with an older result, which is replaced.
    options : RecipeOptions, optional
        How to do it. Same seed, same machine, same result.

    Returns
    -------
    Outcome
        The test split was opened once, at the end.

    Raises
    ------
    HeadstartError
        Of the kind that fits; nothing half-written stays.
    """
    begun, home = perf_counter(), Path(folder)
    check_folder(home)
    if options.test is not None and not isinstance(recipe, LettersRecipe):
        raise SettingError(
            f"recipe {recipe.name!r} has a test split of its own, expected none; leave --test out"
        )
    if isinstance(recipe, FrozenRecipe):
        return _run_frozen(recipe, home, options)
    if options.source is not None or options.size_px is not None:
        raise SettingError(
            f"recipe {recipe.name!r} trains its own source, expected none; leave --source and --size out"
        )
    if isinstance(recipe, LettersRecipe):
        return _run_letters(recipe, home, options)
    run = _prepared(recipe, options)
    for remark in run.remarks:
        options.progress.remark(remark)
    source = learn_network(
        run.source,
        network=recipe.network,
        engine=run.engine,
        settings=replace(recipe.training, seed=options.seed),
        progress=options.progress,
    )
    frozen = source.model.source(f"{recipe.network} trained on {run.source.name}")
    transferred = learn_head(
        frozen,
        run.target,
        Probe(recipe.layer, "flat", recipe.head),
        seed=options.seed,
        options=options.extraction,
    )
    table, said = _table(run, source, transferred)
    evaluations = _evaluations(run, source, transferred)
    source.model.save(home / "source")
    transferred.model.save(home / "model")
    facts = _facts(run, source, transferred, perf_counter() - begun)
    table = replace(table, remarks=(*source.remarks, *said, *table.remarks))
    result = _result(run, table, evaluations, (source, transferred), facts)
    return write_result(home, result)


def _run_frozen(recipe: FrozenRecipe, home: Path, options: RecipeOptions) -> Outcome:
    """An experiment on a network that others trained."""
    if options.opening is not None:
        raise SettingError(
            f"recipe {recipe.name!r} has a frozen network, expected no finetune; use headstart study for that"
        )
    if options.engine is not None:
        raise SettingError(
            f"recipe {recipe.name!r} trains no network, expected no engine; leave --engine out"
        )
    whole = with_test_split(load(options.data or recipe.data), options.seed)
    for remark in _skipped(whole):
        options.progress.remark(remark)
    found = run_frozen(
        recipe,
        whole,
        source_name=options.source or recipe.source,
        size_px=options.size_px,
        seed=options.seed,
        controls=options.controls,
        options=options.extraction,
        command=options.command,
    )
    found.learnt.model.save(home / "model")
    return write_result(home, found.result)


def _run_letters(recipe: LettersRecipe, home: Path, options: RecipeOptions) -> Outcome:
    """An experiment on a few images of one kind, judged by a test set of its own."""
    found = run_letters(
        recipe,
        data=options.data,
        test=options.test,
        engine=options.engine,
        seed=options.seed,
        controls=options.controls,
        keep=not isinstance(options.cache, NullCache),
        options=options.extraction,
        command=options.command,
        opening=options.opening,
    )
    found.source.save(home / "source")
    found.learnt.model.save(home / "model")
    return write_result(home, found.result)


def with_test_split(dataset: Dataset, seed: int) -> Dataset:
    """The dataset with a test split: its own, or a stratified 30 % held out by the seed.

    Parameters
    ----------
    dataset : Dataset
        With or without splits. Groups stay together.
    seed : int
        Decides which images are held out.

    Returns
    -------
    Dataset
        With ``train`` and ``test`` among its splits.
    """
    if dataset.splits is not None and "test" in set(dataset.splits.tolist()):
        return dataset
    train = np.arange(len(dataset)) if dataset.splits is None else np.flatnonzero(dataset.splits == "train")
    groups = None if dataset.together is None else dataset.together[train]
    _, held = holdout(dataset.labels[train], _TEST_SHARE, seed, groups)
    splits = (
        np.full(len(dataset), "train", dtype="<U5")
        if dataset.splits is None
        else dataset.splits.astype("<U5")
    )
    splits[train[held]] = "test"
    return replace(dataset, splits=splits)


def _prepared(recipe: Recipe, options: RecipeOptions) -> _Run:
    """Split first, look twice: an image that one half tests on, neither half learns from."""
    whole = with_test_split(load(options.data or recipe.data), options.seed)
    source, target = (
        apply_subset(whole, view) if view else whole for view in (recipe.source_subset, recipe.target_subset)
    )
    for half in (source, target):
        check_same_classes(half.split("train"), half.split("test"))
    _check_names(recipe, source)
    engine, remarks = options.engine or recipe.engine, _skipped(whole)
    if engine == "torch" and options.engine is None and find_spec("torch") is None:
        engine, remarks = "scratch", (*remarks, _NO_TORCH)
    return _Run(recipe, options, source, target, engine, remarks)


def _check_names(recipe: Recipe, source: Dataset) -> None:
    """Find a wrong layer or head before anything is trained."""
    make_head(recipe.head)
    spec = architecture(recipe.network, native_input(source), len(source.classes))
    for layer in (recipe.layer, recipe.textbook_layer):
        if layer is not None and layer not in spec.layer_names:
            raise UnknownLayerError(
                f"layer {layer!r} is unknown, expected one of network {recipe.network!r}, "
                f"{nearest(layer, spec.layer_names)}"
            )


def _skipped(dataset: Dataset) -> tuple[str, ...]:
    if not dataset.skipped:
        return ()
    path, reason = dataset.skipped[0]
    number, total = len(dataset.skipped), len(dataset) + len(dataset.skipped)
    return (f"{number} of {total} files could not be read and are left out; the first: {path} ({reason}).",)


def _evaluations(run: _Run, source: LearnedModel, transferred: LearnedModel) -> tuple[Evaluation, Evaluation]:
    """Both models on their test splits, by the graphs that are saved."""
    halves = ("Source", source, run.source), ("Transfer", transferred, run.target)
    first, second = (
        evaluate(
            f"{what}: {dataset.name}",
            learnt.model.probabilities(dataset.split("test"), runtime_name=run.options.runtime),
            dataset.split("test").codes(dataset.classes),
            dataset.classes,
            dataset.split("test").together,
        )
        for what, learnt, dataset in halves
    )
    return first, second


def _table(run: _Run, source: LearnedModel, transferred: LearnedModel) -> tuple[Table, tuple[str, ...]]:
    """The transfer against its controls, and what to say of fine-tuning.

    With all labels the probe is the saved model itself.
    """
    options, recipe = run.options, run.recipe
    features = FeatureOptions(recipe.layer, "flat", recipe.head, options.extraction)
    by_features = probe(source.model.source(), run.train, run.test, features)

    def probed(learn: NDArray[np.intp], asked: NDArray[np.intp], seed: int) -> Array:
        if len(learn) < len(run.train):
            return by_features(learn, asked, seed)
        return transferred.model.probabilities(run.test, runtime_name=options.runtime)

    strategies: dict[str, Strategy] = {"probe": probed}
    tuner = _finetuner(run, source)
    if tuner is not None:
        strategies |= finetune_strategies(tuner)
    if recipe.textbook_layer and options.controls:
        textbook = replace(features, layer=recipe.textbook_layer)
        strategies["textbook probe"] = probe(source.model.source(), run.train, run.test, textbook)
    if options.controls:
        spec = source.model.manifest.network
        assert spec is not None, "a network we trained has a spec"
        scratch = network_from_scratch(
            spec, run.engine, (recipe.training, recipe.few_labels), run.train, run.test
        )
        strategies |= {"scratch": scratch} | frozen_controls(
            spec, run.train, run.test, features, options.seed
        )
        if recipe.collapse:
            answers = source.model.probabilities(run.test, runtime_name=options.runtime)
            strategies["collapse"] = collapse(
                answers, source.model.classes, recipe.target_subset, run.train.classes
            )
    budgets = recipe.labels_per_class if options.controls or tuner else ()
    protocol = replace(
        Protocol(budgets, recipe.draws, options.seed),
        shown=("textbook probe", *FINETUNE_NAMES),
        pairs=((FINETUNE, PROBE), (FINETUNE, "scratch")),
    )
    table = run_table(strategies, run.train, run.test, protocol, progress=options.progress)
    return table, (() if tuner is None else (sentence_of(tuner.decisions),))


def _finetuner(run: _Run, source: LearnedModel) -> Finetuner | None:
    """The source opened where the recipe's probe reads, if that is wanted."""
    options, recipe = run.options, run.recipe
    if options.opening is None:
        return None
    reader = Reader(source.model.source(), run.train, run.test, options.extraction)
    chooser = Chooser(reader, Probe(recipe.layer, "flat", recipe.head))
    return Finetuner(reader, chooser, options.opening, options.progress)


def _result(
    run: _Run,
    table: Table,
    evaluations: tuple[Evaluation, ...],
    learnt: tuple[LearnedModel, ...],
    facts: Mapping[str, str],
) -> Report:
    first = evaluations[0].accuracy
    said = (
        f"The source itself, {run.source.name}, gets {first.value:.2%} [{first.low:.2%}, "
        f"{first.high:.2%}] of its "
        f"{first.n:,} test images right.",
    )
    return Report(
        title=run.recipe.title,
        summary=run.recipe.summary,
        verdict=table.verdict,
        remarks=(*said, *table.remarks, *run.remarks),
        rows=table.rows,
        comparisons=table.comparisons,
        evaluations=evaluations,
        curves=tuple(one.curve for one in learnt if one.curve is not None),
        facts=facts,
        sizes={"train": len(run.train), "test": len(run.test), "classes": len(run.train.classes)},
    )


def _facts(run: _Run, source: LearnedModel, transferred: LearnedModel, seconds: float) -> dict[str, str]:
    return {
        "command": run.options.command,
        "source_data": f"{run.source.name}, fingerprint {run.source.fingerprint}",
        "target_data": f"{run.target.name}, fingerprint {run.target.fingerprint}",
        "source_fingerprint": source.model.manifest.source_fingerprint,
        "model_fingerprint": transferred.model.manifest.source_fingerprint,
        "head": f"{about_head(transferred.model.manifest.head)} at layer {run.recipe.layer}",
        "engine": f"{run.engine}, features by {run.options.runtime}",
        "seed": str(run.options.seed),
        **made_with(run.engine),
        "learning_the_source": f"{source.seconds:.1f} s",
        "learning_the_head": f"{transferred.seconds:.1f} s, features included",
        "everything": f"{seconds:.1f} s",
        "date": strftime("%Y-%m-%d"),
    }
