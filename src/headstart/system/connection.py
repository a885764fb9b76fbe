"""Find out within seconds whether a server answers, and whether a download still moves.

A connect timeout is not enough: Python sets no limit on resolving a name, and the timeout holds for each of a
host's addresses, of which there may be eight. Clients of other packages retry for minutes on top of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic

__all__ = ["ANSWER_S", "BYTE_S", "FIRST_BYTE_S", "answers", "moving"]

ANSWER_S = 5.0
"""Seconds in which a server must answer one small request, looking up its name included."""
FIRST_BYTE_S = 10.0
"""Seconds in which the first bytes of a download must arrive."""
BYTE_S = 30.0
"""Seconds in which more bytes of a download must arrive."""


def answers(
    requests: Sequence[Callable[[], object]], within_s: float = ANSWER_S
) -> Iterator[Exception | None]:
    """Make small requests in parallel and yield for each, in order, None if it was answered, else its error.

    All together have ``within_s`` seconds; a request that takes longer yields TimeoutError and stays behind
    in a daemon thread, so it must have a limit of its own.

    >>> list(answers([lambda: "here", lambda: 1 / 0]))
    [None, ZeroDivisionError('division by zero')]
    """
    calls = [_Call(request) for request in requests]
    end = monotonic() + within_s
    for call in calls:
        call.join(max(0.0, end - monotonic()))
        yield TimeoutError(f"no answer within {within_s:g} s") if call.is_alive() else call.error


def moving(
    download: Callable[[Callable[[], None]], object],
    *,
    first_s: float = FIRST_BYTE_S,
    later_s: float = BYTE_S,
) -> None:
    """Run a download, which calls the function that it is given whenever bytes have arrived.

    TimeoutError if none arrive for ``first_s`` seconds at the start, or for ``later_s`` seconds later on; the
    download then stays behind in a daemon thread. Its own errors are raised.

    >>> moving(lambda arrived: arrived())
    """
    events: SimpleQueue[bool] = SimpleQueue()

    def run() -> None:
        try:
            download(lambda: events.put(True))
        finally:
            events.put(False)

    call, limit_s = _Call(run), first_s
    try:
        while events.get(timeout=limit_s):
            limit_s = later_s
    except Empty:
        more = "more data" if limit_s == later_s else "data"
        raise TimeoutError(f"no {more} within {limit_s:g} s") from None
    call.join()
    if call.error is not None:
        raise call.error


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
