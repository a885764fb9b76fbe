"""Large images take turns: a budget of decoded pixels that all threads of a process share.

Without it, memory would grow with the number of cores: a file of a few kilobytes may hold 89 million pixels,
which take 2 GB while they are decoded and resized (5 to 22 bytes a pixel, measured 2026-11-30).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

__all__ = ["PixelBudget", "claim_pixels", "turn"]

_LIMIT_PX = 2**27  # more than the largest image that is decoded; ten photos of 12 million pixels at a time


class PixelBudget:
    """Pixels that threads may hold at a time, at most ``limit_px``; a larger image waits until it is alone.

    Threads wait in the order in which they came, so large images are not overtaken for ever. Nothing waits
    outside of a `turn`, and a thread that holds pixels already never waits, so no thread waits for itself.
    """

    def __init__(self, limit_px: int) -> None:
        self._limit_px = limit_px
        self.reset()

    def reset(self) -> None:
        """Forget all claims: after a fork, the threads that made them are gone."""
        self._free_px, self._waiting = self._limit_px, deque[object]()
        self._changed, self._mine = threading.Condition(), threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold what this thread claims until the block ends: decode and shrink one image in it."""
        outer = getattr(self._mine, "n_px", None)
        self._mine.n_px = 0
        try:
            yield
        finally:
            mine = getattr(self._mine, "n_px", None)
            if mine is not None:  # else this is a forked process, whose budget is new
                with self._changed:
                    self._free_px += mine
                    self._changed.notify_all()
                self._mine.n_px = outer

    def claim(self, n_px: int) -> None:
        """Wait until these pixels fit; at once outside of a `turn`, where nothing is counted."""
        mine = getattr(self._mine, "n_px", None)
        if mine is None:
            return
        wanted = min(n_px, self._limit_px)
        with self._changed:
            if not mine:
                self._wait(wanted)
            self._free_px -= wanted
            self._mine.n_px = mine + wanted
            self._changed.notify_all()

    def _wait(self, n_px: int) -> None:
        me = object()
        self._waiting.append(me)
        try:
            self._changed.wait_for(lambda: self._waiting[0] is me and self._free_px >= n_px)
        finally:
            self._waiting.remove(me)


_BUDGET = PixelBudget(_LIMIT_PX)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_BUDGET.reset)


def turn() -> AbstractContextManager[None]:
    """A turn in the budget of this process: decode and shrink one image in it."""
    return _BUDGET.turn()


def claim_pixels(n_px: int) -> None:
    """Wait until these pixels fit into the budget of this process."""
    _BUDGET.claim(n_px)
