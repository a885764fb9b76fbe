"""A real server process on a free port: it prints its address, survives hostile clients and stops cleanly."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_http_api import png_of

from command import HANGUP
from headstart.errors import MissingExtraError, ModelError, SettingError
from headstart.interfaces.http.pins import pinned
from headstart.interfaces.http.server import model_folders, serve_models
from tiny_model import noise, picture, tiny_model

PROGRAM = """
import sys
from headstart.interfaces.http.limits import Limits
from headstart.interfaces.http.pins import pinned
from headstart.interfaces.http.server import serve_models
limits = Limits(header_s=1.0, body_s=float(sys.argv[2]), drain_s=10.0)
serve_models([sys.argv[1]], port=0, token=None, limits=limits, workers=1)
"""
PREDICT = "/v1/models/tiny/predict"


@dataclass
class Running:
    """A server process."""

    process: subprocess.Popen[str]
    port: int

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(
                method, path, body, {key.replace("_", "-"): one for key, one in headers.items()}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()

    def predict(self, body: bytes) -> tuple[int, bytes]:
        return self.ask("POST", PREDICT, body, content_type="image/png")

    def well(self) -> None:
        status, body = self.predict(picture(0))
        assert status == 200 and json.loads(body)["predictions"][0]["class"] == "dark"

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return made

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found
        return int(found[1]) / 1024


def head(n_bytes: int) -> bytes:
    """A request's header whose body is announced; none: it comes in chunks."""
    length = f"content-length: {n_bytes}" if n_bytes else "transfer-encoding: chunked"
    return (
        f"POST {PREDICT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n{length}\r\n\r\n".encode()
    )


def everything(connection: socket.socket) -> bytes:
    """All that comes until the other side closes; an error if it does not."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            found += piece
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model().save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def start(folder: Path) -> Callable[..., Running]:
    def begin(body_s: float = 1.5) -> Running:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(body_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.fullmatch(
            r"Serving tiny at http://127\.0\.0\.1:(\d+) \(API documentation: \S+/docs\)\n", said
        )
        assert found, said
        return Running(process, int(found[1]))

    return begin


def ended(running: Running, number: int = signal.SIGTERM) -> tuple[int, str]:
    """Status and standard error after a signal."""
    running.process.send_signal(number)
    _, err = running.process.communicate(timeout=30)
    return running.process.returncode, err


@pytest.fixture(scope="module")
def running(start: Callable[..., Running]) -> Iterator[Running]:
    """One process for all tests that leave it as it was; it must have said nothing of what was sent."""
    made = start()
    yield made
    status, err = ended(made)
    assert status == 0
    assert err == ""


def test_it_predicts(running: Running) -> None:
    running.well()
    assert running.ask("GET", "/readyz")[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, HANGUP])
def test_requests_in_progress_are_finished(start: Callable[..., Running], number: int) -> None:
    running = start(body_s=30.0)
    body = picture(255)
    with running.connect() as connection, running.connect():  # the other says nothing
        connection.sendall(head(len(body)) + body[:10])
        running.well()  # whoever came before has been handled then
        running.process.send_signal(number)
        for _ in range(100):
            try:
                running.connect().close()
            except ConnectionRefusedError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("new connections are still taken")
        connection.sendall(body[10:])
        assert b"200 OK" in everything(connection)
    assert running.process.wait(15) == 0
    _, err = running.process.communicate()
    assert err == ""


@pytest.mark.parametrize("announced", [True, False])
def test_a_huge_upload_is_refused_while_it_comes(running: Running, announced: bool) -> None:
    running.well()
    before, most, sent, mib = running.rss_mb(), 0.0, 0, bytes(2**20)
    start = head(500 * 2**20 if announced else 0)
    with running.connect() as connection:
        connection.sendall(start)
        try:
            for _ in range(500):
                connection.sendall(mib if announced else b"100000\r\n" + mib + b"\r\n")
                sent += 1
                most = max(most, running.rss_mb())
        except (ConnectionError, TimeoutError):
            pass
        said = everything(connection)
    assert sent < 500 or b" 413 " in said
    running.well()
    assert most - before < 120, (before, most)
    # a client that reads while it sends, as every good one does, sees why
    piece = bytes(2**15) if announced else b"8000\r\n" + bytes(2**15) + b"\r\n"
    done = subprocess.run(
        [sys.executable, "-c", READER, str(running.port), start.hex(), piece.hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("HTTP/1.1 413"), (done.stdout[:200], done.stderr)


READER = """
import select, socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
connection.sendall(bytes.fromhex(sys.argv[2]))
while not select.select([connection], [], [], 0)[0]:
    connection.sendall(bytes.fromhex(sys.argv[3]))
