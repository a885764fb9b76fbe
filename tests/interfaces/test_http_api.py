"""The HTTP interface: predictions, refusals and their status; never a 5xx for what a client sent."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from python_multipart.multipart import MultipartParser

from headstart.data.images import decode as pixels
from headstart.errors import SettingError
from headstart.interfaces.http.api import App, make_app
from headstart.interfaces.http.images import FORMATS, image_px
from headstart.interfaces.http.limits import Budget, Limits, RequestError, printable
from headstart.interfaces.http.uploads import _Form
from headstart.records import NONE_OF_THESE, InputSpec
from tiny_model import SPEC, noise, picture, tiny_model

PREDICT = "/v1/models/tiny/predict"
N_MUTATIONS = int(os.environ.get("HEADSTART_MUTATIONS", "200"))  # 2,000 take about half a minute
Files = Sequence[tuple[str, bytes]]


@pytest.fixture
def app() -> Iterator[App]:
    made = make_app({"tiny": tiny_model(), "novel": tiny_model(novelty=True)})
    yield made
    made.close()


def ask(app: App, method: str = "GET", path: str = PREDICT, **more: Any) -> httpx.Response:
    """One request in this process."""

    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=30) as client:
            return await client.request(method, path, **more)

    return asyncio.run(work())


def send(
    app: App, data: bytes, kind: str = "image/png", path: str = PREDICT, **headers: str
) -> httpx.Response:
    return ask(app, "POST", path, content=data, headers={"content-type": kind, **headers})


def send_form(app: App, files: Files, path: str = PREDICT, field: str = "files") -> httpx.Response:
    return ask(app, "POST", path, files=[(field, one) for one in files])


def refused(answer: httpx.Response, status: int, *words: str) -> None:
    """The status, and one sentence in our form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert list(said) == ["error"] and "\n" not in said["error"] and "expected" in said["error"], said
    for word in words:
        assert word in said["error"], said


