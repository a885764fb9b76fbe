"""The batches of an epoch with their augmentation, each made while the network learns from the one before.

Apart from the loop, which is the same with and without it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from headstart.records import Images
from headstart.system.neighbours import allowed_cores

__all__ = ["AugmentBatch", "Batches"]

Indices = NDArray[np.intp]
AugmentBatch = Callable[[Images, Indices, int], Images]
"""From a batch, the positions of its images and the number of the epoch to the augmented batch."""


class Batches:
    """Batches of some images, augmented if there is an augmentation; use it in a ``with`` block.

    With ``ahead`` the batch that follows is made in one thread. It is made from its positions and the number of the
    epoch, as without the thread, so it has the same pixels. Default: where there is another core, and something to
    make.
    """

    def __init__(self, images: Images, augment: AugmentBatch | None, *, ahead: bool | None = None) -> None:
        self._images, self._augment = images, augment
        self._pool: ThreadPoolExecutor | None = None
        if augment is not None and (allowed_cores() > 1 if ahead is None else ahead):
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Indices, Future[Images]] | None = None

    def get(self, epoch: int, indices: Indices, following: Indices | None) -> Images:
        """The images at these positions; from now on those that are ``following`` in the epoch are made."""
        made, self._next = self._next, None
        if made is not None and made[0] == epoch and np.array_equal(made[1], indices):
            batch = made[2].result()
        else:
            batch = self._made(epoch, indices)
        if self._pool is not None and following is not None:
            self._next = epoch, following, self._pool.submit(self._made, epoch, following)
        return batch

    def _made(self, epoch: int, indices: Indices) -> Images:
        batch = self._images[indices]
        return batch if self._augment is None else self._augment(batch, indices, epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the batch that is being made, if any: at most one."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
