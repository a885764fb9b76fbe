"""Silence for Pillow while it decodes: what is wrong with a file belongs in our message, with the file's name."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

__all__ = ["quiet"]

_LOCK = threading.Lock()
_ENTRIES: list[
    object
] = []  # one per thread that decodes now; the first puts the filter in, the last takes it out
_FILTER: list[object] = []  # as it stands in the list of `warnings`


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the warnings of Pillow, in all threads, as long as one of them decodes.

    `warnings.catch_warnings` restores a list that other threads may have changed meanwhile; this adds one
    filter and removes the same one.
    """
    token = object()
    with _LOCK:
        _ENTRIES.append(token)
        if len(_ENTRIES) == 1:
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            _FILTER[:] = warnings.filters[:1]
    try:
        yield
    finally:
        with _LOCK:
            _ENTRIES.remove(token)
            if not _ENTRIES:
                with suppress(ValueError):  # somebody else has emptied the list
                    cast("list[object]", warnings.filters).remove(_FILTER[0])
