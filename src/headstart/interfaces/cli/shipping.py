"""Verbs of the command line that take a model to its users: export, serve and teach.

In: words. Out: files and servers. Imports nothing heavy at the top: ``headstart --help`` must answer at
once. Called by cli, which takes them among its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.interfaces.cli.console import Json, Strict, print_json, told

__all__ = ["shipping_app"]

shipping_app = typer.Typer()

Host = Annotated[str, typer.Option(help="Address to listen at; 127.0.0.1 is this machine alone.")]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any that is free.")]


@shipping_app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to. Default: MODEL-onnx and so on.")
    ] = None,
    to: Annotated[str, typer.Option(help="onnx, openvino or folder (graph, examples and a check).")] = "onnx",
    check: Annotated[
        str | None,
        typer.Option(help="Dataset whose images both paths must agree on. Default: the model's own few."),
    ] = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Write one graph that takes a picture of any size and does everything inside; check that it agrees.

    Example: headstart export runs/photos --to onnx -o photos.onnx
    """
    from headstart.data.readers.load import load
    from headstart.models.export import export_model
    from headstart.models.model import open_model

    images = None if check is None else told(load(check, strict=strict))
    done = export_model(open_model(model), to, output or Path(f"{Path(model)}-{to}"), check=images)
    if json:
        print_json(done)
    else:
        print(done.sentence)


@shipping_app.command()
def serve(
    models: Annotated[list[str], typer.Argument(help="Model folders; NAME=FOLDER gives one a name.")],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="HEADSTART_TOKEN", help="Ask every request for this bearer token.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that answer. 0: one a core, at most 4; 1: this one alone.")
    ] = 0,
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16 where the CPU has it: faster for photos, moves probabilities.")
    ] = "fp32",
) -> None:
    """Answer over HTTP; its documents are at /docs.

    Example: headstart serve runs/photos --port 8000
    """
    from headstart.interfaces.http.server import serve_models

    serve_models(models, host=host, port=port, token=token, workers=workers, precision=precision)


@shipping_app.command()
def teach(
    source: Annotated[
        str, typer.Option(help="What to learn from: drawings (ours, bundled), timm:NAME, or a model folder.")
    ] = "drawings",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder under which taught models are saved.")
    ] = Path("taught"),
    host: Host = "127.0.0.1",
    port: Port = 7860,
) -> None:
    """Open a page on which anyone can teach classes by example.

    Example: headstart teach
    """
    from headstart.interfaces.teach.page import serve_page

    serve_page(source, output, host=host, port=port)
