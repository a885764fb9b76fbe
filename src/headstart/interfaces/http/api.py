"""The HTTP server's routes: images in, predictions out; every error is one sentence with its own status."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from headstart import __version__
from headstart.errors import nearest
from headstart.interfaces.http.access import Access, check_framing
from headstart.interfaces.http.exchange import Exchange
from headstart.interfaces.http.images import Preparer
from headstart.interfaces.http.limits import Budget, Limits, RequestError, printable
from headstart.interfaces.http.metrics import CONTENT_TYPE, ServerMetrics
from headstart.interfaces.http.options import requested_options
from headstart.interfaces.http.served import Served, Share
from headstart.interfaces.http.spec import docs_page, openapi
from headstart.interfaces.http.uploads import Bodies, Upload, uploads
from headstart.models.model import Model
from headstart.records import Array

__all__ = ["App", "Share", "make_app"]

_LOG = logging.getLogger(__name__)
_OPEN = ("/healthz", "/readyz")  # an orchestrator requests these without a token
_WITH_BODY = "/predict"
_PAGES = (*_OPEN, "/metrics", "/openapi.json", "/docs", "/v1/models")
_CLIENT_GONE = 499  # the client left: this status is only counted
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


def make_app(
    models: Mapping[str, Model],
    *,
    token: str | None = None,
    limits: Limits | None = None,
    precision: str = "fp32",
    share: Share | None = None,
    access: Access | None = None,
) -> App:
    """Make the application that serves these models; without ``access``, web pages of its own may use it."""
    access = access or Access(None, token is None)
    return App(models, token, limits or Limits(), precision, share or Share(), access)


class App:
    """An ASGI application; ``draining`` is set before it stops, and ``/readyz`` reports it."""

    def __init__(
        self,
        models: Mapping[str, Model],
        token: str | None,
        limits: Limits,
        precision: str,
        share: Share,
        access: Access,
    ) -> None:
        self.draining = False
        self._limits, self._access = limits, access
        self._token = None if token is None else token.encode()
        self._bodies = Bodies(limits.bodies_bytes)
        self._waiting = Budget(limits.waiting, "too many images waiting")
        self._requests = Budget(limits.requests, "too many requests")
        self._server_metrics = ServerMetrics()
        self._preparer = Preparer(limits, n_threads=share.n_threads, turn=share.turn)
        self._models = {
            name: Served(name, model, self._server_metrics, precision, share)
            for name, model in models.items()
        }
        document = openapi(limits, list(models), __version__, token=token is not None)
        self._spec, self._page = json.dumps(document), docs_page(document)
        self._router = Router(
            [
                Route(path, _Endpoint(function), methods=[method])
                for method, path, function in (
                    ("POST", "/v1/models/{name}/predict", self._predict),
                    ("GET", "/v1/models/{name}", self._model),
                    ("GET", "/v1/models", self._list),
                    ("GET", "/healthz", self._health),
                    ("GET", "/readyz", self._ready),
                    ("GET", "/metrics", self._metrics),
                    ("GET", "/openapi.json", self._openapi),
                    ("GET", "/docs", self._docs),
                )
            ],
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, as defined by ASGI."""
        if scope["type"] != "http":
            return
        begun = time.perf_counter()
        scope["app"] = self
        exchange = Exchange(scope, receive, send, self._access.headers(scope))
        try:
            await self._handle(scope, exchange)
        except RequestError as error:
            await _send_error(exchange, error)
        except HTTPException as error:
            await _send_error(exchange, _unrouted(scope, error))
        except ClientDisconnect:
            exchange.status = _CLIENT_GONE
        except Exception as error:  # our fault: log where, never what was sent
            where = traceback.extract_tb(error.__traceback__)[-1]
            _LOG.error("unexpected %s at %s:%s", type(error).__name__, where.filename, where.lineno)
            await _send_error(
                exchange, RequestError(500, "server had an unexpected error; its log says where")
            )
        finally:
            self._server_metrics.request(_route(scope["path"]), exchange.status, time.perf_counter() - begun)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(self._models)

    def close(self) -> None:
        """Shut down all threads."""
        self._preparer.close()
        for served in self._models.values():
            served.batcher.close()

    def drain(self) -> None:
        """Report from now on that the server is stopping."""
        self.draining = True

    async def _handle(self, scope: Scope, exchange: Exchange) -> None:
        check_framing(scope)
        if (headers := self._access.preflight(scope)) is not None:
            await Response(status_code=204, headers=headers)(scope, exchange.receive, exchange.send)
            return
        self._access.check(scope)
        if scope["path"] not in _OPEN:
            self._check_token(scope)
        # a request with a body counts once the body is complete, or clients that send none could keep others out
        later = scope["path"] in _OPEN or scope["path"].endswith(_WITH_BODY)
        with nullcontext() if later else self._requests.held(1):
            await self._router(scope, exchange.receive, exchange.send)

    def _check_token(self, scope: Scope) -> None:
        if self._token is None:
            return
        given = [value for key, value in scope["headers"] if key == b"authorization"]
        kind, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise RequestError(
                401,
                f"token is {'wrong' if given else 'missing'}, expected the header "
                "'Authorization: Bearer TOKEN'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _predict(self, request: Request) -> Response:
        served, (top, level) = self._served(request), requested_options(request)
        rule = served.sets(level)
        async with uploads(request, self._limits, self._bodies) as sent:
            with (
                self._requests.held(1),
                self._waiting.held(len(sent)),
                self._server_metrics.waiting(len(sent)),
            ):
                outputs = await self._outputs(served, sent)
        predictions = [
            served.prediction(upload, values, top, rule) for upload, values in zip(sent, outputs, strict=True)
        ]
        sets = {} if rule is None else {"sets": {"level": rule.level, "remark": rule.remark}}
        return _json({"model": served.name, "predictions": predictions, **sets})

    async def _outputs(self, served: Served, sent: Sequence[Upload]) -> list[tuple[Array, ...]]:
        """The network's outputs for every image, or one error that counts all faults."""
        try:
            async with asyncio.timeout(self._limits.answer_s):
                if len(sent) == 1:
                    return [await self._one(served, sent[0])]
                found = await asyncio.gather(
                    *(self._one(served, upload) for upload in sent), return_exceptions=True
                )
        except TimeoutError as error:
            raise RequestError(
                504,
                f"response took longer than {self._limits.answer_s:g} s, expected fewer or smaller images; "
                "try again later",
                retry_after_s=5,
            ) from error
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, RequestError):
                raise one
        faults = [one for one in found if isinstance(one, RequestError)]
        if faults:
            more = f"; also {len(faults) - 1} more" if len(faults) > 1 else ""
            raise RequestError(faults[0].status, f"{faults[0]}{more}")
        return [one for one in found if not isinstance(one, BaseException)]

    async def _one(self, served: Served, upload: Upload) -> tuple[Array, ...]:
        name = upload.name or "body"
        image = await self._preparer.prepare(upload.data, name, served.model.manifest.input)
        return served.checked(await served.batcher.submit(image))

    def _served(self, request: Request) -> Served:
        name = request.path_params["name"]
        if name not in self._models:
            raise RequestError(
                404,
                f"model {printable(name)!r} is unknown, expected one of /v1/models, "
                f"{nearest(printable(name), self._models)}",
            )
        return self._models[name]

    async def _list(self, request: Request) -> Response:
        return _json({"models": [served.about for served in self._models.values()]})

    async def _model(self, request: Request) -> Response:
        return _json(self._served(request).about)

    async def _health(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def _ready(self, request: Request) -> Response:
        if self.draining:
            raise RequestError(503, "server is stopping, expected another; ask there", retry_after_s=5)
        return _json({"status": "ready"})

    async def _metrics(self, request: Request) -> Response:
        return Response(self._server_metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def _openapi(self, request: Request) -> Response:
        return Response(self._spec, media_type="application/json")

    async def _docs(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"content-security-policy": _PAGE_POLICY})


class _Endpoint:
    """A function as a route's application, as starlette makes one, but without its handlers of exceptions."""

    def __init__(self, function: Callable[[Request], Awaitable[Response]]) -> None:
        self._function = function

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._function(Request(scope, receive, send))
        await response(scope, receive, send)


async def _send_error(exchange: Exchange, error: RequestError) -> None:
    await exchange.send_last(_json({"error": str(error)}, error.status, error.headers))


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_ENCODER.encode(value), status, headers, media_type="application/json")


def _unrouted(scope: Scope, error: HTTPException) -> RequestError:
    headers = dict(error.headers or {})
    if error.status_code == 405:
        method = printable(scope["method"])
        return RequestError(
            405, f"method is {method}, expected {headers.get('Allow', 'another')}", headers=headers
        )
    path = printable(scope["path"])
    return RequestError(
        error.status_code, f"path {path!r} is unknown, expected one listed at /docs", headers=headers
    )


def _route(path: str) -> str:
    """The route's pattern: names that clients make up must not become metrics."""
    if path.startswith("/v1/models/"):
        return "/v1/models/{name}/predict" if path.endswith(_WITH_BODY) else "/v1/models/{name}"
    return path if path in _PAGES else "other"
