"""Attack ``headstart serve``: slow clients, announced bytes, foreign pages, replaced models, kills.

Real servers in processes of their own, raw sockets, and a headless Chromium. Every answer is compared with what
is right; a fault is anything else. On Linux, about ten minutes:

    python benchmarks/faults/server.py
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from web import Counts, Served, browser, everything, finished, foreign_page, statuses, until

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from tiny_model import noise, picture, tiny_model

PREDICT = "/v1/models/tiny/predict"
counts = Counts()


def other_model():
    """A model that can be told from `tiny_model` by its answers: they have novelty."""
    made = tiny_model(novelty=True)
    return replace(made, manifest=replace(made.manifest, novelty={"false_rejection": 0.05}))


def head(n_bytes: int, path: str = PREDICT, **headers: str) -> bytes:
    more = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in headers.items())
    return (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n"
        f"content-length: {n_bytes}\r\n{more}\r\n"
    ).encode()


def well(server: Served, case: str, n: int = 1) -> None:
    """Predictions that must succeed while something else goes on."""
    for _ in range(n):
        begun = time.monotonic()
        try:
            status, body = server.ask("POST", PREDICT, picture(0), content_type="image/png")
        except (OSError, http.client.HTTPException) as error:
            counts(case, False, repr(error))
            continue
        right = status == 200 and json.loads(body)["predictions"][0]["class"] == "dark"
        counts(case, right and time.monotonic() - begun < 20, (status, body[:100], time.monotonic() - begun))


def answers(server: Served) -> bool:
    """Whether a prediction succeeds now."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return server.ask("POST", PREDICT, picture(0), content_type="image/png")[0] == 200
    return False


