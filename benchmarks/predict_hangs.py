"""Count how often ``headstart predict MODEL FOLDER --csv`` hangs while other processes keep the cores busy.

Before importing OpenVINO was made silent, its telemetry forked the process while threads prepared images
inside BLAS, and now and then neither side went on. Every run is a process of its own with an empty home
folder, without the variables by which OpenVINO recognises a CI job (there its telemetry is off anyway). A
run that takes longer than the limit counts as hung and is killed. On Linux:

    python benchmarks/predict_hangs.py MODEL FOLDER

MODEL should prepare images by the policy ``ink``, such as ``headstart transfer drawings FOLDER -o MODEL``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import facts, spread, told

_CI = ("CI", "TF_BUILD", "JENKINS_URL")  # read by openvino_telemetry


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


def predict(model: str, folder: str, limit_s: float) -> float | None:
    """Seconds that one run takes, or None if it hangs."""
    with tempfile.TemporaryDirectory() as home:
        environment = {name: value for name, value in os.environ.items() if name not in _CI}
        environment |= {"HOME": home, "HEADSTART_CACHE": str(Path(home) / "cache")}
        table = str(Path(home) / "out.csv")
        begun = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "headstart", "predict", model, folder, "--csv", table],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                _, said = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return None
        if process.returncode:
            raise SystemExit(f"predict ended with status {process.returncode}: {said.decode()[-500:]}")
        return time.perf_counter() - begun


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("model")
    asked.add_argument("folder")
    asked.add_argument("--runs", type=int, default=200)
    asked.add_argument("--limit-s", type=float, default=60.0)
    asked.add_argument("--busy", type=int, default=2, help="processes that compute without end")
    words = asked.parse_args()
    about = facts("numpy", "openvino")
    seconds: list[float] = []
    with busy(words.busy):
        for number in range(words.runs):
            took = predict(words.model, words.folder, words.limit_s)
            if took is not None:
                seconds.append(took)
            else:
                print(f"run {number + 1} hung", file=sys.stderr, flush=True)
    told(
        about,
        {"predict": {"seconds": spread(seconds)}} if seconds else {},
        runs=words.runs,
        hung=words.runs - len(seconds),
        busy_processes=words.busy,
        limit_s=words.limit_s,
    )


if __name__ == "__main__":
    main()
