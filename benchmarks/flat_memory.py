"""Memory of a stream: 100,000 and 1,000,000 synthetic 28 x 28 images through a small source, peak RSS.

Each count runs in a process of its own: images mapped from a file, features written to the cache. On Linux:

    python benchmarks/flat_memory.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import facts, run

_CHUNK = 50_000


def make(path: Path, n_images: int) -> None:
    """Random blobs, written chunk by chunk."""
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n_images, 28, 28))
    rng = np.random.default_rng(0)
    for start in range(0, n_images, _CHUNK):
        images[start : start + _CHUNK] = rng.integers(
            0, 256, (min(_CHUNK, n_images - start), 28, 28), np.uint8
        )
    images.flush()


def peak_mib() -> float:
    """Largest resident set of this process; getrusage would count what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def child(path: str) -> None:
    """Extract the features of a mapped file and say how much memory that took."""
    from headstart.data import from_arrays
    from headstart.sources.features import Extraction, extract
    from headstart.sources.registry import open_source
    from headstart.system.cache import default_cache

    images = np.load(path, mmap_mode="r")
    labels = np.arange(len(images)) % 10
    data = from_arrays(images, labels)
    source, begun = open_source("random:cnn", data.subset(np.arange(10))), time.perf_counter()
    before = peak_mib()
    rows = extract(data, source, layer="pool2", pooling="avg", options=Extraction(default_cache()))
    seconds = time.perf_counter() - begun
    peak = peak_mib()
    print(
        json.dumps(
            {
                "n_images": len(rows),
                "feature_mib": round(rows.nbytes / 2**20),
                "image_mib": round(images.nbytes / 2**20),
                "rss_mib_before": round(before),
                "peak_rss_mib": round(peak),
                "images_per_s": round(len(rows) / seconds),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--child")
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000])
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    about, runs = facts("headstart", "numpy", "openvino"), []
    print(json.dumps(about))
    for n_images in args.counts:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npy"
            make(path, n_images)
            found = run([sys.executable, __file__, "--child", str(path)], HEADSTART_CACHE=f"{folder}/cache")
        runs.append(found)
        print(json.dumps(found))
    print(json.dumps({**about, "runs": runs}))


if __name__ == "__main__":
    main()
