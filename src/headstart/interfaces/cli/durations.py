"""Durations as users write them, such as ``5m``."""

from __future__ import annotations

import re

from headstart.errors import SettingError

__all__ = ["parse_duration"]

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str, name: str, *, zero: bool = False) -> float:
    """Seconds of a text such as 90s, 5m or 1.5h; ``name`` is for the error, ``zero`` allows 0."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)\s*", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else -1.0
    if seconds < 0 or (seconds == 0 and not zero):
        least = "a time" if zero else "a time above 0"
        raise SettingError(f"{name} is {text!r}, expected {least}; write it like 90s, 5m or 1h")
    return seconds
