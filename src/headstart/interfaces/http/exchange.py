"""One request and its response on the way between uvicorn and an application: how far both have come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

__all__ = ["Exchange"]

_READ_ON_S = 2.0


class Exchange:
    """Passes messages on; ``more`` are headers that every response gets. ``status`` is that of the response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, more: Mapping[str, str]) -> None:
        headers = {key for key, _ in scope["headers"]}
        self._received = not headers & {b"content-length", b"transfer-encoding"}
        # such a client waits for a response before it sends the body
        self._expects_continue = b"expect" in headers
        self._more = [(key.lower().encode(), value.encode("latin-1")) for key, value in more.items()]
        self._receive, self._send = receive, send
        self._started = False
        self.status = 500

    async def receive(self) -> Message:
        """Receive a piece of the body."""
        message = await self._receive()
        self._received = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a piece of the response."""
        if message["type"] == "http.response.start":
            self._started, self.status = True, message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._more]}
        await self._send(message)

    async def send_last(self, response: Response) -> None:
        """Send a response that does not wait for the body, unless one has begun.

        The connection is closed if the body is not complete, after reading on a little, or a client that is
        still sending would miss the response.
        """
        if self._started:
            return
        headers = list(response.raw_headers)
        if not self._received and b"connection" not in {key for key, _ in headers}:
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.body, "more_body": True})
        if not self._received and not self._expects_continue:
            with suppress(TimeoutError):
                async with asyncio.timeout(_READ_ON_S):
                    while not self._received:
                        await self.receive()
        await self._send({"type": "http.response.body", "body": b""})
