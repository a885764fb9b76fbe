"""Verbs of the command line that end in a report: tune.

In: words. Out: text and files. Imports nothing heavy at the top: ``headstart --help`` must answer at once.
Called by cli, which takes them among its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.console import (
    AllowLeaks,
    Engine,
    Json,
    NoCache,
    Precision,
    ReportFolder,
    Runtime,
    Seed,
    Size,
    Strict,
    Views,
    chosen_cache,
    save_result,
    told,
    typed,
)

__all__ = ["verbs_app"]

verbs_app = typer.Typer()

_RESULT, _TRIALS = "result.json", "trials.sqlite"

Budget = Annotated[
    str | None, typer.Option(help="Time, roughly: 90s, 5m, 1h. Default: 5m for a network, else none.")
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
    from headstart.data.readers import load
    from headstart.features import Extraction
    from headstart.networks.architectures import ARCHITECTURES
    from headstart.progress import terminal_progress
    from headstart.tune_training import parse_budget
    from headstart.tunings import Search, run_tuning

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
        budget_s=None if wanted is None else parse_budget(wanted),
    )
    with terminal_progress() as progress:
        done = run_tuning(
            source,
            told(load(data, strict=strict)),
            search,
            seed=seed,
            options=Extraction(chosen_cache(no_cache), runtime, precision, progress),
            allow_leaks=allow_leaks,
            command=typed(),
            data=data,
        )
    save_result(done.result, output, json, command=done.command)


def _check_home(output: Path) -> None:
    """Refuse somebody else's folder now; one with trials only is of a search that was interrupted."""
    from headstart.atomic import check_place

    check_place(output, marker=_TRIALS if (output / _TRIALS).is_file() else _RESULT)


def _listed(text: str | None) -> tuple[str, ...] | None:
    """Names between commas."""
    return None if text is None else tuple(name for part in text.split(",") if (name := part.strip()))
