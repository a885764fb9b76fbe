"""Several processes behind one address: all serve, dead ones are replaced, metrics are totals."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from command import HANGUP
from headstart.errors import SettingError
from headstart.interfaces.http.batching import Batcher
from headstart.interfaces.http.limits import Limits
from headstart.interfaces.http.metrics import _reserve
from headstart.interfaces.http.server import serve_models
from headstart.interfaces.http.workers import Turn, divided
from headstart.models.model import Model
from headstart.records import Array, Images
from tiny_model import picture, tiny_model

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
PROGRAM = """
import sys
from headstart.interfaces.http.batching import Batcher
from headstart.interfaces.http.limits import Limits
from headstart.interfaces.http.server import serve_models
serve_models([sys.argv[1]], port=0, token="secret", limits=Limits(drain_s=5.0, stall_s=30.0), workers=2)
"""
PREDICT, ROUTE = "/v1/models/tiny/predict", "/v1/models/{name}/predict"


class Running:
    """A server of two workers."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
        )
        self.temporary = temporary
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found = re.fullmatch(r"Serving tiny at http://127\.0\.0\.1:(\d+) .*\n", said)
        assert found, (said, self.process.communicate(timeout=30))
        self.port = int(found[1])

    @property
    def pids(self) -> list[int]:
        """Of the workers."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        with contextlib.closing(self.connect()) as connection:
            return asked(connection, method, path, body)

    def predict(self) -> int:
        return self.ask("POST", PREDICT, picture(0))[0]

    def figure(self, name: str, **labels: str) -> float:
        """The sum of a figure's samples that have some labels."""
        text = self.ask("GET", "/metrics")[1].decode()
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    def ended(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        assert out == ""
        return self.process.returncode, err


def asked(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b""
) -> tuple[int, bytes]:
    connection.request(method, path, body, {"authorization": "Bearer secret", "content-type": "image/png"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def until(true: Callable[[], bool], what: str) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.1)
    pytest.fail(what)


def refuses(port: int) -> bool:
    """Whether nobody listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model().save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Iterator[Running]:
    made = Running(folder, tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.communicate(timeout=30)


def cpu_ticks(pid: int) -> int:
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(values[11]) + int(values[12])


def sockets(pid: int) -> int:
    """Connections that a process holds open."""
    found = 0
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(one).startswith("socket:")
    return found


@pytest.mark.slow
def test_both_serve_and_metrics_are_totals(running: Running) -> None:
    before = {pid: sockets(pid) for pid in running.pids}
    assert len(before) == 2 and running.process.pid not in before
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(running.connect())) for _ in range(24)]
        statuses: Counter[int] = Counter()

        def one(connection: http.client.HTTPConnection) -> None:
            for _ in range(5):
                statuses[asked(connection, "POST", PREDICT, picture(0))[0]] += 1

        threads = [threading.Thread(target=one, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        held = {pid: sockets(pid) - before[pid] for pid in running.pids}
        assert statuses == {200: 120}
        assert sum(held.values()) == 24 and min(held.values()) > 0, held
    until(lambda: running.figure("headstart_request_seconds_count", route=ROUTE) == 120, "not 120")
    assert running.figure("headstart_requests_total", route=ROUTE, status="200") == 120
    assert running.figure("headstart_batch_images_sum", model="tiny") == 120
    assert running.figure("headstart_waiting_images") == 0
    rss = sum(
        int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) for pid in running.pids
    )
    assert running.figure("process_resident_memory_bytes") == pytest.approx(rss * 1024, rel=0.1)
    assert running.ask("GET", "/readyz")[0] == 200
    status, err = running.ended()
    assert (status, err) == (0, "")
    assert list(running.temporary.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_cannot_kill_a_worker_that_writes_metrics(running: Running) -> None:
    """A process that writes to a hole of a mapped file ends by a signal where the disk is full."""
    assert running.predict() == 200
    files = list(running.temporary.rglob("*.db"))
    assert len(files) == 6  # of two workers
    for path in files:
        with path.open("rb") as file:
            assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == path.stat().st_size, path.name


def test_metrics_without_a_place_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"temporary folder is full or cannot be written \(No such file"):
        _reserve(tmp_path / "missing")


@pytest.mark.slow
def test_a_dead_worker_is_replaced_and_requests_continue(running: Running) -> None:
    def answered() -> float:
        return running.figure("headstart_requests_total", route=ROUTE, status="200")

    for _ in range(10):
        assert running.predict() == 200
    until(lambda: answered() == 10, "not 10")  # an answer is counted after it was sent
    first = running.pids
    os.kill(first[0], signal.SIGKILL)
    until(lambda: first[0] not in running.pids and len(running.pids) == 2, "nobody replaced it")
    for _ in range(10):
        assert running.predict() == 200
    until(lambda: answered() == 20, "not 20")
    new = next(pid for pid in running.pids if pid not in first)
    os.kill(first[1], signal.SIGKILL)  # so a new one must answer, as soon as it can
    until(lambda: first[1] not in running.pids, "it lives")
    assert running.predict() == 200
    assert new in running.pids
    until(lambda: answered() == 21, "not 21")
    status, err = running.ended()
    assert status == 0
    assert [line.partition(" ended ")[2] for line in err.splitlines()] == 2 * [
        "(signal 9); starting another"
    ], err


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Running]:
    """A server of a folder that the test may change."""
    (tmp_path / "temporary").mkdir()
    made = Running(tiny_model().save(tmp_path / "tiny"), tmp_path / "temporary")
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.communicate(timeout=30)


def kill_in_turn(running: Running) -> None:
    """Every worker, each once the one before it was replaced."""
    for pid in running.pids:
        os.kill(pid, signal.SIGKILL)
        until(lambda gone=pid: gone not in running.pids and len(running.pids) == 2, "nobody replaced it")
        until(lambda: len(ready(running)) == 2, "it does not serve")


def ready(running: Running) -> set[int]:
    """Workers that have written metrics, which they do when they serve."""
    files = next(running.temporary.glob("headstart-serve-*")).glob("gauge_livesum_*.db")
    return {int(one.stem.rpartition("_")[2]) for one in files} & set(running.pids)


def other_model() -> Model:
    """A model whose answers have novelty."""
    made = tiny_model(novelty=True)
    return replace(made, manifest=replace(made.manifest, novelty={"false_rejection": 0.05}))


def models_served(running: Running, n: int = 12) -> set[bool]:
    """Whether the models that answer have novelty."""
    found = set()
    for _ in range(n):
        status, body = running.ask("POST", PREDICT, picture(0))
        assert status == 200
        found.add(json.loads(body)["predictions"][0]["novelty"] is not None)
    return found


@pytest.mark.slow
def test_a_replaced_worker_serves_the_model_the_server_started_with(own: Running, tmp_path: Path) -> None:
    assert models_served(own) == {False}
    other_model().save(tmp_path / "tiny")
    time.sleep(5)  # two looks at the folder
    kill_in_turn(own)
    assert models_served(own) == {False}
    shutil.rmtree(tmp_path / "tiny")
    kill_in_turn(own)
    assert models_served(own) == {False}
    pids = own.pids
    for pid in pids:  # nobody is left, and the folder is away
        os.kill(pid, signal.SIGKILL)
    until(lambda: not {*pids} & {*own.pids}, "they live")
    assert models_served(own) == {False}
    time.sleep(5)  # two looks at the folder
    status, err = own.ended()
    assert status == 0
    assert "was replaced; the server keeps the model that it started with; restart the server" in err
    assert "is no longer there; the server keeps the model" in err
    assert list(own.temporary.iterdir()) == []


@pytest.mark.slow
def test_files_that_are_written_over_keep_a_worker_out(own: Running, tmp_path: Path) -> None:
    """The open files change with them: better one worker than two models."""
    folder, manifest = tmp_path / "tiny", tmp_path / "tiny" / "manifest.json"
    before = manifest.read_text()
    other = other_model().save(tmp_path / "other")
    for one in folder.iterdir():
        one.write_bytes((other / one.name).read_bytes())
    pid = own.pids[0]
    os.kill(pid, signal.SIGKILL)
    time.sleep(4)
    assert models_served(own) == {False} and len(ready(own)) == 1
    for one in tiny_model().save(tmp_path / "again").iterdir():
        (folder / one.name).write_bytes(one.read_bytes())
    assert manifest.read_text() == before
    until(lambda: len(ready(own)) == 2, "it is not tried again")
    assert models_served(own) == {False}
    status, err = own.ended()
    assert status == 0
    assert "worker cannot start: model 'tiny'" in err and "restart the server to serve the new model" in err


@pytest.mark.slow
def test_workers_that_outlive_their_parent_leave_no_files(own: Running) -> None:
    own.process.kill()
    own.process.communicate(timeout=60)  # the workers have ended, too
    until(lambda: list(own.temporary.iterdir()) == [], "files are left")


def taken(running: Running, before: dict[int, int]) -> list[int]:
    """Connections that each worker took since."""
    return [sockets(pid) - before[pid] for pid in running.pids]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, HANGUP])
def test_both_finish_requests_in_progress(running: Running, number: int) -> None:
    body = picture(255)
    head = (
        f"POST {PREDICT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\nauthorization: Bearer secret\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode()
    before = {pid: sockets(pid) for pid in running.pids}
    with contextlib.ExitStack() as stack:
        connections = []
        # the system deals them out: mostly in turns, now and then all to one
        while len(connections) < 24 or (len(connections) < 400 and min(taken(running, before)) < 1):
            connection = socket.create_connection(("127.0.0.1", running.port), timeout=20)
            connections.append(stack.enter_context(connection))
            connection.sendall(head + body[:10])
            until(lambda: sum(taken(running, before)) == len(connections), "some were not taken")
        assert all(number > 0 for number in taken(running, before))
        time.sleep(0.3)
        running.process.send_signal(number)
        until(lambda: refuses(running.port), "new connections are still taken")
        for connection in connections:
            connection.sendall(body[10:])
        for connection in connections:
            assert b"200 OK" in connection.recv(65_536)
    assert running.process.wait(15) == 0
    assert running.process.communicate() == ("", "")


@pytest.mark.slow
def test_they_end_with_their_parent(running: Running) -> None:
    pids = running.pids
    running.process.kill()
    running.process.communicate(timeout=30)  # their standard error is at its end: both are going
    until(lambda: all(state(pid) in ("gone", "Z", "X") for pid in pids), "a worker outlives its parent")


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


@pytest.mark.slow
def test_it_gives_up_when_workers_die_at_once(running: Running) -> None:
    for _ in range(600):  # it waits longer before each start
        with contextlib.suppress(FileNotFoundError):  # it has ended
            for pid in running.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        if running.process.poll() is not None:
            break
    _, err = running.process.communicate(timeout=30)
    assert running.process.returncode == 1
    assert "WorkersError: worker ended (signal 9), the last of 8" in err


@pytest.mark.slow
def test_an_error_of_a_worker_is_ours(folder: Path) -> None:
    with pytest.raises(SettingError, match="precision"):
        serve_models([str(folder)], port=0, workers=2, precision="fp7")


@pytest.mark.parametrize("asked", [-1, 65])
def test_an_invalid_number_of_workers(folder: Path, asked: int) -> None:
    with pytest.raises(SettingError, match=f"workers is {asked}, expected 1 to 64"):
        serve_models([str(folder)], port=0, workers=asked)


@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 64])
def test_together_they_accept_what_one_would(wanted: int) -> None:
    whole = Limits()
    each, n_workers = divided(whole, wanted)
    assert n_workers == min(wanted, 8)
    for name in ("bodies_bytes", "waiting", "requests"):
        assert getattr(each, name) * n_workers <= getattr(whole, name)
    assert each.bodies_bytes >= whole.body_bytes and each.waiting >= whole.files
    assert (each.body_bytes, each.files, each.image_px) == (whole.body_bytes, whole.files, whole.image_px)


def test_large_images_take_turns_across_processes(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from headstart.interfaces.http.workers import Turn\n"
        "with Turn(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read(1)"
    )
    path = tmp_path / "turn"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        entered = threading.Event()

        def enter() -> None:
            with Turn(path):
                entered.set()

        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.3)
        other.kill()  # who dies inside has left
        assert entered.wait(10)
        thread.join(10)


def test_batches_that_run_at_once() -> None:
    """In the loop's own thread, none too large; a fault is that of its batch alone."""
    sizes: list[int] = []

    def run(images: Images) -> tuple[Array, ...]:
        assert threading.current_thread() is threading.main_thread()
        if images.max() == 99:
            raise ValueError("99")
        return (images.reshape(len(images), -1)[:, :1].astype(np.float32),)

    async def work() -> list[tuple[Array, ...] | BaseException]:
        batcher = Batcher(run, largest=4, seen=sizes.append, at_once=True)
        found = await asyncio.gather(
            *(batcher.submit(np.full((2, 2, 1), value, np.uint8)) for value in [*range(10), 99]),
            return_exceptions=True,
        )
        batcher.close()
        assert batcher.n_waiting == 0
        return found

    found = asyncio.run(work())
    assert sizes == [4, 4, 3]
    assert [float(one[0][0]) for one in found[:8] if isinstance(one, tuple)] == list(range(8))
    assert [type(one) for one in found[8:]] == 3 * [ValueError]


def test_predictions_equal_those_of_one_process(running: Running) -> None:
    status, body = running.ask("POST", PREDICT, picture(0))
    assert status == 200 and json.loads(body)["predictions"][0]["class"] == "dark"
    with contextlib.closing(running.connect()) as connection:
        connection.request("GET", "/v1/models")
        assert connection.getresponse().status == 401
