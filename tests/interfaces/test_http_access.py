"""Which requests come in: names of this machine, the server's own pages, pages that were allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from test_http_api import PREDICT, TOKEN, ask, refused, send

from headstart.errors import SettingError
from headstart.interfaces.http.access import is_loopback, make_access
from headstart.interfaces.http.api import App, make_app
from tiny_model import picture, tiny_model

LOCAL = ("127.0.0.1", "127.0.0.1")


def made(*allowed: str, token: str | None = None, host: tuple[str, str] = LOCAL) -> App:
    access = make_access(*host, allow_origins=allowed, token=token)
    return make_app({"tiny": tiny_model()}, token=token, access=access)


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    one = made()
    yield one
    one.close()


def asked(app: App, host: str = "localhost", path: str = "/v1/models", **headers: str) -> httpx.Response:
    return ask(app, path=path, headers={"host": host, **headers})


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "digits.localhost:1",
        "127.0.0.1",
        "127.0.0.1:8000",
        "127.8.9.1",
        "[::1]",
        "[::1]:8000",
        "[::ffff:127.0.0.1]:80",
    ],
)
def test_names_of_this_machine(app: App, host: str) -> None:
    assert asked(app, host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:80:localhost",
        "notlocalhost",
        "0.0.0.0",
        "[::]",
        "192.168.1.7",
        "2130706433",
        "localhost@evil.example",
        "evil.example/localhost",
        "localhost\tevil",
        "",
        " ",
        "[::1",
        "\x80",
    ],
)
def test_other_names_are_refused(app: App, host: str) -> None:
    """A name that resolves to this machine is the way of a web page to look like the server's own."""
    for path in ("/v1/models", "/healthz", "/docs", "/nowhere"):
        answer = ask(app, path=path, headers=[(b"host", host.encode("latin-1"))])
        refused(answer, 403, "expected localhost", "--token")
    assert app._requests.taken == 0


def test_the_name_that_the_server_was_started_with() -> None:
    app = made(host=("Mybox", "127.0.1.1"))
    assert asked(app, "mybox:8000").status_code == 200 and asked(app, "other").status_code == 403
    app.close()


@pytest.mark.parametrize(("token", "host"), [(TOKEN, LOCAL), (None, ("0.0.0.0", "0.0.0.0"))])
def test_any_name_where_a_token_guards_or_others_may_come(token: str | None, host: tuple[str, str]) -> None:
    app = made(token=token, host=host)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    assert asked(app, "anything.example", **headers).status_code == 200
    app.close()


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "localhost:8000"),
        ("http://localhost:3000", "localhost:8000"),
        ("http://localhost", "localhost:8000"),
        ("http://127.0.0.1:8000", "localhost:8000"),
        ("null", "localhost:8000"),
        ("", "localhost:8000"),
        ("http://localhost:8000.evil.example", "localhost:8000"),
        ("http://localhost:8000/", "localhost:8000"),
        ("file://", "localhost:8000"),
    ],
)
def test_other_pages_are_refused(app: App, origin: str, host: str) -> None:
    headers = {"host": host, "origin": origin, "content-type": "image/png"}
    refused(ask(app, "POST", PREDICT, content=picture(0), headers=headers), 403, "--allow-origin")
    preflight = {"host": host, "origin": origin, "access-control-request-method": "POST"}
    answer = ask(app, "OPTIONS", PREDICT, headers=preflight)
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8000", "localhost:8000"),
        ("http://LOCALHOST:8000", "localhost:8000"),
        ("http://localhost", "localhost"),
        ("http://localhost", "localhost:80"),
        ("https://localhost", "localhost:443"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_its_own_pages_may_ask(app: App, origin: str, host: str) -> None:
    headers = {"host": host, "origin": origin, "content-type": "image/png"}
    assert ask(app, "POST", PREDICT, content=picture(0), headers=headers).status_code == 200


def test_two_origins_are_refused(app: App) -> None:
    pairs = [(b"host", b"localhost"), (b"origin", b"http://localhost"), (b"origin", b"http://evil.example")]
    assert ask(app, path="/v1/models", headers=pairs).status_code == 403


@pytest.mark.parametrize("allowed", ["https://Page.example/", "*"])
def test_an_allowed_page_reads_responses_and_errors(allowed: str) -> None:
    app = made(allowed)
    origin = {"origin": "https://page.example"}
    for answer in (asked(app, **origin), asked(app, path="/nowhere", **origin), send(app, b"x", **origin)):
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        assert answer.headers["vary"] == "Origin"
    preflight = ask(
        app,
        "OPTIONS",
        PREDICT,
        headers={"host": "localhost", "access-control-request-method": "POST", **origin},
    )
    assert preflight.status_code == 204 and preflight.content == b""
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "Content-Type" in preflight.headers["access-control-allow-headers"]
    other = asked(app, origin="https://other.example")
    assert other.status_code == (200 if allowed == "*" else 403)
    assert ("access-control-allow-origin" in other.headers) == (allowed == "*")
    refused(asked(app, "evil.example", **origin), 403, "expected localhost")
    app.close()


def test_an_allowed_page_still_shows_the_token() -> None:
    app = made("https://page.example", token=TOKEN)
    origin = {"origin": "https://page.example"}
    preflight = ask(app, "OPTIONS", PREDICT, headers={"access-control-request-method": "POST", **origin})
    assert preflight.status_code == 204
    answer = asked(app, **origin)
    refused(answer, 401)
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert asked(app, authorization=f"Bearer {TOKEN}", **origin).status_code == 200
    app.close()


def test_responses_are_what_they_are_called(app: App) -> None:
    for path in ("/v1/models", "/docs", "/nowhere"):
        assert asked(app, path=path).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "origin",
    ["example.com", "https://", "https://a.example/path", "ftp://a.example", "https://*.example", "", "a b"],
)
def test_an_invalid_origin(origin: str) -> None:
    with pytest.raises(SettingError, match="--allow-origin") as caught:
        make_access(*LOCAL, allow_origins=[origin])
    assert ", expected " in str(caught.value)


def test_allowed_origins_are_compared_as_browsers_send_them() -> None:
    access = make_access(
        *LOCAL, allow_origins=["HTTPS://Page.example:443", "http://page.example:80/", "null"]
    )
    assert access.allowed == {"https://page.example", "http://page.example", "null"}


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)]
    + [("::", False), ("10.0.0.1", False), ("example.com", False), ("fe80::1%eth0", False)],
)
def test_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) == loopback


@pytest.mark.parametrize("path", [PREDICT, "/healthz", "/v1/models"])
def test_two_ways_to_say_where_a_body_ends_are_refused(app: App, path: str) -> None:
    """Two programs in a row could take them differently: request smuggling."""

    def status(headers: list[tuple[bytes, bytes]], version: str) -> int:
        import asyncio

        said: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def keep(message: Any) -> None:
            said.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"localhost"), *headers],
            "http_version": version,
        }
        asyncio.run(app(scope, receive, keep))
        if said[0]["status"] == 400:
            assert (b"connection", b"close") in said[0]["headers"]
        return int(said[0]["status"])

    length, chunked = (b"content-length", b"5"), (b"transfer-encoding", b"chunked")
    assert status([length, chunked], "1.1") == status([chunked, length], "1.1") == 400
    assert status([chunked], "1.0") == 400
    assert status([chunked], "1.1") != 400
