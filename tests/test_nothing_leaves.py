"""No connection, no name lookup, no fork and no file outside the folders that were given, in any process.

Each program runs with an empty home folder and with none of the variables by which packages recognise a CI
job or a test, where they are silent anyway.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.system.telemetry import SWITCHES

WATCH = Path(__file__).parent / "watch"
KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""All that a program gets of this process's environment: no CI, no PYTEST_CURRENT_TEST, none of SWITCHES."""
LIMIT_S = 300
HEADSTART = ("-m", "headstart")


def has_strace() -> bool:
    """Installed, and permitted here."""
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0
    )


@dataclass(frozen=True)
class Watched:
    """Folders of a program: all that it may write to."""

    home: Path
    temporary: Path
    work: Path
    notes_folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return kept | {
            "HOME": str(self.home),
            "USERPROFILE": str(self.home),
            "TMPDIR": str(self.temporary),
            "HEADSTART_CACHE": str(self.work / "cache"),
            "HEADSTART_WATCH": str(self.notes_folder),
            "PYTHONPATH": f"{WATCH}{os.pathsep}{Path(headstart.__file__).parents[1]}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def trace(self) -> Path:
        return self.notes_folder / "trace.txt"

    def command(self, *words: object) -> list[str]:
        """Python, where possible under strace, which sees what native code sends."""
        calls = "connect,sendto,sendmsg,sendmmsg"
        # -D: the program is the child of the test and strace its grandchild, so signals reach the program
        traced = [
            "strace",
            "-D",
            "-f",
            "--seccomp-bpf",  # the program stops at these calls only, and not at each one
            "-qq",
            "-e",
            f"trace={calls}",
            "-e",
            "signal=none",
            "-o",
            str(self.trace),
        ]
        return [*(traced if has_strace() else []), sys.executable, *map(str, words)]

    def run(self, *words: object, limit_s: float = LIMIT_S) -> str:
        done = subprocess.run(
            self.command(*words),
            env=self.environment,
            cwd=self.work,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serving(self, *words: object) -> Iterator[str]:
        """A server; its address is in the first line that it prints. Ended as by Ctrl-C."""
        with subprocess.Popen(
            self.command(*words), env=self.environment, cwd=self.work, stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
                assert found is not None, "the server prints its address"
                yield found[0]
            finally:
                server.send_signal(signal.SIGINT)
                assert server.stdout is not None
                server.stdout.read()  # ends with strace, which lives a little longer
                server.wait(120)

    def notes(self, *kinds: str) -> list[tuple[str, str]]:
        file = self.notes_folder / "notes.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [(one["kind"], one["fact"]) for one in lines if one["kind"] in kinds]

    @property
    def packets(self) -> list[str]:
        """Of the system calls those that leave the machine."""
        lines = self.trace.read_text(errors="replace").splitlines() if self.trace.exists() else []
        addressed = [line for line in lines if "AF_INET" in line]
        return [line for line in addressed if not re.search(r'"(127\.[\d.]+|::1|::ffff:127\.[\d.]+)"', line)]

    @property
    def written_elsewhere(self) -> list[str]:
        """Files opened to write by Python, and files that lie in the home folder, whoever wrote them."""
        allowed = (self.temporary, self.work, self.notes_folder, Path("/dev"), Path("/proc/self"))
        opened = {Path(fact) for _, fact in self.notes("file")}
        lying = set(self.home.rglob("*"))
        return sorted(str(one) for one in opened | lying if not any(one.is_relative_to(a) for a in allowed))

    def assert_nothing_left(self) -> None:
        assert self.notes("connection", "lookup") == []
        assert self.packets == []
        assert self.notes("fork") == []
        assert self.written_elsewhere == []


def make_watched(place: Path) -> Watched:
    folders = [place / name for name in ("home", "temporary", "work", "notes")]
    for one in folders:
        one.mkdir()
    return Watched(*folders)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return make_watched(tmp_path)


def draw(folder: Path, n_each: int = 10) -> Path:
    """Dark strokes on paper, horizontal and vertical."""
    rng = np.random.default_rng(0)
    for label in ("across", "down"):
        (folder / label).mkdir(parents=True)
        for number in range(n_each):
            page = rng.integers(225, 256, (60, 60)).astype(np.uint8)
            at = int(rng.integers(15, 40))
            page[at : at + 5, 8:52] = 20
            Image.fromarray(page if label == "across" else page.T).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def transfer(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A watched transfer, from ``drawings`` in its folder to ``model``, which prepares by ``ink``."""
    watched = make_watched(tmp_path_factory.mktemp("transfer"))
    drawings = draw(watched.work / "drawings")
    watched.run(*HEADSTART, "transfer", "drawings", drawings, "-o", watched.work / "model")
    return watched


@pytest.fixture
def ink_model(transfer: Watched) -> tuple[Path, Path]:
    """A model, and images for it."""
    return transfer.work / "model", transfer.work / "drawings"


RUNTIMES = """
from headstart.graph.run import import_runtime
for runtime in ("openvino", "onnxruntime"):
    import_runtime(runtime)
"""


def test_the_runtimes_are_silent(watched: Watched) -> None:
    watched.run("-c", RUNTIMES)
    assert len(watched.notes("runtime")) >= 2, "both were imported, and the watch was on"
    watched.assert_nothing_left()


def test_the_watch_sees_openvino_by_itself(watched: Watched) -> None:
    """Without us it forks, looks up a name, and writes a client id: each kind of note can come."""
    watched.run("-c", "import openvino, time; time.sleep(1)")
    assert ("lookup", "www.google-analytics.com") in watched.notes("lookup")
    assert any(one.endswith("openvino_ga_cid") for one in watched.written_elsewhere)
    assert watched.notes("fork")


def test_the_watch_sees_connections(watched: Watched) -> None:
    """Refused before a packet leaves: the address is one for documentation."""
    program = """
        import socket
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(type=kind) as one:
                try:
                    one.connect(("198.51.100.1", 9))
                except PermissionError:
                    pass
        """
    watched.run("-c", dedent(program))
    assert watched.notes("connection") == 2 * [("connection", "('198.51.100.1', 9)")]


@pytest.mark.skipif(not has_strace(), reason="needs strace")
def test_the_trace_sees_native_code(watched: Watched) -> None:
    """Through ctypes, of which an audit hook learns nothing; a datagram socket connects without a packet."""
    program = """
        import ctypes, socket, struct
        libc = ctypes.CDLL(None)
        address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(9), socket.inet_aton("198.51.100.1"))
        libc.connect(libc.socket(socket.AF_INET, socket.SOCK_DGRAM, 0), address, len(address))
        """
    watched.run("-c", dedent(program))
    assert watched.notes("connection") == []
    assert len(watched.packets) == 1 and "198.51.100.1" in watched.packets[0]


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux tells of forks")
def test_the_watch_sees_forks_of_native_code(watched: Watched) -> None:
    """And not the start of another program, which is a vfork."""
    program = """
        import ctypes, os, subprocess, sys
        subprocess.run([sys.executable, "-c", ""], check=True)
        libc = ctypes.CDLL(None)
        if not libc.fork():
            libc._exit(0)
        os.wait()
        """
    watched.run("-c", dedent(program))
    assert [fact for _, fact in watched.notes("fork")] == ["C library, 1 threads of Python"]


def test_processes_beside_are_silent(watched: Watched) -> None:
    """Workers of loky, which are not children by fork."""
    program = watched.work / "beside.py"
    lines = (
        "from headstart.system.runners import ProcessRunner",
        "from headstart.graph.run import import_runtime",
        "if __name__ == '__main__':",
        "    list(ProcessRunner().map(lambda: import_runtime, ['openvino', 'onnxruntime']))",
    )
    program.write_text("\n".join(lines))
    watched.run(program)
    assert len(watched.notes("runtime")) >= 2
    watched.assert_nothing_left()


def test_only_telemetry_is_switched_off(watched: Watched) -> None:
    program = """
        import json, os, sys
        before = dict(os.environ)
        import headstart
        changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
        print(json.dumps([changed, [name for name, one in sys.modules.items() if one is None]]))
        """
    changed, blocked = json.loads(watched.run("-c", dedent(program)))
    assert changed == SWITCHES
    assert blocked == ["openvino_telemetry"]


def test_a_choice_that_was_made_is_kept(watched: Watched) -> None:
    program = """
        import os, sys, types
        os.environ["ORT_DISABLE_TELEMETRY"] = "0"
        mine = sys.modules["openvino_telemetry"] = types.ModuleType("openvino_telemetry")
        import headstart
        print(os.environ["ORT_DISABLE_TELEMETRY"], sys.modules["openvino_telemetry"] is mine)
        """
    assert watched.run("-c", dedent(program)).split() == ["0", "True"]


def test_openvino_converts_models_with_its_own_stub(watched: Watched) -> None:
    program = """
        import headstart, openvino
        from openvino.tools.ovc import telemetry_utils
        print(callable(openvino.convert_model), telemetry_utils.tm.__name__)
        """
    assert watched.run("-c", dedent(program)).split() == ["True", "openvino.tools.ovc.telemetry_stub"]


@pytest.mark.slow
def test_transfer_is_silent(transfer: Watched) -> None:
    assert (transfer.work / "model" / "report.html").is_file(), "matplotlib was used"
    transfer.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_predict_is_silent(watched: Watched, ink_model: tuple[Path, Path], runtime: str) -> None:
    model, drawings = ink_model
    watched.run(*HEADSTART, "predict", model, drawings, "--csv", "table.csv", "--runtime", runtime)
    assert len((watched.work / "table.csv").read_text().splitlines()) == 21
    watched.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_predict_imports_the_runtime_before_it_starts_threads(
    watched: Watched, ink_model: tuple[Path, Path], runtime: str
) -> None:
    """More than a batch of images: threads still prepare images when the first batch is answered."""
    many = draw(watched.work / "many", n_each=40)
    watched.run(*HEADSTART, "predict", ink_model[0], many, "--csv", "table.csv", "--runtime", runtime)
    assert watched.notes("runtime")[0] == ("runtime", f"{runtime} 1")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="several processes share a socket")
def test_serve_is_silent(watched: Watched, ink_model: tuple[Path, Path]) -> None:
    model, drawings = ink_model
    body = (drawings / "down" / "0.png").read_bytes()
    with watched.serving(*HEADSTART, "serve", model, "--port", "0", "--workers", "2") as address:
        for _ in range(4):  # so that both workers may answer
            request = urllib.request.Request(
                f"{address}/v1/models/model/predict", body, {"Content-Type": "image/png"}
            )
            with urllib.request.urlopen(request, timeout=120) as answer:
                assert json.load(answer)["predictions"]
    runtimes = watched.notes("runtime")
    assert runtimes.count(("runtime", "openvino 1")) >= 2, "both workers, before they start threads"
    watched.assert_nothing_left()


@pytest.mark.slow
def test_teach_is_silent(watched: Watched) -> None:
    pytest.importorskip("gradio")
    with watched.serving(*HEADSTART, "teach", "--port", "0", "-o", "taught") as address:
        with urllib.request.urlopen(address, timeout=120) as page:
            assert b"gradio" in page.read()
        time.sleep(1)  # what gradio begins in the background when a page is launched
    assert watched.notes("runtime")[0] == ("runtime", "openvino 1")
    watched.assert_nothing_left()


OTHERS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", "MODEL", "DATA"),
    "inspect": ("inspect", "DATA"),
    "study": ("study", "drawings", "DATA", "-o", "out", "--labels", "2", "--draws", "1"),
    "train": ("train", "DATA", "--network", "mlp", "--epochs", "1", "-o", "out"),
    # one depth, judged once: what is tried is trained in the same way at each depth and in each fold
    "fine-tuning": (
        *("transfer", "drawings", "DATA", "--strategy", "finetune", "-o", "out"),
        *("--unfreeze", "last", "--holdout", "0.3"),
    ),
    "tune": ("tune", "drawings", "DATA", "-o", "out", "--policies", "ink", "--augments", "none"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", OTHERS)
def test_the_other_commands_are_silent(watched: Watched, ink_model: tuple[Path, Path], command: str) -> None:
    """Above all they fork no process beside threads, which would hang now and then."""
    places = dict(zip(("MODEL", "DATA"), map(str, ink_model), strict=True))
    watched.run(*HEADSTART, *(places.get(word, word) for word in OTHERS[command]))
    watched.assert_nothing_left()


@pytest.mark.slow
def test_an_exported_program_is_silent(watched: Watched, ink_model: tuple[Path, Path]) -> None:
    watched.run(*HEADSTART, "export", ink_model[0], "--to", "folder", "-o", "shipped")
    watched.run("shipped/predict.py", "--check")
    watched.assert_nothing_left()
