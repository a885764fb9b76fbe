"""The command tune: a search over the uses of a source, or over the settings of a training run."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.interfaces.cli.console import (
    RESULT,
    check_output_folder,
    command_line,
    extraction,
    load_dataset,
    save_result,
    working,
)
from headstart.interfaces.cli.options import (
    AllowLeaks,
    Copies,
    DataName,
    Engine,
    Json,
    NoCache,
    Precision,
    ReportOutput,
    RunnerName,
    Runtime,
    Seed,
    Size,
    Strict,
)

__all__ = ["tune"]

_TRIALS = "trials.sqlite"

Subject = Annotated[
    str,
    typer.Argument(
        help="Source, as for transfer; or cnn, mlp or mlp-wide to search the settings of its training."
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(help="Time for the whole search: 90s, 5m, 1h. Default: 5m for a network, else no limit."),
]
Policies = Annotated[
    str | None,
    typer.Option(
        help="Image preparations to try, such as squish,crop. Default: those that suit the dataset."
    ),
]
Augments = Annotated[
    str | None,
    typer.Option(help="Augmentations to try, such as none,photo. Default: those that suit the dataset."),
]
Trials = Annotated[
    int | None,
    typer.Option(
        min=1, help="Number of trials when training a network. Trials of an interrupted search are included."
    ),
]
AtOnce = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="When training a network: draw N trials together from the results before them, and train them at the "
        "same time, on one thread each, in processes or on a cluster. The result depends on N, not on where they "
        "run. Default: 1.",
    ),
]


def tune(
    source: Subject,
    data: DataName,
    output: ReportOutput,
    budget: Budget = None,
    policies: Policies = None,
    augments: Augments = None,
    copies: Copies = None,
    size: Size = None,
    trials: Trials = None,
    at_once: AtOnce = None,
    engine: Engine = None,
    seed: Seed = 0,
    runtime: Runtime = "openvino",
    precision: Precision = None,
    runner: RunnerName = None,
    strict: Strict = False,
    allow_leaks: AllowLeaks = False,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Search for the best settings of a source or of a training run, without the test set.

    Example: headstart tune timm:mobilenetv3_small_100 insects -o runs/tuned --budget 5m
    """
    from time import perf_counter

    begun = perf_counter()
    from headstart.data.names import comma_list
    from headstart.interfaces.cli.durations import parse_duration
    from headstart.networks.specs import ARCHITECTURES
    from headstart.sources.order import check_order
    from headstart.workflows.tune.request import Search
    from headstart.workflows.tune.run import run_tuning

    check_order(source, data, ARCHITECTURES)
    check_output_folder(output, _TRIALS, RESULT)  # a folder with trials only is an interrupted search
    # with a number of trials no budget is set, so that the result is reproducible
    limit = budget or ("5m" if source in ARCHITECTURES and trials is None else None)
    search = Search(
        policies=None if policies is None else comma_list(policies),
        augments=None if augments is None else comma_list(augments),
        n_copies=copies,
        size_px=size,
        n_trials=trials,
        at_once=at_once,
        engine=engine,
        storage=output / _TRIALS,
        budget_s=None if limit is None else parse_duration(limit, "budget"),
    )
    with working(runner) as (progress, workers):
        done = run_tuning(
            source,
            load_dataset(data, strict=strict, progress=progress),
            search,
            seed=seed,
            options=extraction(no_cache, runtime, precision, progress, workers),
            allow_leaks=allow_leaks,
            command=command_line(),
            data=data,
            begun=begun,
        )
    save_result(done.result, output, json, command=done.command)
