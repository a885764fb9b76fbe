"""The command transfer: a model from a source and a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.interfaces.cli.console import (
    check_output_folder,
    chosen_layer,
    command_line,
    extraction,
    load_others,
    opened,
    print_json,
    print_result,
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
    HoldOut,
    Json,
    Layer,
    ModelName,
    ModelOutput,
    NoCache,
    NoveltyRate,
    Policy,
    Pooling,
    RunnerName,
    Runtime,
    SavedPrecision,
    Seed,
    Size,
    SourceAndData,
    Strict,
    Tap,
    Unfreeze,
    Unlabelled,
)

if TYPE_CHECKING:
    from headstart.workflows.transfer.run import Transferred

__all__ = ["transfer"]

Strategy = Annotated[
    str,
    typer.Option(
        help="probe (frozen source, new head), or finetune (kept only if it beats the probe on held-out "
        "images)."
    ),
]


def transfer(
    names: SourceAndData,
    output: ModelOutput,
    name: ModelName = None,
    strategy: Strategy = "probe",
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
    holdout: HoldOut = None,
    unlabelled: Unlabelled = None,
    novelty_rate: NoveltyRate = None,
    seed: Seed = 0,
    runtime: Runtime = "openvino",
    precision: SavedPrecision = None,
    runner: RunnerName = None,
    strict: Strict = False,
    allow_leaks: AllowLeaks = False,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Train a new head on a pretrained source; save the model with a report.

    Example: headstart transfer insects -o runs/insects

    Example: headstart transfer timm:mobilenetv3_small_100 insects -o runs/insects
    """
    source, data = source_and_data(names)
    check_output_folder(output, "manifest.json")
    place = chosen_layer(layer, tap)
    with working(runner) as (progress, workers):
        progress.step(f"transfer {data}", 0, 0)  # before what takes long to import
        from headstart.data.images.augment import parse_copies
        from headstart.strategies.finetune.options import parse_transfer
        from headstart.strategies.places import Probe
        from headstart.workflows.transfer.run import run_transfer

        augmentation, finetune = parse_copies(augment, copies), parse_transfer(strategy, unfreeze, device)
        frozen, dataset = opened(
            source, data, progress, strict=strict, seed=seed, size_px=size, policy=policy
        )
        done = run_transfer(
            frozen,
            dataset,
            Probe(place, pooling, head, augmentation, balance),
            seed=seed,
            options=extraction(no_cache, runtime, precision, progress, workers),
            allow_leaks=allow_leaks,
            command=command_line(),
            finetune=finetune,
            holdout=holdout,
            unlabelled=load_others(unlabelled, strict=strict, progress=progress, inputs=[frozen.input]),
            name=name,
            novelty_rate=novelty_rate,
        )
    _save(done, output, json=json)


def _save(done: Transferred, output: Path, *, json: bool) -> None:
    """Write the model with its report, and print the result."""
    from headstart.interfaces.cli.train import learned_facts
    from headstart.report.page import render

    done.learned.model.save(output, render(done.result))
    if json:
        learned = learned_facts(done.learned, output)
        print_json({**learned, "report": str(output / "report.html"), "result": done.result})
    else:
        print_result(done.result)
        print(f"\nModel: {output}\nReport: {output / 'report.html'}")
