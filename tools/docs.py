"""Write docs/cli.md from the help texts of the commands, or with --check report whether it is stale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from headstart.interfaces.cli.main import app

ROOT = Path(__file__).parent.parent
HEADER = """# Command line

Generated from the help texts by `make docs`; `make check` fails if it is out of date.
Results go to stdout, warnings and progress to stderr. Exit status: 0 success, 1 an error (reported in one
line), 2 wrong usage, 130 interrupted. `--debug` anywhere in a command shows the traceback of an error.
"""


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Every command's name and help text, groups before their members."""
    settings = {**command.context_settings, "max_content_width": 96, "terminal_width": 96}
    context = command.context_class(command, info_name=" ".join(path), **settings)
    yield " ".join(path), command.get_help(context)
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def page() -> str:
    """Give the whole reference as Markdown."""
    found = commands(typer.main.get_command(app), ("headstart",))
    parts = [f"## {name}\n\n```\n{text.strip()}\n```\n" for name, text in found]
    return "\n".join([HEADER, *parts])


def main() -> None:
    target = ROOT / "docs" / "cli.md"
    text = page()
    if "--check" in sys.argv[1:]:
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            sys.exit("docs/cli.md is stale, expected the help texts of the commands; run: make docs")
        return
    target.write_text(text, encoding="utf-8")
    print(f"wrote {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
