"""Attack ``headstart teach``: foreign pages, files that are no images, files of others, endless uploads, kills.

Real servers in processes of their own, raw requests, and a headless Chromium, once as a visitor and once as a
page of somebody else. A program called gs stands on the path: whoever starts Ghostscript is found out. On Linux,
about five minutes:

    python benchmarks/faults/teach.py
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from web import Counts, Served, browser, everything, finished, foreign_page, statuses, until

API = "/gradio_api"
FORM = "multipart/form-data; boundary=b"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n(x) run showpage\n%%EOF\n"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
counts = Counts()


def drawing(seed: int) -> bytes:
    """A ring or a bar."""
    rng = np.random.default_rng(seed)
    page = Image.new("L", (96, 96), 255)
    pen = ImageDraw.Draw(page)
    a, b, c, d = (np.array([22, 22, 74, 74]) + rng.uniform(-7, 7, 4)).tolist()
    if seed % 2:
        pen.ellipse((a, b, c, d), outline=10, width=6)
    else:
        pen.line((48 + (a - 22), b, 48 + (c - 74), d), fill=10, width=6)
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def form(*contents: bytes, name: str = "x.png") -> bytes:
    opened = f'--b\r\ncontent-disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return b"".join(opened + one + b"\r\n" for one in contents) + b"--b--\r\n"


def upload(server: Served, *contents: bytes, name: str = "x.png", **headers: str) -> tuple[int, Any]:
    status, said = server.ask(
        "POST", f"{API}/upload", form(*contents, name=name), content_type=FORM, **headers
    )
    return status, json.loads(said) if status == 200 else said.decode()


def meta(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.png", **more}


class Visitor:
    """A visitor without a browser: the page's own requests, made by a program."""

    def __init__(self, server: Served, session: str) -> None:
        self.server, self.session = server, session
        config = json.loads(server.ask("GET", "/config")[1])
        self.events = {one["api_name"]: one["id"] for one in config["dependencies"]}

    def send(self, event: str, *data: Any, **more: Any) -> int:
        """Status of an event."""
        body = {"data": list(data), "fn_index": self.events[event], "session_hash": self.session, **more}
        status, _ = self.server.ask(
            "POST", f"{API}/queue/join", json.dumps(body).encode(), content_type="application/json"
        )
        return status

    def answer(self, event: str, *data: Any) -> str:
        """The text of the messages that answer an event."""
        status = self.send(event, *data)
        if status != 200:
            return f"status {status}"
        with self.server.connect() as connection:
            connection.sendall(
                f"GET {API}/queue/data?session_hash={self.session} HTTP/1.1\r\nhost: localhost\r\n"
                "connection: close\r\n\r\n".encode()
            )
            found = b""
            while b"close_stream" not in found and (piece := connection.recv(65_536)):
                found += piece
        return found.decode(errors="replace")


def decoders(server: Served, marker: Path) -> None:
    """Files that only Pillow's other decoders would open, through every way of the page."""
    visitor = Visitor(server, "decoders1")
    visitor.answer("add_class", "a")
    for name, content in (
        ("photo.png", EPS),
        ("photo.jpg", SVG),
        ("photo.png", b"\x0a\x05\x01\x01"),
        ("x.svg", SVG),
    ):
        status, paths = upload(server, content, name=name)
        counts("an upload is only stored", status == 200, (status, paths))
        for way, files, camera in (("Files", [meta(paths[0])], None), ("Camera", None, meta(paths[0]))):
            for event, more in (("predict", ()), ("teach", ("a",))):
                said = visitor.answer(event, way, "", files, camera, *more)
                counts(
                    "what is no image of ours is called so",
                    "cannot be read" in said,
                    (name, event, said[-300:]),
                )
        data = "data:image/png;base64," + base64.b64encode(content).decode()
        said = visitor.answer("predict", "Draw", data, None, None)
        counts("what is no image of ours is called so", "cannot be read" in said, (name, said[-300:]))
    counts("Ghostscript was not started", not marker.exists())


