"""Recipes: a study or a training as a TOML file; the classic experiments."""
