"""How many threads linear algebra may use: one, where the matrices are too small to share.

In: the size of a problem. Out: a context. Imports nothing of ours. Called by heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["threads_for"]

_WORTH_SHARING = 4_000_000  # float32 values; below, handing work over costs more than it saves


@contextmanager
def threads_for(n_values: int) -> Iterator[None]:
    """Keep BLAS on one thread for small problems, and SciPy's always.

    BLAS threads wait for each other in a busy loop, so beside another busy process a fit made of
    thousands of small products takes ten times as long on two threads as on one (measured
    2026-11-20: 1,258 x 512 features, linear head, 7.3 s against 0.6 s). SciPy brings a BLAS of its
    own, used here for small things only, whose waiting threads would rob NumPy's of a core.

    Parameters
    ----------
    n_values : int
        Values in the largest matrix.
    """
    idle = _controller() if n_values < _WORTH_SHARING else _scipys()
    with idle.limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401 - it brings a BLAS of its own, which must be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@cache
def _scipys() -> Any:
    everyone = _controller()
    paths = [one.filepath for one in everyone.lib_controllers if "scipy.libs" in one.filepath]
    return everyone.select(filepath=paths)
