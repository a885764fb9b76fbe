"""Carry a recipe out: train the source, freeze it, fit the head, run the controls, write the report.

In: a Recipe and where to find data. Out: a StudyResult and a folder with models, result and report.
Called by the command line.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, strftime

import numpy as np

from headstart.atomic import write_atomic
from headstart.cache import Cache
from headstart.data.dataset import Dataset
from headstart.data.readers import load
from headstart.data.splits import holdout
from headstart.data.views import apply_view
from headstart.evaluation.metrics import evaluate
from headstart.progress import SILENT, Progress
from headstart.recipes.recipe import Recipe
from headstart.records import Evaluation, StudyResult
from headstart.report.page import render
from headstart.strategies import Learnt, learn_head, learn_network, training_parts, versions
from headstart.study import Protocol, Strategy, Table, collapse, probe, run_table, standard_controls

__all__ = ["Outcome", "run_recipe", "with_test_split"]

_TEST_SHARE = 0.3


@dataclass(frozen=True)
class Outcome:
    """What a recipe found and where it was written."""

    result: StudyResult
    folder: Path
    report: Path


@dataclass(frozen=True)
class _Task:
    """Both halves of the transfer: the dataset learnt first and the one learnt next."""

    source: Dataset
    target: Dataset


def run_recipe(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    data: str | None = None,
    seed: int = 0,
    engine: str | None = None,
    controls: bool = True,
    cache: Cache | None = None,
    runtime_name: str = "openvino",
    command: str = "",
    progress: Progress = SILENT,
) -> Outcome:
    """Run a classic experiment from data to report.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    folder : path
        Gets ``source/`` and ``model/`` (model folders), ``result.json`` and ``report.html``.
    data : str, optional
        Dataset to use instead of the recipe's own.
    seed : int, default=0
        Same seed, same machine, same result.
    engine : {'torch', 'scratch'}, optional
        Instead of the recipe's own. A recipe that names torch runs on the scratch engine, with a
        remark, where torch is not installed.
    controls : bool, default=True
        Without them there is no verdict.
    cache, runtime_name, progress
        See ``features.extract``.
    command : str, optional
        What the user typed, for the report.

    Returns
    -------
    Outcome
        The test split was opened once, at the end.

    Raises
    ------
    HeadstartError
        Of the kind that fits; nothing half-written stays.
    """
    begun = perf_counter()
    task = _task(recipe, data or recipe.data, seed)
    engine, remarks = _engine(engine or recipe.engine, explicit=engine is not None)
    for remark in remarks:
        progress.remark(remark)
    settings = replace(recipe.training, seed=seed)
    source = learn_network(task.source, network=recipe.network, engine=engine, settings=settings, progress=progress)
    frozen = source.model.source(f"{recipe.network} trained on {task.source.name}")
    transferred = learn_head(frozen, task.target, tap=recipe.tap, head=recipe.head, seed=seed, cache=cache,
                             runtime_name=runtime_name, progress=progress)
    home = Path(folder)
    source.model.save(home / "source")
    transferred.model.save(home / "model")
    evaluations = _evaluations(task, source, transferred, seed, runtime_name)
    table = _table(recipe, task, source, transferred, engine, seed, controls, cache, runtime_name, progress)
    facts = _facts(task, source, transferred, engine, runtime_name, seed, command, perf_counter() - begun)
    result = _result(recipe, task, table, remarks, evaluations, (source, transferred), facts, seed)
    write_atomic(home / "result.json", json.dumps(asdict(result), indent=2) + "\n")
    report = write_atomic(home / "report.html", render(result))
    return Outcome(result, home, report)


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
    groups = None if dataset.groups is None else dataset.groups[train]
    _, held = holdout(dataset.labels[train], _TEST_SHARE, seed, groups)
    splits = np.full(len(dataset), "train", dtype="<U5") if dataset.splits is None else dataset.splits.astype("<U5")
    splits[train[held]] = "test"
    return replace(dataset, splits=splits)


def _task(recipe: Recipe, data: str, seed: int) -> _Task:
    """Split first, look twice: an image that one half tests on, neither half learns from."""
    whole = with_test_split(load(data), seed)
    source, target = (apply_view(whole, view) if view else whole for view in (recipe.source_view, recipe.target_view))
    return _Task(source, target)


def _engine(wanted: str, *, explicit: bool) -> tuple[str, tuple[str, ...]]:
    if wanted != "torch" or explicit or find_spec("torch") is not None:
        return wanted, ()
    return "scratch", ("torch is not installed, so the NumPy engine trains the network, more slowly; "
                       "for torch: pip install 'headstart[train]'",)


def _evaluations(
    task: _Task, source: Learnt, transferred: Learnt, seed: int, runtime_name: str
) -> tuple[Evaluation, Evaluation]:
    """Both models on their test splits, by the graphs that were saved."""
    found = []
    for what, learnt, dataset in (("Source", source, task.source), ("Transfer", transferred, task.target)):
        test = dataset.split("test")
        probs = learnt.model.probabilities(test, runtime_name=runtime_name)
        title = f"{what}: {dataset.name}"
        found.append(evaluate(title, probs, test.codes(dataset.classes), dataset.classes, seed))
    return found[0], found[1]


def _table(
    recipe: Recipe, task: _Task, source: Learnt, transferred: Learnt, engine: str, seed: int, controls: bool,
    cache: Cache | None, runtime_name: str, progress: Progress,
) -> Table:
    """The transfer against its controls; with all labels the probe is the saved model itself."""
    train, test = training_parts(task.target, seed).fit, task.target.split("test")
    spec = source.model.manifest.network
    assert spec is not None, "a network we trained has a spec"
    frozen = source.model.source()
    by_features = probe(frozen, train, test, tap=recipe.tap, head=recipe.head, cache=cache, runtime_name=runtime_name)

    def probed(indices: np.ndarray, seed: int) -> np.ndarray:
        if len(indices) < len(train):
            return by_features(indices, seed)
        return transferred.model.probabilities(test, runtime_name=runtime_name)

    strategies: dict[str, Strategy] = {"probe": probed}
    if controls:
        strategies |= standard_controls(
            spec, engine, recipe.training, recipe.few_labels, train, test, tap=recipe.tap, head=recipe.head,
            seed=seed, cache=cache, runtime_name=runtime_name, progress=progress,
        )
        if recipe.collapse:
            answers = source.model.probabilities(test, runtime_name=runtime_name)
            strategies["collapse"] = collapse(answers, source.model.classes, recipe.target_view, train.classes)
    protocol = Protocol(recipe.labels_per_class if controls else (), recipe.draws, seed)
    return run_table(strategies, train, test, protocol, progress=progress)


def _result(
    recipe: Recipe, task: _Task, table: Table, remarks: tuple[str, ...], evaluations: tuple[Evaluation, ...],
    learnt: tuple[Learnt, ...], facts: Mapping[str, str], seed: int,
) -> StudyResult:
    train, test = training_parts(task.target, seed).fit, task.target.split("test")
    first = evaluations[0].accuracy
    said = (f"The source itself, {task.source.name}, gets {first.value:.2%} [{first.low:.2%}, {first.high:.2%}] of its "
            f"{first.n:,} test images right.",)
    return StudyResult(
        title=recipe.title, summary=recipe.summary, verdict=table.verdict, remarks=(*said, *table.remarks, *remarks),
        rows=table.rows, comparisons=table.comparisons, evaluations=evaluations,
        curves=tuple(one.curve for one in learnt if one.curve is not None), facts=facts,
        sizes={"train": len(train), "test": len(test), "classes": len(train.classes)},
    )


def _facts(
    task: _Task, source: Learnt, transferred: Learnt, engine: str, runtime_name: str, seed: int, command: str, seconds: float
) -> dict[str, str]:
    found = versions(engine)
    return {
        "command": command,
        "source data": f"{task.source.name}, fingerprint {task.source.fingerprint}",
        "target data": f"{task.target.name}, fingerprint {task.target.fingerprint}",
        "source fingerprint": source.model.manifest.source_fingerprint,
        "model fingerprint": transferred.model.manifest.source_fingerprint,
        "head": _head(transferred),
        "engine": f"{engine}, features by {runtime_name}",
        "seed": str(seed),
        "versions": ", ".join(f"{name} {number}" for name, number in found.items()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "learning the source": f"{source.seconds:.1f} s",
        "learning the head": f"{transferred.seconds:.1f} s, features included",
        "everything": f"{seconds:.1f} s",
        "date": strftime("%Y-%m-%d"),
    }


def _head(learnt: Learnt) -> str:
    note = learnt.model.manifest.head
    return f"{note['name']} (" + ", ".join(f"{name} {value:g}" for name, value in note["chosen"].items()) + ")"


