"""The parity job through Headstart: digits by the CNN, then odd/even by its frozen layers; one JSON line.

The same job as the Keras baseline it is measured against, from process start to accuracies: the full
training set, the same network, Adam, cross-entropy, then a new softmax of two units on the 576
features of the frozen convolutions. Called by parity_vs_keras.py.
"""

from __future__ import annotations

import time

START = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402

from headstart.data import apply_subset, load  # noqa: E402
from headstart.records import TrainSettings  # noqa: E402
from headstart.sources.features import Extraction  # noqa: E402
from headstart.strategies.places import Probe  # noqa: E402
from headstart.strategies.probe import learn_head  # noqa: E402
from headstart.strategies.scratch import learn_network  # noqa: E402

# two epochs, the second without most of the images that the first found easy
SETTINGS = TrainSettings(
    epochs=2, batch_size=128, learning_rate=6e-3, schedule="one-cycle", label_smoothing=0.05, prune=0.8
)


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--seed", type=int, default=0)
    seed = args.parse_args().seed
    digits = load("mnist")
    parity = apply_subset(digits, "parity")
    out = {"startup_s": time.perf_counter() - START}

    begun = time.perf_counter()
    settings = TrainSettings(**{**SETTINGS.__dict__, "seed": seed})
    network = learn_network(digits, settings=settings).model
    out["digits_s"] = time.perf_counter() - begun
    test = digits.split("test")
    out["digits_accuracy"] = float((network.predict(test, refuse=False) == test.labels).mean())

    begun = time.perf_counter()
    probe = Probe("flatten", "flat", "linear")
    head = learn_head(network.source(), parity, probe, seed=seed, options=Extraction(precision="auto")).model
    out["parity_s"] = time.perf_counter() - begun
    test = parity.split("test")
    out["parity_accuracy"] = float((head.predict(test, refuse=False) == test.labels).mean())
    out["total_s"] = time.perf_counter() - START
    print(json.dumps({name: round(value, 4) for name, value in out.items()}))


main()
