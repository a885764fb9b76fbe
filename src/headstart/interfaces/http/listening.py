"""uvicorn with our settings: slow clients time out, errors have our form, a signal ends it with status 0."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, Literal, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from headstart.interfaces.http.limits import Limits
from headstart.interfaces.http.workers import BACKLOG, stop_signals

__all__ = ["run_app"]

_HEADER_BYTES = 16 * 1024
_KEEP_ALIVE_S = 15
_UNREAD_S = 30  # that a client may leave a response unread
_NOT_HTTP = b"request is not HTTP/1.1, expected that; ask with an HTTP client"
_CUT_OFF = b"request ended before its body was complete, expected all of it; send it again"


def run_app(
    app: Any,
    listener: socket.socket,
    limits: Limits,
    ready: Callable[[], object],
    lifeline: int | None = None,
    *,
    stopping: Callable[[], object],
    lifespan: Literal["on", "off"] = "off",
) -> None:
    """Serve an ASGI application until a signal stops it, then finish the requests in progress.

    ``stopping`` is called when a signal arrives, ``ready`` once requests are accepted. The end of
    ``lifeline``, a descriptor, stops the server, too.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # clients must not fill the log
    config = uvicorn.Config(
        app,
        http=cast(Any, partial(_Protocol, header_s=limits.header_s)),  # called as the class would be
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(limits.drain_s),
        backlog=1,  # connections accepted in one turn of the loop: workers that share the socket get some each
    )
    _Server(config, stopping, ready, lifeline).run(sockets=[listener])


class _Protocol(H11Protocol):
    """A connection that ends where no complete header arrives, or no response is read, in time.

    A client that has closed its own side after a complete request still gets the response.
    """

    def __init__(self, *arguments: Any, header_s: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._header_s = header_s
        self._header_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._half_closed = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
            # or the rest of a response would keep a closed connection open for a client that reads nothing
            with suppress(OSError):
                transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, 1000 * _UNREAD_S)
        self._header_timer = self.loop.call_later(self._header_s, self._header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._header_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(_UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection while a complete request is answered; refuse one that is cut off."""
        self._half_closed = True
        if self.cycle is None or self.cycle.response_complete:
            return False
        if self.cycle.more_body:
            self._refuse(_CUT_OFF)
            return False
        return True

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which may begin the next of several requests
        if self._half_closed and self.cycle.response_complete:
            self.transport.close()

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
        self._refuse(_NOT_HTTP)

    def _refuse(self, sentence: bytes) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = b'{"error":"%b"}' % sentence
            self.transport.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
        self.transport.close()

    def _header_timeout(self) -> None:
        self._header_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class _Server(uvicorn.Server):
    """Reports when it is ready, and ends with status 0 on a signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        stopping: Callable[[], object],
        ready: Callable[[], object],
        lifeline: int | None,
    ) -> None:
        super().__init__(config)
        self._stopping, self._ready, self._lifeline = stopping, ready, lifeline

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or []:
            one.listen(BACKLOG)  # uvicorn has set the number accepted in one turn
        if self._lifeline is not None:
            asyncio.get_running_loop().add_reader(self._lifeline, self._orphaned, self._lifeline)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping()
        super().handle_exit(sig, frame)

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self._stopping()
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {one: signal.signal(one, self.handle_exit) for one in stop_signals()}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
