"""The command inspect, and the groups sources and cache."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.interfaces.cli.options import Json, Size

__all__ = ["cache_app", "inspect", "sources_app"]

sources_app = typer.Typer(
    help="List the sources (pretrained networks and others), or show one.", invoke_without_command=True
)
cache_app = typer.Typer(help="Show the path of the cache, list it, or clear it.", invoke_without_command=True)


def inspect(
    thing: Annotated[str, typer.Argument(help="Model folder or dataset.")],
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Do not decode the images of a dataset. Near duplicates are not found."),
    ] = False,
    json: Json = False,
) -> None:
    """Describe a model, or describe a dataset and check it for problems.

    Example: headstart inspect insects
    """
    from headstart.interfaces.cli.describe import describe_path
    from headstart.interfaces.cli.inspect_page import inspect_page
    from headstart.report.json import to_json
    from headstart.system.progress import terminal_progress

    with terminal_progress() as progress:
        described = describe_path(thing, quick=quick, progress=progress)
    print(to_json(described) if json else inspect_page(described, quick=quick))


@sources_app.callback()
def _sources(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        sources_list()


@sources_app.command("list")
def sources_list(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Part of a name, or a shell pattern, to search the networks of timm."),
    ] = None,
    json: Json = False,
) -> None:
    """List the kinds of sources; with a pattern, list networks of timm with pretrained weights.

    Example: headstart sources list mobilenet
    """
    from headstart.interfaces.cli.tables import pairs
    from headstart.report.json import to_json
    from headstart.sources.registry import find_sources, source_names

    if pattern is not None:
        names = find_sources(pattern)
        print(to_json({"sources": names}) if json else "\n".join(names))
        return
    known = source_names()
    print(to_json(known) if json else pairs(known))


@sources_app.command("show")
def sources_show(
    name: Annotated[str, typer.Argument(help="Name of a source.")],
    data: Annotated[
        str | None, typer.Option(help="Dataset that sets the input size of a source without a fixed size.")
    ] = None,
    size: Size = None,
    json: Json = False,
) -> None:
    """Show the input and the layers of a source.

    Example: headstart sources show drawings
    """
    from headstart.data.readers.load import load
    from headstart.interfaces.cli.describe import describe_source
    from headstart.interfaces.cli.tables import spaced_pairs
    from headstart.report.json import to_json
    from headstart.sources.registry import open_source

    dataset = None if data is None else load(data)
    described = describe_source(open_source(name, dataset, size_px=size))
    print(to_json(described) if json else spaced_pairs(described))


@cache_app.callback()
def _cache(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        cache_list()


@cache_app.command("path")
def cache_path() -> None:
    """Print the folder of the cache: features, exported and trained networks, downloaded and unpacked data."""
    from headstart.system.cache import cache_root

    print(cache_root())


@cache_app.command("list")
def cache_list(json: Json = False) -> None:
    """List cached features and networks, the most recently used first, with unfinished ones and leftovers."""
    from headstart.interfaces.cli.tables import cache_table
    from headstart.report.json import to_json
    from headstart.system.cache import default_cache

    entries = default_cache().entries()
    print(to_json({"entries": entries}) if json else cache_table(entries))


@cache_app.command("clear")
def cache_clear() -> None:
    """Delete cached features and networks, which are made again when they are needed; downloaded data stays."""
    from headstart.interfaces.cli.tables import cache_total
    from headstart.system.cache import default_cache

    print(f"removed {cache_total(default_cache().clear())}")
