"""The command study: strategies and controls on the same splits, with a verdict."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.interfaces.cli.console import (
    RESULT,
    check_output_folder,
    chosen_layer,
    command_line,
    extraction,
    load_dataset,
    load_others,
    opened,
    save_result,
    source_and_data,
    working,
)
from headstart.interfaces.cli.options import (
    AllowLeaks,
    Augment,
    Balance,
    Copies,
    Device,
    HeadName,
    Json,
    Layer,
    NoCache,
    Policy,
    Pooling,
    Precision,
    ReportOutput,
    RunnerName,
    Runtime,
    Seed,
    Size,
    SourceAndData,
    Strategies,
    Strict,
    Tap,
    Unfreeze,
    Unlabelled,
)

if TYPE_CHECKING:
    from headstart.models.model import Model

__all__ = ["study"]

TestSet = Annotated[
    str | None,
    typer.Option(help="Separate test set. Images with the same value in its column writer form a group."),
]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        help="Protocol: holdout, folds, grouped, leave-one-out or external. Default: chosen from the test "
        "set, the groups and the number of images."
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Labels per class in the learning curve, such as 1,5,all. Default: 1,5,10,50,all, as far as the "
        "smallest class has so many."
    ),
]
Draws = Annotated[
    int,
    typer.Option(
        min=1,
        help="Number of random draws of the labels; strategies that train a network use the first 5. "
        "Cross-validation has one round of up to 20 folds, each with labels of its own.",
    ),
]
Margin = Annotated[
    float,
    typer.Option(
        min=0.0, max=50.0, help="Difference in points within which two strategies count as practically equal."
    ),
]
Controls = Annotated[
    str, typer.Option(help="Controls to compare with: all, none, or a list such as majority,scratch.")
]


def study(
    names: SourceAndData,
    output: ReportOutput,
    test: TestSet = None,
    protocol: ProtocolName = None,
    labels: Labels = None,
    draws: Draws = 20,
    margin: Margin = 1.0,
    controls: Controls = "all",
    unlabelled: Unlabelled = None,
    strategies: Strategies = "probe",
    unfreeze: Unfreeze = "auto",
    device: Device = "auto",
    layer: Layer = None,
    tap: Tap = None,
    pooling: Pooling = None,
    head: HeadName = None,
    augment: Augment = None,
    copies: Copies = None,
    balance: Balance = False,
    policy: Policy = None,
    size: Size = None,
    seed: Seed = 0,
    runtime: Runtime = "openvino",
    precision: Precision = None,
    runner: RunnerName = None,
    strict: Strict = False,
    allow_leaks: AllowLeaks = False,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Compare transfer with its controls: learning curve, intervals, paired tests and a verdict.

    Example: headstart study timm:mobilenetv3_small_100 insects -o runs/comparison
    """
    from headstart.data.images.augment import parse_copies
    from headstart.strategies.finetune.options import parse_finetune
    from headstart.strategies.places import Probe
    from headstart.workflows.study import StudyRequest, parse_controls, parse_labels, run_study

    source, data = source_and_data(names)
    check_output_folder(output, RESULT)
    request = StudyRequest(
        Probe(chosen_layer(layer, tap), pooling, head, parse_copies(augment, copies), balance),
        protocol,
        *parse_labels(labels),
        draws,
        parse_controls(controls, strategies),
        allow_leaks,
        seed,
        finetune=parse_finetune(strategies, unfreeze, device),
        margin=margin / 100,
    )
    with working(runner) as (progress, workers):
        named = partial(opened, source, data, progress, strict=strict)
        frozen, dataset = named(seed=seed, size_px=size, policy=policy)
        how: dict[str, Any] = {"strict": strict, "progress": progress, "inputs": [frozen.input]}
        request = replace(request, unlabelled=load_others(unlabelled, **how))
        external = None if test is None else load_dataset(test, **how)
        options = extraction(no_cache, runtime, precision, progress, workers)
        study_of = partial(
            run_study, external=external, trained=_model(source or frozen.name), options=options
        )
        result = study_of(frozen, dataset, request, command=command_line())
    save_result(result, output, json)


def _model(source: str) -> Model | None:
    """The source as a model, where it is one: its own classes are a control too."""
    from headstart.models.model import open_model

    return open_model(source) if Path(source).is_dir() else None
