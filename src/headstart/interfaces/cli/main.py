"""The command line: parse, call, print. Results on stdout, remarks on stderr.

In: words. Out: text and an exit status: 0 done, 1 our error in one line, 2 wrong usage, 130 interrupted.
Imports nothing heavy at the top: ``headstart --help`` must answer at once.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from headstart import __version__
from headstart.errors import HeadstartError
from headstart.interfaces.cli.console import (
    AllowLeaks,
    Augment,
    Balance,
    Device,
    Engine,
    HeadName,
    HoldOut,
    Json,
    NoCache,
    Output,
    Policy,
    Pooling,
    Runtime,
    Seed,
    Size,
    Strategies,
    Strict,
    Tap,
    Unfreeze,
    Views,
    chosen_cache,
    print_json,
    print_result,
    told,
    typed,
)
from headstart.interfaces.cli.nouns import cache_app, recipes_app, sources_app
from headstart.interfaces.cli.shipping import shipping_app
from headstart.interfaces.cli.train import learnt_facts, training_app
from headstart.interfaces.cli.verbs import verbs_app
from headstart.system.cache import cache_root

__all__ = ["app", "main"]

app = typer.Typer(
    name="headstart",
    help="Take a trained network, teach it your classes from few labels, find out whether it was worth it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(training_app)
app.add_typer(verbs_app)
app.add_typer(shipping_app)
app.add_typer(recipes_app, name="recipes")
app.add_typer(sources_app, name="sources")
app.add_typer(cache_app, name="cache")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Say the version and leave.")] = False,
) -> None:
    if version:
        print(f"headstart {__version__}")
        raise typer.Exit


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see: headstart recipes) or a .toml file.")],
    data: Annotated[
        str | None, typer.Option(help="Dataset instead of the recipe's own, such as mnist.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Frozen network instead of the recipe's own, such as timm:resnet50.")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Test set instead of the recipe's own, where it has one.")
    ] = None,
    size: Size = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for models, result and report. Default: runs/RECIPE-DATA."
        ),
    ] = None,
    engine: Engine = None,
    controls: Annotated[
        bool, typer.Option(help="Run what transfer has to beat; without, there is no verdict.")
    ] = True,
    strategies: Strategies = "probe",
    unfreeze: Unfreeze = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    runtime: Runtime = "openvino",
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Run a classic experiment from data to report.

    Example: headstart run odd-to-even --data mnist
    """
    from headstart.strategies.finetune.options import parse_finetune
    from headstart.system.progress import terminal_progress
    from headstart.workflows.recipes.recipe import read_recipe
    from headstart.workflows.recipes.run import Options, run_recipe

    wanted = read_recipe(recipe)
    named = (data or wanted.data).replace("/", "-").replace(":", "-")
    folder = output or Path("runs") / f"{wanted.name}-{named}"
    with terminal_progress() as progress:
        options = Options(
            data,
            engine,
            seed,
            controls,
            chosen_cache(no_cache),
            runtime,
            typed(),
            source,
            size,
            test,
            progress,
            parse_finetune(strategies, unfreeze, device),
        )
        outcome = run_recipe(wanted, folder, options)
    if json:
        print_json(outcome.result)
    else:
        print_result(outcome.result)
        print(f"\nReport: {outcome.report}")


