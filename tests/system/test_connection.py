"""A server that cannot be reached is reported within seconds; one that is slow is waited for."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headstart.data.readers.download import Remote, obtain
from headstart.errors import FetchError
from headstart.system.connection import ANSWER_S, answers

WITHIN_S = 10.0
NETWORK = "test_resnet.r160_in1k"  # of timm, made for tests: 2 MB


def test_each_request_is_told_of_in_order() -> None:
    def slow() -> None:
        time.sleep(30)

    found = list(answers([lambda: None, slow, lambda: {}["a"], slow, lambda: None], within_s=0.5))
    assert [type(one) for one in found] == [type(None), TimeoutError, KeyError, TimeoutError, type(None)]


def test_who_answers_is_not_kept_waiting_by_who_does_not() -> None:
    assert next(answers([lambda: None, lambda: time.sleep(30)], within_s=20)) is None


@contextmanager
def silence() -> Iterator[str]:
    """The address of a server that is connected to, and never says a word, as behind a firewall."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@dataclass
class Hub:
    """What a server has, how long it takes to give it, and what it was asked."""

    address: str = ""
    file: bytes = b""
    takes_s: float = 0.0
    status: int = 200
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """A server that answers every path as the hub answers for a file."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            self.send_response(hub.status)
            self.send_header("Content-Length", str(len(hub.file)))
            self.send_header("ETag", f'"{hashlib.sha256(hub.file).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0123456789" * 4)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            n_pieces = 20
            size = -(-len(hub.file) // n_pieces)
            for start in range(0, len(hub.file), max(1, size)):
                self.wfile.write(hub.file[start : start + size])
                time.sleep(hub.takes_s / n_pieces)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# datasets


@pytest.mark.slow
def test_mirrors_that_are_silent_are_one_error_within_seconds() -> None:
    with silence() as first, silence() as second:
        remote = Remote("X/raw/x.gz", (f"{first}/x.gz", f"{second}/x.gz"), "0" * 32)
        with pytest.raises(
            FetchError, match=r"^dataset 'x' could not be fetched \(\w*Timeout\w*\), expected X/raw"
        ):
            obtain(remote, "x", download=True)


@pytest.mark.slow
def test_a_mirror_that_answers_stands_in_for_one_that_does_not() -> None:
    content = b"a dataset"
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    with silence() as first, serving(Hub(file=content)) as second:
        remote = Remote("X/raw/x.gz", (f"{first}/x.gz", f"{second.address}/x.gz"), md5)
        assert obtain(remote, "x", download=True).read_bytes() == content


@pytest.mark.slow
def test_a_slow_mirror_is_waited_for() -> None:
    content = b"a dataset" * 1000
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    with serving(Hub(file=content, takes_s=1.5 * ANSWER_S)) as hub:
        remote = Remote("X/raw/x.gz", (f"{hub.address}/x.gz",), md5)
        assert obtain(remote, "x", download=True).read_bytes() == content


# the hub

OPEN = """
import json, sys, time
import headstart.sources.timm.export
from headstart.errors import HeadstartError
from headstart.sources.registry import open_source
begun = time.monotonic()
try:
    said = open_source(sys.argv[1]).name
except HeadstartError as error:
    said = f"{type(error).__name__}: {error}"
print(json.dumps([said, time.monotonic() - begun]))
"""


def opened(place: Path, endpoint: str, cache: str = "cache") -> tuple[str, float]:
    """What opening the source says, and the seconds after all imports; in a process of its own."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(place / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HEADSTART_CACHE": str(place / cache),
        "NO_PROXY": "127.0.0.1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", OPEN, f"timm:{NETWORK}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, seconds = json.loads(done.stdout.splitlines()[-1])
    return said, seconds


@pytest.mark.slow
def test_a_hub_that_is_silent_is_one_error_within_seconds(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    with silence() as address:
        said, seconds = opened(tmp_path, address)
    assert said.startswith(
        f"SourceError: source 'timm:{NETWORK}' cannot be loaded (ConnectionError: no connection"
    )
    assert seconds < WITHIN_S


@pytest.mark.slow
def test_a_hub_that_is_down_is_one_error_within_seconds(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    with serving(Hub(status=503)) as hub:
        said, seconds = opened(tmp_path, hub.address)
    assert said.startswith("SourceError: ") and "503" in said and "timm:local-dir:PATH" in said
    assert seconds < WITHIN_S


@pytest.mark.slow
def test_a_slow_hub_is_waited_for_once(tmp_path: Path) -> None:
    """The second time, with our own cache empty, the weights come from the hub's cache without a request."""
    timm, safetensors = pytest.importorskip("timm"), pytest.importorskip("safetensors.torch")
    weights = safetensors.save(timm.create_model("test_resnet").state_dict())
    with serving(Hub(file=weights, takes_s=1.5 * ANSWER_S)) as hub:
        said, seconds = opened(tmp_path, hub.address)
        assert said == f"timm:{NETWORK}" and seconds > ANSWER_S
        n_asked = len(hub.asked)
        assert hub.asked[0] == "HEAD /" and "/resolve/main/model.safetensors" in hub.asked[-1]
        assert opened(tmp_path, hub.address, "another cache")[0] == f"timm:{NETWORK}"
        assert len(hub.asked) == n_asked
