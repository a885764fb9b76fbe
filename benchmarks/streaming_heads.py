"""Heads on more rows than fit into memory: seconds, peak memory and accuracy on 100,000 to 10 million rows.

Rows are made on the fly: 512 features of an MNIST image (random projections of its pixels, rectified), which is drawn
at random, plus noise with half of each feature's standard deviation; those of test images are predicted. Each case
runs in a process of its own:

    python benchmarks/streaming_heads.py --data DATA

``stream`` fits from blocks; ``mapped`` fits a matrix in a memory-mapped file, which has to be written first;
``shards`` adds the statistics of three processes; ``memory`` fits the same rows in memory by the method for few rows.
The peers are scikit-learn's RidgeClassifierCV and SGDClassifier, which makes five passes and averages, all rows in
memory. ``before_mib`` and ``peak_mib`` are of the process: NumPy, the images and, if they are in memory, the rows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from multiprocessing import get_context
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts, run

_IMAGES, _WORKERS = 10_000, 3
_CLASSES = [str(digit) for digit in range(10)]
_FEATURES, _BLOCK, _NOISE, _TESTED, _COMPARED = 512, 8_192, 0.5, 100_000, 100_000


class Rows:
    """Blocks of made rows, the same in every pass."""

    def __init__(self, data: str, split: str, n_rows: int, seed: int, first: int = 0) -> None:
        from headstart.data import load

        os.environ["HEADSTART_DATA"] = data
        images = load("mnist").split(split).subset(np.arange(_IMAGES))
        pixels = images.images.pixels.reshape(len(images), -1).astype(np.float32) / 255
        projection = np.random.default_rng(1).normal(size=(pixels.shape[1], _FEATURES)) / math.sqrt(
            pixels.shape[1]
        )
        self._rows = np.maximum(pixels @ projection.astype(np.float32), 0)
        self._noise = _NOISE * self._rows.std(axis=0)
        self._labels, self._last, self._seed, self._first = images.labels, n_rows, seed, first

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(self._first, self._last, _BLOCK):
            rng, size = np.random.default_rng([self._seed, start]), min(_BLOCK, self._last - start)
            drawn = rng.integers(0, len(self._rows), size)
            rows = rng.standard_normal((size, _FEATURES), np.float32)
            rows *= self._noise
            rows += self._rows[drawn]
            yield rows, self._labels[drawn]

    def in_memory(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows and labels."""
        parts = list(self)
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([labels for _, labels in parts])


