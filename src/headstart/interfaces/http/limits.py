"""The server's limits, and the error for requests that exceed them; without the web framework."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from headstart.errors import HeadstartError

__all__ = ["Budget", "Limits", "RequestError", "printable"]

_SHOWN = 60


@dataclass(frozen=True)
class Limits:
    """What one server accepts."""

    body_bytes: int = 32 * 2**20  # of one request; above: 413
    bodies_bytes: int = 256 * 2**20  # that have arrived, of all requests in progress together; above: 503
    files: int = 64  # images in one request; above: 413
    image_px: int = 40_000_000  # width times height by the header, before decoding; above: 413
    waiting: int = 512  # images of all requests being decoded or waiting for a network; above: 503
    requests: int = 1024  # at a time; above: 503
    body_s: float = 30.0  # for a body to arrive; above: 408
    rate_bytes_s: int = 4096  # that a body arrives with at least, over every stall_s; below: 408
    stall_s: float = 5.0
    answer_s: float = 30.0  # from the last byte to the response; above: 504
    header_s: float = 10.0  # for a header to arrive; above: the connection is closed
    drain_s: float = 30.0  # for requests in progress when the server is stopped


class RequestError(HeadstartError, ValueError):
    """An error response: HTTP status, one sentence, and after how many seconds to retry (0: never)."""

    def __init__(
        self, status: int, sentence: str, *, retry_after_s: int = 0, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = dict(headers or {})
        if retry_after_s:
            self.headers["Retry-After"] = str(retry_after_s)


class Budget:
    """A counted resource that all requests share; ``what`` names what is exhausted, for the error."""

    def __init__(self, limit: int, what: str) -> None:
        self.limit, self.taken = limit, 0
        self._what = what

    def take(self, amount: int) -> None:
        """Take an amount, which must be given back; `RequestError` (503) if there is not enough."""
        if self.taken + amount > self.limit:
            raise RequestError(
                503,
                f"server has {self._what} at the moment, expected fewer; try again in a second",
                retry_after_s=1,
            )
        self.taken += amount

    def give_back(self, amount: int) -> None:
        """Give an amount back."""
        self.taken -= amount
        assert self.taken >= 0, "more was given back than taken"

    @contextmanager
    def held(self, amount: int) -> Iterator[None]:
        """Take an amount for the duration of a block."""
        self.take(amount)
        try:
            yield
        finally:
            self.give_back(amount)


def printable(name: str) -> str:
    """A name that a client sent, made printable, one line and short, for a response or a log."""
    if len(name) <= _SHOWN and name.isprintable():
        return name
    ends = name if len(name) <= 2 * _SHOWN else name[:_SHOWN] + name[-_SHOWN:]
    clean = "".join(sign if sign.isprintable() else "?" for sign in ends)
    return clean if len(clean) <= _SHOWN else f"{clean[: _SHOWN // 2 - 1]}…{clean[-_SHOWN // 2 :]}"