def test_a_body_is_an_image(app: App) -> None:
    answer = send(app, picture(255 * 3 // 4))
    assert answer.status_code == 200
    (said,) = answer.json()["predictions"]
    assert answer.json()["model"] == "tiny"
    assert said["file"] is None and said["class"] == "light" and said["novelty"] is None
    assert said["probability"] == pytest.approx(191 / 255, abs=1e-5)
    assert [one["name"] for one in said["classes"]] == ["light", "dark"]


def test_a_form_holds_images_in_order(app: App) -> None:
    values = [0, 255, 30, 200, 90] * 12
    files = [(f"{place} é.png", picture(value)) for place, value in enumerate(values)]
    said = send_form(app, files).json()["predictions"]
    assert [one["file"] for one in said] == [name for name, _ in files]
    assert [one["classes"][0]["name"] for one in said] == ["dark" if v < 128 else "light" for v in values]


@pytest.mark.parametrize(
    ("value", "called", "novelty"), [(100, "dark", 200 / 255), (250, NONE_OF_THESE, 500 / 255)]
)
def test_a_novel_image_is_none_of_these(app: App, value: int, called: str, novelty: float) -> None:
    (said,) = send(app, picture(value), path="/v1/models/novel/predict").json()["predictions"]
    assert said["class"] == called and said["novelty"] == pytest.approx(novelty, abs=1e-5)


def test_what_is_no_probability_is_an_error_of_its_image_alone() -> None:
    """0/0 for a black image; a white one in the same batch is predicted."""
    graph = onnx.ModelProto.FromString(tiny_model().graph)
    (share,) = (node for node in graph.graph.node if node.op_type == "Div")
    share.input[1] = "mean"
    app = make_app({"tiny": replace(tiny_model(), graph=graph.SerializeToString())})

    async def together() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=30) as client:
            kind = {"content-type": "image/png"}
            sent = [client.post(PREDICT, content=picture(value), headers=kind) for value in (0, 255, 0)]
            return await asyncio.gather(*sent)

    black, white, again = asyncio.run(together())
    app.close()
    for answer in (black, again):
        refused(answer, 500, "model 'tiny' gives values that are not probabilities")
    assert white.status_code == 200 and white.json()["predictions"][0]["class"] == "light"


def test_the_prediction_is_the_models(app: App) -> None:
    """The same pixels, whatever the way: a colour photo of another size, through threads."""
    from headstart.data import from_arrays

    colours = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(colours).save(made, "PNG")
    direct = tiny_model().probabilities(from_arrays(colours[None], ["x"]))[0]
    (said,) = send(app, made.getvalue()).json()["predictions"]
    found = {one["name"]: one["probability"] for one in said["classes"]}
    assert [found["dark"], found["light"]] == pytest.approx(direct.tolist(), abs=2e-6)


@pytest.mark.parametrize(("query", "n"), [("", 2), ("?top=1", 1), ("?top=2", 2), ("?top=100000", 2)])
def test_top(app: App, query: str, n: int) -> None:
    (said,) = send(app, picture(9), path=PREDICT + query).json()["predictions"]
    assert len(said["classes"]) == n


@pytest.mark.parametrize(
    "query", ["top=0", "top=-1", "top=x", "top=", "top=1&top=2", "top=1e3", "top=100001", "k=1"]
)
def test_an_invalid_option_is_named(app: App, query: str) -> None:
    refused(send(app, picture(9), path=f"{PREDICT}?{query}"), 422, query.partition("=")[0])


@pytest.mark.parametrize("query", ["sets=0", "sets=1", "sets=95", "sets=nan", "sets=", "sets=0.9&sets=0.9"])
def test_an_invalid_level_is_named(app: App, query: str) -> None:
    refused(send(app, picture(9), path=f"{PREDICT}?{query}"), 422, "sets", "expected one share in (0, 1)")


def test_sets_are_answered_where_the_model_has_left_out_scores(app: App) -> None:
    note = {"rule": "probability", "left_out": [0.1] * 18 + [0.6], "n_images": 19, "n_clusters": 19}
    manifest = replace(tiny_model().manifest, answer_sets={**note, "images": "validation"})
    served = make_app({"tiny": replace(tiny_model(), manifest=manifest)})
    answers = [send(served, picture(value), path=f"{PREDICT}?sets=0.95&top=1").json() for value in (9, 120)]
    assert [one["predictions"][0]["answer_set"] for one in answers] == [["dark"], ["dark", "light"]]
    assert (
        answers[0]["sets"] == {"level": 0.95, "remark": None}
        and "sets" not in send(served, picture(9)).json()
    )
    higher = send(served, picture(9), path=f"{PREDICT}?sets=0.99").json()
    assert higher["predictions"][0]["answer_set"] == ["dark", "light"]
    assert "expected at least 99" in higher["sets"]["remark"]
    served.close()
    refused(send(app, picture(9), path=f"{PREDICT}?sets=0.95"), 422, "no left-out scores")


def test_pages(app: App) -> None:
    assert [one["name"] for one in ask(app, path="/v1/models").json()["models"]] == ["tiny", "novel"]
    one = ask(app, path="/v1/models/novel").json()
    assert (one["classes"], one["novelty"]) == (["dark", "light"], {"by": "hand", "false_rejection": 0.5})
    assert one["input"]["width_px"] == 8 and one["strategy"] == "by hand" and one["data"]["name"] == "none"
    assert ask(app, path="/healthz").json() == {"status": "ok"}
    assert ask(app, path="/readyz").json() == {"status": "ready"}
    app.draining = True
    refused(ask(app, path="/readyz"), 503)
    assert ask(app, path="/healthz").status_code == 200


def test_documents_load_nothing(app: App) -> None:
    page = ask(app, path="/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"<script|<link|<img|https?://(?!127\.0\.0\.1)|url\(", page.text), page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    paths = ask(app, path="/openapi.json").json()["paths"]
    for path in paths:
        assert path in page.text
    assert "/v1/models/{name}/predict" in paths


def figures(app: App) -> dict[tuple[str, ...], float]:
    text = ask(app, path="/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_requests_and_images(app: App) -> None:
    send_form(app, [("a", picture(1)), ("b", picture(2)), ("c", noise(1, 80, "PNG"))])
    send(app, b"no image")
    for name in ("x", "y"):
        ask(app, path=f"/v1/models/{name}")
        ask(app, path=f"/{name}")
    found = figures(app)
    route = "/v1/models/{name}/predict"
    assert found["headstart_requests_total", route, "200"] == 1
    assert found["headstart_requests_total", route, "422"] == 1
    assert found["headstart_requests_total", "/v1/models/{name}", "404"] == 2
    assert found["headstart_requests_total", "other", "404"] == 2
    assert found["headstart_request_seconds_count", route] == 2
    assert found["headstart_batch_images_sum", "tiny"] == 3
    assert found["headstart_waiting_images",] == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("GET", PREDICT, 405, "POST"),
        ("DELETE", "/v1/models", 405, "GET"),
        ("PURGE", PREDICT, 405, "POST"),
        ("POST", "/healthz", 405, "GET"),
        ("GET", "/", 404, "/docs"),
        ("GET", "/v1/models/", 404, ""),
        ("POST", "/v1/models/nope/predict", 404, "novel"),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404, ""),
        ("POST", "/v1/models/%2e%2e/predict", 404, ""),
        ("POST", "/v1/models/tiny%00/predict", 404, ""),
        ("GET", "/v1/models/" + "x" * 5000, 404, "…"),
        ("GET", "/v1/models/%1b%5b2J%0a", 404, "?[2J?"),
    ],
)
def test_wrong_addresses(app: App, method: str, path: str, status: int, word: str) -> None:
    answer = ask(app, method, path)
    refused(answer, status, word)
    assert len(answer.text) < 400
    if status == 405:
        assert word in answer.headers["allow"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello", "not an image"),
        (noise(0, 40, "PNG")[:-400], "truncated"),
        (noise(0, 40, "JPEG")[:300], "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
    ],
)
def test_incomplete_images_are_refused(app: App, data: bytes, words: str) -> None:
    refused(send(app, data), 422, words)
    refused(send_form(app, [("good.png", picture(1)), ("bad\n\x1b.png", data)]), 422, words, "bad")


