"""What the features of many photos cost on a cluster: hours and dollars, simulated from the speed of one core.

    python benchmarks/cluster_cost.py --images DATA/hymenoptera [--sources photos photos-large]
    python benchmarks/cluster_cost.py --images-per-s 30 --image-kb 100

The speed is measured here, on real photos with the local runner and one thread, or given. Machines start, their
workers take shards; a machine may be interrupted (a spot machine that its owner takes back): its unfinished shards
are done again, and another machine starts in its place. Prices, start-up times and interruptions are assumptions, not
quotes: give your own.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import os
import pickle
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from machine import facts

__all__ = ["Outcome", "Plan", "expected_hours", "simulate"]

T = TypeVar("T")

_HOUR_S = 3600.0
_START, _DONE, _INTERRUPT = 0, 1, 2  # events
_ASSUMED = (
    *("photos", "shard", "price", "spot_price", "head_cores", "interruptions"),
    *("read_mb_per_s", "head_mb_per_s", "machine_start_s", "worker_start_s", "overhead"),
)


@dataclass(frozen=True)
class Plan:
    """A job and the machines that do it; the workers of a machine, one for each core, share what it can read.

    ``overhead`` is the share of a worker's time that is neither decoding nor the network. ``interruptions`` are those
    of one machine in an hour. The features of an image have ``features_mb``, and the head takes ``head_mb_per_s``.
    """

    n_images: int
    machines: int
    cores: int
    images_per_s: float
    image_mb: float
    read_mb_per_s: float
    shard: int = 1_024
    machine_start_s: float = 120.0
    worker_start_s: float = 15.0
    overhead: float = 0.0
    interruptions: float = 0.0
    features_mb: float = 0.0
    head_mb_per_s: float = math.inf

    @property
    def worker_images_per_s(self) -> float:
        """Of one worker among the others of its machine: reading overlaps with computing, the slower one counts."""
        computed = self.images_per_s * (1.0 - self.overhead)
        return min(computed, self.read_mb_per_s / self.image_mb / self.cores)

    @property
    def start_s(self) -> float:
        """From the request of a machine to its first image."""
        return self.machine_start_s + self.worker_start_s


@dataclass(frozen=True)
class Outcome:
    """A simulated run: how long it took, the hours that machines were paid for, and what was done twice."""

    hours: float
    machine_hours: float
    interruptions: int
    shards: int
    shards_again: int


class _Run:
    """The state of a simulation."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self._rng = plan, random.Random(seed)
        full, rest = divmod(plan.n_images, plan.shard)
        self.todo = deque([plan.shard] * full + [rest] * (rest > 0))
        self.n_shards = self.left = len(self.todo)
        self.events: list[tuple[float, int, int, int, int]] = []  # time, order, kind, machine, images
        self._order, self._numbers = itertools.count(), itertools.count()
        self._requested: dict[int, float] = {}  # when, of the machines that are there
        self._busy: dict[int, list[int]] = {}  # images of the shards that are being done
        self._free: dict[int, int] = {}  # workers
        self._paid_s, self.lost, self.interrupted = 0.0, 0, 0
        self.taken_s = 0.0  # when the head has taken all results so far

    def request(self, now: float) -> None:
        """One more machine, which is paid for from now on."""
        machine = next(self._numbers)
        self._requested[machine], self._busy[machine], self._free[machine] = now, [], 0
        self._plan(now + self.plan.start_s, _START, machine)
        if self.plan.interruptions:
            after = self._rng.expovariate(self.plan.interruptions / _HOUR_S)
            self._plan(now + after, _INTERRUPT, machine)

    def _plan(self, when: float, kind: int, machine: int, images: int = 0) -> None:
        heapq.heappush(self.events, (when, next(self._order), kind, machine, images))

    def happen(self, now: float, kind: int, machine: int, images: int) -> None:
        """One event; those of a machine that is gone are void."""
        if machine not in self._requested:
            return
        if kind == _INTERRUPT:
            self._interrupt(now, machine)
            return
        if kind == _DONE:
            self._busy[machine].remove(images)
            self.left -= 1
            self.taken_s = max(now, self.taken_s) + images * self.plan.features_mb / self.plan.head_mb_per_s
        self._free[machine] += self.plan.cores if kind == _START else 1
        self._fill(now, machine)

    def _fill(self, now: float, machine: int) -> None:
        """The free workers of a machine take the next shards."""
        while self.todo and self._free[machine]:
            self._free[machine] -= 1
            images = self.todo.popleft()
            self._busy[machine].append(images)
            self._plan(now + images / self.plan.worker_images_per_s, _DONE, machine, images)

    def _interrupt(self, now: float, machine: int) -> None:
        lost = self._busy.pop(machine)
        del self._free[machine]
        self.todo.extendleft(lost)
        self.lost += len(lost)
        self.interrupted += 1
        self._paid_s += now - self._requested.pop(machine)
        for other in self._requested:
            self._fill(now, other)
        self.request(now)

    def paid_s(self, now: float) -> float:
        """Time of all machines until now."""
        return self._paid_s + sum(now - begun for begun in self._requested.values())


