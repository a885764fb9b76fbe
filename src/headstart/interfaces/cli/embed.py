"""The command embed: features of every image as a Parquet table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.interfaces.cli.console import chosen_layer, opened, print_json, source_and_data, working
from headstart.interfaces.cli.options import (
    Json,
    Policy,
    RunnerName,
    Runtime,
    Seed,
    Size,
    SourceAndData,
    Strict,
    Tap,
)

__all__ = ["embed"]

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="File to write, if its name ends in .parquet and all images are one shard; else a folder of files "
        "part-00000.parquet, part-00001.parquet and so on. Files of an interrupted run are kept.",
    ),
]
OneLayer = Annotated[
    str | None, typer.Option("--layer", help="Layer to read features from. Default: the source's own.")
]
OnePooling = Annotated[
    str | None,
    typer.Option(
        "--pooling", help="Pooling of feature maps: flat, avg or grid2. Default: what fits the layer."
    ),
]
Float16 = Annotated[
    bool, typer.Option("--float16", help="Write vectors as float16: half the size, rounded to 3 digits.")
]
ShardSize = Annotated[
    int, typer.Option(min=1, help="Images in a file. Memory holds the features of one file at a time.")
]
EmbedPrecision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Precision of the network: fp32, or int8, which takes about a third of the time for networks of "
        "convolutions. It is calibrated on 100 of the images. Default: fp32.",
    ),
]


def embed(
    names: SourceAndData,
    output: Output,
    layer: OneLayer = None,
    tap: Tap = None,
    pooling: OnePooling = None,
    float16: Float16 = False,
    shard_size: ShardSize = 65_536,
    policy: Policy = None,
    size: Size = None,
    seed: Seed = 0,
    runtime: Runtime = "openvino",
    precision: EmbedPrecision = None,
    runner: RunnerName = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Write the features of every image to a Parquet table that transfer and study start from.

    Example: headstart embed photos insects -o insects.parquet

    Example: headstart transfer insects.parquet -o runs/insects
    """
    from headstart.sources.features import Extraction
    from headstart.workflows.embed import EmbedRequest, run_embed
    from headstart.workflows.embed.present import embedded_facts, embedded_text

    source, data = source_and_data(names)
    request = EmbedRequest(chosen_layer(layer, tap), pooling, float16, shard_size, seed, size)
    with working(runner) as (progress, workers):
        frozen, dataset = opened(
            source, data, progress, strict=strict, seed=seed, size_px=size, policy=policy
        )
        options = Extraction(None, runtime, precision, progress, workers)
        found = run_embed(frozen, dataset, output, request, options=options)
    if json:
        print_json(embedded_facts(found))
    else:
        print(embedded_text(found))
