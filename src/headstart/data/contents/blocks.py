"""Parts of shards that are kept in memory for a while, so that reading in order is one pass in large requests."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

__all__ = ["Blocks", "blocks"]

_LIMIT_BYTES = 128 * 2**20
_N_REQUESTS = 16  # that run ahead at a time

Load = Callable[[], tuple[Any, int]]
"""A function that reads a block: its value and its size in bytes."""


class Blocks:
    """The blocks that were used last, at most ``limit_bytes`` and the newest one.

    However many threads want a block, one reads it and the others wait.
    """

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self.reset()

    def reset(self) -> None:
        """Forget all blocks: after a fork, the threads that were reading some are gone."""
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._futures: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._sizes: dict[Hashable, int] = {}
        self._n_bytes = 0

    def get(self, key: Hashable, load: Load) -> Any:
        """A block, read now unless it is there or another thread is reading it."""
        future, is_new = self._future(key)
        if is_new:
            self._load(key, load, future)
        return future.result()

    def has(self, key: Hashable) -> bool:
        """Whether a block is there or being read."""
        with self._lock:
            return key in self._futures

    def find(self, key: Hashable) -> Any:
        """A block that is there; None if it is not."""
        with self._lock:
            found = self._futures.get(key)
            if found is None or not found.done():
                return None
            self._futures.move_to_end(key)
        return found.result()

    def put(self, key: Hashable, value: Any, n_bytes: int) -> None:
        """Keep a block that was read elsewhere."""
        self.get(key, lambda: (value, n_bytes))

    def ahead(self, key: Hashable, load: Load) -> None:
        """Begin to read a block in the background; an error is kept for whoever wants the block."""
        future, is_new = self._future(key)
        if is_new:
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(_N_REQUESTS, "read-ahead")
                pool = self._pool
            pool.submit(partial(self._load, key, load, future))

    def drop(self, is_old: Callable[[Hashable], bool]) -> None:
        """Forget the blocks with such keys."""
        with self._lock:
            for key in [key for key in self._futures if is_old(key)]:
                self._forget(key)

    def _future(self, key: Hashable) -> tuple[Future[Any], bool]:
        with self._lock:
            found = self._futures.get(key)
            if found is not None:
                self._futures.move_to_end(key)
                return found, False
            made = self._futures[key] = Future()
            return made, True

    def _load(self, key: Hashable, load: Load, future: Future[Any]) -> None:
        try:
            value, n_bytes = load()
        except BaseException as error:
            with self._lock:
                if self._futures.get(key) is future:
                    self._forget(key)  # the next one tries again
            future.set_exception(error)
            return
        with self._lock:
            if self._futures.get(key) is future:
                self._sizes[key] = n_bytes
                self._n_bytes += n_bytes
                self._shrink(key)
        future.set_result(value)

    def _shrink(self, newest: Hashable) -> None:
        for key in list(self._sizes):  # in the order in which they were read
            if self._n_bytes <= self._limit_bytes:
                return
            if key != newest:
                self._forget(key)

    def _forget(self, key: Hashable) -> None:
        del self._futures[key]
        self._n_bytes -= self._sizes.pop(key, 0)


_BLOCKS = Blocks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_BLOCKS.reset)


def blocks() -> Blocks:
    """The blocks of this process."""
    return _BLOCKS
