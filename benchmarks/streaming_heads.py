"""Heads on more rows than fit into memory: seconds, peak memory and accuracy on 100,000 to 10 million rows.

Rows are made on the fly: 512 features of an MNIST image (random projections of its pixels, rectified), which is drawn
at random, plus noise with half of each feature's standard deviation; those of test images are predicted. Each case
runs in a process of its own:

    python benchmarks/streaming_heads.py --data DATA

``stream`` fits from blocks; ``mapped`` fits a matrix in a memory-mapped file, which has to be written first;
``memory`` fits the same rows in memory by the method for few rows. The peers are scikit-learn's RidgeClassifierCV and
SGDClassifier, which makes five passes and averages, all rows in memory.
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
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts, run

_IMAGES = 10_000
_FEATURES, _BLOCK, _NOISE, _TESTED, _COMPARED = 512, 8_192, 0.5, 100_000, 100_000


class Rows:
    """Blocks of made rows, the same in every pass."""

    def __init__(self, data: str, split: str, n_rows: int, seed: int) -> None:
        from headstart.data import load

        os.environ["HEADSTART_DATA"] = data
        images = load("mnist").split(split).subset(np.arange(_IMAGES))
        pixels = images.images.pixels.reshape(len(images), -1).astype(np.float32) / 255
        projection = np.random.default_rng(1).normal(size=(pixels.shape[1], _FEATURES)) / math.sqrt(
            pixels.shape[1]
        )
        self._rows = np.maximum(pixels @ projection.astype(np.float32), 0)
        self._noise = _NOISE * self._rows.std(axis=0)
        self._labels, self.n_rows, self._seed = images.labels, n_rows, seed

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, self.n_rows, _BLOCK):
            rng, size = np.random.default_rng([self._seed, start]), min(_BLOCK, self.n_rows - start)
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
    if case == "stream":
        for _ in rows:
            pass
        found["making_s"] = round(time.perf_counter() - begun, 1)
    if case == "mapped":
        features = np.load(Path(folder) / "rows.npy", mmap_mode="r")
        labels = np.load(Path(folder) / "labels.npy")
    elif case != "stream":
        features, labels = rows.in_memory()
    before, begun = peak_mib(), time.perf_counter()
    if case == "stream":
        classes = [str(digit) for digit in range(10)]
        passes = Counted(rows)
        fitted = make_head(head).fit_blocks(passes, classes=classes)
        found["passes"] = passes.n
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
            runs.append(started(args, "stream", "ridge", args.most, folder))
    print(json.dumps({**about, "n_tested": _TESTED, "predictions_that_differ": equal, "runs": runs}))


if __name__ == "__main__":
    main()
