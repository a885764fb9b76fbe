"""The number of threads that linear algebra may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

__all__ = ["one_thread_when_forked", "threads_for"]

_WORTH_SHARING = 4_000_000  # float32 values; below, sharing the work among threads costs more than it saves


@contextmanager
def threads_for(n_values: int) -> Iterator[None]:
    """Limit BLAS to one thread for matrices of fewer than 4 million values, and SciPy's BLAS always.

    BLAS threads wait for each other in a busy loop, so next to another busy process a fit of thousands of
    small products takes ten times as long on two threads as on one (measured 2026-11-20: 1,258 x 512
    features, linear head, 7.3 s against 0.6 s). SciPy has a BLAS of its own, used here for small matrices
    only; its waiting threads would take a core from NumPy's.
    """
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
