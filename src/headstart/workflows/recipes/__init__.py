"""Recipes: a study or a training as a TOML file; the classic experiments.

Its face reads recipes; what runs them (`recipes.run`) is imported only when one runs.
"""

from headstart.workflows.recipes.recipe import read_recipe, recipe_names, recipe_text

__all__ = ["read_recipe", "recipe_names", "recipe_text"]
