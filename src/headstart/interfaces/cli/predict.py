"""The commands that use a saved model: evaluate and predict."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.errors import SettingError, printable
from headstart.interfaces.cli.console import load_dataset, print_json, working
from headstart.interfaces.cli.options import Json, ModelFolder, NoveltyRate, RunnerName, Runtime, Seed, Strict

if TYPE_CHECKING:
    from headstart.data.readers.image_files import OtherFiles
    from headstart.models.predict_csv import CsvSummary
    from headstart.models.predict_job import PredictRequest
    from headstart.models.predict_parquet import ParquetSummary

__all__ = ["evaluate", "predict"]

AnswersFile = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE.parquet",
        help="Write one row per image to a Parquet file, here or on a cluster (--runner). Finished parts are in "
        "FILE.parquet.part first; after an interruption, the same command continues there.",
    ),
]
CsvFile = Annotated[
    str | None,
    typer.Option(
        "--csv",
        metavar="FILE",
        help="Write one row per image to FILE, or to stdout with -. Rows are written to FILE.part first; "
        "after an interruption, the same command continues there.",
    ),
]


def evaluate(
    model: ModelFolder,
    data: Annotated[str, typer.Argument(help="Dataset with classes of the model; some may be missing.")],
    split: Annotated[
        str | None,
        typer.Option(
            help="Split to evaluate: train, val, test or all. Default: the test split, or the images held "
            "out when the model was made."
        ),
    ] = None,
    novel: Annotated[
        str | None,
        typer.Option(
            help="Dataset whose images belong to none of the model's classes. Measures how often the model "
            'predicts "none of these". Its labels are ignored.'
        ),
    ] = None,
    runtime: Runtime = "openvino",
    seed: Seed = 0,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Evaluate a model on labelled images: accuracy, precision, recall, F1 and confusion matrix.

    Images that the model learned from are recognised and reported separately. The metrics are computed on
    the new images.

    Example: headstart evaluate runs/parity digits:parity
    """
    from headstart.interfaces.cli.tables import evaluated_document, evaluated_text
    from headstart.models.model import open_model
    from headstart.sources.order import check_model_first
    from headstart.system.progress import terminal_progress
    from headstart.workflows.evaluate import run_evaluation

    check_model_first(model, [data])
    loaded = open_model(model)
    with terminal_progress() as progress:
        read = partial(load_dataset, strict=strict, progress=progress, inputs=[loaded.manifest.input])
        found = run_evaluation(
            loaded,
            read(data),
            split=split,
            novel=None if novel is None else read(novel),
            seed=seed,
            runtime=runtime,
            progress=progress,
        )
    for warning in found.warnings:
        print(f"headstart: warning: {warning}", file=sys.stderr)
    if json:
        print_json(evaluated_document(found))
    else:
        print(evaluated_text(found))


