"""A training step against the peak of the machine: GFLOP/s of a step and of a large matrix product, alternating.

The operations of a step are counted by hand: convolutions and dense layers, forward and backward, no gradient for
the pixels. Everything else (pooling, activations, the optimizer, conversions) counts as nothing, so the share of the
peak says how much of the step is arithmetic. Below it: where the time of a step goes, by PyTorch's profiler. Alone on
the machine:

    python benchmarks/step_peak.py --data DATA
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any

import numpy as np
import torch
from machine import facts, parser, spread, told
from torch.profiler import ProfilerActivity, profile

from headstart.data import load
from headstart.networks.engines.registry import make_network
from headstart.networks.engines.torch_device import use_bf16
from headstart.networks.specs import architecture, layer_shapes
from headstart.records import InputSpec, NetworkSpec, TrainSettings

SIDE, BATCH = 2_048, 128
PAUSE_S = 0.5
STEPS = {"cnn": 20, "mlp": 60, "best": 3}


def operations(spec: NetworkSpec) -> float:
    """Floating-point operations of one step on one image: two for each multiplication."""
    shapes, before, found, first = layer_shapes(spec), spec.input.channels, 0.0, True
    for layer in spec.layers:
        shape, products = shapes[layer.name], 0
        if layer.kind == "conv2d":
            n_out, height, width = shape
            products = n_out * height * width * before * layer.options["kernel"] ** 2
        elif layer.kind == "dense":
            products = before * shape[0]
        if products:
            found += 2 * products * (2 if first else 3)  # forward, weights, and inputs above the first layer
            first = False
        before = shape[0] if layer.kind != "flatten" else int(np.prod(shape))
    return found


def seconds(work: Callable[[], Any], times: int) -> float:
    """Seconds of one call, the mean of some.

    After a pause: the threads of NumPy's BLAS wait for more work in a busy loop, in which PyTorch's steps took up to
    three times as long.
    """
    sleep(PAUSE_S)
    work()
    begun = perf_counter()
    for _ in range(times):
        work()
    return (perf_counter() - begun) / times


def products() -> dict[str, Callable[[], Any]]:
    """The large matrix products that count as peak."""
    rng = np.random.default_rng(0)
    one, two = (rng.standard_normal((SIDE, SIDE)).astype(np.float32) for _ in range(2))
    first, second = torch.from_numpy(one), torch.from_numpy(two)
    halves = first.bfloat16(), second.bfloat16()
    return {
        "NumPy fp32": lambda: one @ two,
        "torch fp32": lambda: first @ second,
        "torch bf16": lambda: halves[0] @ halves[1],
    }


def step(name: str, engine: str, precision: str) -> tuple[Callable[[], Any], float]:
    """One training step on 128 digits, and its operations."""
    some = load("mnist").split("train").subset(np.arange(BATCH))
    spec = architecture(name, InputSpec(28, 28, 1), 10)
    network = make_network(spec, engine, 0)
    network.start(TrainSettings(batch_size=BATCH, precision=precision))
    images, codes = some.images.pixels, some.codes()
    return lambda: network.train_step(images, codes, 1e-3), operations(spec) * BATCH


def parts_of(work: Callable[[], Any], times: int) -> dict[str, float]:
    """Share of a step by operation of PyTorch, the largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        seconds(work, times)
    events = sorted(found.key_averages(), key=lambda one: -one.self_cpu_time_total)
    whole = sum(one.self_cpu_time_total for one in events)
    return {one.key: round(one.self_cpu_time_total / whole, 3) for one in events[:12]}


def main() -> None:
    arguments = parser(repeats=5)
    arguments.add_argument("--networks", default="cnn,mlp,best")
    args = arguments.parse_args()
    os.environ["HEADSTART_DATA"] = args.data
    precisions = ["fp32", *(["auto"] if use_bf16("auto", torch.device("cpu")) else [])]
    cases = [(name, engine, one) for name in args.networks.split(",") for engine in ("scratch", "torch")
             for one in (precisions if engine == "torch" else precisions[:1])
             if not (engine == "scratch" and name == "best")]  # fmt: skip
    peaks, steps = products(), {case: step(*case) for case in cases}
    speed: dict[str, list[float]] = {}
    for number in range(args.repeats + 1):  # the first one warms up
        for what, work in peaks.items():
            rate = 2 * SIDE**3 / seconds(work, 10) / 1e9
            speed.setdefault(f"product, {what}", []).extend([rate] if number else [])
        for case, (work, flop) in steps.items():
            rate = flop / seconds(work, STEPS[case[0]]) / 1e9
            speed.setdefault(_title(case), []).extend([rate] if number else [])
    table = {what: {"GFLOP/s": spread(one)} for what, one in speed.items()}
    median = {what: float(np.median(one)) for what, one in speed.items()}
    share = {}
    for case in cases:
        peak = "NumPy fp32" if case[1] == "scratch" else "torch bf16" if case[2] == "auto" else "torch fp32"
        share[_title(case)] = round(median[_title(case)] / median[f"product, {peak}"], 3)
    milliseconds = {
        _title(case): round(flop / median[_title(case)] / 1e6, 2) for case, (_, flop) in steps.items()
    }
    parts = {_title(case): parts_of(steps[case][0], STEPS[case[0]]) for case in cases if case[1] == "torch"}
    about = facts("headstart", "numpy", "torch") | {"torch_threads": torch.get_num_threads()}
    told(about, table, share_of_peak=share, ms_per_step=milliseconds, parts_of_a_step=parts)


def _title(case: tuple[str, str, str]) -> str:
    name, engine, precision = case
    return f"{engine} {name}, {'bf16' if precision == 'auto' else 'fp32'}"


if __name__ == "__main__":
    main()
