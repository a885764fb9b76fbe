"""What the commands share: options with one meaning everywhere, and how results are said.

In: records. Out: text on stdout, remarks on stderr. Imports nothing heavy at the top. Called by cli, nouns
and verbs.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset
    from headstart.records import Report
    from headstart.system.cache import Cache

__all__ = [
    "AllowLeaks",
    "Augment",
    "Balance",
    "Device",
    "Engine",
    "HeadName",
    "HoldOut",
    "Json",
    "NoCache",
    "Output",
    "Policy",
    "Pooling",
    "Precision",
    "ReportFolder",
    "Runtime",
    "Seed",
    "Size",
    "SourceName",
    "Strategies",
    "Strict",
    "Tap",
    "Unfreeze",
    "Views",
    "chosen_cache",
    "print_json",
    "print_result",
    "save_result",
    "told",
    "typed",
]

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of a table.")]
Size = Annotated[int | None, typer.Option(min=16, help="Side of a timm network's input, in px.")]
SourceName = Annotated[
    str, typer.Argument(help="timm:NAME, timm:local-dir:PATH, a model folder, pixels, or random:NETWORK.")
]
ReportFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the report; new, empty or an older result.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder to write; new, empty or an older result.")
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same machine, same result.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep features.")]
Runtime = Annotated[str, typer.Option(help="What runs graphs: openvino, or onnxruntime as the reference.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="A picture that cannot be read is an error, not a remark.")
]
Engine = Annotated[str | None, typer.Option(help="What trains: torch, or scratch (NumPy, always there).")]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16 or auto (bf16 where the CPU has it).")]

Tap = Annotated[
    str | None, typer.Option(help="Where features are read; default: chosen by cross-validation.")
]
Pooling = Annotated[
    str | None, typer.Option(help="How maps become a row: flat, avg or grid2; default: chosen.")
]
HeadName = Annotated[
    str | None,
    typer.Option("--head", help="linear, ridge, kernel, mlp, neighbours, prototypes; default: chosen."),
]
Augment = Annotated[
    str | None,
    typer.Option(help="Views to learn from: textbook, handwriting, many-hands, photo, or such as shear=0.2."),
]
Views = Annotated[int | None, typer.Option(min=1, help="Augmented views of each image; default: 3.")]
Balance = Annotated[
    bool, typer.Option("--balance", help="Every class counts alike, however many images it has.")
]
Policy = Annotated[str | None, typer.Option(help="How pictures are fitted: squish, crop, letterbox or ink.")]
Device = Annotated[str, typer.Option(help="Where torch trains: auto, cpu, cuda or mps.")]
Strategies = Annotated[
    str, typer.Option(help="Strategies: probe, finetune, scratch, between commas; probe is always there.")
]
Unfreeze = Annotated[
    str,
    typer.Option(help="How far finetune opens the network: head, last, a number of parts, all or auto."),
]
HoldOut = Annotated[
    float | None,
    typer.Option(
        "--holdout",
        metavar="SHARE",
        help="Share of the images to hold out as a test set, such as 0.2; evaluate finds them again.",
    ),
]
AllowLeaks = Annotated[bool, typer.Option("--allow-leaks", help="Go on though an image is in two splits.")]


def chosen_cache(no_cache: bool) -> Cache:
    """The user's cache, or none."""
    from headstart.system.cache import NullCache, default_cache

    return NullCache() if no_cache else default_cache()


def typed() -> str:
    """The command as the user could type it again."""
    return shlex.join(["headstart", *sys.argv[1:]])


def told(dataset: Dataset) -> Dataset:
    """The dataset, after saying on stderr what was left out of it."""
    if dataset.skipped:
        path, reason = dataset.skipped[0]
        more = f" and {len(dataset.skipped) - 1} more" if len(dataset.skipped) > 1 else ""
        print(
            f"headstart: {len(dataset.skipped)} of "
            f"{len(dataset) + len(dataset.skipped)} files skipped: {path} ({reason}){more}; "
            "--strict makes this an error",
            file=sys.stderr,
        )
    return dataset


def print_json(value: Any) -> None:
    """One object on stdout."""
    from headstart.report.json import to_json

    print(to_json(value))


def print_result(result: Report) -> None:
    """Table, verdict and remarks of a study."""
    from headstart.interfaces.cli.tables import result_table

    print(result_table(result))
    print(f"\n{result.verdict}")
    for remark in result.remarks:
        print(f"- {remark}")


def save_result(result: Report, folder: Path, json: bool, **more: Any) -> None:
    """Write result, report and model card to a folder, and say so.

    Parameters
    ----------
    result : Report
        What was found.
    folder : Path
        Gets ``result.json``, ``report.html`` and ``card.md``.
    json : bool
        Print one JSON object instead of a table.
    **more
        Goes into that object beside the result.
    """
    from headstart.report.card import summary_card
    from headstart.report.json import to_json
    from headstart.report.page import render
    from headstart.system.files import write_atomic

    write_atomic(folder / "card.md", summary_card(result))
    write_atomic(folder / "result.json", to_json(result) + "\n")
    report = write_atomic(folder / "report.html", render(result))
    if json:
        print_json({"report": str(report), **more, "result": result})
        return
    print_result(result)
    print(f"\nReport: {report}")
