"""What the server takes at most, and the error it answers when somebody sends more.

Must not import a web framework: the sizes can be read and tested without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from headstart.errors import HeadstartError

__all__ = ["Budget", "Limits", "RequestError", "shown"]

_SHOWN = 60


@dataclass(frozen=True)
class Limits:
    """What one server takes.

    Attributes
    ----------
    body_bytes : int
        One request. Above: 413.
    bodies_bytes : int
        All requests being received or answered, together. Above: 503.
    files : int
        Images in one request. Above: 413.
    picture_px : int
        Width times height by an image's header, before it is unpacked. Above: 413.
    waiting : int
        Images of all requests that are being unpacked or wait for a network. Above: 503.
    requests : int
        Requests at a time. Above: 503.
    body_s : float
        Seconds for a request's body to arrive. Above: 408.
    answer_s : float
        Seconds from the last byte to the answer. Above: 504.
    header_s : float
        Seconds for a request's header to arrive. Above: the connection is closed.
    drain_s : float
        Seconds that requests under way are given when the server is told to stop.
    """

    body_bytes: int = 32 * 2**20
    bodies_bytes: int = 256 * 2**20
    files: int = 64
    picture_px: int = 40_000_000
    waiting: int = 512
    requests: int = 1024
    body_s: float = 30.0
    answer_s: float = 30.0
    header_s: float = 10.0
    drain_s: float = 30.0


class RequestError(HeadstartError, ValueError):
    """A request that is not answered as asked; ``status`` says whose fault it is.

    Parameters
    ----------
    status : int
        HTTP status.
    sentence : str
        One line for the caller.
    retry_after_s : int, default=0
        Whole seconds after which asking again makes sense; 0 if it does not.
    headers : dict of str to str, optional
        More headers of the answer.
    """

    def __init__(
        self, status: int, sentence: str, *, retry_after_s: int = 0, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = dict(headers or {})
        if retry_after_s:
            self.headers["Retry-After"] = str(retry_after_s)


class Budget:
    """Something all requests share, counted: bytes held, images waiting, requests at a time.

    Parameters
    ----------
    limit : int
        How much there is.
    what : str
        What the server has too much of at the moment, for the answer.
    """

    def __init__(self, limit: int, what: str) -> None:
        self.limit, self.taken = limit, 0
        self._what = what

    def take(self, amount: int) -> None:
        """Take a part, which must be given back; RequestError (503) if there is not enough."""
        if self.taken + amount > self.limit:
            raise RequestError(
                503,
                f"server has {self._what} at the moment, expected fewer; try again in a second",
                retry_after_s=1,
            )
        self.taken += amount

    def give_back(self, amount: int) -> None:
        """Give back what was taken."""
        self.taken -= amount
        assert self.taken >= 0, "more was given back than taken"

    @contextmanager
    def held(self, amount: int) -> Iterator[None]:
        """Take a part for as long as a block runs."""
        self.take(amount)
        try:
            yield
        finally:
            self.give_back(amount)


def shown(name: str) -> str:
    r"""A name that a stranger sent, made fit for an answer or a log: printable, one line, short.

    Examples
    --------
    >>> shown("bee.jpg"), shown("a\nb\x1b[2J")
    ('bee.jpg', 'a?b?[2J')
    """
    if len(name) <= _SHOWN and name.isprintable():
        return name
    ends = name if len(name) <= 2 * _SHOWN else name[:_SHOWN] + name[-_SHOWN:]
    clean = "".join(sign if sign.isprintable() else "?" for sign in ends)
    return clean if len(clean) <= _SHOWN else f"{clean[: _SHOWN // 2 - 1]}…{clean[-_SHOWN // 2 :]}"
