"""Find out within seconds whether a server answers, before a download that would retry for minutes.

A connect timeout is not enough: Python sets no limit on resolving a name, and the timeout holds for each of a
host's addresses, of which there may be eight. The download itself keeps its own, longer limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Thread
from time import monotonic

__all__ = ["ANSWER_S", "answers"]

ANSWER_S = 5.0
"""Seconds in which a server must answer one small request, looking up its name included."""


def answers(
    requests: Sequence[Callable[[], object]], within_s: float = ANSWER_S
) -> Iterator[Exception | None]:
    """Make small requests in parallel and yield for each, in order, None if it was answered, else its error.

    All together have ``within_s`` seconds; a request that takes longer yields TimeoutError and stays behind in a
    daemon thread, so it must have a limit of its own.

    >>> list(answers([lambda: "here", lambda: 1 / 0]))
    [None, ZeroDivisionError('division by zero')]
    """
    calls = [_Call(request) for request in requests]
    end = monotonic() + within_s
    for call in calls:
        call.join(max(0.0, end - monotonic()))
        yield TimeoutError(f"no answer within {within_s:g} s") if call.is_alive() else call.error


class _Call(Thread):
    """A running call, and the error that it raised."""

    def __init__(self, request: Callable[[], object]) -> None:
        super().__init__(name="connection", daemon=True)
        self.error: Exception | None = None
        self._request = request
        self.start()

    def run(self) -> None:
        try:
            self._request()
        except Exception as error:  # whatever an HTTP package raises
            self.error = error
