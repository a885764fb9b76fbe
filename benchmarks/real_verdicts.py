"""Whether the intervals of a study hold the truth on real digits, where the truth is known from 4,000 others.

Each study takes some digits of MNIST, as many of each class, and compares `drawings` with raw pixels as `headstart
study` does, in cross-validation with all labels. The truth is what the models that learned from all these digits get
of 4,000 others, and the difference of both, so the row of a study is judged as an estimate of the saved model.

    HEADSTART_DATA=... python benchmarks/real_verdicts.py            (about ten minutes)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from machine import facts, told

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.sources.pixels import pixel_source
from headstart.sources.registry import open_source
from headstart.strategies.fits import Indices, Reader, Strategy, averaged
from headstart.strategies.places import Reading
from headstart.workflows.comparison.protocol import Protocol, decide
from headstart.workflows.comparison.table import run_table

_SIZES = (50, 100, 200)


def digits(most: int) -> Dataset:
    """Some of MNIST's digits, without splits."""
    data = replace(load("mnist").split("train"), splits=None)
    return data.subset(np.sort(np.random.default_rng(2).permutation(len(data))[:most]))


def on(reader: Reader, chosen: Indices, reading: Reading) -> Strategy:
    """Kernel ridge at one place, for a study of the images that are chosen from the reader's pool."""
    return lambda train, test, seed: averaged(
        reader, [reading], chosen[train], chosen[test], seed, balance=False, in_pool=True
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=100)
    options = parser.parse_args(given)
    about, data = facts("numpy", "openvino"), digits(5_000)
    sources = {
        "probe": open_source("drawings", data),
        "raw pixels": pixel_source(open_source("drawings", data).input),
    }
    readings = {name: Reading((one.default_layer, "flat"), "kernel") for name, one in sources.items()}
    readers = {name: Reader(one, data, data) for name, one in sources.items()}
    codes, lines = data.codes(), []
    for n in _SIZES:
        found: dict[str, list[float]] = {
            "difference": [],
            "probe": [],
            "raw pixels": [],
            "says too little": [],
        }
        for number in range(options.studies):
            rng = np.random.default_rng([number, n])
            members = [rng.permutation(np.flatnonzero(codes == code)) for code in range(10)]
            chosen = np.sort(np.concatenate([one[: n // 10] for one in members]))
            rest = rng.permutation(np.setdiff1d(np.arange(len(data)), chosen))[:4_000]
            setup = decide(data.subset(chosen), protocol=Protocol((), 20, number))
            strategies = {name: on(readers[name], chosen, readings[name]) for name in sources}
            table = run_table(strategies, setup.pool, setup.test, setup.protocol)
            truth = {}
            for name, reader in readers.items():
                probs = averaged(reader, [readings[name]], chosen, rest, 0, balance=False, in_pool=True)
                truth[name] = float((probs.argmax(axis=1) == codes[rest]).mean())
            rows = {row.strategy: row.accuracy for row in table.rows}
            for name in sources:
                found[name].append(float(rows[name].low <= truth[name] <= rows[name].high))
            gap, (comparison,) = truth["probe"] - truth["raw pixels"], table.comparisons
            found["difference"].append(float(comparison.difference.low <= gap <= comparison.difference.high))
            found["says too little"].append(truth["probe"] - rows["probe"].value)
        line = {"images": n, "studies": options.studies, "folds": setup.protocol.n_folds}
        lines.append(line | {name: round(100 * float(np.mean(values)), 1) for name, values in found.items()})
        print(" ".join(f"{key} {value}" for key, value in lines[-1].items()), flush=True)
    told(about, {}, lines=lines)


if __name__ == "__main__":
    main()
