"""The classic experiments: the command run, and the group recipes, which lists and shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.interfaces.cli.console import chosen_cache, command_line, print_json, print_result
from headstart.interfaces.cli.options import (
    AllowLeaks,
    Device,
    Engine,
    Json,
    NoCache,
    Runtime,
    SavedPrecision,
    Seed,
    Size,
    Strategies,
    Unfreeze,
)

__all__ = ["recipes_app", "run"]

recipes_app = typer.Typer(help="List or show the classic experiments.", invoke_without_command=True)

Recipe = Annotated[
    str, typer.Argument(help="Name of a recipe (list them with: headstart recipes) or a TOML file.")
]
Data = Annotated[str | None, typer.Option(help="Dataset to use instead of the recipe's, such as mnist.")]
SourceOption = Annotated[
    str | None, typer.Option(help="Source to use instead of the recipe's, such as timm:resnet50.")
]
TestOption = Annotated[
    str | None, typer.Option(help="Test set to use instead of the recipe's, where the recipe has one.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder for the models, the result and the report. Default: runs/RECIPE-DATA."
    ),
]
Controls = Annotated[bool, typer.Option(help="Run the controls. Without them there is no verdict.")]


def run(
    recipe: Recipe,
    data: Data = None,
    source: SourceOption = None,
    test: TestOption = None,
    size: Size = None,
    output: Output = None,
    engine: Engine = None,
    controls: Controls = True,
    strategies: Strategies = "probe",
    unfreeze: Unfreeze = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    runtime: Runtime = "openvino",
    precision: SavedPrecision = None,
    no_cache: NoCache = False,
    allow_leaks: AllowLeaks = False,
    json: Json = False,
) -> None:
    """Run a classic experiment and write its report.

    Example: headstart run odd-to-even --data mnist
    """
    from headstart.strategies.finetune.options import parse_finetune
    from headstart.system.progress import terminal_progress
    from headstart.workflows.recipes.options import RecipeOptions
    from headstart.workflows.recipes.recipe import read_recipe
    from headstart.workflows.recipes.run import run_recipe

    found = read_recipe(recipe)
    named = (data or found.data).replace("/", "-").replace(":", "-")
    folder = output or Path("runs") / f"{found.name}-{named}"
    with terminal_progress() as progress:
        options = RecipeOptions(
            data,
            engine,
            seed,
            controls,
            chosen_cache(no_cache),
            runtime,
            command_line(),
            source,
            size,
            test,
            progress,
            parse_finetune(strategies, unfreeze, device),
            allow_leaks,
            precision,
        )
        outcome = run_recipe(found, folder, options)
    if json:
        print_json(outcome.result)
    else:
        print_result(outcome.result)
        print(f"\nReport: {outcome.report}")


@recipes_app.callback()
def _recipes(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        recipes_list()


@recipes_app.command("list")
def recipes_list() -> None:
    """List the recipes with their titles."""
    from headstart.interfaces.cli.tables import pairs
    from headstart.workflows.recipes.recipe import read_recipe, recipe_names

    print(pairs({name: read_recipe(name).title for name in recipe_names()}))


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="Name of a recipe.")]) -> None:
    """Print the TOML of a recipe; copy it to make your own."""
    from headstart.workflows.recipes.recipe import recipe_text

    print(recipe_text(name), end="")
