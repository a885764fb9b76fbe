"""How strategies and controls are shown in a report: the note below the name and the role in the palette.

Apart from the figures because workflows register their contestants here: a report knows no workflow.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENTRIES", "Entry", "is_rival", "note_of"]


@dataclass(frozen=True)
class Entry:
    """A row of the result table: its name, a one-sentence note and the role in the palette.

    ``role`` is a key of `report.figures.STYLES`, or ``other``. What is no ``rival`` is left out of the scale
    that the others share.
    """

    name: str
    note: str
    role: str
    rival: bool = True


ENTRIES: dict[str, Entry] = {}
"""Registered strategies and controls by name."""


def note_of(name: str) -> str:
    """The note of a registered name, else an empty text."""
    return ENTRIES[name].note if name in ENTRIES else ""


def is_rival(name: str) -> bool:
    """Whether a name counts for the common scale; unregistered ones do."""
    return name not in ENTRIES or ENTRIES[name].rival
