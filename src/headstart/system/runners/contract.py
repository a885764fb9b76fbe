"""What every runner does: calls of one function for many independent tasks, each done once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Runner", "in_order"]

T = TypeVar("T")
R = TypeVar("R")


class Runner(Protocol):
    """Runs independent tasks.

    ``remote`` is whether tasks run in other processes. ``n_workers`` is how many run at a time with one thread each.
    """

    name: str
    remote: bool

    @property
    def n_workers(self) -> int:
        """Tasks of one thread that run at a time, at least 1."""
        ...

    def map(
        self, start: Callable[[], Callable[[T], R]], tasks: Iterable[T], *, threads: int = 1
    ) -> Iterator[tuple[int, R]]:
        """Do every task once, and return its number and result as they come.

        Parameters
        ----------
        start : callable
            Called once in every worker; returns the function that does a task there. What it holds, such as arrays,
            is sent once to every machine, read-only, and not with each task.
        tasks : iterable
            Taken from it only as workers become free, so it may be long.
        threads : int, default=1
            Cores of a worker.

        Yields
        ------
        tuple of (int, object)
            Number of a task, from 0, and its result; not in order, see `in_order`. A result that is not taken holds
            back new tasks, so memory stays flat.

        Raises
        ------
        HeadstartError
            The first error of a task, as it was raised there, or that of the workers. Other tasks are stopped then,
            as they are where the iterator is closed early.

        Notes
        -----
        Work has begun when this returns. A task whose worker died is done again by another one.
        """
        ...

    def close(self) -> None:
        """Stop the workers; what this runner did not start goes on."""
        ...


def in_order(found: Iterator[tuple[int, R]]) -> Iterator[R]:
    """Results in the order of their tasks; those that come early wait.

    >>> list(in_order(iter([(1, "b"), (0, "a"), (2, "c")])))
    ['a', 'b', 'c']
    """
    early: dict[int, R] = {}
    following = 0
    for number, result in found:
        early[number] = result
        while following in early:
            yield early.pop(following)
            following += 1
