"""The whole parity job, ours against the Keras baseline, process by process in turns.

Both train the 32-64-64 CNN on all of MNIST, freeze its convolutions, learn odd/even, and report both test
accuracies; the clock runs from process start to the last accuracy. Alone on the machine:

    python benchmarks/parity_vs_keras.py --keras-python VENV/bin/python --keras-script SCRIPT --data DATA
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import facts, parser, run, spread

OURS = Path(__file__).with_name("parity_ours.py")


def main() -> None:
    arguments = parser()
    arguments.add_argument("--keras-python", required=True)
    arguments.add_argument("--keras-script", required=True)
    args = arguments.parse_args()
    about = facts("headstart", "numpy", "openvino", "torch")
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "keras": []}
    for number in range(args.repeats):
        with tempfile.TemporaryDirectory() as cache:
            ours = [sys.executable, str(OURS), "--seed", str(number)]
            runs["ours"].append(run(ours, HEADSTART_DATA=args.data, HEADSTART_CACHE=cache))
        runs["keras"].append(run([args.keras_python, args.keras_script, "--data", args.data]))
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
