"""uvicorn with our settings: slow headers time out, errors have our form, a signal ends it with status 0."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from headstart.interfaces.http.api import App
from headstart.interfaces.http.limits import Limits
from headstart.interfaces.http.workers import BACKLOG

__all__ = ["run_app"]

_HEADER_BYTES = 16 * 1024
_KEEP_ALIVE_S = 15
_NOT_HTTP_BODY = b'{"error":"request is not HTTP/1.1, expected that; ask with an HTTP client"}'
_NOT_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_NOT_HTTP_BODY), _NOT_HTTP_BODY)
)


def run_app(
    app: App,
    listener: socket.socket,
    limits: Limits,
    ready: Callable[[], object],
    lifeline: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # clients must not fill the log
    config = uvicorn.Config(
        app,
        http=cast(Any, partial(_Protocol, header_s=limits.header_s)),  # called as the class would be
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(limits.drain_s),
        backlog=1,  # connections accepted in one turn of the loop: workers that share the socket get some each
    )
    _Server(config, app, ready, lifeline).run(sockets=[listener])


class _Protocol(H11Protocol):
    """Closes a connection on which no complete request header arrives in time."""

    def __init__(self, *arguments: Any, header_s: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._header_s = header_s
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(self._header_s, self._header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        idle = self.cycle is None or self.cycle.response_complete
        if not idle and self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        elif idle and self._header_timer is None and not self.transport.is_closing():
            self._header_timer = self.loop.call_later(self._header_s, self._header_timeout)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP in our form; a response in progress is cut off."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_NOT_HTTP)
        self.transport.close()

    def _header_timeout(self) -> None:
        self._header_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class _Server(uvicorn.Server):
    """Reports when it is ready, and ends with status 0 on a signal."""

    def __init__(
        self, config: uvicorn.Config, app: App, ready: Callable[[], object], lifeline: int | None
    ) -> None:
        super().__init__(config)
        self._app, self._ready, self._lifeline = app, ready, lifeline

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or []:
            one.listen(BACKLOG)  # uvicorn has set the number accepted in one turn
        if self._lifeline is not None:
            asyncio.get_running_loop().add_reader(self._lifeline, self._orphaned, self._lifeline)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.draining = True
        super().handle_exit(sig, frame)

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self._app.draining = self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
