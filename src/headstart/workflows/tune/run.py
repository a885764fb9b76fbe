"""Runs a search: check the data, search, and report what won and how accurate it is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, strftime

import headstart.workflows.study.contestants  # noqa: F401 (registers names and notes of the rows)
from headstart.data.checks.doctor import Checkup
from headstart.data.checks.refuse import checked, refuse_copies_only
from headstart.data.checks.seen import seen_remark
from headstart.data.dataset import Dataset, require_classes
from headstart.data.images.augment import Augmentation, flip_warning, parse_augmentation
from headstart.data.images.fit import POLICIES
from headstart.data.images.thumbnails import examples_of
from headstart.errors import SettingError, nearest
from headstart.networks.specs import ARCHITECTURES
from headstart.records import Source
from headstart.report.records import Report, Row
from headstart.sources.features import PLAIN, Extraction
from headstart.sources.fitting import with_fitting_policy
from headstart.sources.precision import INT8, precise
from headstart.sources.registry import open_source
from headstart.strategies.provenance import about_source, made_with
from headstart.workflows.comparison.present import short_name
from headstart.workflows.tune.features import NO_AUGMENTATION, FeatureTrial, FeatureTuning, tune_features
from headstart.workflows.tune.present import (
    against_text,
    capitalised,
    comparisons_of,
    factors_table,
    feature_protocol,
    feature_summary,
    lead_text,
    network_protocol,
    network_table,
    optimism_text,
    regime_text,
    share_text,
    trials_table,
)
from headstart.workflows.tune.regime import Regime
from headstart.workflows.tune.request import Search, SearchRequest
from headstart.workflows.tune.training import TrainingTuning, tune_training

__all__ = ["Tuned", "augmentations_for", "policies_for", "run_tuning"]

_REPORT_SHARE = 0.05  # of a budget
_LEAST_S = 1e-3
_COPIES, _ENGINE = 3, "torch"
_ALONE = (
    "Trials ran one after the other on this machine, each drawn from the results of all others: with --at-once N the "
    "cluster trains N at a time."
)
_MEASURED = (
    "With a budget, heads were fitted on this machine, step by step; without one the cluster fits them."
)
_TYPED = {
    "epochs": "--epochs",
    "batch_size": "--batch-size",
    "learning_rate": "--learning-rate",
    "label_smoothing": "--label-smoothing",
}
"""Settings that ``headstart train`` takes, by their option; a remark names the others."""


@dataclass(frozen=True)
class Tuned:
    """The result of a search: its report, the command that uses it, and all trials."""

    result: Report
    command: str
    found: FeatureTuning | TrainingTuning


def run_tuning(
    name: str,
    dataset: Dataset,
    search: Search = Search(),  # noqa: B008 - it is frozen
    *,
    seed: int = 0,
    options: Extraction = PLAIN,
    allow_leaks: bool = False,
    command: str = "",
    data: str | None = None,
    begun: float | None = None,
) -> Tuned:
    """Search over the features of a source, or over the training of a network, and report.

    Parameters
    ----------
    name : str
        A source as `sources.registry.open_source` takes it; or ``cnn``, ``mlp``, ``mlp-wide``, whose
        training is searched.
    dataset : Dataset
        With splits, only ``train`` is used, neither ``val`` nor ``test``.
    search : Search, optional
        What is tried. Default: chosen by the data.
    seed : int, default=0
        Of folds, augmented copies, splits and trials.
    options : Extraction, optional
        Cache, runtime, precision and progress.
    allow_leaks : bool, default=False
        Accept images or groups that are in two splits.
    command : str, default=''
        What the user typed, for the report.
    data : str, optional
        What the user typed for the dataset, for the recommended command. Default: its name.
    begun : float, optional
        `time.perf_counter` when the budget began, so that it includes reading the data. Default: now.

    Returns
    -------
    Tuned
        Its figures are about images that the search did not use.

    Raises
    ------
    SettingError
        If a name is unknown, an option does not belong to this kind of search, or the storage file is of
        another search.
    DataError
        If a class has fewer than three images, the splits have different classes, or an image or a group is in
        two splits and ``allow_leaks`` is false.
    MissingExtraError
        If optuna or the engine is not installed.
    """
    begun = perf_counter() if begun is None else begun
    request = SearchRequest(name, dataset, search, seed, command, dataset.name if data is None else data)
    if name in ARCHITECTURES:
        _refuse(search, "network", ("policies", "augments", "n_copies", "size_px"), "a source")
        if options.precision is not None:
            raise SettingError(
                f"precision is {options.precision!r}, expected it left out for a network; it is for a source"
            )
        clustered, found = _checked(dataset, allow_leaks)
        tuned = tune_training(
            clustered,
            storage=search.storage or Path("trials.sqlite"),
            network=name,
            engine=search.engine or _ENGINE,
            budget_s=_left(search.budget_s, begun),
            n_trials=search.n_trials,
            at_once=1 if search.at_once is None else search.at_once,
            seed=seed,
            runner=options.runner,
            progress=options.progress,
        )
        over = _exceeded(search.budget_s, begun, "one training is always finished")
        alone = (_ALONE,) if options.runner.remote and search.at_once is None else ()
        return _of_training(request, tuned, (*over, *alone, *found.remarks))
    _refuse(search, "source", ("n_trials", "at_once", "engine"), "a network")
    augmentations = augmentations_for(dataset, search.augments, search.n_copies or _COPIES)
    sources = _sources(request, policies_for(dataset, search.policies))
    clustered, found = _checked(dataset, allow_leaks)
    ready = {name: precise(one, lambda: request.train, options) for name, one in sources.items()}
    sources, options = {name: one.source for name, one in ready.items()}, next(iter(ready.values())).options
    searched = tune_features(
        sources,
        clustered,
        augmentations=augmentations,
        seed=seed,
        options=options,
        budget_s=_left(search.budget_s, begun),
    )
    warnings = [flip_warning(dataset.classes, one) for one in augmentations.values()]
    over = _exceeded(search.budget_s, begun, "the features of one preparation and two outer folds are needed")
    train = clustered if clustered.splits is None else clustered.split("train")
    known = seen_remark("the source", train.images, next(iter(sources.values())).seen)
    if options.runner.remote and search.budget_s is not None:
        over = (*over, _MEASURED)
    remarks = (*over, *filter(None, (known, *warnings)), *found.remarks)
    return _of_features(request, next(iter(sources.values())), searched, remarks)


def _checked(dataset: Dataset, allow_leaks: bool) -> tuple[Dataset, Checkup]:
    """The dataset with its clusters; DataError if no class can be held out of a search."""
    clustered, found = checked(dataset, allow_leaks=allow_leaks)
    require_classes(clustered)
    refuse_copies_only(clustered)
    return clustered, found


def _left(budget_s: float | None, begun: float) -> float | None:
    """Seconds of a budget that are left for the search, without those of the report."""
    if budget_s is None:
        return None
    return max((1 - _REPORT_SHARE) * budget_s - (perf_counter() - begun), _LEAST_S)


def _exceeded(budget_s: float | None, begun: float, why: str) -> tuple[str, ...]:
    """A remark if a budget was too small for what is always done."""
    seconds = perf_counter() - begun
    if budget_s is None or seconds <= budget_s:
        return ()
    return (f"The search took {seconds:.0f} s of a budget of {budget_s:g} s: {why}.",)


def policies_for(dataset: Dataset, named: Sequence[str] | None = None) -> tuple[str, ...]:
    """Preparations to try: ink for characters only; squish, crop and letterbox only where image sizes vary."""
    if named is not None:
        for name in named:
            if name not in POLICIES:
                raise SettingError(
                    f"policy is {name!r}, expected one of {', '.join(POLICIES)}; {nearest(name, POLICIES)}"
                )
        return tuple(dict.fromkeys(named))
    shapes = ("squish", "crop", "letterbox") if dataset.images.image_shape is None else ()
    return (*shapes, *(["ink"] if _characters(dataset) else []))


def augmentations_for(
    dataset: Dataset, named: Sequence[str] | None = None, n_copies: int = _COPIES
) -> dict[str, Augmentation]:
    """Augmentations to try: handwriting for characters, else photo; none if torch or kornia is missing."""
    if named is None:
        installed = find_spec("torch") is not None and find_spec("kornia") is not None
        named = [] if not installed else ["handwriting" if _characters(dataset) else "photo"]
    return {
        name: parse_augmentation(name, n_copies) for name in dict.fromkeys(named) if name != NO_AUGMENTATION
    }


def _characters(dataset: Dataset) -> bool:
    """Whether the classes are named like digits and letters."""
    return flip_warning(dataset.classes, parse_augmentation("flip=1")) is not None


def _refuse(search: Search, what: str, names: Sequence[str], other: str) -> None:
    """SettingError for an option that would be ignored."""
    for name in names:
        value = getattr(search, name)
        if value is not None:
            raise SettingError(
                f"{name.removeprefix('n_').removesuffix('_px')} is {value!r}, expected it left out for a {what}; "
                f"it is for {other}"
            )


def _sources(request: SearchRequest, policies: Sequence[str]) -> dict[str, Source]:
    """The source under each preparation, first the one that `transfer` takes, if it is named or none is."""
    plain = open_source(request.name, request.dataset, request.seed, request.search.size_px)
    own = with_fitting_policy(plain, request.dataset).input.policy
    if request.search.policies is None:
        policies = (own, *policies)
    order = sorted(dict.fromkeys(policies), key=lambda policy: policy != own)
    return {
        policy: open_source(request.name, request.dataset, request.seed, request.search.size_px, policy)
        for policy in order
    }


def _of_features(
    request: SearchRequest, source: Source, found: FeatureTuning, remarks: Sequence[str]
) -> Tuned:
    best, command = found.best, _transfer_command(request, found.best, source.precision)
    rows = (
        Row("tuned", None, found.nested, found.repeats, found.spread, found.seconds),
        *(Row(one.name, None, one.accuracy, found.repeats, one.spread, 0.0) for one in found.rivals),
    )
    comparisons = comparisons_of([(one.name, one.lead) for one in found.rivals])
    verdict = (
        f"{capitalised(best.title)}: the search that selected it gets {share_text(found.nested)} right on images "
        f"that it did not use. {against_text(comparisons)}"
    )
    same = sum(one.where == best.where and one.augment == best.augment for one in found.picks)
    lines = [
        f"Use it: {command}",
        f"Its accuracy in the search, {share_text(best.accuracy)}, is the best of {len(found.trials):,} and "
        f"{optimism_text(found.optimism)}.",
        f"The search selected the same layer and preparation in {same} of {len(found.picks)} outer folds.",
        *lead_text(found),
        *([f"Not tried: {', '.join(found.left_out)}."] if found.left_out else []),
    ]
    result = Report(
        title=f"Tuning {short_name(request.name)} on {request.dataset.name}",
        summary=feature_summary(request, found),
        verdict=verdict,
        remarks=(*lines, *remarks),
        rows=rows,
        comparisons=comparisons,
        evaluations=(),
        curves=(),
        facts=_facts(
            request,
            {"source": about_source(replace(source, name=request.name)), "use_it": command},
            found.seconds,
        ),
        sizes={"train": found.n_images, "ways": len(found.trials), "classes": len(request.dataset.classes)},
        examples=examples_of(request.train),
        tables=(factors_table(found.factors), trials_table(found)),
        judged_on="nested cross-validated training",
        protocol=feature_protocol(found),
        factors=found.factors,
    )
    return Tuned(result, command, found)


def _of_training(request: SearchRequest, found: TrainingTuning, remarks: Sequence[str]) -> Tuned:
    command = _train_command(request, found.best.regime)
    comparisons = comparisons_of([("default settings", found.lead)])
    untyped = {
        name: value
        for name, value in asdict(found.best.regime).items()
        if name not in _TYPED and value != getattr(found.default_regime, name)
    }
    kept = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in untyped.items())
    lines = [
        f"Use it: {command}",
        *([f"The command has no option yet for the other selected settings: {kept}."] if untyped else []),
        f"On the {found.selection.n:,} images that it was selected on, the same model gets "
        f"{share_text(found.selection)}: the best of {len(found.trials):,}, which "
        f"{optimism_text(found.selection.value - found.evaluation.value)}.",
        f"{found.n_pruned} of {len(found.trials)} trials were stopped early.",
        *([f"{found.n_resumed} trials are from an earlier run."] if found.n_resumed else []),
        *(["The search was interrupted; the same command resumes it."] if found.interrupted else []),
    ]
    result = Report(
        title=f"Tuning the training of {request.name} on {request.dataset.name}",
        summary=f"{len(found.trials)} trainings of {request.name} ({found.engine}) on {found.n_fit:,} images, "
        f"selected on {found.selection.n:,} others and evaluated on {found.evaluation.n:,} that no trial used.",
        verdict=f"{capitalised(regime_text(found.best.regime))}: {share_text(found.evaluation)} right on images "
        f"that no trial used. {against_text(comparisons)}",
        remarks=(*lines, *remarks),
        rows=(
            Row("tuned", None, found.evaluation, 1, 0.0, found.best.seconds),
            Row("default settings", None, found.default, 1, 0.0, 0.0),
        ),
        comparisons=comparisons,
        evaluations=(),
        curves=(),
        facts=_facts(
            request, {"network": request.name, "engine": found.engine, "use_it": command}, found.seconds
        ),
        sizes={
            "train": len(request.train),
            "trials": len(found.trials),
            "classes": len(request.dataset.classes),
        },
        examples=examples_of(request.train),
        tables=(*([factors_table(found.factors)] if found.factors else []), network_table(found)),
        judged_on="held-out training",
        protocol=network_protocol(found),
        factors=found.factors,
    )
    return Tuned(result, command, found)


def _transfer_command(request: SearchRequest, best: FeatureTrial, precision: str) -> str:
    words = ["headstart", "transfer", request.name, request.data, "-o", "MODEL"]
    words += ["--layer", best.where.layer, "--pooling", best.where.pooling, "--head", best.head]
    words += ["--policy", best.where.policy]
    if best.augment != NO_AUGMENTATION:
        words += ["--augment", best.augment, "--copies", str(request.search.n_copies or _COPIES)]
    if request.search.size_px is not None:
        words += ["--size", str(request.search.size_px)]
    if precision == INT8:
        words += ["--precision", INT8]
    return shlex.join([*words, *_seed(request)])


def _train_command(request: SearchRequest, regime: Regime) -> str:
    words = ["headstart", "train", request.data, "-o", "MODEL", "--network", request.name]
    words += ["--engine", request.search.engine or _ENGINE]
    for name, option in _TYPED.items():
        words += [option, f"{getattr(regime, name):g}"]
    return shlex.join([*words, *_seed(request)])


def _seed(request: SearchRequest) -> list[str]:
    return ["--seed", str(request.seed)] if request.seed else []


def _facts(request: SearchRequest, special: Mapping[str, str], seconds: float) -> dict[str, str]:
    engine = (request.search.engine or _ENGINE) if request.name in ARCHITECTURES else "scratch"
    return {
        "command": request.command,
        **special,
        "data": f"{request.dataset.name}, fingerprint {request.dataset.fingerprint}",
        "seed": str(request.seed),
        **made_with(engine),
        "searching": f"{seconds:.1f} s",
        "date": strftime("%Y-%m-%d"),
    }
