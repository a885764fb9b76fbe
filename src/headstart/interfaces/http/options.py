"""The options in the query of a prediction request."""

from __future__ import annotations

from starlette.requests import Request

from headstart.interfaces.http.limits import RequestError, printable
from headstart.interfaces.http.spec import TOP_LIMIT

__all__ = ["requested_options"]

_TOP = 5


def requested_options(request: Request) -> tuple[int, float | None]:
    """Classes for each image, and the level of answer sets if one is given; `RequestError` for anything else."""
    if not request.scope["query_string"]:
        return _TOP, None
    given: dict[str, list[str]] = {}
    for key, value in request.query_params.multi_items():
        if key not in ("top", "sets"):
            raise RequestError(422, f"option {printable(key)!r} is unknown, expected top, sets or none")
        given.setdefault(key, []).append(value)
    return _top(given.get("top", [str(_TOP)])), _level(given.get("sets"))


def _top(values: list[str]) -> int:
    text = values[0] if len(values) == 1 else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= TOP_LIMIT):
        raise RequestError(
            422, f"top is {printable(text)!r}, expected one whole number from 1 to {TOP_LIMIT}"
        )
    return int(text)


def _level(values: list[str] | None) -> float | None:
    if values is None:
        return None
    text = values[0] if len(values) == 1 else ""
    try:
        level = float(text) if text.isascii() and len(text) <= 20 else 0.0
    except ValueError:
        level = 0.0
    if not 0 < level < 1:
        raise RequestError(422, f"sets is {printable(text)!r}, expected one share in (0, 1) such as 0.95")
    return level