def simulate(plan: Plan, seed: int = 0) -> Outcome:
    """One run, event after event."""
    run = _Run(plan, seed)
    for _ in range(plan.machines):
        run.request(0.0)
    now = 0.0
    while run.left:
        now, _, kind, machine, images = heapq.heappop(run.events)
        run.happen(now, kind, machine, images)
    end = run.taken_s
    return Outcome(end / _HOUR_S, run.paid_s(end) / _HOUR_S, run.interrupted, run.n_shards, run.lost)


def expected_hours(plan: Plan) -> float:
    """The same by theory, as if work could be divided at will.

    A machine is up for an exponential time, of which each worker keeps the whole shards; then it starts again.
    """
    one_s = plan.shard / plan.worker_images_per_s
    if plan.interruptions:
        rate = plan.interruptions / _HOUR_S
        # P(up for k shards after the start) summed over k, in a cycle of 1 / rate
        shards_in_cycle = math.exp(-rate * plan.start_s) / math.expm1(rate * one_s)
        images_per_s = plan.shard * shards_in_cycle * rate
    else:
        images_per_s = plan.worker_images_per_s
    together = images_per_s * plan.machines * plan.cores
    if plan.features_mb:
        together = min(together, plan.head_mb_per_s / plan.features_mb)
    return (plan.start_s + plan.n_images / together) / _HOUR_S


# ---- the speed of one core ----


