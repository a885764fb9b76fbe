"""The command line's noun groups: recipes, sources and the cache, each to list, to show, to clear.

In: words. Out: text. Imports nothing heavy at the top: ``headstart --help`` must answer at once.
Called by cli.
"""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.interfaces.cli.console import Json, Size

__all__ = ["cache_app", "recipes_app", "sources_app"]


recipes_app = typer.Typer(help="The classic experiments: list them, show one.", invoke_without_command=True)
sources_app = typer.Typer(
    help="What can be learnt from: list sources, show one.", invoke_without_command=True
)
cache_app = typer.Typer(
    help="Computed features: where they are, what they are, away with them.", invoke_without_command=True
)


@recipes_app.callback()
def _recipes(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        recipes_list()


@recipes_app.command("list")
def recipes_list() -> None:
    """Name the recipes and what each is about."""
    from headstart.interfaces.cli.tables import pairs
    from headstart.workflows.recipes.recipe import read_recipe, recipe_names

    print(pairs({name: read_recipe(name).title for name in recipe_names()}))


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="A recipe's name.")]) -> None:
    """Print a recipe's TOML, to copy and change."""
    from headstart.workflows.recipes.recipe import recipe_text

    print(recipe_text(name), end="")


@sources_app.callback()
def _sources(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        sources_list()


@sources_app.command("list")
def sources_list(
    pattern: Annotated[
        str | None, typer.Argument(help="Part of a name, or a shell pattern: lists timm's networks.")
    ] = None,
    json: Json = False,
) -> None:
    """Name the kinds of sources; with a pattern, timm's networks that have weights.

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
    name: Annotated[str, typer.Argument(help="A source.")],
    data: Annotated[
        str | None, typer.Option(help="Dataset that decides the input size where the source has none.")
    ] = None,
    size: Size = None,
    json: Json = False,
) -> None:
    """Say what a source takes and where it can be tapped."""
    from headstart.data.readers.load import load
    from headstart.interfaces.cli.describe import describe_source
    from headstart.interfaces.cli.tables import told
    from headstart.report.json import to_json
    from headstart.sources.registry import open_source

    dataset = None if data is None else load(data)
    described = describe_source(open_source(name, dataset, size_px=size))
    print(to_json(described) if json else told(described))


@cache_app.callback()
def _cache_group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        cache_list()


@cache_app.command("path")
def cache_path() -> None:
    """Say where computed features are kept."""
    from headstart.system.cache import default_cache

    print(default_cache().root)


@cache_app.command("list")
def cache_list(json: Json = False) -> None:
    """Say what is kept, the last used first."""
    from headstart.interfaces.cli.tables import cache_table
    from headstart.report.json import to_json
    from headstart.system.cache import default_cache

    entries = default_cache().entries()
    print(to_json({"entries": entries}) if json else cache_table(entries))


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove all computed features; they are computed again when needed."""
    from headstart.system.cache import default_cache

    print(f"removed {default_cache().clear()} arrays")
