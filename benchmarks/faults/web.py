"""What the fault campaigns of the server and the teaching page share: processes, raw sockets, a browser, counts."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import facts, told

__all__ = ["Counts", "Served", "browser", "everything", "finished", "foreign_page", "statuses", "until"]

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Counts:
    """Attempts and faults of each case; a fault is described on stderr at once."""

    def __init__(self) -> None:
        self.cases: dict[str, dict[str, int]] = {}

    def __call__(self, case: str, right: bool, what: object = "") -> None:
        """Count one attempt."""
        if case not in self.cases:
            print(f"{time.strftime('%H:%M:%S')} {case}", file=sys.stderr, flush=True)
        one = self.cases.setdefault(case, {"n": 0, "faults": 0})
        one["n"] += 1
        if not right:
            one["faults"] += 1
            print(f"FAULT {case}: {what}", file=sys.stderr, flush=True)


def finished(counts: Counts, *packages: str, **last: Any) -> None:
    """Print everything; status 1 if there was a fault."""
    about = facts(*packages)
    faults = sum(one["faults"] for one in counts.cases.values())
    for case, one in counts.cases.items():
        print(f"{case:64} {one['n']:>6} tried {one['faults']:>4} faults")
    told(about, {}, cases=counts.cases, faults=faults, **last)
    raise SystemExit(bool(faults))


@dataclass
class Served:
    """A headstart command that serves, in a process of its own with a temporary folder of its own."""

    words: list[str]
    temporary: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Served:
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.errors = (self.temporary.parent / f"{self.temporary.name}.err").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headstart", *self.words, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "TMPDIR": str(self.temporary), **self.environment},
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        if found is None:
            raise SystemExit(f"no address: {said!r} {self.stderr}")
        self.port = int(found[1])
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.errors.close()

    @property
    def stderr(self) -> str:
        """All that it has printed there."""
        self.errors.flush()
        return Path(self.errors.name).read_text()

    @property
    def pids(self) -> list[int]:
        """Its child processes."""
        pid = self.process.pid
        with contextlib.suppress(FileNotFoundError):
            return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def connect(self) -> socket.socket:
        """Open a raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """Status and body of one request."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(
                method, path, body, {key.replace("_", "-"): one for key, one in headers.items()}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()

    def left_bytes(self) -> int:
        """Bytes of all files in its temporary folder."""
        found = 0
        for one in self.temporary.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                found += one.stat().st_size if one.is_file() and not one.is_symlink() else 0
        return found


def everything(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        while piece := connection.recv(65_536):
            found += piece
    return found


def statuses(said: bytes) -> list[int]:
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d+)", said)]


def until(true: Callable[[], bool], within_s: float = 60.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def foreign_page(html: str) -> Iterator[int]:
    """A web page at a port of this machine, under whatever name; yields the port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = html.encode()
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def browser(*flags: str) -> Iterator[Any]:
    """A headless Chromium that finds evil.example and localhost names at this machine, and nothing elsewhere."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    rules = "MAP evil.example 127.0.0.1 , MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"
    with sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=path, args=[*FLAGS, f"--host-resolver-rules={rules}", *flags]
        )
        yield opened
        opened.close()
