"""Runners on this machine: in the calling process, which is the default, or in background processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future
from itertools import islice
from typing import Any, TypeVar
from uuid import uuid4

from headstart.errors import HeadstartError
from headstart.system.runners.contract import Runner

__all__ = ["LOCAL", "LocalRunner", "ProcessRunner"]

T = TypeVar("T")
R = TypeVar("R")

_IDLE_S = 20  # until an idle process ends; starting one and importing torch takes 3 s
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
_STARTED: dict[str, Callable[[Any], Any]] = {}
"""In a background process: the function of the last map, by the token of the map."""


class LocalRunner(Runner):
    """Does one task after the other in the calling process, with all its threads; nothing is copied."""

    name, remote = "local", False

    @property
    def n_workers(self) -> int:
        """One: the process itself."""
        return 1

    def map(
        self, start: Callable[[], Callable[[T], R]], tasks: Iterable[T], *, threads: int = 1
    ) -> Iterator[tuple[int, R]]:
        """As the contract says; ``threads`` plays no part."""
        work = start()
        return ((number, work(task)) for number, task in enumerate(tasks))

    def close(self) -> None:
        """Nothing was started."""


LOCAL = LocalRunner()


class ProcessRunner(Runner):
    """Does tasks in processes of this machine, for work that gains nothing from more than one core.

    Each has one BLAS thread: small products gain nothing from a second one, and two processes that both use all
    cores slow each other down. ``n_ahead`` tasks are done while no result is taken. On a machine with one core, or
    where no process can be started, tasks are done here.
    """

    name, remote = "processes", True

    def __init__(self, n_processes: int = 2, n_ahead: int = 6) -> None:
        self._n_processes, self._n_ahead = n_processes, n_ahead

    @property
    def n_workers(self) -> int:
        """Processes at a time."""
        return self._n_processes

    def map(
        self, start: Callable[[], Callable[[T], R]], tasks: Iterable[T], *, threads: int = 1
    ) -> Iterator[tuple[int, R]]:
        """As the contract says, in order."""
        if (os.cpu_count() or 1) < 2:
            return LOCAL.map(start, tasks)
        from loky import get_reusable_executor

        todo, token = enumerate(tasks), uuid4().hex
        try:
            pool = get_reusable_executor(max_workers=self._n_processes, timeout=_IDLE_S, env=_ONE_THREAD)
        except OSError:  # no shared memory for its semaphores, or no more processes
            return LOCAL.map(start, tasks)
        waiting: deque[tuple[int, Future[Any]]] = deque()

        def submit() -> None:
            some = islice(todo, self._n_ahead - len(waiting))
            waiting.extend((number, pool.submit(_done, token, start, task)) for number, task in some)

        submit()
        return self._results(pool, waiting, submit)

    def _results(
        self, pool: Any, waiting: deque[tuple[int, Future[Any]]], submit: Callable[[], None]
    ) -> Iterator[tuple[int, Any]]:
        try:
            while waiting:
                number, future = waiting.popleft()
                result = future.result()
                submit()
                yield number, result
        except BrokenExecutor as fault:
            raise HeadstartError(
                "worker process died (out of memory?), expected it to finish its task, such as to train the network "
                "of a control; free memory, or leave that control out"
            ) from fault
        except KeyboardInterrupt:
            pool.shutdown(wait=False, kill_workers=True)
            raise
        finally:
            for _, future in waiting:
                future.cancel()

    def close(self) -> None:
        """Processes end by themselves when they have nothing to do."""


def _done(token: str, start: Callable[[], Any], task: Any) -> Any:
    """In a background process: do a task of the map that this token belongs to."""
    if token not in _STARTED:
        _STARTED.clear()  # of an earlier map
        _STARTED[token] = start()
    return _STARTED[token](task)