def test_faults_of_one_request_are_reported_together(app: App) -> None:
    refused(send_form(app, [("a", b""), ("b", b"x"), ("c", picture(1)), ("d", b"y")]), 422, "'a'", "2 more")


def png_of(width: int, height: int, more: bytes = b"") -> bytes:
    """A tiny file whose header promises a large image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + more
        + chunk(b"IDAT", zlib.compress(bytes(9000)))
        + chunk(b"IEND", b"")
    )


def test_a_bomb_behind_a_small_blank_page_is_refused_by_its_header(app: App) -> None:
    """The first page was checked, and the second one of 89 million pixels decoded in the event loop."""
    made = io.BytesIO()
    later = Image.new("1", (9000, 9000), 1)
    Image.new("1", (8, 8)).save(made, "TIFF", save_all=True, append_images=[later], compression="group4")
    assert len(made.getvalue()) < 8192
    refused(send(app, made.getvalue()), 413, "9000 x 9000")


@pytest.mark.parametrize(
    ("width", "height"), [(60_000, 60_000), (8000, 6000), (2**31 - 1, 1), (40_000_001, 1)]
)
def test_a_bomb_is_refused_by_its_header(app: App, width: int, height: int) -> None:
    bomb = png_of(width, height)
    assert len(bomb) < 10_000
    refused(send(app, bomb), 413, str(width))
    gif = bytearray(picture(1, kind="GIF"))
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    refused(send(app, bytes(gif), "image/gif"), 413)


def test_a_second_header_does_not_hide_the_size(app: App) -> None:
    second = png_of(60_000, 60_000)[8:33]
    refused(send(app, png_of(8, 8, second)), 413, "60000")


def test_the_first_of_several_frames_is_used(app: App) -> None:
    made = io.BytesIO()
    frames = [Image.new("L", (20, 20), value) for value in (250, 0, 0)]
    frames[0].save(made, "GIF", save_all=True, append_images=frames[1:])
    (said,) = send(app, made.getvalue(), "image/gif").json()["predictions"]
    assert said["class"] == "light"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("image/png", 200),
        ("IMAGE/JPEG; charset=x", 200),
        ("application/octet-stream", 200),
        ("text/plain", 415),
        ("application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
        ("multipart/mixed; boundary=b", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=b", 400),
    ],
)
def test_content_types(app: App, kind: str, status: int) -> None:
    answer = send(app, picture(7), kind)
    assert answer.status_code == status, answer.text
    if status != 200:
        refused(answer, status)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"--b--\r\n", 422),
        (b"--b\r\n", 400),
        (b"--bb\r\n\r\nx\r\n--bb--", 400),
        (b"--b\r\n\r\nx\r\n--b--", 422),
        (b'--b\r\ncontent-disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n', 422),
        (b'--b\r\ncontent-disposition: form-data; name="files"\r\n\r\nx\r\n--b--\r\n', 422),
        (b'--b\r\ncontent-disposition: form-data; name="files"\r\n\r\nx', 400),
        (b"--b\r\n" + b"x: " + b"y" * 9000 + b"\r\n\r\nx\r\n--b--", 400),
        (b"\r\n" * 100_000, 400),
    ],
)
def test_malformed_forms(app: App, body: bytes, status: int) -> None:
    refused(send(app, body, "multipart/form-data; boundary=b"), status)


def test_a_field_without_a_name_for_its_file(app: App) -> None:
    body = b'--b \t\r\nContent-Disposition: form-data; name="files"\r\n\r\n' + picture(0) + b"\r\n--b--"
    (said,) = send(app, body, 'multipart/form-data; boundary="b"').json()["predictions"]
    assert said["file"] == "image 1" and said["class"] == "dark"


def parsed_elsewhere(body: bytes) -> list[tuple[dict[str, str], bytes]]:
    """What another parser, python-multipart, finds."""
    parts: list[tuple[dict[str, str], bytearray]] = []
    state: dict[str, bytes] = {"key": b"", "value": b""}

    def end() -> None:
        parts[-1][0][state["key"].decode("latin-1").lower()] = state["value"].decode("latin-1")
        state.update(key=b"", value=b"")

    parser = MultipartParser(
        b"bound",
        {
            "on_part_begin": lambda: parts.append(({}, bytearray())),
            "on_part_data": lambda data, start, stop: parts[-1][1].extend(data[start:stop]),
            "on_header_field": lambda data, start, stop: state.update(key=state["key"] + data[start:stop]),
            "on_header_value": lambda data, start, stop: state.update(
                value=state["value"] + data[start:stop]
            ),
            "on_header_end": end,
        },
    )
    parser.write(body)
    parser.finalize()
    return [(headers, bytes(data)) for headers, data in parts]


@pytest.mark.slow
@given(
    st.lists(
        st.lists(st.sampled_from([b"\r\n", b"--", b"\r\n--boun", b"x", b"\r", b"\0"])).map(b"".join),
        max_size=5,
    )
)
@settings(max_examples=150, deadline=None)
def test_forms_are_read_as_another_parser_reads_them(contents: list[bytes]) -> None:
    head = b'--bound\r\nContent-Disposition: form-data; name="files"; filename="%d"\r\nX: y\r\n\r\n'
    body = b"".join(head % place + data + b"\r\n" for place, data in enumerate(contents)) + b"--bound--\r\n"
    if not contents:
        with pytest.raises(RequestError, match="no image"):
            _Form(b"bound", Limits())(body)
        return
    ours = _Form(b"bound", Limits())(body)
    assert [(one.name, one.data) for one in ours] == list(
        zip(map(str, range(len(contents))), contents, strict=True)
    )
    assert [data for _, data in parsed_elsewhere(body)] == contents


def test_too_many_files(app: App) -> None:
    assert send_form(app, [("a", picture(1))] * 64).status_code == 200
    refused(send_form(app, [("a", picture(1))] * 65), 413, "64")
    body = (
        b'--b\r\ncontent-disposition: form-data; name="files"; filename="x"\r\n\r\nx\r\n' * 10_000 + b"--b--"
    )
    refused(send(app, body, "multipart/form-data; boundary=b"), 413, "64")


@pytest.mark.parametrize(
    ("sent", "back"),
    [
        ("../../etc/passwd", "../../etc/passwd"),
        ("C:\\x\\y.png", "C:\\x\\y.png"),
        ('a"b.png', "a%22b.png"),
        ("naïve ☃.png", "naïve ☃.png"),
        ("x" * 3000, "x" * 29 + "…" + "x" * 30),
        ("a\u202eb\u0007", "a?b?"),
    ],
)
def test_names_are_only_displayed(app: App, sent: str, back: str) -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="files"; filename="'
    body += sent.replace("\\", "\\\\").replace('"', "%22").encode() + b'"\r\n\r\n' + picture(0) + b"\r\n--b--"
    (said,) = send(app, body, "multipart/form-data; boundary=b").json()["predictions"]
    assert said["file"] == back


@given(st.text(max_size=400))
@settings(max_examples=100, deadline=None)
def test_shown_is_short_and_printable(name: str) -> None:
    made = printable(name)
    assert len(made) <= 60 and made.isprintable()
    assert made == name or len(name) > 60 or not name.isprintable()


def limited(**values: Any) -> App:
    return make_app({"tiny": tiny_model()}, limits=Limits(**values))


def pieces(total: int, each: int = 65_536) -> Any:
    """A body whose length nobody announced, and how much of it was read."""
    read = [0]

    async def body() -> Any:
        while read[0] < total:
            read[0] += each
            yield bytes(each)

    return body(), read


def test_a_long_body_is_refused_while_it_comes() -> None:
    app = limited(body_bytes=1_000_000)
    refused(send(app, bytes(1_000_001)), 413, "1,000,000")
    refused(send(app, bytes(1_000_000)), 422)
    refused(
        ask(app, "POST", content=b"x", headers={"content-type": "image/png", "content-length": "9" * 30}), 413
    )
    assert app._bodies.taken == 0
    app.close()


def test_a_long_body_without_a_length_is_refused_while_it_comes() -> None:
    app = limited(body_bytes=1_000_000)
    taken: list[int] = []
    body, _ = pieces(3_000_000)

    async def work() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://here"
        ) as client:
            answer = await client.post(PREDICT, content=body, headers={"content-type": "image/png"})
            taken.append(app._bodies.taken)
            return answer

    refused(asyncio.run(work()), 413)
    assert taken == [0]
    app.close()


def test_all_bodies_together_are_bounded() -> None:
    app = limited(bodies_bytes=1000)
    refused(send(app, bytes(1001)), 503, "try again")
    assert send(app, bytes(1001)).headers["retry-after"] == "1"
    assert send(app, picture(1)).status_code == 200
    app.close()


def test_all_requests_together_are_bounded() -> None:
    app = limited(requests=0)
    refused(ask(app, path="/v1/models"), 503)
    assert ask(app, path="/healthz").status_code == 200
    app.close()


def test_waiting_images_are_bounded() -> None:
    app = limited(waiting=3)
    assert send_form(app, [("a", picture(1))] * 3).status_code == 200
    answer = send_form(app, [("a", picture(1))] * 4)
    refused(answer, 503)
    assert answer.headers["retry-after"] == "1" and app._waiting.taken == 0
    app.close()


def test_a_late_prediction_is_a_timeout_and_releases_its_budget() -> None:
    app = limited(answer_s=0.001)
    answer = send(app, noise(0, 500, "PNG"))
    refused(answer, 504)
    assert int(answer.headers["retry-after"]) > 0
    assert app._waiting.taken == 0 and app._bodies.taken == 0
    app.close()


def test_a_slow_body_is_a_timeout() -> None:
    app = limited(body_s=0.05)

    async def slow() -> Any:
        yield b"x"
        await asyncio.sleep(0.5)
        yield b"x"

    async def work() -> tuple[int, list[bytes]]:
        said: list[Any] = []
        given = slow()

        async def receive() -> Any:
            try:
                return {"type": "http.request", "body": await anext(given), "more_body": True}
            except StopAsyncIteration:
                return {"type": "http.disconnect"}

        async def keep(message: Any) -> None:
            said.append(message)

        headers = [(b"content-type", b"image/png"), (b"transfer-encoding", b"chunked")]
        scope = {"type": "http", "method": "POST", "path": PREDICT, "query_string": b"", "headers": headers}
        await app(scope, receive, keep)
        return said[0]["status"], said[0]["headers"]

    status, headers = asyncio.run(work())
    assert status == 408 and (b"connection", b"close") in headers
    app.close()


class Sender:
    """One request whose body comes in pieces that the test sends."""

    def __init__(self, app: App, n_bytes: int) -> None:
        self.app, self.n_bytes = app, n_bytes
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.status = 0
        self.task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> int:
        left = self.n_bytes

        async def receive() -> Any:
            nonlocal left
            piece = await self.pieces.get()
            left -= len(piece)
            return {"type": "http.request", "body": piece, "more_body": left > 0}

        async def keep(message: Any) -> None:
            self.status = self.status or message["status"]

        headers = [(b"content-type", b"image/png"), (b"content-length", str(self.n_bytes).encode())]
        scope = {"type": "http", "method": "POST", "path": PREDICT, "query_string": b"", "headers": headers}
        await self.app(scope, receive, keep)
        return self.status


def test_bytes_that_are_only_announced_count_for_nothing() -> None:
    """Eight clients that announce much and send nothing kept everybody out."""
    app = limited(bodies_bytes=1000, body_bytes=1000, requests=4)

    async def work() -> list[int]:
        idle = [Sender(app, 1000) for _ in range(50)]
        await asyncio.sleep(0.05)
        assert app._bodies.taken == 0
        body = picture(0)
        real = Sender(app, len(body))
        real.pieces.put_nowait(body)
        found = [await real.task]
        for one in idle:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in idle), return_exceptions=True)
        return found

    assert asyncio.run(work()) == [200]
    assert app._bodies.taken == app._requests.taken == 0
    app.close()


def test_a_body_must_keep_coming() -> None:
    """At least so many bytes in every stretch of time: a first part that came fast does not help."""
    app = limited(stall_s=0.3, rate_bytes_s=1000, body_s=20.0)

    async def work() -> tuple[int, int]:
        stalled, steady = Sender(app, 100_000), Sender(app, 5000)
        stalled.pieces.put_nowait(bytes(50_000))
        for _ in range(10):
            steady.pieces.put_nowait(bytes(500))
            await asyncio.sleep(0.05)
        return await stalled.task, await steady.task

    assert asyncio.run(work()) == (408, 422)
    assert app._bodies.taken == 0
    app.close()


@pytest.mark.slow
def test_the_slowest_body_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that sent nearly all and now wait give way to one that sends."""
    monkeypatch.setattr("headstart.interfaces.http.uploads._SLOW_AFTER_S", 0.1)
    app = limited(bodies_bytes=10_000, body_bytes=5000, stall_s=20.0)

    async def work() -> list[int]:
        holders = [Sender(app, 5000) for _ in range(2)]
        for one, sent in zip(holders, (4999, 4000), strict=True):
            one.pieces.put_nowait(bytes(sent))
        await asyncio.sleep(0.2)
        body = noise(0, 24, "PNG")
        assert app._bodies.taken == 8999 and 1000 < len(body) < 5000
        real = Sender(app, len(body))
        real.pieces.put_nowait(body)
        found = [await real.task, await holders[1].task]
        holders[0].pieces.put_nowait(b"x")
        return [*found, await holders[0].task]

    assert asyncio.run(work()) == [200, 503, 422]
    assert app._bodies.taken == 0
    app.close()