def files_of_others(server: Served) -> None:
    """Files that a request names and nobody sent: read, copied, fetched or shown by none of the ways."""
    visitor = Visitor(server, "files1")
    (server.temporary / "secret.png").write_bytes(drawing(1))
    before = server.left_bytes()
    named = [
        "/etc/passwd",
        str(server.temporary / "secret.png"),
        "../../etc/passwd",
        "https://example.com/x.png",
    ]
    named += [
        f"http://127.0.0.1:{server.port}/config",
        "file:///etc/passwd",
        "",
        "/dev/zero",
        "/proc/self/environ",
    ]
    for path in named:
        for way, files, camera in (("Files", [meta(path)], None), ("Camera", None, meta(path))):
            status = visitor.send("predict", way, "", files, camera)
            counts("a file that nobody sent is refused", status == 422, (path, way, status))
        url = {"url": path, "path": "x", "meta": {"_type": "gradio.FileData"}}
        counts(
            "a file that nobody sent is refused",
            visitor.send("predict", "Camera", "", None, url) == 422,
            path,
        )
        counts("a file that nobody sent is refused", visitor.send("add_class", meta(path)) == 422, path)
        status, said = server.ask("GET", f"{API}/file={path}")
        counts("a file that nobody sent is not shown", status == 404 and b"root:" not in said, (path, status))
    routes = [
        "process_recording",
        "component_server",
        "vibe-edit",
        "vibe-code",
        "run/predict",
        "call/predict",
    ]
    for route in [*routes, "stream/x", "api/predict", "undo-vibe-edit", "vibe-starter-queries"]:
        status, _ = server.ask("POST", f"{API}/{route}", b"{}", content_type="application/json")
        counts("gradio's other routes are closed", status == 404, (route, status))
    for path in (
        f"{API}/proxy=https://x.hf.space/a",
        f"{API}/deep_link",
        "/monitoring",
        f"{API}/runs",
        "/docs",
    ):
        counts("gradio's other routes are closed", server.ask("GET", path)[0] == 404, path)
    for path in ("/assets/../../../etc/passwd", "/static/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd"):
        counts("paths lead nowhere else", server.ask("GET", path)[0] == 404, path)
    counts("nothing was copied or fetched", server.left_bytes() == before, server.left_bytes() - before)


