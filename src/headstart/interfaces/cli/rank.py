"""The command sources rank: several sources on one dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
    DataName,
    HeadName,
    Json,
    NoCache,
    ReportOutput,
    RunnerName,
    Runtime,
    SavedPrecision,
    Seed,
    Strict,
)

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset
    from headstart.records import Source

__all__ = ["sources_rank"]

Sources = Annotated[
    str | None,
    typer.Option(
        help="Sources to rank, separated by commas. Default: those that need neither a hub nor PyTorch."
    ),
]


def sources_rank(
    data: DataName,
    output: ReportOutput,
    sources: Sources = None,
    head: HeadName = None,
    seed: Seed = 0,
    runtime: Runtime = "openvino",
    precision: SavedPrecision = None,
    runner: RunnerName = None,
    strict: Strict = False,
    allow_leaks: AllowLeaks = False,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Rank sources on a dataset: accuracy with its interval, time per image, size and licence.

    Example: headstart sources rank insects --sources photos,timm:resnet18 -o runs/ranking
    """
    from headstart.interfaces.cli.tables import ranking_table
    from headstart.strategies.places import Probe
    from headstart.workflows.rank import run_ranking

    check_output_folder(output, RESULT)
    with working(runner) as (progress, workers):
        dataset = load_dataset(data, strict=strict, progress=progress)
        opened, remarks = _opened(sources, dataset, seed)
        found = run_ranking(
            opened,
            dataset,
            Probe(head=head),
            seed=seed,
            options=extraction(no_cache, runtime, precision, progress, workers),
            allow_leaks=allow_leaks,
            command=command_line(),
            remarks=remarks,
        )
    if json:
        save_result(found.result, output, json=True, ranked=found.ranked)
        return
    print(ranking_table(found.result))
    save_result(found.result, output, json=False)


def _opened(names: str | None, dataset: Dataset, seed: int) -> tuple[list[Source], list[str]]:
    """The sources by name; of the default ones, those whose packages are installed, and a remark on the others."""
    from headstart.errors import MissingExtraError
    from headstart.interfaces.cli.console import fitting
    from headstart.workflows.rank import DEFAULT_SOURCES

    opened, remarks = [], []
    for name in (
        DEFAULT_SOURCES if names is None else [one.strip() for one in names.split(",") if one.strip()]
    ):
        try:
            opened.append(fitting(name, dataset, seed))
        except MissingExtraError as error:
            if names is not None:
                raise
            remarks.append(f"left out: {error}")
    return opened, remarks
