"""The folder of a recipe's result.

Apart from the run because every kind of recipe writes the same files.
"""

from __future__ import annotations

from pathlib import Path

from headstart.errors import SettingError
from headstart.report.card import summary_card
from headstart.report.json import to_json
from headstart.report.page import render
from headstart.report.paths import shareable
from headstart.report.records import Report
from headstart.system.files import write_atomic
from headstart.workflows.recipes.options import Outcome

__all__ = ["check_folder", "write_result"]


def write_result(home: Path, result: Report) -> Outcome:
    """Result, card and report as files."""
    write_atomic(home / "result.json", to_json(shareable(result)) + "\n")
    write_atomic(home / "card.md", summary_card(result))
    return Outcome(result, home, write_atomic(home / "report.html", render(result)))


def check_folder(home: Path) -> None:
    """Refuse somebody else's folder now, not after an hour of training."""
    standing = next(place for place in (home, *home.absolute().parents) if place.exists())
    if not standing.is_dir():
        raise SettingError(f"{str(standing)!r} is a file, expected a folder to write to; choose another")
    entries = {entry.name for entry in home.iterdir()} if home.exists() else set()
    ours = not entries or "result.json" in entries
    if not ours or any(
        not (home / name / "manifest.json").is_file() for name in entries & {"source", "model"}
    ):
        raise SettingError(
            f"{str(home)!r} exists and holds no older result, expected a new or empty folder; choose another"
        )