def announced(server: Served, n: int) -> None:
    """Clients that announce 32 MiB: some send nothing, some all but the last bytes."""
    case = "others are served beside clients that announce 32 MiB"
    with contextlib.ExitStack() as stack:
        idle = []
        for _ in range(n):
            connection = stack.enter_context(server.connect())
            connection.sendall(head(32 * 2**20))
            idle.append(connection)
        well(server, case, 50)
        for connection in idle[:: max(1, n // 50)]:
            counts(
                "an announced body that does not come ends in 408", statuses(everything(connection)) == [408]
            )
    case = "others are served beside clients that hold 32 MiB each"
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            connection = stack.enter_context(server.connect())
            connection.sendall(head(32 * 2**20))
            threading.Thread(target=hold, args=(connection,), daemon=True).start()
        time.sleep(4)
        well(server, case, 50)


def hold(connection: socket.socket) -> None:
    """Send nearly all at once, and then a little now and then, until the other side has enough."""
    with contextlib.suppress(OSError):
        connection.sendall(bytes(31 * 2**20))
        for _ in range(60):
            connection.sendall(bytes(12_000))
            time.sleep(0.5)


def slow(server: Served) -> None:
    """Headers and responses that take for ever."""
    case = "others are served beside slow clients"
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(60)]
        for one in connections[:20]:
            one.sendall(b"GET /healthz HTTP/1.1\r\nhost")
        for one in connections[20:40]:
            one.sendall(head(5000) + b"abc")
        unread = connections[40:]
        for one in unread:  # thousands of answers that nobody reads
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(3000):
                    one.send(b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n")
        well(server, case, 30)
        for one in connections[:20]:
            counts("a header that does not end is cut off", everything(one) == b"")
        for one in connections[20:40]:
            counts("a body that stalls ends in 408", statuses(everything(one)) == [408])
        gone = until(lambda: all(closed(one) for one in unread), 60)
        counts("responses that nobody reads are given up", gone, sum(map(closed, unread)))
        well(server, case, 10)


def closed(connection: socket.socket) -> bool:
    """Whether the other side has given this connection up, without reading from it."""
    with contextlib.suppress(BlockingIOError):
        try:
            connection.send(b"x")
        except OSError:
            return True
    return False


def framing(server: Served) -> None:
    """Half-closed clients, pipelining, and two ways to say where a body ends."""
    one = picture(0)
    good = head(len(one)) + one
    get = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    both = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n" % PREDICT.encode()
    both += b"transfer-encoding: chunked\r\n\r\n"
    cases = [
        (good, [200]),
        (good * 20, [200] * 20),
        (good + get + good, [200] * 3),
        (head(len(one)) + one[:-1], [400]),
        (both + b"0\r\n\r\n" + get, [400]),
        (both.replace(b"content-length: 5\r\n", b"") + b"0\r\n\r\n", [415]),
        (get.replace(b"localhost", b"evil.example"), [403]),
        (get.replace(b"host: localhost\r\n", b""), [400]),
        (get.replace(b"host:", b"host: localhost\r\nhost:"), [400]),
        (b"GET /healthz HTTP/1.0\r\n\r\n", [200]),
        (b"", []),
        (b"GET /heal", []),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", [400]),
    ]
    for sent, right in cases:
        for half_closed in (True, False):
            with server.connect() as connection:
                connection.sendall(sent)
                if half_closed:
                    connection.shutdown(socket.SHUT_WR)
                said = statuses(read_for(connection, len(right)))
            late = sent.endswith(one[:-1]) and not half_closed  # the rest may still come
            right_here = [408] if late else right
            counts(
                "half-closed, pipelined and smuggled requests", said == right_here, (sent[:60], said, right)
            )


def read_for(connection: socket.socket, n: int) -> bytes:
    """What comes until the end, or until there are so many responses and a moment more."""
    found = b""
    connection.settimeout(20)
    with contextlib.suppress(TimeoutError, ConnectionError):
        while piece := connection.recv(65_536):
            found += piece
            if len(statuses(found)) >= n:
                connection.settimeout(0.5)
    return found


def names(server: Served) -> None:
    """Hosts and origins of others, in raw requests."""
    hosts = [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "0.0.0.0",
        "10.0.0.1",
        "[::]",
    ]
    for host in hosts:
        for path in ("/v1/models", "/metrics", "/healthz", "/docs", "/openapi.json"):
            counts("foreign Host is refused", server.ask("GET", path, host=host)[0] == 403, (host, path))
    for origin in ("https://evil.example", "http://localhost:1", "null", "http://127.0.0.1", "file://"):
        status, _ = server.ask("POST", PREDICT, picture(0), content_type="image/png", origin=origin)
        counts("foreign Origin is refused", status == 403, (origin, status))
    own = f"127.0.0.1:{server.port}"
    status, _ = server.ask(
        "POST", PREDICT, picture(0), content_type="image/png", origin=f"http://{own}", host=own
    )
    counts("its own origin is served", status == 200, status)
    for path in (
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%2e%2e/predict",
        "/../../etc/passwd",
        "//etc/passwd",
    ):
        counts("paths lead nowhere else", server.ask("GET", path)[0] in (404, 405), path)


ATTACKS = """<!doctype html><title>evil</title><script>
const png = Uint8Array.from(atob(%(png)s), c => c.charCodeAt(0));
const form = () => {
  const made = new FormData();
  made.append('files', new Blob([png], {type: 'image/png'}), 'a.png');
  return made;
};
const post = (address, more) => fetch(address + '%(predict)s', {method: 'POST', ...more}).then(r => r.text());
const attempts = {
  cors_get: a => fetch(a + '/v1/models').then(r => r.text()),
  cors_post: a => post(a, {body: form()}),
  blind_post: a => post(a, {mode: 'no-cors', body: form()}),
  blind_typed: a => post(a, {mode: 'no-cors', body: new Blob([png])}),
  preflight: a => post(a, {headers: {'content-type': 'image/png'}, body: png}),
  beacon: a => { navigator.sendBeacon(a + '%(predict)s', form()); return Promise.resolve(''); },
  script: a => new Promise(done => {
    const made = document.createElement('script');
    made.src = a + '/v1/models';
    made.onload = made.onerror = () => done('');
    document.head.append(made);
  }),
};
window.attack = async (address) => {
  const found = {};
  for (const [name, one] of Object.entries(attempts)) {
    try { found[name] = await one(address); } catch (error) { found[name] = ''; }
  }
  return found;
};
</script>"""


def predictions(server: Served) -> float:
    """Successful predictions so far, by the server's own count."""
    text = server.ask("GET", "/metrics")[1].decode()
    found = re.findall(r'headstart_requests_total\{[^}]*predict[^}]*status="200"\} (\S+)', text)
    return sum(map(float, found))


def pages(server: Served, allowing: Served | None, allowed_port: int) -> None:
    """The same from web pages in a browser: another port, another name, and a name that is rebound to us."""
    before = predictions(server)
    with browser() as chromium:
        for origin in (f"http://127.0.0.1:{allowed_port}", f"http://evil.example:{allowed_port}"):
            page = chromium.new_page()
            page.goto(origin)
            for target in ("127.0.0.1", "localhost", "evil.example"):
                found = page.evaluate("a => window.attack(a)", f"http://{target}:{server.port}")
                for name, said in found.items():
                    counts("a foreign page reads nothing", said == "", (origin, target, name, said[:80]))
            page.close()
        rebound = chromium.new_page()  # the attacker's name now leads to the server itself: no page, no data
        for path in ("/v1/models", "/docs", "/healthz"):
            answer = rebound.goto(f"http://evil.example:{server.port}{path}")
            counts("a rebound name shows nothing", answer is not None and answer.status == 403, path)
        own = chromium.new_page()
        own.goto(f"http://localhost:{server.port}/healthz")
        said = own.evaluate("() => fetch('/v1/models').then(r => r.status)")
        counts("its own page may ask", said == 200, said)
        counts(
            "no prediction was made for a foreign page", predictions(server) == before, predictions(server)
        )
        if allowing is not None:
            page = chromium.new_page()
            page.goto(f"http://127.0.0.1:{allowed_port}")
            found = page.evaluate("a => window.attack(a)", f"http://127.0.0.1:{allowing.port}")
            for name in ("cors_get", "cors_post", "preflight"):
                right = '"tiny"' in found[name]
                counts("an allowed page reads its answers", right, (name, found[name][:80]))
            page.goto(f"http://evil.example:{allowed_port}")
            found = page.evaluate("a => window.attack(a)", f"http://127.0.0.1:{allowing.port}")
            for name, said in found.items():
                counts("a page that is not the allowed one reads nothing", said == "", (name, said[:80]))


def uploads(server: Served, n_mutations: int) -> None:
    """Bodies that are too long, nested, malformed; mutated images."""
    one = picture(0)

    def form(*parts: bytes, boundary: bytes = b"b") -> bytes:
        opened = b'\r\ncontent-disposition: form-data; name="files"; filename="../../x.png"\r\n\r\n'
        return (
            b"".join(b"--" + boundary + opened + part + b"\r\n" for part in parts)
            + b"--"
            + boundary
            + b"--\r\n"
        )

    nested = form(form(form(one, boundary=b"d"), boundary=b"c"))
    cases = [
        (form(one), [200]),
        (nested, [422]),
        (form(*[one] * 64), [200]),
        (form(*[one] * 65), [413]),
        (form(*[b"x"] * 10_000), [413]),
        (b"--b" + b"\r\n" * 100_000, [400]),
        (bytes(32 * 2**20 + 1), [413]),
        (form(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"), [422]),
        (form(b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"), [422]),
    ]
    for body, right in cases:
        status, said = server.ask("POST", PREDICT, body, content_type="multipart/form-data; boundary=b")
        counts("odd uploads", [status] == right, (body[:60], status, said[:100]))
    rng = np.random.default_rng(7)
    files = [
        noise(seed, 24 + 40 * (seed % 2), kind)
        for seed, kind in enumerate(("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM") * 2)
    ]
    for number in range(n_mutations):
        made = bytearray(files[number % len(files)])
        for _ in range(int(rng.integers(1, 20))):
            made[int(rng.integers(len(made)))] = int(rng.integers(256))
        if number % 4 == 1:
            del made[int(rng.integers(len(made))) :]
        status, _ = server.ask("POST", PREDICT, bytes(made), content_type="image/png")
        counts("mutated images are predicted or refused", status in (200, 413, 422), (number, status))
    well(server, "predictions after all of it", 5)


class Clients:
    """Clients that ask for predictions all the time; every answer must be that of `tiny_model`."""

    def __init__(self, server: Served, n: int = 3) -> None:
        self.server, self.stop = server, threading.Event()
        self.answers = self.lost = 0
        self.threads = [threading.Thread(target=self.work) for _ in range(n)]
        for one in self.threads:
            one.start()

    def work(self) -> None:
        """Ask until it is stopped."""
        while not self.stop.is_set():
            try:
                status, body = self.server.ask("POST", PREDICT, picture(0), content_type="image/png")
            except (OSError, http.client.HTTPException):  # a killed worker had this connection: ask again
                self.lost += 1
                time.sleep(0.05)
                continue
            self.answers += 1
            right = status == 200 and json.loads(body)["predictions"][0]["novelty"] is None
            counts("one server answers with one model", right, (status, body[:200]))

    def end(self) -> None:
        """Stop and wait."""
        self.stop.set()
        for one in self.threads:
            one.join()
        print(f"answers {self.answers}, connections lost with a killed worker {self.lost}", file=sys.stderr)


def disturb(server: Served, folder: Path, number: int, rng: np.random.Generator) -> None:
    """Replace, move, remove or write the model's folder, and kill one worker, or all, at that moment."""
    kind, away = number % 4, folder.with_name("away")
    if kind == 0:
        other_model().save(folder)
    elif kind == 1:
        folder.rename(away)
    elif kind == 2:
        shutil.rmtree(folder)
    else:
        (tiny_model() if number % 8 == 3 else other_model()).save(folder)
    pids = server.pids
    for pid in pids if number % 5 == 4 else pids[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    back = until(lambda: len(server.pids) == 2 and bool(set(server.pids) - set(pids)), 30)
    counts("a killed worker is replaced", back, number)
    counts("the server answers after a kill", until(lambda: answers(server)), number)
    if kind == 1:
        away.rename(folder)
    time.sleep(float(rng.uniform(0, 2)))


def replacements(work: Path, rounds: int) -> None:
    """Workers are killed while their model's folder is replaced, away, or written; clients ask all the time."""
    folder = tiny_model().save(work / "replaced" / "tiny")
    rng = np.random.default_rng(0)
    with Served(["serve", str(folder), "--workers", "2"], work / "replaced-tmp") as server:
        clients = Clients(server)
        for number in range(rounds):
            alive = server.process.poll() is None
            counts("the server keeps running", alive, server.stderr[-300:])
            if not alive:
                break
            disturb(server, folder, number, rng)
        if not folder.exists():
            other_model().save(folder)
        said = until(lambda: "restart the server to serve the new" in server.stderr, 15)
        counts("the server names the way to the new model", said)
        clients.end()
    counts("it ends with status 0", server.process.returncode == 0, server.process.returncode)
    left = list(server.temporary.rglob("*"))
    counts("nothing is left in the temporary folder", not left, left)
    other_model().save(folder)
    with Served(["serve", str(folder), "--workers", "2"], work / "replaced-tmp") as server:
        _, body = server.ask("POST", PREDICT, picture(0), content_type="image/png")
        counts("after a restart, the new model", json.loads(body)["predictions"][0]["novelty"] is not None)


def leftovers(work: Path, folder: Path, rounds: int) -> None:
    """Ends of every kind; the next server finds, and leaves, an empty temporary folder."""
    temporary = work / "left-tmp"
    for number in range(rounds):
        with Served(["serve", str(folder), "--workers", "2"], temporary) as server:
            well(server, "predictions of a server that will be killed")
            mine = set(temporary.glob("headstart-serve-*"))
            counts("one temporary folder at a time", len(mine) == 1, mine)
            pids = server.pids
            kind = ("TERM", "INT", "parent", "all")[number % 4]
            if kind in ("TERM", "INT"):
                server.process.send_signal(getattr(signal, f"SIG{kind}"))
                server.process.wait(60)
            else:
                server.process.kill()
                server.process.wait(60)
                for pid in pids if kind == "all" else []:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            gone = until(lambda kind=kind: kind == "all" or not any(temporary.glob("headstart-serve-*")))
            counts("nothing is left in the temporary folder", gone, (kind, list(temporary.iterdir())))


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="faults-server-") as name:
        yield Path(name)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--idle", type=int, default=1500, help="clients that announce a body and send none")
    words.add_argument("--mutations", type=int, default=2000)
    words.add_argument(
        "--rounds", type=int, default=20, help="replacements of a model, and kills of a worker"
    )
    words.add_argument("--ends", type=int, default=8, help="servers that are ended or killed")
    words.add_argument("--no-browser", action="store_true")
    chosen = words.parse_args()
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    begun = time.monotonic()
    with workplace() as work:
        folder = tiny_model().save(work / "tiny")
        with Served(["serve", str(folder), "--workers", "2"], work / "tmp") as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))  # for this side alone
            framing(server)
            names(server)
            if not chosen.no_browser:
                html = ATTACKS % {"png": json.dumps(base64_of(picture(0))), "predict": PREDICT}
                with foreign_page(html) as port:
                    allow = ["--allow-origin", f"http://127.0.0.1:{port}"]
                    with Served(
                        ["serve", str(folder), *allow, "--workers", "1"], work / "allow-tmp"
                    ) as allowing:
                        pages(server, allowing, port)
            announced(server, chosen.idle)
            slow(server)
            uploads(server, chosen.mutations)
            counts("no worker ended", " ended (" not in server.stderr, server.stderr[-500:])
        counts("it ends with status 0", server.process.returncode == 0, server.process.returncode)
        counts("nothing is left in the temporary folder", not any(server.temporary.iterdir()))
        replacements(work, chosen.rounds)
        leftovers(work, folder, chosen.ends)
    finished(
        counts,
        "uvicorn",
        "starlette",
        "h11",
        "openvino",
        seconds=round(time.monotonic() - begun),
        command=" ".join(["python benchmarks/faults/server.py", *sys.argv[1:]]),
    )


def base64_of(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


if __name__ == "__main__":
    main()
