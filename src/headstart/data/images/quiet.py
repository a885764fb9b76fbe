"""Silence for Pillow while it decodes: what is wrong with a file belongs in our message, with the file's name."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from typing import cast

__all__ = ["quiet"]

_FILTER = ("ignore", None, Warning, re.compile(r"PIL(\.|$)"), 0)


class _Quiet:
    def __enter__(self) -> None:
        cast("list[object]", warnings.filters).insert(0, _FILTER)

    def __exit__(self, *_: object) -> None:
        with suppress(ValueError):  # somebody else has emptied the list
            cast("list[object]", warnings.filters).remove(_FILTER)


def quiet() -> _Quiet:
    """Ignore the warnings of Pillow, in all threads, as long as one of them decodes.

    `warnings.catch_warnings` restores a list that other threads may have changed meanwhile. Here every thread adds
    one filter and removes one, which needs no lock that a fork could leave locked.
    """
    return _Quiet()
