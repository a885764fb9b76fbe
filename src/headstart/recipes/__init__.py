"""The classic experiments as TOML files, and their reader: recipe.py parses, run.py carries out."""