def measured(source: str, images: Path, repeats: int) -> dict[str, Any]:
    """Images per second of one worker on one core, from files to features: the function that a worker runs.

    By the CPU time of this process, which other programs change little; ``images_per_s`` is by elapsed time.
    ``examined_per_cpu_s`` is what comes before: the command reads, hashes and checks every file of a folder.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from headstart.data import load
    from headstart.sources import open_source
    from headstart.sources.features import feature_graph
    from headstart.sources.sharded import Recipe
    from headstart.system.threads import limit_process

    limit_process(1)
    files = [path for path in images.rglob("*") if path.is_file()]
    reading, dataset = _timed(lambda: load(str(images)))
    network = open_source(source)
    graph = feature_graph(network, [(network.default_layer, "flat")])
    recipe = Recipe(
        graph.SerializeToString(), network.input, "openvino", "fp32", network.batch_size, copy=None
    )
    starting, compute = _timed(recipe)
    # as it arrives at a worker: nothing of it is decoded yet
    shard = pickle.dumps(dataset.images)
    runs = [_timed(lambda: compute((0, pickle.loads(shard)))) for _ in range(repeats + 1)][1:]
    speeds = [len(dataset) / seconds[0] for seconds, _ in runs]
    return {
        "source": source,
        "n_photos": len(dataset),
        "repeats": repeats,
        "images_per_cpu_s": round(statistics.median(speeds), 1),
        "images_per_cpu_s_min": round(min(speeds), 1),
        "images_per_cpu_s_max": round(max(speeds), 1),
        "images_per_s": round(statistics.median(len(dataset) / seconds[1] for seconds, _ in runs), 1),
        "image_kb": round(sum(path.stat().st_size for path in files) / len(files) / 1_000, 1),
        "n_features": runs[0][1][0].shape[1],
        "examined_per_cpu_s": round(len(dataset) / reading[0], 1),
        "compiled_in_s": round(starting[1], 2),
    }


def _timed(work: Callable[[], T]) -> tuple[tuple[float, float], T]:
    """CPU time and elapsed time in seconds, and the result."""
    cpu, elapsed = time.process_time(), time.perf_counter()
    result = work()
    return (time.process_time() - cpu, time.perf_counter() - elapsed), result


# ---- what is printed ----


def costs(plan: Plan, given: argparse.Namespace, *, spot: bool) -> dict[str, Any]:
    """Hours and dollars of a plan: medians over seeds; the head is one more machine, never a spot machine."""
    plan = replace(plan, interruptions=given.interruptions if spot else 0.0)
    found = [simulate(plan, seed) for seed in range(given.seeds if spot else 1)]
    price = given.spot_price if spot else given.price
    dollars = [
        one.machine_hours * plan.cores * price + one.hours * given.head_cores * given.price for one in found
    ]
    hours, median = [one.hours for one in found], statistics.median
    return {
        "machines": plan.machines,
        "cores": plan.machines * plan.cores,
        "spot": spot,
        "hours": round(median(hours), 3),
        "hours_max": round(max(hours), 3),
        "hours_by_theory": round(expected_hours(plan), 3),
        "dollars": round(median(dollars), 2),
        "dollars_max": round(max(dollars), 2),
        "images_per_dollar": round(plan.n_images / median(dollars)),
        "interruptions": median([one.interruptions for one in found]),
        "shards_again_share": round(median([one.shards_again / one.shards for one in found]), 4),
    }


def alone(photos: Sequence[int], cores: int, what: str, images_per_s: float) -> dict[str, Any]:
    """Hours of one machine of one's own, all of its cores at work."""
    hours = [round(number / (cores * images_per_s) / _HOUR_S, 4) for number in photos]
    return {"what": what, "photos": list(photos), "hours": hours}


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line for each simulated cluster."""
    heads = ("machines", 8), ("cores", 6), ("kind", 10), ("hours", 8), ("theory", 8), ("dollars", 9)
    yield " ".join(f"{name:>{width}}" for name, width in (*heads, ("images per $", 13), ("again", 7)))
    for row in rows:
        kind = "spot" if row["spot"] else "on demand"
        yield (
            f"{row['machines']:>8} {row['cores']:>6} {kind:>10} {row['hours']:>8.2f} {row['hours_by_theory']:>8.2f} "
            f"{row['dollars']:>9.2f} {row['images_per_dollar']:>13,} {row['shards_again_share']:>7.2%}"
        )


def arguments() -> argparse.Namespace:
    """What the user gives."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--sources", nargs="+", default=["photos"], help="to measure; the first is simulated")
    made.add_argument("--images", type=Path, help="folder of photos on which it is measured")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--images-per-s", type=float, help="of one core, instead of measuring")
    made.add_argument(
        "--image-kb", type=float, help="mean size of a file; default: that of the measured ones"
    )
    made.add_argument("--photos", type=int, default=10_000_000, help="of the job")
    made.add_argument("--machines", type=int, nargs="+", default=[1, 4, 16, 64])
    made.add_argument("--cores", type=int, default=8, help="of a machine, one worker each")
    made.add_argument("--head-cores", type=int, default=4, help="of the machine that runs the command")
    made.add_argument("--price", type=float, default=0.04, help="dollars for an hour of one core")
    made.add_argument("--spot-price", type=float, default=0.015, help="the same on a spot machine")
    made.add_argument("--interruptions", type=float, default=0.05, help="of a spot machine, in an hour")
    made.add_argument("--read-mb-per-s", type=float, default=100.0, help="that one machine can read")
    made.add_argument("--head-mb-per-s", type=float, default=100.0, help="of features that the head takes")
    made.add_argument("--features", type=int, help="of a photo, float32; default: those of the source")
    made.add_argument("--machine-start-s", type=float, default=120.0, help="until Ray runs on it")
    made.add_argument("--worker-start-s", type=float, default=15.0, help="imports, and compiling the network")
    made.add_argument(
        "--overhead", type=float, default=0.1, help="share of a worker's time lost to the runner"
    )
    made.add_argument("--shard", type=int, default=1_024, help="images that a worker does at a time")
    made.add_argument("--seeds", type=int, default=20, help="simulated runs with interruptions")
    found = made.parse_args()
    if found.images_per_s is None and found.images is None:
        made.error("no speed, expected --images FOLDER to measure it, or --images-per-s")
    if found.images is None and found.image_kb is None:
        made.error("no size of a photo, expected --images FOLDER or --image-kb")
    if found.interruptions * (found.machine_start_s + found.worker_start_s) > _HOUR_S:
        made.error(f"interruptions is {found.interruptions}, expected fewer: a machine takes longer to start")
    numbers = {**vars(found), "machines": min(found.machines)}
    for name, value in numbers.items():
        if name not in ("overhead", "interruptions") and isinstance(value, int | float) and value <= 0:
            made.error(f"{name} is {value}, expected a number above 0")
    if not 0 <= found.overhead < 1 or found.interruptions < 0:
        made.error("overhead or interruptions is out of range, expected a share, and a number from 0")
    return found


