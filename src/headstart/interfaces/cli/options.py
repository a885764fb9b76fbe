"""Options and arguments of the commands: one definition each, so that an option means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AllowLeaks",
    "Augment",
    "Balance",
    "Copies",
    "DataName",
    "Device",
    "Engine",
    "HeadName",
    "HoldOut",
    "Json",
    "Layer",
    "ModelFolder",
    "ModelName",
    "ModelOutput",
    "NoCache",
    "NoveltyRate",
    "Policy",
    "Pooling",
    "Precision",
    "ReportOutput",
    "Runtime",
    "SavedPrecision",
    "Seed",
    "Size",
    "SourceAndData",
    "SourceName",
    "Strategies",
    "Strict",
    "Tap",
    "Unfreeze",
    "Unlabelled",
]

# --- inputs
DataName = Annotated[str, typer.Argument(help="Dataset: a name, a folder of class folders, or a table.")]
ModelFolder = Annotated[str, typer.Argument(help="Model folder.")]
SourceAndData = Annotated[
    list[str],
    typer.Argument(
        metavar="[source] data",
        help="Source: a name that headstart sources list shows, such as photos, drawings or timm:NAME, or a model "
        "folder; left out, photos or drawings, whichever the images are. Then the dataset: a name, a folder of class "
        "folders, a table, or features that embed wrote, with which the source is left out.",
        show_default=False,
    ),
]
SourceName = Annotated[
    str,
    typer.Argument(
        help="Source: a name that headstart sources list shows, such as photos, drawings or timm:NAME, or a "
        "model folder."
    ),
]

# --- outputs
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
ModelOutput = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="Model folder to write. It must be new, empty, or hold an older model."
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--name", help="Name of the model in its card and report. Default: made from its source and data."
    ),
]
ReportOutput = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="Report folder to write. It must be new, empty, or hold an older report."
    ),
]

# --- execution
Seed = Annotated[
    int, typer.Option(min=0, help="Random seed. The same seed on the same machine gives the same result.")
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Compute all features again and do not store them.")
]
Runtime = Annotated[str, typer.Option(help="Inference runtime: openvino, or onnxruntime as the reference.")]
RunnerName = Annotated[
    str | None,
    typer.Option(
        "--runner",
        metavar="local|ray[:ADDRESS]",
        help="Where the work runs: local, this process; ray, the Ray cluster of RAY_ADDRESS or of this machine; "
        "ray:HOST:PORT; ray://HOST:PORT (Ray Client); ray:local, a cluster of this machine alone that ends with the "
        "command. Default: HEADSTART_RUNNER, else local.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Precision of features: fp32, bf16, auto (bf16 where the CPU has it), or int8, the fastest for networks "
        "of convolutions, calibrated on 100 of the training images. Default: fp32."
    ),
]
SavedPrecision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Precision of the network: fp32, or int8, which takes about a third of the time for networks of "
        "convolutions. It is calibrated on 100 of the training images. Default: fp32.",
    ),
]
Engine = Annotated[
    str | None, typer.Option(help="Training engine: torch, or scratch (NumPy, always installed).")
]
Device = Annotated[str, typer.Option(help="Device that PyTorch trains on: auto, cpu, cuda or mps.")]

# --- images
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop with an error at unreadable images instead of skipping them.")
]
AllowLeaks = Annotated[
    bool, typer.Option("--allow-leaks", help="Continue although an image is in two splits.")
]
HoldOut = Annotated[
    float | None,
    typer.Option(
        "--holdout",
        metavar="SHARE",
        help="Share of the images to hold out as a test set, such as 0.2. The command evaluate finds them "
        "again.",
    ),
]
Unlabelled = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Further images without labels, of the same classes: a folder, in any layout. Labels are propagated to "
        "them if that is better on left-out images.",
    ),
]
NoveltyRate = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE|off",
        help='Share of the images of the classes that may be refused as "none of these", such as 0.05; off refuses '
        "none. Default: that of the model, 0.05 for a new one.",
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(help="How images are fitted to the input: squish, crop, letterbox or ink."),
]
Size = Annotated[
    int | None, typer.Option(min=16, help="Input size of photos, photos-large or a timm network, in pixels.")
]

# --- learning
Layer = Annotated[
    str | None,
    typer.Option("--layer", help="Layer to read features from. Default: selected by cross-validation."),
]
Tap = Annotated[str | None, typer.Option("--tap", hidden=True, help="Older name of --layer.")]
Pooling = Annotated[
    str | None,
    typer.Option(help="Pooling of feature maps: flat, avg or grid2. Default: selected by cross-validation."),
]
HeadName = Annotated[
    str | None,
    typer.Option(
        "--head",
        help="Head: kernel, linear, mlp, neighbours, prototypes or ridge. Default: selected by cross-validation.",
    ),
]
Augment = Annotated[
    str | None,
    typer.Option(
        help="Augmentation of the training images: textbook, handwriting, many-hands, photo, or strengths "
        "such as shear=0.2."
    ),
]
Copies = Annotated[int | None, typer.Option(min=1, help="Augmented copies of each image. Default: 3.")]
Balance = Annotated[
    bool, typer.Option("--balance", help="Give every class the same weight, whatever its number of images.")
]
Strategies = Annotated[
    str,
    typer.Option(
        help="Strategies to compare, separated by commas: probe (always included), finetune, scratch."
    ),
]
Unfreeze = Annotated[
    str,
    typer.Option(help="How much of the network to fine-tune: head, last, a number of stages, all, or auto."),
]
