"""What of gradio's server can be reached: the routes that the page uses, by the page itself, with small bodies.

Gradio offers far more: it copies, downloads and opens what a request names. Uploads are received here, and
requests may name them and no other file.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.interfaces.http.access import Access, check_framing
from headstart.interfaces.http.exchange import Exchange
from headstart.interfaces.http.limits import Limits, RequestError, printable
from headstart.interfaces.http.uploads import Bodies, arriving
from headstart.interfaces.teach.waiting_files import WaitingFiles

__all__ = ["FILE_BYTES", "Gate"]

FILE_BYTES = 20 * 2**20
_API = "/gradio_api"
_PAGES = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static|svelte)/[\w./@+-]+"
    rf"|{_API}/(info|app_id|theme\.css|startup-events|queue/data|heartbeat/\w{{1,64}})",
    re.ASCII,
)
_HEARTBEAT = re.compile(
    rf"{_API}/heartbeat/(\w{{1,64}})", re.ASCII
)  # a stream that lasts as long as the page
_UPLOAD, _PROGRESS, _FILE = f"{_API}/upload", f"{_API}/upload_progress", f"{_API}/file="
_EVENTS = {
    f"{_API}/queue/join": ("data", "event_data", "fn_index", "session_hash", "trigger_id"),
    f"{_API}/reset": ("event_id",),
    f"{_API}/cancel": ("session_hash", "fn_index", "event_id"),
}
_QUERIES = {f"{_API}/queue/data", _PROGRESS}
_THEME = re.compile(rb"__theme=(light|dark|system)")
_SESSION = re.compile(r"[A-Za-z0-9]{1,64}")
_FILE_KEYS = {"path", "url", "meta", "orig_name", "mime_type", "is_stream", "blob"}
_SHOWN = {b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
_HEADERS = {"Content-Security-Policy": "frame-ancestors 'self'", "X-Content-Type-Options": "nosniff"}
_MOST_FILES = 300  # in one upload: as many as a classroom takes
_UPLOADS = Limits(body_bytes=2**30, bodies_bytes=2**30, body_s=600.0)
_MESSAGES = Limits(body_bytes=8 * 2**20, bodies_bytes=256 * 2**20)


@dataclass
class Gate:
    """An ASGI application before gradio's."""

    app: ASGIApp
    access: Access
    files: WaitingFiles
    uploads: Limits = _UPLOADS
    unnamed_s: float = 60.0  # that a file stays which no event of an open page has named
    _uploading: Bodies = field(init=False)
    _messages: Bodies = field(init=False)

    def __post_init__(self) -> None:
        self._uploading = Bodies(self.uploads.bodies_bytes)
        self._messages = Bodies(_MESSAGES.bodies_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, as defined by ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._checked(scope, Exchange(scope, receive, send, _HEADERS))

    async def _checked(self, scope: Scope, exchange: Exchange) -> None:
        try:
            check_framing(scope)
            self.access.check(scope)
            await self._routed(scope, exchange.receive, exchange.send)
        except RequestError as error:
            await exchange.send_last(PlainTextResponse(str(error), error.status, error.headers))
        except ClientDisconnect:
            pass

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        request = Request(scope, receive)
        if method == "POST" and path in _EVENTS:
            body = await self._message(request, path)
            await self.app(_with_length(scope, len(body)), _replay(body, receive), send)
        elif method == "POST" and path == _UPLOAD:
            await JSONResponse(await self._upload(request))(scope, receive, send)
        elif method in ("GET", "HEAD") and path == _PROGRESS:  # an upload is here when it is answered
            await Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")(scope, receive, send)
        elif method in ("GET", "HEAD") and path.startswith(_FILE):
            await self._shown(path.removeprefix(_FILE))(scope, receive, send)
        elif method in ("GET", "HEAD") and _PAGES.fullmatch(path) and ".." not in path:
            query = scope["query_string"]
            if path not in _QUERIES and not _THEME.fullmatch(query):
                query = b""
            beat = _HEARTBEAT.fullmatch(path)
            with self.files.session(beat[1]) if beat and method == "GET" else nullcontext():
                await self.app({**scope, "query_string": query}, receive, send)
        else:
            raise RequestError(
                404, f"path {printable(path)!r} is unknown, expected one that the page uses; open the page"
            )

    async def _message(self, request: Request, path: str) -> bytes:
        """An event of the page as gradio gets it: known fields, and of files only those that were uploaded."""
        with arriving(request, _MESSAGES, self._messages) as arrival:
            content = await arrival.read(Request.body)
        try:
            message = json.loads(content)
            if not isinstance(message, dict):
                raise ValueError("it is no object")
            kept = {key: message[key] for key in _EVENTS[path] if key in message}
            if not _SESSION.fullmatch(str(kept.get("session_hash", "x"))):
                raise ValueError("its session is malformed")
            named: list[str] = []
            kept = {key: self._cleaned(value, named) for key, value in kept.items()}
            self.files.name(str(kept.get("session_hash")), named)
            return json.dumps(kept).encode()
        except RequestError:
            raise
        except (ValueError, RecursionError) as error:
            raise RequestError(
                422,
                f"event is malformed ({printable(str(error))}), expected one of the page; reload the page",
            ) from error

    def _cleaned(self, value: Any, named: list[str]) -> Any:
        """A value in which every file is one of ours, by its path alone; ``named`` gets the paths."""
        if isinstance(value, list):
            return [self._cleaned(one, named) for one in value]
        if not isinstance(value, dict):
            return value
        if not _FILE_KEYS & set(value):
            return {key: self._cleaned(one, named) for key, one in value.items()}
        path = value.get("path")
        if not isinstance(path, str) or path not in self.files:
            raise RequestError(
                422, "file is no longer on the server, expected one that was just sent; choose it again"
            )
        named.append(path)
        name = value.get("orig_name")
        return {
            "path": path,
            "orig_name": printable(name) if isinstance(name, str) else "",
            "size": self.files.size_bytes(path),
            "meta": {"_type": "gradio.FileData"},
        }

    async def _upload(self, request: Request) -> list[str]:
        """Receive files; returns their paths in the order of the form. None stays where one is refused."""
        paths: list[str] = []
        with arriving(request, self.uploads, self._uploading) as arrival:
            form = await arrival.read(_form)
            try:
                for _, one in form.multi_items():
                    if not isinstance(one, UploadFile):
                        raise _too_many()
                    if (one.size or 0) > FILE_BYTES:
                        raise RequestError(
                            413,
                            f"file {printable(one.filename or '')!r} has {one.size:,} bytes, expected at most "
                            f"{FILE_BYTES:,}; choose a smaller one",
                        )
                    paths.append(await asyncio.to_thread(self.files.add, one.file, one.size or 0))
            except OSError as error:
                self.files.remove(paths)
                raise _no_space(error) from error
            except BaseException:
                self.files.remove(paths)
                raise
            finally:
                await form.close()
        if not paths:
            raise _too_many()
        asyncio.get_running_loop().call_later(self.unnamed_s, self.files.remove_unnamed, paths)
        return paths

    def _shown(self, path: str) -> Response:
        """An uploaded image, for the page that has just sent it."""
        if path in self.files:
            content = self.files.read(path, "image")
            for start, kind in _SHOWN.items():
                if content.startswith(start):
                    return Response(content, media_type=kind)
        return PlainTextResponse("image is not here, expected one that was just sent; send it again", 404)


async def _form(request: Request) -> FormData:
    """A form of files only; they lie in memory or in files without a name until they are stored."""
    try:
        return await request.form(max_files=_MOST_FILES, max_fields=0)
    except (MultiPartException, HTTPException) as error:
        raise _too_many() from error
    except TimeoutError:  # an OSError, too
        raise
    except OSError as error:
        raise _no_space(error) from error


def _no_space(error: OSError) -> RequestError:
    return RequestError(
        507,
        f"upload cannot be stored ({error.strerror}), expected space in the server's temporary folder; free some",
    )


def _too_many() -> RequestError:
    return RequestError(
        400, f"upload is not a form of 1 to {_MOST_FILES} files, expected that; send fewer files at a time"
    )


def _with_length(scope: Scope, n_bytes: int) -> Scope:
    dropped = (b"content-length", b"transfer-encoding")
    headers = [(key, value) for key, value in scope["headers"] if key not in dropped]
    return {**scope, "query_string": b"", "headers": [*headers, (b"content-length", b"%d" % n_bytes)]}


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive function that gives this body, and then what really comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
