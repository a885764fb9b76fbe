"""Training with augmentation: batches made in a thread against batches made in turn, alternating.

CNN and MLP of 28 x 28 images, both engines, with the threads that the environment gives. Alone on the machine:

    python benchmarks/batches_ahead.py --data DATA
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import Any

import numpy as np
from machine import facts, parser, spread, told

from headstart.data import load
from headstart.data.images.augment import parse_augmentation
from headstart.networks import training
from headstart.networks.ahead import Batches
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture
from headstart.records import InputSpec, TrainSettings
from headstart.strategies.judge import augmented_training

CASES = (("cnn", "torch"), ("cnn", "scratch"), ("mlp", "torch"), ("mlp", "scratch"))
WAYS = {"in turn": False, "a batch ahead": True}


def main() -> None:
    arguments = parser(repeats=3)
    arguments.add_argument("--images", type=int, default=3_000)
    arguments.add_argument("--augment", default="handwriting")
    args = arguments.parse_args()
    os.environ["HEADSTART_DATA"] = args.data
    some = load("mnist").split("train").subset(np.arange(args.images))
    images, codes = some.images.pixels, some.codes()
    made = augmented_training(parse_augmentation(args.augment), 0)
    times: dict[tuple[str, str], dict[str, list[float]]] = {case: {way: [] for way in WAYS} for case in CASES}
    weights: dict[tuple[str, str], list[Any]] = {case: [] for case in CASES}
    plain = training.Batches
    for number in range(args.repeats + 1):  # the first one warms up
        for case in CASES:
            for way, ahead in WAYS.items():
                training.Batches = lambda images, augment, a=ahead: Batches(images, augment, ahead=a)  # type: ignore[misc,assignment]
                network = make_network(architecture(case[0], InputSpec(28, 28, 1), 10), case[1], 0)
                settings = TrainSettings(epochs=1, batch_size=128)
                begun = perf_counter()
                training.fit(network, images, codes, settings, augment=made)
                if number:
                    times[case][way].append(1_000 * (perf_counter() - begun) / (args.images / 128))
                weights[case].append(network.weights())
    training.Batches = plain  # type: ignore[misc]
    for case, found in weights.items():
        same = all(np.array_equal(one[name], found[0][name]) for one in found for name in found[0])
        assert same, f"{case}: the weights depend on the thread"
    table = {
        f"{engine} {name}": {f"ms per step, {way}": spread(one) for way, one in times[name, engine].items()}
        for name, engine in CASES
    }
    ratios = {
        f"{engine} {name}": round(
            float(
                np.median(times[name, engine]["in turn"]) / np.median(times[name, engine]["a batch ahead"])
            ),
            2,
        )
        for name, engine in CASES
    }
    told(facts("headstart", "numpy", "torch"), table, times_as_fast_ahead=ratios, same_weights=True)


if __name__ == "__main__":
    main()
