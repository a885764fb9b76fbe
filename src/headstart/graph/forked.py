"""Objects of a native runtime in forked processes, where the threads that they wait for do not exist."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

__all__ = ["PerProcess", "watched"]

T = TypeVar("T")

_WATCHED: WeakSet[Any] = WeakSet()
_HOOKS: list[Callable[[], None]] = []


def watched(native: T) -> T:
    """The object itself, which a forked process will keep and never use.

    The destructors of OpenVINO and ONNX Runtime wait for their threads: in a forked process they hang or abort,
    at its normal exit too (seen 2026-11-30 with OpenVINO 2026.4 and ONNX Runtime 1.31).
    """
    if not _HOOKS and hasattr(os, "register_at_fork"):
        _HOOKS.append(_keep_for_ever)
        os.register_at_fork(after_in_child=_keep_for_ever)
    _WATCHED.add(native)
    return native


def _keep_for_ever() -> None:
    for native in list(_WATCHED):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))  # a list would be emptied at exit
    _WATCHED.clear()


class PerProcess(Generic[T]):
    """What ``make`` returns, made once here and once again in each forked process that uses it."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made, self._process = make(), os.getpid()

    @property
    def made_here(self) -> bool:
        """Whether this process has made it."""
        return self._process == os.getpid()

    def get(self) -> T:
        """The object of this process."""
        if not self.made_here:
            self._made, self._process = self._make(), os.getpid()
        return self._made
