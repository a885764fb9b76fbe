"""Count how often commands hang while other processes keep the cores busy.

Every run is a process of its own with an empty home folder, without the variables by which OpenVINO recognises a
CI job. A run that uses no processor time for a minute counts as hung: the stacks of its threads are printed, and it
is killed. Before step 1 of issue 18, 11 of 30 runs of ``predict --csv`` hung: OpenVINO's telemetry forked the process
while threads prepared images inside BLAS. On Linux:

    python benchmarks/faults/hangs.py                                          (about two hours)
    python benchmarks/faults/hangs.py --predict 20 --evaluate 5 --transfer 5 --study 0 --serve 0 --teach 0

The images are the 480 Greek letters of Omniglot as PNG files, and the model prepares them by the policy ``ink``.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from headstart.data.readers.load import load

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import facts, spread, told

_CI = ("CI", "TF_BUILD", "JENKINS_URL")  # read by openvino_telemetry
_DEFAULTS = {"predict": 200, "evaluate": 50, "transfer": 50, "study": 10, "serve": 20, "teach": 20}
_BATCH = {
    "predict": ("predict", "MODEL", "DATA", "--csv", "OUT.csv"),
    "evaluate": ("evaluate", "MODEL", "DATA"),
    "transfer": ("transfer", "drawings", "DATA", "-o", "OUT"),
    "study": ("study", "drawings", "DATA", "-o", "OUT", "--labels", "2", "--draws", "1"),
}
_SERVICES = {"serve": ("serve", "MODEL", "--port", "0"), "teach": ("teach", "--port", "0", "-o", "OUT")}
_N_CLIENTS = 8


@dataclass(frozen=True)
class Limits:
    """Seconds after which a run counts as hung: without any processor time, and in all."""

    idle_s: float
    whole_s: float


def letters(folder: Path) -> Path:
    """The bundled letters, a folder for each class."""
    data = load("omniglot-greek")
    for place, label in enumerate(data.labels):
        path = folder / str(label) / f"{place:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images.image(place)[..., 0]).save(path)
    return folder


@contextmanager
def busy(n_processes: int) -> Iterator[None]:
    """Processes that compute without end."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_processes)]
    try:
        yield
    finally:
        for one in loops:
            one.kill()
            one.wait()


def started(words: tuple[str, ...], home: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in _CI}
    environment |= {"HOME": str(home), "HEADSTART_CACHE": str(home / "cache"), "PYTHONFAULTHANDLER": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "headstart", *words],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=(home / "stderr").open("wb"),
        start_new_session=True,
    )


def ended(process: subprocess.Popen[bytes], home: Path, limits: Limits) -> bool:
    """Wait for the end; if it does not come, print the stacks of all threads and kill the process group."""
    until, last, since = time.monotonic() + limits.whole_s, -1, time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        used = cpu_ticks(process.pid)
        if used != last:
            last, since = used, time.monotonic()
        if time.monotonic() > min(until, since + limits.idle_s):
            process.send_signal(signal.SIGABRT)
            time.sleep(2)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            print((home / "stderr").read_text(errors="replace")[-6_000:], file=sys.stderr, flush=True)
            return False
    return True


def cpu_ticks(group: int) -> int:
    """Processor time that all processes of a group have used."""
    used = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(words[2]) == group:
            used += int(words[11]) + int(words[12])
    return used


def batch(words: tuple[str, ...], home: Path, limits: Limits) -> bool:
    """Run a command to its end; False if it hung."""
    process = started(words, home)
    reader = threading.Thread(target=process.stdout.read, daemon=True)  # or the pipe would fill
    reader.start()
    if not ended(process, home, limits):
        return False
    if process.returncode:
        raise SystemExit(
            f"{words[0]} ended with {process.returncode}: {(home / 'stderr').read_text()[-500:]}"
        )
    return True


def service(words: tuple[str, ...], home: Path, limits: Limits, image: bytes) -> bool:
    """Start a server, ask it from several threads at a time, and end it by SIGTERM; False if any of it hung."""
    process = started(words, home)
    answered: list[int] = []

    def ask(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limits.whole_s)
        for _ in range(3):
            if words[0] == "serve":
                connection.request("POST", "/v1/models/model/predict", image, {"content-type": "image/png"})
            else:
                connection.request("GET", "/")
            reply = connection.getresponse()
            reply.read()
            answered.append(reply.status)

    def talk() -> None:
        for line in process.stdout:
            if found := re.search(rb"http://127\.0\.0\.1:(\d+)", line):
                clients = [threading.Thread(target=ask, args=(int(found[1]),)) for _ in range(_N_CLIENTS)]
                for one in clients:
                    one.start()
                for one in clients:
                    one.join()
                process.terminate()

    talker = threading.Thread(target=talk, daemon=True)
    talker.start()
    whole = ended(process, home, limits)
    talker.join(10)
    if whole and answered != [200] * 3 * _N_CLIENTS:
        said = (home / "stderr").read_text()[-500:]
        raise SystemExit(f"{words[0]} answered {answered} and ended with {process.returncode}: {said}")
    return whole


def campaign(
    name: str, n_runs: int, run: Callable[[tuple[str, ...], Path], bool], names: Mapping[str, str]
) -> tuple[int, list[float]]:
    """Hung runs, and the seconds of the others."""
    seconds: list[float] = []
    for number in range(1, n_runs + 1):
        with tempfile.TemporaryDirectory(prefix=f"hangs-{name}-") as place:
            home = Path(place)
            places = {**names, "OUT": str(home / "out"), "OUT.csv": str(home / "out.csv")}
            words = tuple(places.get(word, word) for word in {**_BATCH, **_SERVICES}[name])
            begun = time.monotonic()
            if run(words, home):
                seconds.append(time.monotonic() - begun)
            else:
                print(f"{name}: run {number} hung", file=sys.stderr, flush=True)
    return n_runs - len(seconds), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, count in _DEFAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=f"runs of {name} (default {count})")
    parser.add_argument("--idle-s", type=float, default=60.0, help="without any processor time: hung")
    parser.add_argument("--limit-s", type=float, default=1_800.0, help="in all: hung")
    parser.add_argument("--busy", type=int, default=2, help="processes that compute without end")
    options = vars(parser.parse_args())
    limits = Limits(options["idle_s"], options["limit_s"])
    about, hung, table = facts("numpy", "openvino"), {}, {}
    with tempfile.TemporaryDirectory(prefix="hangs-") as place:
        home = Path(place)
        data = letters(home / "letters")
        names = {"MODEL": str(home / "model"), "DATA": str(data)}
        if not batch(("transfer", "drawings", str(data), "-o", names["MODEL"]), home, limits):
            raise SystemExit("the model could not be made: transfer hung")
        image = next(data.rglob("*.png")).read_bytes()

        def run(words: tuple[str, ...], own: Path) -> bool:
            if words[0] in _SERVICES:
                return service(words, own, limits, image)
            return batch(words, own, limits)

        with busy(options["busy"]):
            for name in _DEFAULTS:
                hung[name], seconds = campaign(name, options[name], run, names)
                if seconds:
                    table[name] = {"seconds": spread(seconds)}
                print(f"{name}: {hung[name]} of {options[name]} hung", file=sys.stderr, flush=True)
    runs = {name: options[name] for name in _DEFAULTS}
    told(about, table, runs=runs, hung=hung, busy_processes=options["busy"], idle_s=options["idle_s"])
    raise SystemExit(any(hung.values()))


if __name__ == "__main__":
    main()
