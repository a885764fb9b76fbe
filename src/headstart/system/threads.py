"""The number of threads that linear algebra and training may use."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from headstart.system.neighbours import Usage, allowed_cores, cores_left

__all__ = [
    "blas_threads",
    "limit_process",
    "one_thread",
    "one_thread_when_forked",
    "process_limit",
    "reading_threads",
    "settle",
    "share_cores",
    "threads_for",
    "use_threads",
]

_WORTH_SHARING = 4_000_000  # float32 values; below, sharing the work among threads costs more than it saves
_LEAST_S = 0.2  # of observing other programs
_GIVEN = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_OBSERVED_FROM: list[Usage] = []
_SETTLED: list[int] = []
_LIMIT: list[int] = []


def limit_process(number: int) -> None:
    """Let this process use so many threads and no more, whatever the machine has: a worker among others."""
    _LIMIT[:] = [number]
    _controller().limit(limits=number, user_api="blas")
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(number)


def process_limit() -> int | None:
    """The threads that `limit_process` allows; None in a program that owns the machine."""
    return _LIMIT[0] if _LIMIT else None


def reading_threads() -> int:
    """Threads that read and decode files."""
    return process_limit() or os.cpu_count() or 1


def blas_threads() -> int:
    """Threads that BLAS may use now, which may as well do as many independent fits at once, each on one thread."""
    settle()
    return max(
        (one.num_threads for one in _controller().lib_controllers if one.user_api == "blas"), default=1
    )


def share_cores() -> None:
    """Let this process use no more threads than there are cores that other programs leave free.

    For programs that own their process, such as the command line: it observes from here to the first use of many
    threads, which comes after slow imports, and decides once. Threads of a parallel step wait for the slowest in a
    busy loop, so two threads beside one busy program took three times as long as one (convolutional network, 2 cores,
    2026-11-30: 1.5 s, 0.6 s on one thread; 0.4 s with both cores free). Environment variables that set the number of
    threads take precedence, and nothing is changed.
    """
    if not any(name in os.environ for name in _GIVEN) and (now := Usage.now()) is not None:
        _OBSERVED_FROM[:] = [now]
        _SETTLED.clear()


def settle() -> int | None:
    """Decide the number of threads, once, and set it; None if nothing limits it."""
    if not _OBSERVED_FROM:
        return None
    if not _SETTLED:
        begun = _OBSERVED_FROM[0]
        time.sleep(max(0.0, _LEAST_S - (time.monotonic() - begun.wall_s)))
        after = Usage.now()
        assert after is not None, "it could be read before"
        _SETTLED.append(cores_left(begun, after, os.cpu_count() or 1, allowed_cores()))
    if _SETTLED[0] < (os.cpu_count() or 1):
        use_threads(_SETTLED[0])
    return _SETTLED[0]


def use_threads(number: int) -> None:
    """Set the number of threads of BLAS, and of PyTorch if it is imported; only where cores are shared.

    At most as many as this process may use.
    """
    if _OBSERVED_FROM:
        _SETTLED[:] = [min(number, allowed_cores())]
        _controller().limit(limits=_SETTLED[0], user_api="blas")
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(_SETTLED[0])


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS and PyTorch compute with one thread in a block, so that sums have the same last bits everywhere.

    PyTorch must be imported before, unless the block leaves it alone.
    """
    torch, settled = sys.modules.get("torch"), list(_SETTLED)
    n_torch = torch.get_num_threads() if torch is not None else 0
    _SETTLED[:] = [1]
    try:
        if torch is not None:
            torch.set_num_threads(1)
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        _SETTLED[:] = settled
        if torch is not None:
            torch.set_num_threads(n_torch)


@contextmanager
def threads_for(n_values: int) -> Iterator[None]:
    """Limit BLAS to one thread for matrices of fewer than 4 million values, and SciPy's BLAS always.

    BLAS threads wait for each other in a busy loop, so next to another busy process a fit of thousands of
    small products takes ten times as long on two threads as on one (measured 2026-11-20: 1,258 x 512
    features, linear head, 7.3 s against 0.6 s). SciPy has a BLAS of its own, used here for small matrices
    only; its waiting threads would take a core from NumPy's.
    """
    if n_values >= _WORTH_SHARING and not _SETTLED:
        settle()
    limited = _controller() if n_values < _WORTH_SHARING else _scipy_controller()
    with limited.limit(limits=1, user_api="blas"):
        yield


@cache
def one_thread_when_forked(torch: Any) -> None:
    """Let PyTorch compute with one thread in forked processes, as its own data loaders do.

    Its OpenMP waits for the parent's threads, which a forked process does not have: training hung there after
    training in the parent (torch 2.13, 2026-11-30).
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


@cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401 - its own BLAS is found only after it is loaded
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@cache
def _scipy_controller() -> Any:
    controller = _controller()
    paths = [one.filepath for one in controller.lib_controllers if "scipy.libs" in one.filepath]
    return controller.select(filepath=paths)
