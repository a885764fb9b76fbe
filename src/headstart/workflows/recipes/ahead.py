"""Features that a recipe will read later, computed into the cache while heads are fitted.

Fits run on one core, inference on all of them, so that one fills the time that the other leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from headstart.data.images.augment import augment, parse_augmentation
from headstart.graph.run import import_runtime, openvino_core
from headstart.sources.features import Extraction
from headstart.system.cache import NullCache

__all__ = ["ReadAhead"]


class _Stopping:
    """Progress of work in the background: silent, and the way to stop it between two batches."""

    stopped = False

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Raise CancelledError once the work is stopped."""
        if self.stopped:
            raise CancelledError

    def remark(self, text: str) -> None:
        """Do nothing: the same remark comes when the features are read."""


class ReadAhead:
    """Extractions in one thread, in order; leaving the block stops them, whatever is not done yet.

    Without a cache nothing is started, because nothing would be kept.
    """

    def __init__(self, options: Extraction) -> None:
        self._progress = _Stopping()
        self.options = replace(options, progress=self._progress)
        self._keeps = not isinstance(options.cache, NullCache | None)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._started: dict[Hashable, Future[Any]] = {}

    def start(self, key: Hashable, work: Callable[[], Any]) -> None:
        """Do this work later, with the `options` of this object."""
        if not self._keeps:
            return
        if not self._started:
            _import_all(self.options.runtime)
        self._started[key] = self._pool.submit(work)

    def wait(self, key: Hashable) -> None:
        """Wait until the work of this key is done, if there is such work; raises its error."""
        if (found := self._started.pop(key, None)) is not None:
            found.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stopped = True
        self._pool.shutdown(cancel_futures=True)


def _import_all(runtime: str) -> None:
    """Import what extraction and augmentation use while no other thread computes: see `import_runtime`."""
    import_runtime(runtime)
    if runtime == "openvino":
        openvino_core()
    nothing = parse_augmentation("zoom=0.1")
    augment(np.zeros((1, 2, 2, 1), np.uint8), nothing, seed=0, indices=[0], copy=0)
