"""Work in other processes, beside this one: for what a single core does as well as all of them.

In: a function and what it is called with. Out: a function that waits for its value. Knows nothing of
images. Called by comparison and studies.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from importlib import import_module
from typing import Any, TypeVar

from headstart.errors import HeadstartError

__all__ = ["run_in_process", "warm_up"]

T = TypeVar("T")

_IDLE_S = 20  # that the process lives on without work; starting one and importing torch takes 3 s
_PROCESSES = 2
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def run_in_process(function: Callable[..., T], *arguments: Any) -> Callable[[], T]:
    """Begin a call in another process; on a machine of one core, call it here when it is waited for.

    Parameters
    ----------
    function : callable
        Must not need anything that this process changes later. It and its arguments are copied.
    *arguments : object
        What it is called with. Calls are begun in order, two at a time.

    Returns
    -------
    callable
        Waits, and returns the value or raises what the call raised.

    Raises
    ------
    HeadstartError
        When waited for, if the process died.

    Notes
    -----
    Its linear algebra has one thread: small products gain nothing from a second, and two processes
    that both use all cores ruin each other. Values do not depend on which process computes them but for
    the order in which threads add.

    Examples
    --------
    >>> wait = run_in_process(max, 3, 5)
    >>> wait()
    5
    """
    if (os.cpu_count() or 1) < 2:
        return lambda: function(*arguments)
    from loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=_PROCESSES, timeout=_IDLE_S, env=_ONE_THREAD)
    future = pool.submit(function, *arguments)

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
    """Begin to import a module in the other processes.

    Parameters
    ----------
    module : str
        Its name.
    """
    for _ in range(_PROCESSES):
        run_in_process(_import_only, module)


def _import_only(module: str) -> None:
    import_module(module)  # and return nothing: a module that came back would be imported here too
