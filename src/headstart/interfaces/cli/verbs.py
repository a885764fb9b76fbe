"""Verbs of the command line that end in a report: study and tune.

In: words. Out: text and files. Imports nothing heavy at the top: ``headstart --help`` must answer at once.
Called by cli, which takes them among its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.interfaces.cli.console import (
    AllowLeaks,
    Augment,
    Balance,
    Device,
    Engine,
    HeadName,
    Json,
    NoCache,
    Policy,
    Pooling,
    Precision,
    ReportFolder,
    Runtime,
    Seed,
    Size,
    SourceName,
    Strategies,
    Strict,
    Tap,
    Unfreeze,
    Views,
    chosen_cache,
    save_result,
    told,
    typed,
)

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset
    from headstart.models.model import Model
    from headstart.sources.features import Extraction
    from headstart.system.progress import Progress

__all__ = ["verbs_app"]

verbs_app = typer.Typer()

_RESULT, _TRIALS = "result.json", "trials.sqlite"

Budget = Annotated[
    str | None, typer.Option(help="Time for everything: 90s, 5m, 1h. Default: 5m for a network, else none.")
]
Policies = Annotated[
    str | None, typer.Option(help="Preparations to try, such as squish,crop; default: what makes sense.")
]
Augments = Annotated[
    str | None, typer.Option(help="Views to try, such as none,photo; default: what makes sense.")
]
Trials = Annotated[
    int | None, typer.Option(min=1, help="Of a network: trials in all; those of an earlier run count.")
]

TestSet = Annotated[str | None, typer.Option(help="Test set of its own; its column writer groups it.")]
ProtocolName = Annotated[
    str | None, typer.Option(help="holdout, folds, grouped, leave-one-out or external; default: by rule.")
]
Labels = Annotated[
    str | None, typer.Option(help="Labels per class of the curve, such as 1,5,all; default: by rule.")
]
Draws = Annotated[int, typer.Option(min=1, help="Draws of labels; repeats of the folds.")]
Controls = Annotated[
    str, typer.Option(help="What transfer has to beat: all, none, or such as majority,scratch.")
]


@verbs_app.command()
def study(
    source: SourceName,
    data: Annotated[str, typer.Argument(help="Dataset: a name, a folder of class folders, or a table.")],
    output: ReportFolder,
    test: TestSet = None,
    protocol: ProtocolName = None,
    labels: Labels = None,
    draws: Draws = 5,
    controls: Controls = "all",
    strategies: Strategies = "probe",
    unfreeze: Unfreeze = "auto",
    device: Device = "auto",
    tap: Tap = None,
    pooling: Pooling = None,
    head: HeadName = None,
    augment: Augment = None,
    views: Views = None,
    balance: Balance = False,
    policy: Policy = None,
    size: Size = None,
    seed: Seed = 0,
    runtime: Runtime = "openvino",
    precision: Precision = None,
    strict: Strict = False,
    allow_leaks: AllowLeaks = False,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Find out whether transfer is worth it: probe, controls, learning curve, verdict.

    Example: headstart study timm:mobilenetv3_small_100 photos -o runs/worth-it
    """
    from headstart.data.images.augment import parse_views
    from headstart.sources.registry import open_source
    from headstart.strategies.finetune.options import parse_finetune
    from headstart.strategies.places import Probe
    from headstart.system.files import check_place
    from headstart.system.progress import terminal_progress
    from headstart.workflows.study.run import Wanted, parse_controls, parse_labels, run_study

    check_place(output, marker=_RESULT)
    budgets, with_all = parse_labels(labels)
    wanted = Wanted(
        Probe(tap, pooling, head, parse_views(augment, views), balance),
        protocol,
        budgets,
        with_all,
        draws,
        parse_controls(controls, strategies),
        allow_leaks,
        seed,
        opening=parse_finetune(strategies, unfreeze, device),
    )
    with terminal_progress() as progress:
        dataset = _loaded(data, strict)
        result = run_study(
            open_source(source, dataset, seed, size, policy),
            dataset,
            wanted,
            external=None if test is None else _loaded(test, strict),
            trained=_trained(source),
            options=_extraction(no_cache, runtime, precision, progress),
            command=typed(),
        )
    save_result(result, output, json)


@verbs_app.command()
def tune(
    source: Annotated[
        str, typer.Argument(help="A source as transfer takes it; or cnn, mlp, mlp-wide: tunes its training.")
    ],
    data: Annotated[str, typer.Argument(help="Dataset: a name, a folder of class folders, or a table.")],
    output: ReportFolder,
    budget: Budget = None,
    policies: Policies = None,
    augments: Augments = None,
    views: Views = None,
    size: Size = None,
    trials: Trials = None,
    engine: Engine = None,
    seed: Seed = 0,
    runtime: Runtime = "openvino",
    precision: Precision = None,
    strict: Strict = False,
    allow_leaks: AllowLeaks = False,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Search for the best way to use a source or to train a network; the test images are never looked at.

    Example: headstart tune timm:mobilenetv3_small_100 photos -o runs/tuned --budget 5m
    """
    from time import perf_counter

    begun = perf_counter()
    from headstart.interfaces.cli.durations import parse_duration
    from headstart.networks.specs import ARCHITECTURES
    from headstart.system.progress import terminal_progress
    from headstart.workflows.tune.run import Search, run_tuning

    _check_home(output)
    # a number of trials is limit enough, and without a budget the result is the same every time
    wanted = budget or ("5m" if source in ARCHITECTURES and trials is None else None)
    search = Search(
        policies=_listed(policies),
        augments=_listed(augments),
        views=views,
        size_px=size,
        n_trials=trials,
        engine=engine,
        storage=output / _TRIALS,
        budget_s=None if wanted is None else parse_duration(wanted, "budget"),
    )
    with terminal_progress() as progress:
        done = run_tuning(
            source,
            _loaded(data, strict),
            search,
            seed=seed,
            options=_extraction(no_cache, runtime, precision, progress),
            allow_leaks=allow_leaks,
            command=typed(),
            data=data,
            begun=begun,
        )
    save_result(done.result, output, json, command=done.command)


def _loaded(data: str, strict: bool) -> Dataset:
    """A dataset, with its remarks on stderr."""
    from headstart.data.readers.load import load

    return told(load(data, strict=strict))


def _trained(source: str) -> Model | None:
    """The model whose classes are a control too, where the source is one."""
    from headstart.models.model import open_model

    return open_model(source) if Path(source).is_dir() else None


def _extraction(no_cache: bool, runtime: str, precision: str | None, progress: Progress) -> Extraction:
    """How features are read."""
    from headstart.sources.features import Extraction

    return Extraction(chosen_cache(no_cache), runtime, precision, progress)


def _check_home(output: Path) -> None:
    """Refuse somebody else's folder now; one with trials only is of a search that was interrupted."""
    from headstart.system.files import check_place

    check_place(output, marker=_TRIALS if (output / _TRIALS).is_file() else _RESULT)


def _listed(text: str | None) -> tuple[str, ...] | None:
    """Names between commas."""
    return None if text is None else tuple(name for part in text.split(",") if (name := part.strip()))
