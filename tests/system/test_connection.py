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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headstart.data.readers.download import Remote, obtain
from headstart.errors import FetchError
from headstart.system.connection import ANSWER_S, BYTE_S, FIRST_BYTE_S, answers, moving

WITHIN_S = 10.0
NETWORK = "test_resnet.r160_in1k"  # of timm, made for tests: 2 MB


def test_each_request_is_told_of_in_order() -> None:
    def slow() -> None:
        time.sleep(30)

    found = list(answers([lambda: None, slow, lambda: {}["a"], slow, lambda: None], within_s=0.5))
    assert [type(one) for one in found] == [type(None), TimeoutError, KeyError, TimeoutError, type(None)]


def test_who_answers_is_not_kept_waiting_by_who_does_not() -> None:
    assert next(answers([lambda: None, lambda: time.sleep(30)], within_s=20)) is None


def test_a_download_is_watched_until_nothing_more_arrives() -> None:
    def steady(arrived: Callable[[], None]) -> None:
        for _ in range(8):
            time.sleep(0.02)
            arrived()

    def silent(arrived: Callable[[], None]) -> None:
        time.sleep(30)

    def ceasing(arrived: Callable[[], None]) -> None:
        arrived()
        time.sleep(30)

    def broken(arrived: Callable[[], None]) -> None:
        arrived()
        raise OSError("no space")

    moving(steady, first_s=5, later_s=5)
    with pytest.raises(TimeoutError, match=r"^no data within 0\.1 s$"):
        moving(silent, first_s=0.1, later_s=0.2)
    with pytest.raises(TimeoutError, match=r"^no more data within 0\.2 s$"):
        moving(ceasing, first_s=5, later_s=0.2)
    with pytest.raises(OSError, match="no space"):
        moving(broken)


@contextmanager
def silence() -> Iterator[str]:
    """The address of a server that is connected to, and never says a word, as behind a firewall."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def hole() -> Iterator[str]:
    """The address of a server that no connection is made to, nor refused: its queue is full."""
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@dataclass
class Hub:
    """What a server has, how long it takes to give it, when it falls silent, and what it was asked."""

    address: str = ""
    file: bytes = b""
    takes_s: float = 0.0
    silent_after: int | None = None
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
            if hub.silent_after is not None:
                self.wfile.write(hub.file[: hub.silent_after])
                over.wait()
                return
            n_pieces = 20
            size = -(-len(hub.file) // n_pieces)
            for start in range(0, len(hub.file), max(1, size)):
                self.wfile.write(hub.file[start : start + size])
                time.sleep(hub.takes_s / n_pieces)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    over = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        over.set()
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


def opened(place: Path, endpoint: str, cache: str = "cache", **more: str) -> tuple[str, float]:
    """What opening the source says, and the seconds after all imports; in a process of its own."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(place / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HEADSTART_CACHE": str(place / cache),
        "NO_PROXY": "127.0.0.1",
        **more,
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


def check_refused(said: str, seconds: float, reason: str, within_s: float = WITHIN_S) -> None:
    """One sentence: what was tried, and what to do; within seconds."""
    assert said.startswith(f"SourceError: source 'timm:{NETWORK}' cannot be downloaded from http://127.0.0.1")
    assert reason in said and "\n" not in said
    assert f"hf download timm/{NETWORK} model.safetensors --cache-dir weights" in said
    assert "HF_HUB_CACHE=weights" in said and "timm:local-dir:PATH" in said
    assert seconds < within_s


@pytest.mark.slow
@pytest.mark.parametrize("server", [silence, hole])
def test_a_hub_that_is_silent_is_one_error_within_seconds(
    server: Callable[[], AbstractContextManager[str]], tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    with server() as address:
        check_refused(*opened(tmp_path, address), "no answer within 5 s")


@pytest.mark.slow
@pytest.mark.parametrize("status", [404, 503])
def test_a_hub_that_is_down_is_one_error_within_seconds(status: int, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    with serving(Hub(status=status)) as hub:
        check_refused(*opened(tmp_path, hub.address), str(status))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("silent_after", "reason"), [(0, "no data within 2 s"), (200_000, "no more data within 6 s")]
)
def test_a_hub_that_falls_silent_is_given_up(silent_after: int, reason: str, tmp_path: Path) -> None:
    """After as many times the usual seconds as the user's limit for an answer has of ours."""
    pytest.importorskip("timm")
    with serving(Hub(file=bytes(2_000_000), silent_after=silent_after)) as hub:
        said, seconds = opened(tmp_path, hub.address, HF_HUB_ETAG_TIMEOUT="1")
    check_refused(said, seconds, reason, WITHIN_S + (BYTE_S if silent_after else FIRST_BYTE_S) / ANSWER_S)


@pytest.mark.slow
def test_weights_are_carried_over_as_the_error_says(tmp_path: Path) -> None:
    timm, safetensors = pytest.importorskip("timm"), pytest.importorskip("safetensors.torch")
    weights = safetensors.save(timm.create_model("test_resnet").state_dict())
    with serving(Hub(file=weights)) as hub:
        command = f"hf download timm/{NETWORK} model.safetensors --cache-dir weights".split()
        elsewhere = {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        hf = Path(sys.executable).with_name(command[0])
        subprocess.run(
            [hf, *command[1:]], env={**os.environ, **elsewhere}, cwd=tmp_path, check=True, capture_output=True
        )
    with silence() as address:
        said, _ = opened(tmp_path, address, HF_HUB_CACHE=str(tmp_path / "weights"))
    assert said == f"timm:{NETWORK}"


@pytest.mark.slow
def test_a_slow_hub_is_waited_for_once(tmp_path: Path) -> None:
    """The second time, with our own cache empty, the weights come from the hub's cache without a request."""
    timm, safetensors = pytest.importorskip("timm"), pytest.importorskip("safetensors.torch")
    weights = safetensors.save(timm.create_model("test_resnet").state_dict())
    with serving(Hub(file=weights, takes_s=1.5)) as hub:
        said, seconds = opened(tmp_path, hub.address, HF_HUB_ETAG_TIMEOUT="1")
        assert said == f"timm:{NETWORK}" and seconds > 1
        n_asked = len(hub.asked)
        assert {one.split()[1] for one in hub.asked} == {f"/timm/{NETWORK}/resolve/main/model.safetensors"}
        assert opened(tmp_path, hub.address, "another cache")[0] == f"timm:{NETWORK}"
        assert len(hub.asked) == n_asked
