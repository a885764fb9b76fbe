"""Micro-batching: images that wait while a network is busy go through it together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from headstart.records import Array, Images

__all__ = ["Batcher"]

_Waiting = tuple[NDArray[np.uint8], "asyncio.Future[tuple[Array, ...]]"]


class Batcher:
    """Gathers images into batches of at most ``largest`` and returns each its outputs; for one event loop.

    ``run`` maps images (n, height, width, channels), uint8, to outputs (n, ...), in ``n_lanes`` threads. An
    idle lane waits ``gather_s`` for more images; with 0 an idle network starts at once, and images that
    arrive while it is busy form the next batch, so batches grow with the load. ``seen`` receives the size of
    every batch. ``at_once`` runs batches in the loop's own thread: right for a network that takes less time
    than handing over to a thread. Images whose request was cancelled are not computed.
    """

    def __init__(
        self,
        run: Callable[[Images], tuple[Array, ...]],
        *,
        n_lanes: int = 1,
        largest: int = 32,
        gather_s: float = 0.0,
        seen: Callable[[int], None] = lambda _: None,
        at_once: bool = False,
    ) -> None:
        self._run, self._seen = run, seen
        self._largest, self._gather_s = largest, gather_s
        self._idle, self._at_once = n_lanes, at_once
        self._threads = ThreadPoolExecutor(n_lanes, thread_name_prefix="network")
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.Handle | None = None

    @property
    def n_waiting(self) -> int:
        """Images that no batch has taken yet."""
        return len(self._waiting)

    async def submit(self, image: NDArray[np.uint8]) -> tuple[Array, ...]:
        """The outputs for one image."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Array, ...]] = loop.create_future()
        self._waiting.append((image, future))
        if len(self._waiting) >= self._largest:
            self._begin()
        elif self._idle and self._timer is None:
            # even without a wait, images of this turn of the loop join the batch
            self._timer = (
                loop.call_later(self._gather_s, self._begin)
                if self._gather_s
                else loop.call_soon(self._begin)
            )
        return await future

    def close(self) -> None:
        """Shut down the threads; running batches are finished, waiting images cancelled."""
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            self._waiting.popleft()[1].cancel()
        self._threads.shutdown(wait=False)

    def _begin(self) -> None:
        """Fill the idle lanes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._idle and (batch := self._next()):
            self._idle -= 1
            self._seen(len(batch))
            images = np.stack([image for image, _ in batch])
            if self._at_once:
                self._finish(batch, self._done(images))
                continue
            done = asyncio.get_running_loop().run_in_executor(self._threads, self._run, images)
            done.add_done_callback(partial(self._finish, batch))

    def _done(self, images: Images) -> asyncio.Future[tuple[Array, ...]]:
        """A future that already has its result."""
        done: asyncio.Future[tuple[Array, ...]] = asyncio.get_running_loop().create_future()
        try:
            done.set_result(self._run(images))
        except Exception as error:
            done.set_exception(error)
        return done

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._largest:
            image, future = self._waiting.popleft()
            if not future.done():  # else it was cancelled: the request ran out of time, or its client left
                batch.append((image, future))
        return batch

    def _finish(self, batch: list[_Waiting], outputs: asyncio.Future[tuple[Array, ...]]) -> None:
        self._idle += 1
        error = asyncio.CancelledError() if outputs.cancelled() else outputs.exception()
        for index, (_, future) in enumerate(batch):
            if future.done():
                continue
            if error is not None:
                future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            else:
                future.set_result(tuple(values[index] for values in outputs.result()))
        self._begin()
