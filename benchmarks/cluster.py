"""Features and predictions of many image files on a Ray cluster of this machine against one process.

Files are digits as PNG, the source is `drawings`. A machine of the cluster is a node process with one core for Ray,
so 4 workers share the cores of this machine. Every case runs in a process of its own, in turns; it reads the same
dataset, and what is timed is extraction, and prediction into a Parquet file, workers started. Then a worker and a
machine are killed with kill -9 in the middle. Alone on the machine:

    python benchmarks/cluster.py --data DATA --images 100000 --repeats 3
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts, parser, run, spread, told

LOCAL, WORKERS = "local, 1 thread", (1, 2, 4)


def make_files(home: Path, n_images: int) -> None:
    """Digits of MNIST as PNG files in class folders; after 70,000 they come again, shifted by one pixel."""
    from PIL import Image

    from headstart.data.readers.load import load

    digits = load("mnist")
    pixels, labels = digits.images.pixels, digits.labels
    assert pixels is not None
    for name in digits.classes:
        (home / name).mkdir(parents=True)
    for number in range(n_images):
        image = np.roll(pixels[number % len(pixels), ..., 0], number // len(pixels), axis=1)
        Image.fromarray(image).save(
            home / labels[number % len(pixels)] / f"{number:06}.png", compress_level=1
        )


def case(runner: str, home: Path) -> None:
    """One case: seconds, checksums and memory, as JSON."""
    from headstart.data.readers.load import load
    from headstart.models.predict_job import PredictRequest
    from headstart.models.predict_parquet import predict_to_parquet
    from headstart.sources.features import Extraction, extract
    from headstart.sources.registry import open_source
    from headstart.system.cache import FolderCache
    from headstart.system.runners import runner_named
    from headstart.system.threads import limit_process

    if runner == "local":
        limit_process(1)
    data = load(str(home / "images"))
    source = open_source("drawings", data)
    with tempfile.TemporaryDirectory() as folder, runner_named(runner) as workers:
        if workers.remote:  # start them, and import what they need
            some = data.subset(np.arange(256 * workers.n_workers))
            extract(some, source, options=Extraction(runner=workers))
        memory = Memory()
        begun = time.perf_counter()
        rows = extract(data, source, options=Extraction(FolderCache(folder), runner=workers))
        extracted = time.perf_counter()
        digest = hashlib.sha256()
        for first in range(0, len(rows), 10_000):
            digest.update(np.ascontiguousarray(rows[first : first + 10_000]))
        hashed = time.perf_counter()
        request = PredictRequest(str(home / "model"), (str(home / "images"),))
        done = predict_to_parquet(request, Path(folder) / "out.parquet", runner=workers)
        predicted = time.perf_counter()
        answers = _answers(Path(folder) / "out.parquet")
        print(
            json.dumps(
                {
                    "extract_s": extracted - begun,
                    "predict_s": predicted - hashed,
                    "features": digest.hexdigest(),
                    "answers": answers,
                    "rows": done.n_images,
                    **memory.stop(),
                }
            )
        )


def _answers(file: Path) -> str:
    """A checksum of paths, names and probabilities."""
    from pyarrow import parquet

    digest = hashlib.sha256()
    for batch in parquet.ParquetFile(file).iter_batches(10_000):
        digest.update(json.dumps(batch.to_pydict()).encode())
    return digest.hexdigest()


class Memory:
    """The memory of this process, without what it shares, over time: at a tenth of the run, and the most later."""

    def __init__(self) -> None:
        self._seen: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            lines = Path("/proc/self/status").read_text().splitlines()
            self._seen.append(next(int(one.split()[1]) for one in lines if one.startswith("RssAnon")) / 1024)

    def stop(self) -> dict[str, float]:
        """Megabytes."""
        self._ended.set()
        self._thread.join()
        early = max(self._seen[: max(1, len(self._seen) // 10)])
        return {"early_mb": early, "most_mb": max(self._seen)}


def clustered(n_workers: int) -> Any:
    """A cluster of as many machines with one core."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(n_workers - 1):
        made.add_node(num_cpus=1)
    return made


def measured(runner: str, home: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--case", runner, str(home)]
    return run(command, HEADSTART_CACHE=str(home / "cache"))


def killed(home: Path, what: str) -> dict[str, Any]:
    """A case on two machines, of which one worker process, or a whole machine, is killed in the middle."""
    cluster = clustered(1)
    node = cluster.add_node(num_cpus=1)
    command = [sys.executable, __file__, "--case", f"ray:{cluster.address}", str(home)]
    environment = {**os.environ, "HEADSTART_CACHE": str(home / "cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        time.sleep(20)
        while not (workers := _workers()):
            time.sleep(0.2)
        time.sleep(3)
        if what == "worker":
            os.kill(workers[0], signal.SIGKILL)
        else:
            cluster.remove_node(node, allow_graceful=False)
        out, _ = child.communicate()
    cluster.shutdown()
    return {**json.loads(out.splitlines()[-1]), "status": child.returncode}


def _workers() -> list[int]:
    """Processes of actors."""
    found = subprocess.run(["pgrep", "-f", "^ray::Worker"], capture_output=True, text=True, check=False)
    return [int(one) for one in found.stdout.split()]


def main() -> None:
    arguments = parser()
    arguments.add_argument("--images", type=int, default=100_000)
    arguments.add_argument("--workers", type=int, nargs="*", default=WORKERS)
    args = arguments.parse_args()
    os.environ["HEADSTART_DATA"] = args.data
    about = facts("headstart", "numpy", "openvino", "ray")
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_files(home / "images", args.images)
        model = ["-m", "headstart", "transfer", "drawings", "digits", "--output", str(home / "model")]
        run([sys.executable, *model, "--json"], HEADSTART_CACHE=str(home / "cache"))
        for _ in range(args.repeats):
            runs[LOCAL].append(measured("local", home))
            print(LOCAL, runs[LOCAL][-1], file=sys.stderr, flush=True)
            for number in args.workers:
                cluster = clustered(number)
                runs[f"ray, {number} workers"].append(measured(f"ray:{cluster.address}", home))
                cluster.shutdown()
                print(number, runs[f"ray, {number} workers"][-1], file=sys.stderr, flush=True)
        for what in ("worker", "machine"):
            runs[f"ray, a {what} killed"].append(killed(home, what))
    every = [one for some in runs.values() for one in some]
    names = ("extract_s", "predict_s", "early_mb", "most_mb")
    table = {who: {name: spread([one[name] for one in some]) for name in names} for who, some in runs.items()}
    one, base = table["ray, 1 workers"], table[LOCAL]
    told(
        {**about, "images": args.images},
        table,
        same_features=len({one["features"] for one in every}) == 1,
        same_answers=len({one["answers"] for one in every}) == 1,
        rows=sorted({one["rows"] for one in every}),
        overhead={
            name: round(one[name]["median"] / base[name]["median"] - 1, 3)
            for name in ("extract_s", "predict_s")
        },
    )


if __name__ == "__main__":
    case(sys.argv[2], Path(sys.argv[3])) if sys.argv[1:2] == ["--case"] else main()
