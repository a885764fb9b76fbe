"""Find out within seconds whether a server answers, before a download that would wait and retry for minutes.

A limit on connecting alone does not do that: looking up a name has no limit in Python, and a limit holds
for each address of a host, of which there may be eight. The download itself keeps its own, patient limits:
a slow network that works may take as long as it needs.
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
    """Make small requests, all at once, and tell of each in order whether it was answered.

    Parameters
    ----------
    requests : sequence of callable
        Each makes one request, and raises if there is no answer. One that takes too long is left to
        itself in a daemon thread, so it needs a limit of its own.
    within_s : float, default=ANSWER_S
        Seconds for all of them together.

    Yields
    ------
    Exception or None
        None if the request was answered, else why not; `TimeoutError` if it took too long.

    Examples
    --------
    >>> list(answers([lambda: "here", lambda: 1 / 0]))
    [None, ZeroDivisionError('division by zero')]
    """
    calls = [_Call(request) for request in requests]
    end = monotonic() + within_s
    for call in calls:
        call.join(max(0.0, end - monotonic()))
        yield TimeoutError(f"no answer within {within_s:g} s") if call.is_alive() else call.error


class _Call(Thread):
    """A call under way, and what it raised."""

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