def main() -> None:
    """Measure, simulate, print."""
    given = arguments()
    speeds = [measured(name, given.images, given.repeats) for name in given.sources if given.images]
    speed = speeds[0] if speeds else {}
    images_per_s = given.images_per_s or speed["images_per_cpu_s"]
    image_kb = given.image_kb or speed["image_kb"]
    plan = Plan(
        n_images=given.photos,
        machines=1,
        cores=given.cores,
        images_per_s=images_per_s,
        image_mb=image_kb / 1_000,
        read_mb_per_s=given.read_mb_per_s,
        shard=given.shard,
        machine_start_s=given.machine_start_s,
        worker_start_s=given.worker_start_s,
        overhead=given.overhead,
        features_mb=(given.features or speed.get("n_features", 0)) * 4 / 1e6,
        head_mb_per_s=given.head_mb_per_s,
    )
    clusters = [replace(plan, machines=number) for number in given.machines]
    rows = [costs(one, given, spot=spot) for spot in (False, True) for one in clusters]
    photos = (100_000, 1_000_000, given.photos)
    laptop = [alone(photos, given.cores, one["source"], one["images_per_cpu_s"]) for one in speeds]
    if speeds:
        laptop.append(
            alone(photos, given.cores, "read, hash and check the files", speed["examined_per_cpu_s"])
        )
    else:
        laptop.append(alone(photos, given.cores, "the given speed", images_per_s))
    assumed = {name: getattr(given, name) for name in _ASSUMED}
    about = facts("headstart", "numpy", "openvino")
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for one in speeds:
        print("measured:", ", ".join(f"{name} {value}" for name, value in one.items()))
    print("assumed, not quoted:", ", ".join(f"{name} {value}" for name, value in assumed.items()))
    print(
        f"one core: {images_per_s} images/s of {image_kb} kB; a worker among {given.cores} on its machine: "
        f"{plan.worker_images_per_s:.1f}"
    )
    print("\n".join(lines(rows)))
    for one in laptop:
        for number, hours in zip(one["photos"], one["hours"], strict=True):
            print(f"alone on {given.cores} cores, {one['what']}: {number:,} photos in {hours} h")
    result = {"measured": speeds, "assumed": assumed, "cores": given.cores, "clusters": rows, "alone": laptop}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