print(connection.recv(65536).decode())
"""


def test_bombs_cost_no_memory(running: Running) -> None:
    running.well()
    before = running.rss_mb()
    for _ in range(20):
        assert running.predict(png_of(60_000, 60_000))[0] == 413
    running.well()
    assert running.rss_mb() - before < 40


def test_a_slow_header_times_out_and_others_are_served(running: Running) -> None:
    with running.connect() as silent, running.connect() as slow:
        slow.sendall(f"POST {PREDICT} HTTP/1.1\r\nhost".encode())
        running.well()
        assert everything(silent) == b"" and everything(slow) == b""


def test_a_dripping_header_times_out(running: Running) -> None:
    """A letter every tenth of a second for ten times as long as a header may take."""
    with running.connect() as connection, pytest.raises(ConnectionError):
        for number in range(100):
            connection.sendall(b"E" if number else b"G")
            time.sleep(0.1)
    running.well()


def test_a_second_slow_header_times_out_too(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        time.sleep(0.2)
        connection.sendall(b"GET /healthz HT")
        assert everything(connection).count(b"200 OK") == 1


@pytest.mark.slow
def test_a_slow_body_gets_an_error_and_others_are_served(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(head(5000) + b"abc")
        running.well()
        said = everything(connection)
    assert b" 408 " in said and b'{"error":' in said


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # somebody speaks TLS
        b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"a: " + b"b" * 100_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_other_protocols_do_no_harm(running: Running, sent: bytes) -> None:
    with running.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        said = everything(connection)
    assert b" 500 " not in said
    running.well()


def request(body: bytes, path: str = PREDICT, method: str = "POST") -> bytes:
    kind = f"content-type: image/png\r\ncontent-length: {len(body)}\r\n" if method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{kind}\r\n".encode() + body


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (request(picture(0)), [b"200"]),
        (request(noise(1, 300, "PNG")), [b"200"]),  # through threads
        (request(b"junk"), [b"422"]),
        (b"GET /healthz HTTP/1.0\r\n\r\n", [b"200"]),
        (request(picture(0)) * 3 + request(b"", "/healthz", "GET"), [b"200"] * 4),
        (request(picture(0)) + b"GET /heal", [b"200"]),
        (request(picture(0))[:-3], [b"400"]),
        (request(b"", "/nowhere", "GET"), [b"404"]),
        (b"", []),
        (b"GET /hea", []),
    ],
)
def test_clients_that_close_their_side_are_answered(
    running: Running, sent: bytes, statuses: list[bytes]
) -> None:
    with running.connect() as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        said = everything(connection)
    assert re.findall(rb"HTTP/1\.1 (\d+)", said) == statuses, said


def test_a_request_with_two_lengths_ends_the_connection(running: Running) -> None:
    """What follows could be taken for another request, by us or by a proxy before us."""
    both = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
    with running.connect() as connection:
        connection.sendall(both % PREDICT.encode() + b"0\r\n\r\n" + request(b"", "/healthz", "GET"))
        said = everything(connection)
    assert re.findall(rb"HTTP/1\.1 (\d+)", said) == [b"400"] and b"transfer-encoding" in said


def test_many_clients_that_only_announce_keep_nobody_out(running: Running) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(running.connect())
            connection.sendall(head(32 * 2**20))
        running.well()


def test_a_page_elsewhere_gets_nothing(running: Running) -> None:
    """By its origin, and by a name that it lets point here."""
    status, body = running.ask("POST", PREDICT, picture(0), origin="https://evil.example")
    assert status == 403 and b"https://evil.example" in body
    for path in ("/v1/models", "/healthz", "/metrics"):
        assert running.ask("GET", path, host=f"evil.example:{running.port}")[0] == 403
    assert running.ask("GET", "/v1/models", host=f"localhost:{running.port}")[0] == 200


def test_clients_that_disconnect_do_no_harm(running: Running) -> None:
    body = noise(1, 300, "PNG")
    for cut in (0, 100, len(body)):
        for _ in range(10):
            with running.connect() as connection:
                connection.sendall(head(len(body)) + body[:cut])
    running.well()
    for _ in range(50):
        if b"headstart_waiting_images 0.0" in running.ask("GET", "/metrics")[1]:
            break
        time.sleep(0.1)
    else:
        pytest.fail("images of clients that left are still counted")


def test_many_at_once(running: Running) -> None:
    found: list[int] = []

    def one(seed: int) -> None:
        for turn in range(10):
            body = picture(seed) if (seed + turn) % 3 else b"junk"
            found.append(running.predict(body)[0])

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 160 and set(found) == {200, 422}


@pytest.mark.slow
def test_schemathesis_finds_no_fault(running: Running, tmp_path: Path) -> None:
    """It reads the document, asks what it allows and what it does not, and looks at every answer."""
    tool = Path(sys.executable).with_name("schemathesis")
    if not tool.exists():
        pytest.skip("needs schemathesis")
    done = subprocess.run(
        [
            tool,
            "run",
            f"http://127.0.0.1:{running.port}/openapi.json",
            f"--max-examples={os.environ.get('HEADSTART_EXAMPLES', '15')}",
            "--seed=1",
            "--no-color",
            # what is an image no schema can say, so some of what it allows must be refused
            "--exclude-checks=positive_data_acceptance",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "empty"),
        (["c d"], "'c d'"),
        (["a/b=x"], "'a/b'"),
        (["bad name=FOLDER"], "NAME=FOLDER"),
        (["../x=FOLDER"], "'../x'"),
        (["a=FOLDER", "a=FOLDER"], "given to"),
        (["tiny=FOLDER", "FOLDER"], "'tiny'"),
        (["=FOLDER"], "''"),
    ],
)
def test_invalid_arguments(folder: Path, words: list[str], said: str) -> None:
    with pytest.raises(SettingError, match=re.escape(said)) as caught:
        model_folders([word.replace("FOLDER", str(folder)) for word in words])
    assert "\n" not in str(caught.value) and ", expected " in str(caught.value)


def test_model_arguments(folder: Path, tmp_path: Path) -> None:
    assert list(model_folders([str(folder), f"other={folder}"])) == ["tiny", "other"]
    odd = tiny_model().save(tmp_path / "a=b")
    with pytest.raises(SettingError):  # a folder of that name has no name fit for an address
        model_folders([str(odd)])
    assert model_folders([f"odd={odd}"]) == {"odd": str(odd)}
    with pytest.raises(ModelError, match="is not a folder"):
        pinned(model_folders([f"none={tmp_path / 'none'}"]))


@pytest.mark.parametrize("token", ["", "two words", "naïve", "a\nb"])
def test_an_invalid_token(folder: Path, token: str) -> None:
    with pytest.raises(SettingError, match="token") as caught:
        serve_models([str(folder)], token=token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "256.1.1.1", "\x1b[2J", "x" * 300])
def test_an_address_that_is_not_available(folder: Path, host: str) -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingError, match="is not available") as caught:
            serve_models([str(folder)], host=host, port=taken.getsockname()[1])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("host", "token", "warned"),
    [
        ("127.0.0.1", None, False),
        ("127.0.0.9", None, False),
        ("0.0.0.0", None, True),
        ("0.0.0.0", "secret", False),
    ],
)
def test_a_public_address_without_a_token_is_a_warning(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    host: str,
    token: str | None,
    warned: bool,
) -> None:
    monkeypatch.setattr("headstart.interfaces.http.listening.run_app", lambda *_, **__: None)
    serve_models([str(folder)], host=host, port=0, token=token, workers=1)
    err = capsys.readouterr().err
    assert (err.count("\n"), "no token" in err) == ((1, True) if warned else (0, False))


def test_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"headstart\[serve\]"):
        serve_models([str(folder)])


@pytest.mark.slow
def test_it_loads_no_training_framework(folder: Path) -> None:
    program = (
        "import sys; from headstart.interfaces.http import listening, server\n"
        "listening.run_app = lambda *_, **__: None\n"
        "server.serve_models([sys.argv[1]], port=0, workers=1)\n"
        "print(sorted({'torch', 'timm', 'sklearn', 'gradio', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n", done


def installed_with(extra: str) -> set[str]:
    """Distributions that `pip install headstart[extra]` gives here, by pyproject.toml and what they require."""
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    open_, seen = [(Requirement(line), "") for line in project["dependencies"]], set()
    open_ += [(Requirement(line), "") for line in project["optional-dependencies"][extra]]
    while open_:
        requirement, of = open_.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": of}):
            continue
        if name == "headstart":
            for one in requirement.extras:
                open_ += [(Requirement(line), "") for line in project["optional-dependencies"][one]]
            continue
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                with contextlib.suppress(metadata.PackageNotFoundError):
                    open_ += [(Requirement(line), wanted) for line in metadata.requires(name) or ()]
    return {name for name, _ in seen}


@pytest.mark.slow
def test_the_base_and_its_extra_are_enough(folder: Path) -> None:
    """Gradio, which only the teaching page needs, came with it: 216 MB."""
    kept = installed_with("serve")
    assert "uvicorn" in kept and not kept & {"gradio", "fastapi", "pandas", "torch"}
    assert {"gradio", "fastapi", "uvicorn"} <= installed_with("teach")
    hidden = sorted(
        module
        for module, of in metadata.packages_distributions().items()
        if not {canonicalize_name(one) for one in of} & {*kept, "headstart"}
    )
    assert {"gradio", "fastapi", "torch"} <= set(hidden)
    program = f"import sys\nsys.modules.update(dict.fromkeys({hidden}))\n{PROGRAM}"
    command = [sys.executable, "-c", program, folder, "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            Running(process, int(re.findall(r":(\d+) ", process.stdout.readline())[0])).well()
        finally:
            process.terminate()
        assert process.wait(30) == 0
