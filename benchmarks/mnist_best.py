"""The best digits network, and the time to 99.0 %, against the Keras baseline in the same run.

In: MNIST, a Python with Keras, the baseline's script. Out: accuracy on the 10,000 test digits of `train mnist
--network best`, a line for each seed (the test is opened once, after the training); then, in turns, how long
ours and Keras take to train a network that reaches 99.0 % of them: Keras after three, four and five epochs,
of which the first that gets there counts. Alone on the machine.

python benchmarks/mnist_best.py --data data --keras-python VENV/bin/python --keras-script SCRIPT
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import facts, parser, run, spread

GOAL, KERAS_EPOCHS = 0.99, (3, 4, 5)
SHORT = "--network cnn --epochs 2 --schedule one-cycle --learning-rate 6e-3 --label-smoothing 0.05"


def trained(folder: Path, seed: int, options: str, data: str) -> dict[str, Any]:
    """One training by the command line, then one look at the test digits; seconds of each."""
    environment = {"HEADSTART_DATA": data}
    command = [sys.executable, "-m", "headstart"]
    learnt = run(
        [*command, "train", "mnist", "-o", str(folder), "--seed", str(seed), "--json", *options.split()],
        **environment,
    )
    judged = run([*command, "evaluate", str(folder), "mnist", "--json"], **environment)
    manifest = json.loads((folder / "manifest.json").read_text())
    return {
        "test_accuracy": judged["accuracy"]["value"],
        "low": judged["accuracy"]["low"],
        "high": judged["accuracy"]["high"],
        "val_accuracy": manifest["scores"]["val_accuracy"],
        "learning_s": manifest["timing"]["learning_s"],
        "wall_s": learnt["wall_s"],
    }


def main() -> None:
    arguments = parser(repeats=3)
    arguments.add_argument("--keras-python")
    arguments.add_argument("--keras-script")
    asked = arguments.parse_args()
    data = os.path.abspath(asked.data)
    about = facts("headstart", "torch")
    print(json.dumps(about), flush=True)
    found: dict[str, Any] = {"best": [], "short": [], "keras": []}
    with tempfile.TemporaryDirectory() as home:
        for seed in range(asked.repeats):
            one = trained(Path(home) / f"best{seed}", seed, "--network best", data)
            found["best"].append(one)
            print(f"best, seed {seed}: {one}", flush=True)
        for seed in range(asked.repeats if asked.keras_python else 0):
            found["short"].append(trained(Path(home) / f"short{seed}", seed, SHORT, data))
            print(f"to 99.0 %, ours: {found['short'][-1]}", flush=True)
            if seed < len(KERAS_EPOCHS):
                epochs = KERAS_EPOCHS[seed]
                command = [asked.keras_python, asked.keras_script, "--data", data, "--epochs", str(epochs)]
                found["keras"].append({"epochs": epochs, **run(command)})
                print(f"to 99.0 %, keras: {found['keras'][-1]}", flush=True)
    mean = statistics.mean(one["test_accuracy"] for one in found["best"])
    print(f"mean of {asked.repeats} seeds: {100 * mean:.3f} %")
    times = {
        who: spread([one["learning_s"] for one in found[who]]) for who in ("best", "short") if found[who]
    }
    there = [one for one in found["keras"] if one["digits_accuracy"] >= GOAL]
    if there and all(one["test_accuracy"] >= GOAL for one in found["short"]):
        first = min(there, key=lambda one: one["epochs"])
        ratio = first["digits_s"] / times["short"]["median"]
        print(f"to 99.0 %: {ratio:.1f} times as fast as Keras, which takes {first['epochs']} epochs")
    elif found["short"]:
        print("to 99.0 %: not all of ours, or none of Keras's, got there")
    print(json.dumps({**about, "mean_test_accuracy": mean, "seconds": times, **found}))


if __name__ == "__main__":
    main()