def test_a_new_body_does_not_leave_for_another() -> None:
    """Nobody can say yet that it is slow, so the server is full for the next one."""
    app = limited(bodies_bytes=1000, body_bytes=1000)

    async def work() -> int:
        first = Sender(app, 1000)
        first.pieces.put_nowait(bytes(990))
        await asyncio.sleep(0.02)
        body = picture(0)
        second = Sender(app, len(body))
        second.pieces.put_nowait(body)
        status = await second.task
        first.pieces.put_nowait(bytes(10))
        assert await first.task == 422
        return status

    assert asyncio.run(work()) == 503
    app.close()


def test_a_client_that_disconnects_is_only_counted(app: App, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> list[Any]:
        said: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def keep(message: Any) -> None:
            said.append(message)

        headers = [(b"content-type", b"image/png"), (b"content-length", b"900")]
        scope = {"type": "http", "method": "POST", "path": PREDICT, "query_string": b"", "headers": headers}
        await app(scope, receive, keep)
        return said

    assert asyncio.run(work()) == [] and not caplog.records
    assert figures(app)["headstart_requests_total", "/v1/models/{name}/predict", "499"] == 1
    assert app._bodies.taken == 0


def test_an_internal_error_is_a_500_without_the_clients_data(
    app: App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("secret image of alice")

    monkeypatch.setattr("headstart.interfaces.http.served.Served.prediction", broken)
    answer = send(app, picture(1))
    assert answer.status_code == 500 and "alice" not in answer.text
    (record,) = caplog.records
    assert "ValueError" in record.getMessage() and "alice" not in record.getMessage()


TOKEN = "let-me-in"


@pytest.mark.parametrize(
    "header",
    [None, "", "let-me-in", "Bearer", "Bearer ", "Bearer let-me-i", "Bearer let-me-inn", "Basic let-me-in"],
)
def test_a_token_is_required(header: str | None) -> None:
    app = make_app({"tiny": tiny_model()}, token=TOKEN)
    headers = {} if header is None else {"authorization": header}
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/nowhere", PREDICT):
        answer = ask(app, path=path, headers=headers)
        refused(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer" and TOKEN not in answer.text
    for path in ("/healthz", "/readyz"):
        assert ask(app, path=path, headers=headers).status_code == 200
    good = {"authorization": f"bearer {TOKEN}"}
    assert ask(app, path="/v1/models", headers=good).status_code == 200
    app.close()


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A real file with flipped bytes, cut short, or with the head of another."""
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 20))):
        made[int(rng.integers(len(made)))] = int(rng.integers(256))
    kind = rng.integers(4)
    if kind == 1:
        del made[int(rng.integers(len(made))) :]
    elif kind == 2:
        made[: int(rng.integers(1, 64))] = other[: int(rng.integers(1, 64))]
    elif kind == 3:
        start = int(rng.integers(min(200, len(made))))  # the header is where trouble starts
        made[start : start + 4] = rng.bytes(4)
    return bytes(made)


def test_mutated_images_are_predicted_or_refused() -> None:
    """Kinds of every decoder, seeded; 2,000 with HEADSTART_MUTATIONS=2000."""
    kinds = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")
    files = [noise(seed, 24 + 40 * (seed % 2), kind) for seed, kind in enumerate(kinds * 2)]
    app, rng = make_app({"tiny": tiny_model()}), np.random.default_rng(7)

    async def work() -> list[int]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=60) as client:
            statuses = []
            for _ in range(N_MUTATIONS):
                first, second = (files[int(rng.integers(len(files)))] for _ in range(2))
                body = mutated(first, second, rng)
                answer = await client.post(PREDICT, content=body, headers={"content-type": "image/png"})
                statuses.append(answer.status_code)
            last = await client.post(PREDICT, content=files[0], headers={"content-type": "image/png"})
            assert last.status_code == 200
            return statuses

    statuses = asyncio.run(work())
    app.close()
    assert set(statuses) <= {200, 413, 422}, sorted(set(statuses))
    assert min(statuses.count(200), statuses.count(422)) > N_MUTATIONS // 20


def test_formats_are_those_of_the_decoder() -> None:
    assert FORMATS == pixels.FORMATS


@pytest.mark.parametrize("kind", FORMATS)
def test_headers_are_read(kind: str) -> None:
    assert image_px(picture(3, width=31, height=7, kind=kind)) == (31, 7)


def test_precision_is_as_requested() -> None:
    with pytest.raises(SettingError, match="precision"):
        make_app({"tiny": tiny_model()}, precision="fp64")
    app = make_app({"tiny": tiny_model()}, precision="auto")  # bf16 where the processor has it
    (said,) = send(app, picture(200)).json()["predictions"]
    assert said["probability"] == pytest.approx(200 / 255, abs=0.01)
    app.close()


def test_budget_gives_back() -> None:
    budget = Budget(2, "too much")
    with contextlib.suppress(KeyError), budget.held(2):
        with pytest.raises(RequestError):
            budget.take(1)
        raise KeyError
    assert budget.taken == 0


def test_models_of_another_size_and_policy() -> None:
    spec = InputSpec(16, 12, 3, policy="letterbox")
    app = make_app({"a": tiny_model(spec=spec), "b": tiny_model(spec=SPEC)})
    for name in "ab":
        answer = send(app, noise(3, 90, "JPEG"), "image/jpeg", f"/v1/models/{name}/predict")
        assert answer.status_code == 200
    assert json.loads(ask(app, path="/v1/models").text)["models"][0]["input"]["policy"] == "letterbox"
    app.close()


def test_requests_at_the_same_time_do_not_mix(app: App) -> None:
    async def work() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=30) as client:

            async def one(value: int) -> None:
                side = 8 if value % 2 else 100  # unpacked at once, and in a thread
                body = picture(value, width=side, height=side)
                answer = await client.post(PREDICT, content=body, headers={"content-type": "image/png"})
                classes = {
                    each["name"]: each["probability"] for each in answer.json()["predictions"][0]["classes"]
                }
                assert classes["light"] == pytest.approx(value / 255, abs=1e-5)

            await asyncio.gather(*(one(value) for value in range(200)))

    asyncio.run(work())


def test_every_error_status_is_documented(app: App) -> None:
    responses: Mapping[str, Any] = ask(app, path="/openapi.json").json()["paths"][
        "/v1/models/{name}/predict"
    ]["post"]
    assert set(responses["responses"]) == {
        "200",
        "400",
        "403",
        "404",
        "408",
        "413",
        "415",
        "422",
        "503",
        "504",
    }