def endless(server: Served, n_megabytes: int) -> None:
    """More bytes than the limits: what stays is bounded, and others are served."""
    case = "uploads above the limits are refused"
    status, _ = upload(server, bytes(20 * 2**20 + 1))
    counts(case, status == 413, status)
    status, _ = upload(server, *[b"x"] * 301)
    counts(case, status == 400, status)
    status, _ = server.ask("POST", f"{API}/queue/join", bytes(9 * 2**20), content_type="application/json")
    counts(case, status == 413, status)
    nested = form(drawing(1)).replace(b"--b", b"--c")
    status, paths = upload(server, nested)
    counts("a form in a form is one file", status == 200 and len(paths) == 1, (status, paths))
    with contextlib.ExitStack() as stack:
        idle = []
        for _ in range(100):
            connection = stack.enter_context(server.connect())
            announced = f"content-length: {2**30}\r\n" if len(idle) % 2 else "transfer-encoding: chunked\r\n"
            connection.sendall(
                f"POST {API}/upload HTTP/1.1\r\nhost: localhost\r\ncontent-type: {FORM}\r\n{announced}\r\n".encode()
            )
            idle.append(connection)
        for _ in range(20):
            counts("others are served beside idle uploads", server.ask("GET", "/config")[0] == 200)
        for connection in idle:
            counts("an upload that does not come ends in 408", statuses(everything(connection)) == [408])
    most = 0
    for number in range(n_megabytes // 18):
        status, _ = upload(server, bytes(18 * 2**20))
        counts("an upload is only stored", status == 200, status)
        if number % 10 == 0:
            most = max(most, server.left_bytes())
    most = max(most, server.left_bytes())
    counts("the temporary folder stays below 2 GiB", most <= 2 * 2**30 + 20 * 2**20, most)
    print(f"most bytes in the temporary folder: {most:,}", file=sys.stderr)


ATTACKS = """<!doctype html><title>evil</title><script>
const form = () => {
  const made = new FormData();
  made.append('files', new Blob(['x'.repeat(9999)]), 'a.png');
  return made;
};
const event = JSON.stringify({data: ['evil'], fn_index: %(event)d, session_hash: 'evil1'});
const post = (url, more) => fetch(url, {method: 'POST', ...more}).then(r => r.text());
const attempts = {
  page: a => fetch(a + '/').then(r => r.text()),
  config: a => fetch(a + '/config').then(r => r.text()),
  upload: a => post(a + '/gradio_api/upload', {body: form()}),
  blind_upload: a => post(a + '/gradio_api/upload', {mode: 'no-cors', body: form()}),
  beacon: a => { navigator.sendBeacon(a + '/gradio_api/upload', form()); return Promise.resolve(''); },
  join: a => post(a + '/gradio_api/queue/join', {headers: {'content-type': 'application/json'}, body: event}),
  blind_join: a => post(a + '/gradio_api/queue/join', {mode: 'no-cors', body: event}),
  stream: a => new Promise(done => { const made = new EventSource(a + '/gradio_api/queue/data?session_hash=evil1');
    made.onmessage = m => done(m.data); made.onerror = () => { made.close(); done(''); }; }),
  socket: a => new Promise(done => { const made = new WebSocket(a.replace('http', 'ws') + '/');
    made.onopen = () => done('open'); made.onerror = () => done(''); }),
};
window.attack = async (address) => {
  const found = {};
  for (const [name, one] of Object.entries(attempts)) {
    try { found[name] = await one(address); } catch (error) { found[name] = ''; }
  }
  return found;
};
</script><form method=post enctype=multipart/form-data><input name=files></form><iframe></iframe>"""


def pages(server: Served) -> None:
    """Web pages of others in a browser, at another port, another name, and a name that is rebound to us."""
    before = server.left_bytes()
    event = Visitor(server, "x1").events["add_class"]
    with foreign_page(ATTACKS % {"event": event}) as port, browser() as chromium:
        for origin in (f"http://127.0.0.1:{port}", f"http://evil.example:{port}"):
            page = chromium.new_page()
            page.goto(origin)
            for target in ("127.0.0.1", "localhost", "evil.example"):
                address = f"http://{target}:{server.port}"
                found = page.evaluate("a => window.attack(a)", address)
                for name, said in found.items():
                    counts("a foreign page reads nothing", said == "", (origin, target, name, said[:80]))
                page.evaluate(
                    "a => { const f = document.forms[0]; f.action = a + '/gradio_api/upload'; f.target = 'none'; "
                    "f.submit(); document.querySelector('iframe').src = a; }",
                    address,
                )
            page.wait_for_timeout(500)
            framed = [one.url for one in page.frames[1:] if one.query_selector("#pad, gradio-app")]
            counts("a foreign page cannot frame it", framed == [], framed)
            page.close()
        answer = chromium.new_page().goto(f"http://evil.example:{server.port}/")
        counts("a rebound name shows nothing", answer is not None and answer.status == 403)
    counts("foreign pages left nothing on disk", server.left_bytes() == before, server.left_bytes() - before)
    for host in ("evil.example", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.1"):
        for path in ("/", "/config", f"{API}/queue/data?session_hash=x1"):
            counts("foreign Host is refused", server.ask("GET", path, host=host)[0] == 403, (host, path))
    for origin in ("https://evil.example", "null", "http://localhost:1", "file://"):
        status, _ = upload(server, b"x", origin=origin)
        counts("foreign Origin is refused", status == 403, (origin, status))


def visitors(server: Served, n: int) -> None:
    """Real visitors in a browser: they teach, and nothing of theirs stays on disk."""
    with browser() as chromium:
        for number in range(n):
            page = chromium.new_page()
            page.set_default_timeout(60_000)
            page.goto(f"http://localhost:{server.port}")
            page.wait_for_function("window.headstart")
            page.fill("#fresh input, #fresh textarea", "a")
            page.click("#begin")
            page.wait_for_selector("#label label.selected:has-text('a')")
            page.get_by_role("tab", name="Files").click()
            files = [
                {"name": f"n{one}.png", "mimeType": "image/png", "buffer": drawing(10 * number + one)}
                for one in range(5)
            ]
            page.set_input_files("#files input[type=file]", files)
            page.wait_for_selector("#files :text('n4')")
            if number % 2:  # the other half leaves with files that it never taught
                page.click("#teach")
                page.wait_for_function("document.querySelectorAll('#lesson figure').length === 5")
                counts(
                    "what was taught is removed",
                    until(lambda: server.left_bytes() == 0, 20),
                    server.left_bytes(),
                )
            page.close()
            gone = until(lambda: server.left_bytes() == 0, 30)
            counts("what visitors sent is removed when they leave", gone, server.left_bytes())


def mutated(server: Served, n: int) -> None:
    """Mutated images: each is predicted or named in one sentence, and the page goes on."""
    rng, visitor = np.random.default_rng(3), Visitor(server, "mutated1")
    visitor.answer("add_class", "a")
    waiting: list[str] = []
    for number in range(n):
        made = bytearray(drawing(number))
        for _ in range(int(rng.integers(1, 20))):
            made[int(rng.integers(len(made)))] = int(rng.integers(256))
        if number % 3 == 1:
            del made[int(rng.integers(len(made))) :]
        _, paths = upload(server, bytes(made))
        waiting += paths
        if len(waiting) == 10 or number == n - 1:
            said = visitor.answer("predict", "Files", "", [meta(one) for one in waiting], None)
            right = '"success":true' in said or '"success": true' in said
            for _ in waiting:
                counts("mutated images are predicted or refused", right, said[-300:])
            waiting = []


def ends(work: Path, rounds: int, environment: dict[str, str]) -> None:
    """Ends of every kind while files wait: nothing stays, at the latest when the next server starts."""
    temporary = work / "ends-tmp"
    for number in range(rounds):
        kind = ("SIGTERM", "SIGINT", "SIGKILL", "SIGHUP")[number % 4]
        with Served(
            ["teach", "--source", "pixels", "-o", str(work / "taught")], temporary, environment
        ) as server:
            counts(
                "one temporary folder at a time",
                len(list(temporary.iterdir())) == 1,
                list(temporary.iterdir()),
            )
            upload(server, *[drawing(one) for one in range(20)])
            counts("files that wait are in the temporary folder", server.left_bytes() > 0)
            stream = server.connect()  # an open page must not hold it up
            stream.sendall(f"GET {API}/heartbeat/x1 HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            busy = threading.Thread(target=drip, args=(server,), daemon=True)
            busy.start()
            time.sleep(0.3)
            server.process.send_signal(getattr(signal, kind))
            status = server.process.wait(60)
            stream.close()
            counts(
                "it ends as it should",
                status == (-9 if kind == "SIGKILL" else 0),
                (kind, status, server.stderr),
            )
            left = list(temporary.iterdir())
            counts("nothing is left in the temporary folder", kind == "SIGKILL" or left == [], (kind, left))
    with Served(["teach", "--source", "pixels", "-o", str(work / "taught")], temporary, environment):
        counts(
            "one temporary folder at a time", len(list(temporary.iterdir())) == 1, list(temporary.iterdir())
        )
    counts(
        "nothing is left in the temporary folder", list(temporary.iterdir()) == [], list(temporary.iterdir())
    )


def drip(server: Served) -> None:
    """An upload in progress."""
    with contextlib.suppress(OSError), server.connect() as connection:
        connection.sendall(
            f"POST {API}/upload HTTP/1.1\r\nhost: localhost\r\ncontent-type: {FORM}\r\n"
            f"content-length: {10**7}\r\n\r\n".encode()
            + form(bytes(2 * 10**6))[:-10]
        )
        for _ in range(100):
            connection.sendall(bytes(10_000))
            time.sleep(0.1)


def main() -> None:
    """Run all of it and print what was found."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--megabytes", type=int, default=3000, help="sent to fill the disk")
    words.add_argument("--mutations", type=int, default=2000)
    words.add_argument("--visitors", type=int, default=10)
    words.add_argument("--ends", type=int, default=9, help="servers that are ended or killed")
    words.add_argument("--no-browser", action="store_true")
    chosen = words.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-teach-") as name:
        work, marker = Path(name), Path(name) / "ghostscript-was-started"
        program = work / "bin" / "gs"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\ntouch {marker}\n")
        program.chmod(0o755)
        environment = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
        command = ["teach", "--source", "pixels", "-o", str(work / "taught")]
        with Served(command, work / "tmp", environment) as server:
            if not chosen.no_browser:
                visitors(server, chosen.visitors)
                pages(server)
            decoders(server, marker)
            files_of_others(server)
            (server.temporary / "secret.png").unlink()
            mutated(server, chosen.mutations)
            endless(server, chosen.megabytes)
            counts("nothing was printed", server.stderr == "", server.stderr[-800:])
        counts("it ends as it should", server.process.returncode == 0, server.process.returncode)
        counts("nothing is left in the temporary folder", not any(server.temporary.iterdir()))
        ends(work, chosen.ends, environment)
    finished(
        counts,
        "gradio",
        "uvicorn",
        "starlette",
        "pillow",
        seconds=round(time.monotonic() - begun),
        command=" ".join(["python benchmarks/faults/teach.py", *sys.argv[1:]]),
    )


if __name__ == "__main__":
    main()
