"""Measure a training step of the NumPy engine against eager PyTorch, in turns, on this machine.

In: nothing but options. Out: a table for people and, on the last line, one JSON object. Both train
the same architectures on the same batch with Adam, in float32, with two threads. Each engine has
its own process, so that their thread pools do not stand in each other's way.

    python benchmarks/scratch_vs_torch.py --repeats 9
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from machine import facts, spread
from torch import nn

from headstart.scratch import Adam, Conv2D, Dense, Flatten, Layer, MaxPool2D, Network, ReLU

__all__ = ["main", "measure"]

THREADS = 2
BATCH_SIZE = 128
LEARNING_RATE = 1e-3
STEPS = {"mlp": 300, "cnn": 20}
WARM_UP_STEPS = 5


def _numpy_layers(kind: str) -> list[Layer]:
    if kind == "mlp":
        return [Dense("fc1", 128), ReLU("relu1"), Dense("fc2", 64), ReLU("relu2"), Dense("head", 5)]
    return [
        *(Conv2D("conv1", 32), MaxPool2D("pool1"), ReLU("relu1")),
        *(Conv2D("conv2", 64), MaxPool2D("pool2"), ReLU("relu2")),
        *(Conv2D("conv3", 64), ReLU("relu3"), Flatten("flatten")),
        *(Dense("fc1", 64), ReLU("relu4"), Dense("head", 10)),
    ]


def _torch_network(kind: str) -> nn.Module:
    if kind == "mlp":
        return nn.Sequential(
            *(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 5))
        )
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def _numpy_step(kind: str, x: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    network = Network(_numpy_layers(kind), x.shape[1:], np.random.default_rng(0))
    optimizer = Adam(network.trainable_values, network.trainable_grads)

    def step() -> None:
        network.train_step(x, labels, optimizer, LEARNING_RATE)

    return step


def _torch_step(kind: str, x: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    network = _torch_network(kind)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    images = torch.from_numpy(np.moveaxis(x, -1, 1).copy() if kind == "cnn" else x)
    codes = torch.from_numpy(labels)

    def step() -> None:
        optimizer.zero_grad()
        logits = network(images)
        losses = nn.functional.cross_entropy(logits, codes, reduction="none")
        losses.mean().backward()
        optimizer.step()
        (logits.argmax(1) == codes).numpy()  # ours reports hits, so theirs does too

    return step


@cache
def _step(engine: str, kind: str) -> Callable[[], None]:
    """Make one network and warm it up, once in each process."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shape = (BATCH_SIZE, 784) if kind == "mlp" else (BATCH_SIZE, 28, 28, 1)
    x, labels = rng.random(shape, dtype=np.float32), rng.integers(5, size=BATCH_SIZE)
    step = (_numpy_step if engine == "ours" else _torch_step)(kind, x, labels)
    for _ in range(WARM_UP_STEPS):
        step()
    return step


def _ms_per_step(engine: str, kind: str) -> float:
    """One turn: the mean over its steps."""
    step = _step(engine, kind)
    start = time.perf_counter()
    for _ in range(STEPS[kind]):
        step()
    return (time.perf_counter() - start) / STEPS[kind] * 1e3


def measure(kind: str, repeats: int) -> dict[str, Any]:
    """Time both engines in turns.

    Parameters
    ----------
    kind : {"mlp", "cnn"}
        Architecture.
    repeats : int
        Turns of each engine.

    Returns
    -------
    dict
        Median, least and most ms per step of each engine, and the ratio of medians.
    """
    workers = {name: ProcessPoolExecutor(1, get_context("spawn")) for name in ("ours", "torch")}
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(repeats):
        for name, worker in workers.items():
            times[name].append(worker.submit(_ms_per_step, name, kind).result())
    for worker in workers.values():
        worker.shutdown()
    medians = {name: statistics.median(turns) for name, turns in times.items()}
    return {
        "n_repeats": repeats,
        "n_steps": STEPS[kind],
        "ratio": round(medians["ours"] / medians["torch"], 2),
    } | {name: spread(turns) for name, turns in times.items()}


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description="ms per training step, NumPy engine and eager PyTorch in turns"
    )
    parser.add_argument("--repeats", type=int, default=7, help="turns of each engine (default 7)")
    repeats = parser.parse_args().repeats
    if repeats < 1:
        parser.error(f"--repeats is {repeats}, expected at least 1")
    os.environ["OPENBLAS_NUM_THREADS"] = str(THREADS)  # for the workers, which import NumPy afresh
    about = facts("numpy", "torch") | {"threads": THREADS, "batch_size": BATCH_SIZE}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{'network':8} {'engine':6} {'median ms':>10} {'min':>8} {'max':>8} {'ratio':>6}")
    results = {kind: measure(kind, repeats) for kind in STEPS}
    for kind, result in results.items():
        for engine in ("ours", "torch"):
            t = result[engine]
            ratio = f"{result['ratio']:6}" if engine == "ours" else ""
            print(f"{kind:8} {engine:6} {t['median']:10} {t['min']:8} {t['max']:8} {ratio}")
    print(json.dumps(about | results))


if __name__ == "__main__":
    main()
