"""The commands that put a model to use or make one interactively: export, serve and teach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.interfaces.cli.console import load_dataset, print_json
from headstart.interfaces.cli.options import Json, ModelFolder, NoveltyRate, Strict

__all__ = ["export", "serve", "teach"]

Host = Annotated[str, typer.Option(help="Address to listen on. 127.0.0.1 accepts only this machine.")]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on. 0 takes any free port.")]


def export(
    model: ModelFolder,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File or folder to write. Default: MODEL-onnx, MODEL-openvino or MODEL-folder.",
        ),
    ] = None,
    to: Annotated[
        str, typer.Option(help="Format: onnx, openvino, or folder (graph, examples and a check).")
    ] = "onnx",
    check: Annotated[
        str | None,
        typer.Option(
            help="Dataset for comparing the export with the model. Default: the example images of the model."
        ),
    ] = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Export a model as one graph that takes images of any size, and check it against the model.

    Example: headstart export runs/photos --to onnx -o photos.onnx
    """
    from headstart.models.export import export_model
    from headstart.models.model import open_model

    images = None if check is None else load_dataset(check, strict=strict)
    done = export_model(open_model(model), to, output or Path(f"{Path(model)}-{to}"), check=images)
    if json:
        print_json(done)
    else:
        print(done.sentence)


def serve(
    models: Annotated[
        list[str], typer.Argument(help="Model folders; NAME=FOLDER gives a model another name.")
    ],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="HEADSTART_TOKEN", help="Bearer token that every request must carry."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Number of server processes. 0 starts one per CPU core, at most 4."),
    ] = 0,
    precision: Annotated[
        str,
        typer.Option(
            help="Precision: fp32, or bf16 where the CPU has it. bf16 is faster for photos and changes "
            "probabilities slightly."
        ),
    ] = "fp32",
    novelty_rate: NoveltyRate = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="ORIGIN",
            help="Web page that may use the server, such as https://example.com; * allows all. "
            "Repeat it for more.",
        ),
    ] = None,
) -> None:
    """Serve models over HTTP, with the API documentation at /docs.

    Example: headstart serve runs/photos --port 8000
    """
    from headstart.interfaces.http.server import serve_models

    serve_models(
        models,
        host=host,
        port=port,
        token=token,
        workers=workers,
        precision=precision,
        novelty_rate=novelty_rate,
        allow_origins=allow_origin or (),
    )


def teach(
    source: Annotated[
        str | None,
        typer.Option(
            help="Source to learn from: photos, drawings, timm:NAME, or a model folder. Default: drawings or photos, "
            "whichever the first example of a lesson is."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder in which the taught models are saved.")
    ] = Path("taught"),
    host: Host = "127.0.0.1",
    port: Port = 7860,
    novelty_rate: NoveltyRate = None,
) -> None:
    """Open a web page on which you teach classes by example.

    Example: headstart teach
    """
    from headstart.interfaces.teach.serving import serve_page

    serve_page(source, output, host=host, port=port, novelty_rate=novelty_rate)
