"""The whole parity job, ours against the Keras baseline, process by process in turns.

Both train the 32-64-64 CNN on all of MNIST, freeze its convolutions, learn odd/even, and report both test
accuracies; the clock runs from process start to the last accuracy. Alone on the machine:

    python benchmarks/parity_vs_keras.py --keras-python VENV/bin/python --keras-script SCRIPT --data DATA
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import facts, spread

OURS = Path(__file__).with_name("parity_ours.py")


def run(command: list[str], data: str) -> dict[str, float]:
    """Time one process from its start to its last line, which is JSON and holds the accuracies."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "HEADSTART_DATA": data, "HEADSTART_CACHE": cache}
        begun, answered, last = time.perf_counter(), 0.0, ""
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                answered, last = time.perf_counter() - begun, line
    return {**json.loads(last), "wall_s": answered}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keras-python", required=True)
    parser.add_argument("--keras-script", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    about = facts("headstart", "numpy", "openvino", "torch")
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "keras": []}
    for number in range(args.repeats):
        runs["ours"].append(run([sys.executable, str(OURS), "--seed", str(number)], args.data))
        runs["keras"].append(run([args.keras_python, args.keras_script, "--data", args.data], args.data))
    names = ("wall_s", "digits_s", "parity_s", "digits_accuracy", "parity_accuracy")
    table: dict[str, Any] = {
        who: {name: spread([one[name] for one in found]) for name in names} for who, found in runs.items()
    }
    ratio = table["keras"]["wall_s"]["median"] / table["ours"]["wall_s"]["median"]
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{'':16} {'ours, median (min - max)':>30} {'keras, median (min - max)':>30}")
    for name in names:
        cells = [table[who][name] for who in ("ours", "keras")]
        print(
            f"{name:16}" + "".join(f" {c['median']:>12} ({c['min']} - {c['max']})".rjust(31) for c in cells)
        )
    print(f"ours is {ratio:.2f} times as fast, {args.repeats} runs of each in turns")
    print(json.dumps({**about, **table, "ratio": round(ratio, 2)}))


if __name__ == "__main__":
    main()