@app.command()
def transfer(
    source: Annotated[
        str, typer.Argument(help="timm:NAME, timm:local-dir:PATH, a model folder, pixels, or random:NETWORK.")
    ],
    data: Annotated[str, typer.Argument(help="Dataset: a name, a folder of class folders, or a table.")],
    output: Output,
    strategy: Annotated[
        str, typer.Option(help="probe, or finetune: opened where that beats the probe on images held out.")
    ] = "probe",
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
    holdout: HoldOut = None,
    seed: Seed = 0,
    runtime: Runtime = "openvino",
    strict: Strict = False,
    allow_leaks: AllowLeaks = False,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Teach a source new classes; save the model with a report.

    Example: headstart transfer timm:mobilenetv3_small_100 photos -o runs/photos
    """
    from headstart.data.images.augment import parse_views
    from headstart.data.readers.load import load
    from headstart.models.model import check_output
    from headstart.report.page import render
    from headstart.sources.features import Extraction
    from headstart.sources.registry import open_source
    from headstart.strategies.finetune.options import parse_transfer
    from headstart.strategies.places import Probe
    from headstart.system.progress import terminal_progress
    from headstart.workflows.transfer.run import run_transfer

    check_output(output)
    augmentation, opening = parse_views(augment, views), parse_transfer(strategy, unfreeze, device)
    with terminal_progress() as progress:
        dataset = told(load(data, strict=strict))
        done = run_transfer(
            open_source(source, dataset, seed, size, policy),
            dataset,
            Probe(tap, pooling, head, augmentation, balance),
            seed=seed,
            options=Extraction(chosen_cache(no_cache), runtime, progress=progress),
            allow_leaks=allow_leaks,
            command=typed(),
            opening=opening,
            holdout=holdout,
        )
    done.learnt.model.save(output, render(done.result))
    if json:
        learnt = learnt_facts(done.learnt, output)
        print_json({**learnt, "report": str(output / "report.html"), "result": done.result})
    else:
        print_result(done.result)
        print(f"\nModel: {output}\nReport: {output / 'report.html'}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    data: Annotated[str, typer.Argument(help="Labelled images of the model's classes, or of some of them.")],
    split: Annotated[
        str | None,
        typer.Option(
            help="train, val, test or all. Default: test where there is one, or what was held out for it."
        ),
    ] = None,
    novel: Annotated[
        str | None,
        typer.Option(
            help="Dataset of none of the model's classes: is it told apart? Its labels do not matter."
        ),
    ] = None,
    runtime: Runtime = "openvino",
    seed: Seed = 0,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Measure a model on labelled images: accuracy, precision, recall, F1, confusion.

    Images that the model learned from are found and reported apart: figures are about the new ones.

    Example: headstart evaluate runs/parity digits:parity
    """
    from headstart.data.readers.load import load
    from headstart.interfaces.cli.tables import evaluated_document, evaluated_text
    from headstart.models.model import open_model
    from headstart.system.progress import terminal_progress
    from headstart.workflows.evaluate import run_evaluation

    opened = open_model(model)
    with terminal_progress() as progress:
        found = run_evaluation(
            opened,
            told(load(data, strict=strict)),
            split=split,
            novel=None if novel is None else told(load(novel, strict=strict)),
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


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    images: Annotated[list[str], typer.Argument(help="Files, folders, globs; - reads paths from stdin.")],
    top: Annotated[int, typer.Option(min=1, help="Classes shown per image.")] = 3,
    runtime: Runtime = "openvino",
    json: Json = False,
    csv: Annotated[
        str | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Write a row per picture there, however many; - is stdout. FILE is replaced when all are "
            "done; until then rows are in FILE.part, and the same command goes on with it.",
        ),
    ] = None,
) -> None:
    """Name what is in pictures: the answer, its probability and the runners-up.

    A picture unlike all that the model learnt from is answered "none of these".

    Example: headstart predict runs/parity picture.png folder 'scans/*.png'

    Example: headstart predict runs/parity folder --csv out.csv
    """
    if csv is not None:
        _predict_rows(model, images, top, runtime, csv, json)
        return
    from headstart.models.predict import predict_files, to_table
    from headstart.report.json import to_json

    found = predict_files(model, images, top=top, runtime_name=runtime)
    text = to_json(found) + "\n" if json else to_table(found)
    # a name's bytes in no encoding become \udcXX, which is JSON's own escape
    print(text.encode("utf-8", "backslashreplace").decode(), end="")
    for fault in found.faults:
        print(f"headstart: error: {fault}", file=sys.stderr)
    if found.faults:
        raise typer.Exit(1)


def _predict_rows(model: str, images: list[str], top: int, runtime: str, csv: str, json: bool) -> None:
    """Answers as rows of a file, or of stdout; status 1 if a picture could not be read."""
    from headstart.errors import SettingError
    from headstart.models.predict_csv import Asked, check_file, predict_to_file, predict_to_stream
    from headstart.system.progress import terminal_progress

    asked = Asked(model, tuple(images), top, runtime)
    if csv != "-":
        check_file(csv)
    elif json:
        raise SettingError("--json and --csv - both want stdout, need one of them; leave one out")
    with terminal_progress() as progress:
        if csv == "-":
            done = predict_to_stream(asked, sys.stdout.buffer, progress)
        else:
            done = predict_to_file(asked, csv, progress)
    if json:
        print_json(done)
    elif csv != "-":
        kept = f", {done.n_kept:,} of them by an interrupted run" if done.n_kept else ""
        print(f"{csv}: {done.n_pictures:,} pictures in {done.seconds:.1f} s{kept}")
    if done.n_unread:
        where = "in the column error" if csv == "-" else f"in the column error of {csv}"
        print(
            f"headstart: error: {done.n_unread:,} of {done.n_pictures:,} pictures could not be read, need "
            f"whole picture files; each says why {where}",
            file=sys.stderr,
        )
        raise typer.Exit(1)


@app.command()
def inspect(
    thing: Annotated[str, typer.Argument(help="A model folder or a dataset.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Of a dataset: open no picture, so find no near duplicates.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what a model is, or what a dataset is and what is wrong with it.

    Example: headstart inspect photos
    """
    from headstart.interfaces.cli.describe import describe
    from headstart.interfaces.cli.tables import told
    from headstart.report.json import to_json
    from headstart.system.progress import terminal_progress

    with terminal_progress() as progress:
        described = describe(thing, quick=quick, progress=progress)
    print(to_json(described) if json else told(described))


def main() -> None:
    """Run the command line; one line and status 1 for our own errors, a traceback only with ``--debug``."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    # matplotlib keeps a list of fonts, in folders of its own below the home folder unless told otherwise
    os.environ.setdefault("MPLCONFIGDIR", str(cache_root().absolute() / "matplotlib"))
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is half-written goes
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        print(f"headstart: error: {_sentence(error)}", file=sys.stderr)
        sys.exit(1)


def _sentence(error: Exception) -> str:
    """One line: ours as it is, the operating system's in our form, and what nobody foresaw."""
    said = " ".join(str(error).split())
    if isinstance(error, HeadstartError):
        return said
    if isinstance(error, OSError):
        place = "a file" if error.filename is None else repr(str(error.filename))
        return (
            f"{place} cannot be used ({error.strerror or said}), need a place to read and write; "
            "check the path, its permissions and the space left"
        )
    return (
        f"{type(error).__name__} was not foreseen ({said}), need a repair of headstart; "
        "run it again with --debug and report what it prints"
    )


if __name__ == "__main__":
    main()
