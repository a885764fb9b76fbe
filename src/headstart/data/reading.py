"""How files are read while a dataset is loaded: who hears of the progress, and what they will be prepared for.

A caller that knows the network says so before it loads, and each file is read once: hashed, checked, and prepared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from headstart.records import InputSpec
from headstart.system.progress import SILENT, Progress
from headstart.system.runners import LOCAL, Runner

__all__ = ["Reading", "current_reading", "reading"]


@dataclass(frozen=True)
class Reading:
    """``specs`` are the inputs that files will be prepared for, if they are known; a remote ``runner`` reads them."""

    progress: Progress = SILENT
    specs: tuple[InputSpec, ...] = ()
    runner: Runner = LOCAL


_READING: ContextVar[Reading] = ContextVar("reading")
_PLAIN = Reading()


@contextmanager
def reading(progress: Progress = SILENT, *specs: InputSpec, runner: Runner | None = None) -> Iterator[None]:
    """Datasets that are loaded in this block report to ``progress``, and keep their images prepared for ``specs``.

    Workers of ``runner`` read and check them, of that of the block around it where it is None; what is prepared stays
    there.
    """
    before = _READING.set(Reading(progress, specs, current_reading().runner if runner is None else runner))
    try:
        yield
    finally:
        _READING.reset(before)


def current_reading() -> Reading:
    """How files are read here; without progress and specs outside of `reading`."""
    return _READING.get(_PLAIN)
