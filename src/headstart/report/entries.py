"""How strategies and controls are shown in a report; workflows, a higher layer, register theirs here."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENTRIES", "Entry", "is_rival", "note_of"]


@dataclass(frozen=True)
class Entry:
    """A row of the result table.

    ``role`` is a key of `report.figures.STYLES`, or ``other``. Without ``rival`` the row does not count for
    the scale that the others share.
    """

    name: str
    note: str
    role: str
    rival: bool = True


ENTRIES: dict[str, Entry] = {}
"""Registered strategies and controls by name."""


def note_of(name: str) -> str:
    """The note of a registered name, else an empty string."""
    return ENTRIES[name].note if name in ENTRIES else ""


def is_rival(name: str) -> bool:
    """Whether a name counts for the common scale; unregistered ones do."""
    return name not in ENTRIES or ENTRIES[name].rival
