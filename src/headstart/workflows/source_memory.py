"""The memory that running a source takes, measured in a process that does nothing else.

It is a program of its own: in a process that has done other work, the highest use of memory says nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.graph import run as runtime
from headstart.records import Source
from headstart.sources.features import Place, feature_graph

__all__ = ["Memory", "measured_memory"]

_LIMIT_S = 300
_STATUS = Path("/proc/self/status")
_RUNS = 3  # batches; more do not take more memory


@dataclass(frozen=True)
class Memory:
    """Megabytes of a process at its peak, of them those before it read the network, and images in a batch."""

    peak_mb: float
    base_mb: float
    batch_size: int


def measured_memory(source: Source, place: Place) -> Memory | None:
    """Memory of a process that reads a source up to a place and runs batches; None where it cannot be measured."""
    graph = feature_graph(source, [place]).SerializeToString()
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        file = Path(folder, "graph.onnx")
        file.write_bytes(graph)
        command = [sys.executable, "-m", __name__, str(file), str(source.batch_size)]
        command += [str(one) for one in source.input.shape]
        try:
            done = subprocess.run(command, capture_output=True, check=True, timeout=_LIMIT_S)
            peak, base = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            return None
    return Memory(peak, base, source.batch_size)


def _run(file: str, batch_size: int, shape: tuple[int, ...]) -> tuple[float, float]:
    """Peak and base of this process in MB."""
    runtime.openvino_core()
    base = _peak_mb()
    ready = runtime.compile_graph(Path(file).read_bytes(), precision="fp32", batch_size=batch_size)
    batch = np.zeros((batch_size, *shape), np.uint8)
    for _ in range(_RUNS):
        ready.run([batch], batch_size)
    return _peak_mb(), base


def _peak_mb() -> float:
    """The most physical memory that this process has had.

    Linux counts that of the parent process in getrusage, too (until exec), so its own record is read there.
    """
    if _STATUS.exists():
        line = next(one for one in _STATUS.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) / 1e3
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], int(sys.argv[2]), tuple(map(int, sys.argv[3:])))))
