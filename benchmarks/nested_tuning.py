"""What the best score of a search is worth where nothing can be learnt: labels shuffled over the images.

In: nothing but options; the digits come with scikit-learn. Out: for every shuffle the best score of the
search and the nested score of the same search, as a table for people and, on the last line, one JSON
object. No way of telling shuffled labels apart is better than chance, so what is above it is flattery.

    python benchmarks/nested_tuning.py --repeats 20
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from time import perf_counter

import numpy as np
from machine import facts, parser

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.data.splits import nested_subsets
from headstart.records import Array
from headstart.sources.features import extract_all
from headstart.sources.registry import open_source
from headstart.workflows.tune.features import Where, places_to_try, tune_arrays

__all__ = ["main", "tables"]

N_PER_CLASS = 20
SOURCE = "random:cnn"
POLICIES = ("squish", "ink")


def tables(dataset: Dataset) -> dict[Where, Array]:
    """Features of every layer of a small network, under two preparations: the plainest search there is."""
    found = {}
    for policy in POLICIES:
        source = open_source(SOURCE, dataset, policy=policy)
        places = places_to_try(source)
        rows = extract_all(dataset, source, places)
        found |= {Where(policy, *place): one for place, one in zip(places, rows, strict=True)}
    return found


def line(name: str, values: Sequence[float]) -> str:
    """Mean with its standard error, and how far the shuffles spread, in per cent."""
    mean, spread = statistics.mean(values), statistics.stdev(values)
    error = spread / len(values) ** 0.5
    return (
        f"{name:34} {100 * mean:6.2f} +- {100 * error:.2f}   sd {100 * spread:.2f}   "
        f"({100 * min(values):.1f} - {100 * max(values):.1f})"
    )


def main() -> None:
    """Shuffle, search, print."""
    made = parser(data=False, repeats=20)
    repeats = made.parse_args().repeats
    if repeats < 2:
        made.error(f"--repeats is {repeats}, expected at least 2")
    begun, whole = perf_counter(), load("digits")
    dataset = whole.subset(nested_subsets(whole.labels, (N_PER_CLASS,), seed=0)[N_PER_CLASS])
    features, n_classes = tables(dataset), len(dataset.classes)
    true = tune_arrays(features, dataset.labels)
    best, nested = [], []
    for number in range(repeats):
        labels = np.random.default_rng(number).permutation(dataset.labels)
        found = tune_arrays(features, labels, seed=number)
        best.append(found.best.accuracy.value)
        nested.append(found.nested.value)
    about = facts("headstart", "numpy", "scikit-learn") | {
        "n_images": len(dataset),
        "n_ways": len(true.trials),
        "n_shuffles": repeats,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(
        f"Accuracy in % on {len(dataset)} digits with shuffled labels, mean +- standard error over shuffles"
    )
    print(f"{'chance':34} {100 / n_classes:6.2f}")
    print(line(f"best of {len(true.trials)} ways, not nested", best))
    print(line("the same search, nested", nested))
    flattery = [one - other for one, other in zip(best, nested, strict=True)]
    print(line("flattery (difference)", flattery))
    print(
        f"with the true labels: best {100 * true.best.accuracy.value:.2f}, "
        f"nested {100 * true.nested.value:.2f} [{100 * true.nested.low:.2f}, "
        f"{100 * true.nested.high:.2f}], {perf_counter() - begun:.0f} s in all"
    )
    print(json.dumps({**about, "chance": 1 / n_classes, "best": best, "nested": nested}))


if __name__ == "__main__":
    main()
