"""Calls in background processes, for work that gains nothing from more than one core."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from importlib import import_module
from typing import Any, TypeVar

from headstart.errors import HeadstartError

__all__ = ["run_in_process", "warm_up"]

T = TypeVar("T")

_IDLE_S = 20  # until an idle process ends; starting one and importing torch takes 3 s
_PROCESSES = 2
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def run_in_process(function: Callable[..., T], *arguments: Any) -> Callable[[], T]:
    """Start a call in another process, and return a function that waits for its value or raises its error.

    The function and its arguments are copied; two calls run at a time, in order. Each has one BLAS thread:
    small products gain nothing from a second one, and two processes that both use all cores slow each other
    down. On a machine with one core, or where no process can be started, the call runs here, when its value is
    requested. HeadstartError if the process died.

    >>> wait = run_in_process(max, 3, 5)
    >>> wait()
    5
    """
    if (os.cpu_count() or 1) < 2:
        return lambda: function(*arguments)
    from loky import get_reusable_executor

    try:
        pool = get_reusable_executor(max_workers=_PROCESSES, timeout=_IDLE_S, env=_ONE_THREAD)
        future = pool.submit(function, *arguments)
    except OSError:  # no shared memory for its semaphores, or no more processes
        return lambda: function(*arguments)

    def wait() -> T:
        try:
            value: T = future.result()
        except BrokenExecutor as fault:
            raise HeadstartError(
                "worker process died (out of memory?), expected it to train the network of a control; "
                "leave that control out, or free memory"
            ) from fault
        except KeyboardInterrupt:
            pool.shutdown(wait=False, kill_workers=True)
            raise
        return value

    return wait


def warm_up(module: str) -> None:
    """Start to import a module in the background processes."""
    for _ in range(_PROCESSES):
        run_in_process(_import_only, module)


def _import_only(module: str) -> None:
    import_module(module)  # and return nothing: a returned module would be imported here too