def predict(
    model: ModelFolder,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders or globs; - reads paths from stdin. With --output also shards (.tar, "
            ".parquet), folders of these, and addresses such as s3://bucket/photos."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes shown per image.")] = 3,
    sets: Annotated[
        float | None,
        typer.Option(
            metavar="LEVEL",
            help='Also list the classes that each image may have, such as "ant or bee": the true one is among them '
            "for this share of new images of the model's classes, such as 0.95.",
        ),
    ] = None,
    novelty_rate: NoveltyRate = None,
    runtime: Runtime = "openvino",
    runner: RunnerName = None,
    json: Json = False,
    output: AnswersFile = None,
    csv: CsvFile = None,
) -> None:
    """Predict the class of images, with probabilities and the next most probable classes.

    An image unlike all training images is predicted as "none of these".

    Example: headstart predict runs/parity image.png folder 'scans/*.png'

    Example: headstart predict runs/parity folder --csv out.csv

    Example: headstart predict runs/insects photos --sets 0.95

    Example: headstart predict runs/insects 's3://bucket/shards/*.tar' -o answers.parquet --runner ray
    """
    from headstart.models.predict_job import PredictRequest
    from headstart.sources.order import check_model_first

    check_model_first(model, images)
    _check_outputs(output, csv, runner)
    request = PredictRequest(model, tuple(images), top, runtime, novelty_rate, sets)
    if output is not None:
        _predict_table(request, output, runner, json)
        return
    if csv is not None:
        _predict_rows(request, csv, json)
        return
    from headstart.models.predict import predict_files, to_table
    from headstart.report.json import to_json

    found = predict_files(model, images, top=top, runtime_name=runtime, novelty_rate=novelty_rate, sets=sets)
    text = to_json(found) + "\n" if json else to_table(found)
    # undecodable bytes of a file name become \udcXX, JSON's own escape
    print(text.encode("utf-8", "backslashreplace").decode(), end="")
    for fault in found.faults:
        print(f"headstart: error: {fault}", file=sys.stderr)
    _warn_of(found.others, found.remark)
    if found.faults:
        raise typer.Exit(1)


def _check_outputs(output: str | None, csv: str | None, runner: str | None) -> None:
    """Refuse options that exclude each other."""
    if output is not None and csv is not None:
        raise SettingError("--output and --csv both name a file, expected one of them; leave one out")
    if output is None and runner not in (None, "local"):
        raise SettingError(
            f"--runner is {runner!r} without --output, expected a Parquet file for the answers; add "
            "--output answers.parquet"
        )


def _predict_table(request: PredictRequest, output: str, runner: str | None, json: bool) -> None:
    """Predictions as rows of a Parquet file; status 1 if an image could not be read."""
    from headstart.models.predict_parquet import check_parquet, predict_to_parquet

    check_parquet(output)
    with working(runner) as (progress, workers):
        done = predict_to_parquet(request, output, runner=workers, progress=progress)
    if json:
        print_json(done)
    else:
        kept = f", {done.n_kept:,} of them by an interrupted run" if done.n_kept else ""
        print(f"{output}: {done.n_images:,} images in {done.seconds:.1f} s{kept}")
    _end_with(done, f"in the column error of {output}")


def _end_with(done: CsvSummary | ParquetSummary, where: str) -> None:
    """Warn of what was left out; status 1 if an image could not be read."""
    _warn_of(done.others, done.remark)
    if done.n_unread:
        print(
            f"headstart: error: {done.n_unread:,} of {done.n_images:,} images could not be read, expected "
            f"complete image files; the reasons are {where}",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def _warn_of(others: OtherFiles, remark: str | None) -> None:
    """Files of folders that are not predicted: counted, the first with its reason; and why sets hold all classes."""
    if remark is not None:
        print(f"headstart: warning: {remark}", file=sys.stderr)
    if others.n_files:
        more = f" and {others.n_files - 1:,} more" if others.n_files > 1 else ""
        print(
            f"headstart: warning: {others.n_files:,} files are not images and were left out: "
            f"{printable(others.first)} ({printable(others.reason)}){more}",
            file=sys.stderr,
        )


def _predict_rows(request: PredictRequest, csv: str, json: bool) -> None:
    """Predictions as rows of a file, or of stdout; status 1 if an image could not be read."""
    from headstart.models.predict_csv import check_file, predict_to_file, predict_to_stream
    from headstart.system.progress import terminal_progress

    if csv != "-":
        check_file(csv)
    elif json:
        raise SettingError("--json and --csv - both write to stdout, expected one of them; leave one out")
    with terminal_progress() as progress:
        if csv == "-":
            done = predict_to_stream(request, sys.stdout.buffer, progress)
        else:
            done = predict_to_file(request, csv, progress)
    if json:
        print_json(done)
    elif csv != "-":
        kept = f", {done.n_kept:,} of them by an interrupted run" if done.n_kept else ""
        print(f"{csv}: {done.n_images:,} images in {done.seconds:.1f} s{kept}")
    _end_with(done, "in the column error" if csv == "-" else f"in the column error of {csv}")