def peak_mib() -> float:
    """Largest resident set of this process, mapped files included; getrusage would count what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def child(case: str, data: str, head: str, n_rows: int, folder: str) -> dict[str, Any]:
    """One fit: its seconds, those of making the rows, memory and accuracy."""
    from headstart.heads.registry import make_head

    rows, found = Rows(data, "train", n_rows, 0), {"case": case, "head": head, "n_rows": n_rows}
    if case == "write":
        file = np.lib.format.open_memmap(Path(folder) / "rows.npy", "w+", np.float32, (n_rows, _FEATURES))
        first, names = 0, []
        for block, labels in rows:
            file[first : first + len(block)] = block
            first, names = first + len(block), [*names, labels]
        np.save(Path(folder) / "labels.npy", np.concatenate(names))
        return found
    begun = time.perf_counter()
    if case == "stream" and n_rows <= _COMPARED:
        for _ in rows:
            pass
        found["making_s"] = round(time.perf_counter() - begun, 1)
    if case == "mapped":
        features = np.load(Path(folder) / "rows.npy", mmap_mode="r")
        labels = np.load(Path(folder) / "labels.npy")
    elif case not in ("stream", "shards"):
        features, labels = rows.in_memory()
    before, begun = peak_mib(), time.perf_counter()
    if case == "stream":
        passes = Counted(rows)
        fitted = make_head(head).fit_blocks(passes, classes=_CLASSES)
        found["passes"] = passes.n
    elif case == "shards":
        fitted, found["workers_peak_mib"], found["workers_cpu_s"] = from_shards(data, n_rows)
    elif case == "peer":
        fitted = peer(head).fit(features, labels)
    else:
        fitted = make_head(head).fit(features, labels)
    found |= {
        "fit_s": round(time.perf_counter() - begun, 1),
        "before_mib": round(before),
        "peak_mib": round(peak_mib()),
    }
    tested = Rows(data, "test", _TESTED, 1)
    predicted = np.concatenate([fitted.predict(block) for block, _ in tested])
    truth = np.concatenate([labels for _, labels in tested])
    accuracy = float((predicted == truth).mean())
    found |= {"accuracy": round(accuracy, 5), "chosen": getattr(fitted, "chosen_", {})}
    np.save(Path(folder) / f"{case}-{head}-{n_rows}.npy", predicted)
    if hasattr(fitted, "classes_") and case != "peer":
        probs = np.concatenate([fitted.probabilities(block) for block, _ in tested])
        own = probs[np.arange(len(probs)), np.searchsorted(fitted.classes_, truth)]
        found["log_loss"] = round(float(-np.log(np.maximum(own, 1e-12)).mean()), 5)
    return found


def from_shards(data: str, n_rows: int) -> tuple[Any, int, float]:
    """Ridge from statistics that several processes made; the largest peak of one, and the seconds of all."""
    from headstart.heads.ridge import RidgeHead

    each = math.ceil(n_rows / _WORKERS / _BLOCK) * _BLOCK
    tasks = [(data, first, min(first + each, n_rows)) for first in range(0, n_rows, each)]
    with ProcessPoolExecutor(_WORKERS, get_context("spawn")) as pool:
        parts = list(pool.map(shard, *zip(*tasks, strict=True)))
    fitted = RidgeHead().fit_statistics(reduce(add, (one for one, _, _ in parts)), _CLASSES)
    return fitted, round(max(peak for _, peak, _ in parts)), round(sum(seconds for *_, seconds in parts), 1)


def shard(data: str, first: int, last: int) -> tuple[Any, float, float]:
    """Statistics of some of the rows, the peak of this process, and its seconds of computing."""
    from headstart.heads.statistics import row_statistics

    found = row_statistics(Rows(data, "train", last, 0, first), _CLASSES, first_row=first)
    return found, peak_mib(), time.process_time()


class Counted:
    """Blocks, and how often they were read."""

    def __init__(self, blocks: Rows) -> None:
        self._blocks, self.n = blocks, 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.n += 1
        yield from self._blocks


def peer(head: str) -> Any:
    from sklearn.linear_model import RidgeClassifierCV, SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if head == "ridge":
        return make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-3, 6, 19)))
    classifier = SGDClassifier(loss="log_loss", max_iter=5, tol=None, average=True, random_state=0)
    return make_pipeline(StandardScaler(), classifier)


def started(args: argparse.Namespace, case: str, head: str, n_rows: int, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", case, "--data", args.data, "--heads", head]
    found = run([*command, "--n-rows", str(n_rows), "--folder", folder])
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="folder with MNIST")
    parser.add_argument("--heads", nargs="+", default=["ridge", "linear"])
    parser.add_argument(
        "--mapped", type=int, default=1_000_000, help="rows of a matrix in a file, 2 KiB each"
    )
    parser.add_argument("--most", type=int, default=10_000_000, help="rows for ridge alone; 0 for none")
    parser.add_argument("--n-rows", type=int)
    parser.add_argument("--child")
    parser.add_argument("--folder")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.data, args.heads[0], args.n_rows, args.folder)))
        return
    about, runs, equal = facts("headstart", "numpy", "scikit-learn"), [], {}
    with tempfile.TemporaryDirectory() as folder:
        for head in args.heads:
            runs.append(started(args, "stream", head, _COMPARED, folder))
            runs += [started(args, case, head, _COMPARED, folder) for case in ("memory", "peer")]
            files = [f"{folder}/{case}-{head}-{_COMPARED}.npy" for case in ("stream", "memory")]
            equal[head] = int(np.not_equal(*map(np.load, files)).sum())
        started(args, "write", "ridge", args.mapped, folder)
        for case in ("mapped", "stream"):
            runs += [started(args, case, head, args.mapped, folder) for head in args.heads]
        (Path(folder) / "rows.npy").unlink()
        if args.most:
            runs.append(started(args, "shards", "ridge", args.most, folder))
    print(json.dumps({**about, "n_tested": _TESTED, "predictions_that_differ": equal, "runs": runs}))


if __name__ == "__main__":
    main()
