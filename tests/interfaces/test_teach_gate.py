"""The gate before gradio: only the page's own routes, by the page itself, and no file but those just sent."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_teach_classroom import picture

from headstart.errors import DataError
from headstart.interfaces.http.access import make_access
from headstart.interfaces.http.limits import Limits
from headstart.interfaces.teach import gate as gate_module
from headstart.interfaces.teach.gate import FILE_BYTES, Gate
from headstart.interfaces.teach.waiting_files import WaitingFiles

JOIN, UPLOAD, FILE = "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/file="


class Behind:
    """What stands for gradio: it notes what reaches it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        length = dict(scope["headers"]).get(b"content-length")
        assert scope["method"] == "GET" or length == str(len(body)).encode()
        self.seen.append((scope["method"], scope["path"], scope["query_string"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def gate(behind: Behind, tmp_path: Path) -> Gate:
    return Gate(behind, make_access("127.0.0.1", "127.0.0.1"), WaitingFiles(tmp_path))


def ask(gate: Gate, method: str, path: str, **more: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(app=gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:7860") as client:
            return await client.request(method, path, **more)

    return asyncio.run(work())


def upload(gate: Gate, *contents: bytes, **more: Any) -> httpx.Response:
    files = [("files", (f"{place}.png", one)) for place, one in enumerate(contents)]
    return ask(gate, "POST", UPLOAD, files=files, **more)


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/index-abc.js", "/static/img/logo.svg", "/gradio_api/info"]
    + ["/gradio_api/heartbeat/x1y2", "/gradio_api/queue/data?session_hash=x1y2"],
)
def test_what_the_page_uses_passes(gate: Gate, behind: Behind, path: str) -> None:
    answer = ask(gate, "GET", path)
    assert answer.status_code == 200 and len(behind.seen) == 1
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/api/predict"),
        ("POST", "/gradio_api/call/predict"),
        ("POST", "/gradio_api/stream/x"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/login"),
        ("POST", "/"),
        ("PUT", JOIN),
        ("OPTIONS", JOIN),
        ("GET", UPLOAD),
        ("GET", "/gradio_api/proxy=https://x.hf.space/a"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("GET", f"{FILE}/etc/passwd"),
        ("GET", f"{FILE}https://example.com/x.png"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/gradio_api/custom_component/x/y/z/w"),
        ("GET", "/gradio_api/dev/reload"),
        ("GET", "/gradio_api/heartbeat/../x"),
        ("GET", "/assets/..%2f..%2fpage.py"),
        ("GET", "/assets/%2e%2e/routes.py"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("GET", "/%1b%0a"),
    ],
)
def test_all_else_stays_out(gate: Gate, behind: Behind, method: str, path: str) -> None:
    answer = ask(gate, method, path)
    assert answer.status_code == 404 and behind.seen == [], answer.text
    assert ", expected " in answer.text and answer.text.isprintable()


def test_options_of_pages_are_dropped(gate: Gate, behind: Behind) -> None:
    for query in ("?deep_link=../../x", "?__theme=dark", "?__theme=dark&view=api"):
        ask(gate, "GET", f"/{query}")
    assert [one[2] for one in behind.seen] == [b"", b"__theme=dark", b""]


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/config"), ("POST", UPLOAD), ("POST", JOIN)]
)
def test_other_pages_and_names_are_refused(
    gate: Gate, behind: Behind, tmp_path: Path, method: str, path: str, headers: dict[str, str]
) -> None:
    assert ask(gate, method, path, headers=headers, content=b"{}").status_code == 403
    assert upload(gate, b"x", headers=headers).status_code == 403
    assert behind.seen == [] and list(tmp_path.iterdir()) == []


def test_an_upload_is_a_file_of_ours(gate: Gate, behind: Behind, tmp_path: Path) -> None:
    image = picture("ring", 1)
    answer = ask(gate, "POST", UPLOAD, files=[("files", ("../../up.png", image)), ("files", ("b", b"text"))])
    paths = answer.json()
    assert answer.status_code == 200 and behind.seen == []
    assert [Path(one).parent for one in paths] == [tmp_path, tmp_path]
    assert [Path(one).read_bytes() for one in paths] == [image, b"text"]
    shown = ask(gate, "GET", FILE + paths[0])
    assert (shown.content, shown.headers["content-type"]) == (image, "image/png")
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert ask(gate, "GET", FILE + paths[1]).status_code == 404  # nothing but images is shown
    assert ask(gate, "GET", f"{FILE}{paths[0]}/../{Path(paths[1]).name}").status_code == 404


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "multipart/form-data; boundary=b", 400),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 400),
        (b"hello", "multipart/form-data", 400),
        (b"hello", "text/plain", 400),
        (
            b'--b\r\ncontent-disposition: form-data; name="x"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            400,
        ),
        (b"--b\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b", 400),
        (b"a=b", "application/x-www-form-urlencoded", 400),
    ],
)
def test_malformed_uploads(gate: Gate, tmp_path: Path, body: bytes, kind: str, status: int) -> None:
    answer = ask(gate, "POST", UPLOAD, content=body, headers={"content-type": kind})
    assert answer.status_code == status and ", expected " in answer.text
    assert list(tmp_path.iterdir()) == [] and gate._uploading.taken == 0


def test_large_uploads_are_refused_and_leave_nothing(gate: Gate, tmp_path: Path) -> None:
    answer = upload(gate, b"small", bytes(FILE_BYTES + 1))
    assert answer.status_code == 413 and "'1.png'" in answer.text
    assert list(tmp_path.iterdir()) == []
    gate.uploads = Limits(body_bytes=1000, bodies_bytes=1500)
    assert upload(gate, bytes(2000)).status_code == 413
    many = upload(gate, *[b"x"] * (gate_module._MOST_FILES + 1))
    assert many.status_code in (400, 413)
    assert list(tmp_path.iterdir()) == [] and gate._uploading.taken == 0


def test_an_upload_that_stalls_leaves_nothing(gate: Gate, tmp_path: Path) -> None:
    gate.uploads = Limits(stall_s=0.1, rate_bytes_s=1000)

    async def body() -> Any:
        yield b'--b\r\ncontent-disposition: form-data; name="files"; filename="x"\r\n\r\n' + bytes(50)
        await asyncio.sleep(5)
        yield b"\r\n--b--\r\n"

    answer = ask(
        gate, "POST", UPLOAD, content=body(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 408 and answer.headers["connection"] == "close"
    assert list(tmp_path.iterdir()) == [] and gate._uploading.taken == 0


def event(*data: Any, **more: Any) -> dict[str, Any]:
    return {
        "data": list(data),
        "fn_index": 3,
        "session_hash": "abc",
        "trigger_id": 9,
        "event_data": None,
        **more,
    }


def test_events_pass_with_their_known_fields(gate: Gate, behind: Behind) -> None:
    sent = event("Draw", "data:image/png;base64,AAAA", None, None, oauth_token="x", batched=True, url="y")
    assert ask(gate, "POST", JOIN, json=sent).status_code == 200
    assert json.loads(behind.seen[0][3]) == event("Draw", "data:image/png;base64,AAAA", None, None)


def test_events_name_files_that_were_sent(gate: Gate, behind: Behind) -> None:
    (path,) = upload(gate, b"content").json()
    file = {
        "path": path,
        "url": "http://169.254.169.254/",
        "orig_name": "a\x1b.png",
        "size": 10**12,
        "is_stream": True,
        "meta": {"_type": "gradio.FileData"},
    }
    assert ask(gate, "POST", JOIN, json=event("Files", "", [file], None)).status_code == 200
    (cleaned,) = json.loads(behind.seen[0][3])["data"][2]
    assert cleaned == {"path": path, "orig_name": "a?.png", "size": 7, "meta": {"_type": "gradio.FileData"}}


BEAT = "/gradio_api/heartbeat/abc"


class Held(Behind):
    """Heartbeats last until ``left`` is set, which ends the page that holds them."""

    left: asyncio.Event

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == BEAT:
            await self.left.wait()
        await super().__call__(scope, receive, send)


def test_files_of_a_page_go_with_it(tmp_path: Path) -> None:
    """One that was closed before its event came left its files for ever, whatever came of that event later."""

    async def work() -> None:
        behind = Held()
        behind.left = asyncio.Event()
        gate = Gate(behind, make_access("127.0.0.1", "127.0.0.1"), WaitingFiles(tmp_path), unnamed_s=0.2)
        transport = httpx.ASGITransport(app=gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:7860") as client:

            async def sent(content: bytes) -> str:
                return (await client.post(UPLOAD, files=[("files", ("x.png", content))])).json()[0]

            async def name(path: str, session: str) -> None:
                file = {"path": path, "meta": {"_type": "gradio.FileData"}}
                answer = await client.post(JOIN, json=event("Files", "", [file], None, session_hash=session))
                assert answer.status_code == 200

            pages = [asyncio.create_task(client.get(BEAT)) for _ in range(2)]
            await asyncio.sleep(0)
            while not gate.files._open["abc"] == 2:
                await asyncio.sleep(0.01)
            named, late, never = await sent(b"named"), await sent(b"late"), await sent(b"never")
            await name(named, "abc")
            await name(late, "gone")  # a session that is not open any more
            assert {Path(one).exists() for one in (named, late, never)} == {True}
            await asyncio.sleep(0.5)
            assert [Path(one).exists() for one in (named, late, never)] == [True, False, False]
            behind.left.set()
            await asyncio.gather(*pages)
            assert list(tmp_path.iterdir()) == [] and not gate.files._named and not gate.files._open

    asyncio.run(work())


META = {"_type": "gradio.FileData"}


@pytest.mark.parametrize(
    "value",
    [
        {"path": "/etc/passwd", "meta": META},
        {"path": "https://example.com/x.png", "meta": META},
        {"path": "x", "url": "data:image/svg+xml,x", "meta": META},
        {"url": "data:image/png;base64,AAAA"},
        {"deep": [{"path": "../../etc/passwd"}]},
        {"path": ["/etc/passwd"], "meta": META},
        {"path": None, "url": "file:///etc/passwd"},
        {"meta": META},
        {"__type__": "update", "value": {"path": "/etc/passwd", "meta": META}},
    ],
)
def test_events_name_no_other_file(gate: Gate, behind: Behind, value: dict[str, Any]) -> None:
    for sent in (event("Files", "", [value], None), event(value), event(event_data=value)):
        answer = ask(gate, "POST", JOIN, json=sent)
        assert answer.status_code == 422 and "no longer on the server" in answer.text
    assert behind.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b"3",
        b"[" * 100_000,
        b"\xff",
        b'{"session_hash": "../x"}',
        b'{"session_hash": ["a"]}',
    ],
)
def test_malformed_events(gate: Gate, behind: Behind, body: bytes) -> None:
    answer = ask(gate, "POST", JOIN, content=body)
    assert answer.status_code == 422 and ", expected " in answer.text and answer.text.isprintable()
    assert behind.seen == []


def test_a_long_event_is_refused(gate: Gate, behind: Behind) -> None:
    assert ask(gate, "POST", JOIN, json=event("Draw", "x" * 9 * 2**20)).status_code == 413
    assert behind.seen == [] and gate._messages.taken == 0


def test_waiting_files_have_a_limit(tmp_path: Path) -> None:
    """The oldest leave, so that a visitor who sends without end keeps nobody out."""
    files = WaitingFiles(tmp_path, limit_bytes=100, limit_files=3)
    first, second = (files.add(io.BytesIO(bytes(40)), 40) for _ in range(2))
    third = files.add(io.BytesIO(bytes(40)), 40)
    assert first not in files and second in files and third in files
    small = [files.add(io.BytesIO(b"x"), 1) for _ in range(3)]
    assert third not in files and all(one in files for one in small)
    assert {str(one) for one in tmp_path.iterdir()} == set(small)
    assert files.read(small[0], "a") == b"x" and files.size_bytes(small[0]) == 1
    with pytest.raises(DataError, match=r"a\.png is no longer on the server"):
        files.read(first, "a.png")
    with pytest.raises(DataError):
        files.read("/etc/passwd", "a.png")
    files.remove([*small, "/etc/passwd"])
    assert list(tmp_path.iterdir()) == [] and Path("/etc/passwd").exists()


def test_a_file_that_cannot_be_stored_leaves_nothing(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError(28, "No space left on device")

    files = WaitingFiles(tmp_path)
    with pytest.raises(OSError, match="No space"):
        files.add(Broken(), 5)
    assert list(tmp_path.iterdir()) == []
