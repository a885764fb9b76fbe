"""Run a recipe: train and freeze the source, study it against the controls, write models and report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from headstart.data.checks.refuse import checked
from headstart.data.dataset import Dataset, check_same_classes
from headstart.data.readers.load import load
from headstart.data.subsets import apply_subset
from headstart.errors import SettingError, UnknownLayerError, nearest
from headstart.evaluation.metrics import evaluate
from headstart.heads.registry import make_head
from headstart.networks.specs import architecture
from headstart.records import Source
from headstart.report.records import Report
from headstart.sources.networks import native_input
from headstart.sources.precision import check_saved
from headstart.strategies.fits import Reader, Strategy, chosen_probe
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.strategies.provenance import about_head, made_with
from headstart.strategies.result import LearnedModel
from headstart.strategies.scratch import learn_network
from headstart.system.cache import NullCache
from headstart.workflows.comparison.protocol import EvaluationSetup
from headstart.workflows.comparison.verdict import COLLAPSE
from headstart.workflows.recipes.bench import cached
from headstart.workflows.recipes.folder import check_folder, write_result
from headstart.workflows.recipes.frozen import run_frozen
from headstart.workflows.recipes.letters import run_letters
from headstart.workflows.recipes.options import Outcome, RecipeOptions
from headstart.workflows.recipes.recipe import FrozenRecipe, LettersRecipe, Recipe
from headstart.workflows.recipes.split import with_test_split
from headstart.workflows.study import StudyRequest, run_study
from headstart.workflows.study.contestants import CONTROLS

__all__ = ["run_recipe"]

_TEXTBOOK = "textbook probe"
_NETWORKS = 3  # random ones with all labels: a fit of each on 60,000 images takes longer than all else
_AS_WRITTEN = RecipeOptions()
_NO_TORCH = (
    "torch is not installed, so the NumPy engine trains the network; "
    "for torch: pip install 'headstart[train]'"
)


@dataclass(frozen=True)
class _Run:
    """One run: both parts of the dataset, and the engine that trains."""

    recipe: Recipe
    options: RecipeOptions
    source: Dataset
    target: Dataset
    engine: str
    remarks: tuple[str, ...]

    @property
    def training_images(self) -> Dataset:
        """What the row of all labels learns from, and so the saved model: every image but the test images."""
        assert self.target.splits is not None, "it has a test split"
        return replace(self.target.subset(self.target.splits != "test"), splits=None)


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
            f"recipe {recipe.name!r} uses the test split of its dataset, expected no --test; leave it out"
        )
    if isinstance(recipe, FrozenRecipe):
        return _run_frozen(recipe, home, options)
    if options.source is not None or options.size_px is not None or options.precision is not None:
        raise SettingError(
            f"recipe {recipe.name!r} trains its own source, expected neither --source, --size nor --precision; "
            "leave them out"
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
    judged = _study(run, source, frozen)
    transferred = learn_head(
        frozen,
        run.training_images,
        Probe(recipe.layer, "flat", recipe.head),
        seed=options.seed,
        spare=False,
        options=options.extraction,
    )
    source.model.save(home / "source")
    transferred.model.save(home / "model")
    facts = _facts(run, judged, source, transferred, perf_counter() - begun)
    return write_result(home, _with_source(run, judged, source, facts))


def _run_frozen(recipe: FrozenRecipe, home: Path, options: RecipeOptions) -> Outcome:
    """An experiment on a network that others trained."""
    if options.finetune is not None:
        raise SettingError(
            f"recipe {recipe.name!r} has a frozen network, expected no finetune; use headstart study for that"
        )
    if options.engine is not None:
        raise SettingError(
            f"recipe {recipe.name!r} trains no network, expected no engine; leave --engine out"
        )
    check_saved(options.precision)
    whole = load(options.data or recipe.data)
    for remark in _skipped(whole):
        options.progress.remark(remark)
    with cached(options.extraction) as extraction:
        found = run_frozen(
            recipe,
            whole,
            source_name=options.source or recipe.source,
            size_px=options.size_px,
            seed=options.seed,
            controls=options.controls,
            options=extraction,
            command=options.command,
            allow_leaks=options.allow_leaks,
        )
    found.learned.model.save(home / "model")
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
        finetune=options.finetune,
        allow_leaks=options.allow_leaks,
    )
    found.source.save(home / "source")
    found.learned.model.save(home / "model")
    return write_result(home, found.result)


def _prepared(recipe: Recipe, options: RecipeOptions) -> _Run:
    """Split first, then take both subsets: no image is trained on by one and tested on by the other."""
    whole = with_test_split(
        checked(load(options.data or recipe.data), allow_leaks=options.allow_leaks)[0], options.seed
    )
    source, target = (
        apply_subset(whole, subset) if subset else whole
        for subset in (recipe.source_subset, recipe.target_subset)
    )
    for half in (source, target):
        check_same_classes(half.split("train"), half.split("test"))
    _check_names(recipe, source)
    engine, remarks = options.engine or recipe.engine, _skipped(whole)
    if engine == "torch" and options.engine is None and find_spec("torch") is None:
        engine, remarks = "scratch", (*remarks, _NO_TORCH)
    return _Run(recipe, options, source, target, engine, remarks)


def _check_names(recipe: Recipe, source: Dataset) -> None:
    """Refuse a wrong layer or head before anything is trained."""
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


def _study(run: _Run, source: LearnedModel, frozen: Source) -> Report:
    """The transfer against its controls: a study of the source whose layer and head the recipe names."""
    options, recipe = run.options, run.recipe
    spec = source.model.manifest.network
    assert spec is not None, "a network we trained has a spec"
    controls = tuple(name for name in CONTROLS if name != COLLAPSE or recipe.collapse)
    textbook = recipe.textbook_layer if options.controls else None

    def textbook_probe(setup: EvaluationSetup) -> Strategy:
        reader = Reader(frozen, setup.pool, setup.test, options.extraction)
        return chosen_probe(reader, Probe(textbook, "flat", recipe.head))

    request = StudyRequest(
        probe=Probe(recipe.layer, "flat", recipe.head),
        kind="holdout",
        labels_per_class=recipe.labels_per_class if options.controls or options.finetune else (),
        draws=recipe.draws,
        controls=controls if options.controls else (),
        seed=options.seed,
        extra={} if textbook is None else {_TEXTBOOK: textbook_probe},
        shown=(_TEXTBOOK,),
        spec=spec,
        scratch=(recipe.training, recipe.few_labels),
        scratch_very_few=None,  # the recipe's own settings were chosen for this network
        engine=run.engine,
        networks=_NETWORKS,
        finetune=options.finetune,
        allow_leaks=options.allow_leaks,
    )
    return run_study(
        frozen,
        run.target,
        request,
        trained=source.model,
        options=options.extraction,
        title=recipe.title,
        summary=recipe.summary,
        command=options.command,
    )


def _with_source(run: _Run, judged: Report, source: LearnedModel, facts: Mapping[str, str]) -> Report:
    """The study's report, and what the source itself gets right on its own test images."""
    test = run.source.split("test")
    first = evaluate(
        f"Source: {run.source.name}",
        source.model.probabilities(test, runtime_name=run.options.runtime),
        test.codes(run.source.classes),
        run.source.classes,
        test.cluster_codes,
    )
    score = first.accuracy
    message = (
        f"The source itself, {run.source.name}, gets {score.value:.2%} [{score.low:.2%}, {score.high:.2%}] "
        f"of its {score.n:,} test images right."
    )
    return replace(
        judged,
        remarks=(message, *source.remarks, *judged.remarks, *run.remarks),
        evaluations=(first, *judged.evaluations),
        curves=(*(one for one in (source.curve,) if one is not None), *judged.curves),
        facts=facts,
    )


def _facts(
    run: _Run, judged: Report, source: LearnedModel, transferred: LearnedModel, seconds: float
) -> dict[str, str]:
    return {
        **judged.facts,
        "source_data": f"{run.source.name}, fingerprint {run.source.fingerprint}",
        "source_fingerprint": source.model.manifest.source_fingerprint,
        "model_fingerprint": transferred.model.manifest.source_fingerprint,
        "head": f"{about_head(transferred.model.manifest.head)} at layer {run.recipe.layer}",
        "engine": f"{run.engine}, features by {run.options.runtime}",
        **made_with(run.engine),
        "learning_the_source": f"{source.seconds:.1f} s",
        "learning_the_head": f"{transferred.seconds:.1f} s, features included",
        "everything": f"{seconds:.1f} s",
    }
