"""Spans of time as users write them.

In: a text like ``5m``. Out: seconds. Imports nothing of ours but errors. Called by the verbs train and tune.
"""

from __future__ import annotations

import re

from headstart.errors import SettingError

__all__ = ["parse_duration"]

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str, name: str, *, zero: bool = False) -> float:
    """Read a span of time.

    Parameters
    ----------
    text : str
        A number and ``s``, ``m`` or ``h``; a plain number is seconds.
    name : str
        What it is, for the error.
    zero : bool, default=False
        Whether 0 is such a span too.

    Returns
    -------
    float
        Seconds, above 0 or with ``zero`` at least 0.

    Raises
    ------
    SettingError
        If it is no such span.

    Examples
    --------
    >>> parse_duration("5m", "budget"), parse_duration("90s", "budget"), parse_duration("1.5h", "budget")
    (300.0, 90.0, 5400.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)\s*", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else -1.0
    if seconds < 0 or (seconds == 0 and not zero):
        least = "a time" if zero else "a time above 0"
        raise SettingError(f"{name} is {text!r}, need {least}; write it like 90s, 5m or 1h")
    return seconds
