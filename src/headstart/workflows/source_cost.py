"""What a source costs on this machine, measured: time for an image, and size of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from headstart.graph import run as runtime
from headstart.records import Source
from headstart.sources.features import Place, feature_graph

__all__ = ["Cost", "measured_cost"]

_TIMED_S = 1.0  # enough for a median of several batches
_LEAST_BATCHES = 5


@dataclass(frozen=True)
class Cost:
    """Milliseconds for an image with the fastest batch, in fp32 on all cores, and megabytes of the graph."""

    ms: float
    megabytes: float


def measured_cost(source: Source, places: Sequence[Place], *, runtime_name: str = "openvino") -> Cost:
    """Cost of a source up to some places: the median over the batches of one second, without decoding."""
    graph = feature_graph(source, places)
    executable = runtime.compile_graph(
        graph, runtime=runtime_name, precision="fp32", batch_size=source.batch_size
    )
    images = np.random.default_rng(0).integers(0, 256, (source.batch_size, *source.input.shape))
    batch = images.astype(np.uint8)
    executable.run([batch], len(batch))  # the first run prepares
    taken: list[float] = []
    while len(taken) < _LEAST_BATCHES or sum(taken) < _TIMED_S:
        begun = perf_counter()
        executable.run([batch], len(batch))
        taken.append(perf_counter() - begun)
    return Cost(1e3 * float(np.median(taken)) / len(batch), graph.ByteSize() / 1e6)
