"""Run a graph for a server: batches of any size, computed at once, from several threads."""

from __future__ import annotations

import os
from queue import SimpleQueue
from typing import Any

import numpy as np

from headstart.graph.build import INPUT
from headstart.graph.forked import PerProcess, watched
from headstart.graph.refusals import refusals
from headstart.graph.run import hint_of, openvino_core, resolve_precision
from headstart.records import Array, Images

__all__ = ["OnlineRun"]


class OnlineRun:
    """A compiled graph that takes batches of any size; threads may call it at the same time.

    ``n_threads`` is for one batch (default: all cores). ``n_lanes`` batches run at a time and share the
    threads; more of them wait (default: one per core, at most 4). Nothing is padded, so one image costs the
    time of one image; the plugin compiles kernels once for each batch size it has not seen.
    """

    def __init__(
        self,
        graph: bytes,
        *,
        precision: str = "fp32",
        n_threads: int | None = None,
        n_lanes: int | None = None,
    ) -> None:
        import openvino

        self.precision = resolve_precision(precision, "openvino")
        hint = hint_of(self.precision, graph)
        self.n_lanes = n_lanes = n_lanes or min(4, os.cpu_count() or 1)
        with refusals("openvino"):
            model = openvino_core().read_model(graph)
            model.reshape({INPUT: openvino.PartialShape([-1, *list(model.input(0).partial_shape)[1:]])})
        hints: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": n_lanes,
            "ENABLE_CPU_PINNING": False,  # threads that decode images use the cores, too
            "INFERENCE_PRECISION_HINT": hint,
        }
        if n_threads is not None:
            hints["INFERENCE_NUM_THREADS"] = n_threads
        self._lanes = PerProcess(lambda: _lanes(model, hints, n_lanes))

    def __call__(self, images: Images) -> tuple[Array, ...]:
        """Every output, float32, for one image or more, uint8 (n_images, height, width, channels)."""
        lanes = self._lanes.get()
        lane = lanes.get()
        try:
            with refusals("openvino"):
                lane.infer({INPUT: np.ascontiguousarray(images)}, share_inputs=True)
            return tuple(tensor.data.copy() for tensor in lane.output_tensors)
        finally:
            lanes.put(lane)


def _lanes(model: Any, hints: dict[str, Any], n_lanes: int) -> SimpleQueue[Any]:
    """The requests of a newly compiled model, which keep it alive."""
    with refusals("openvino"):
        compiled = watched(openvino_core().compile_model(model, "CPU", hints))
    lanes: SimpleQueue[Any] = SimpleQueue()
    for _ in range(n_lanes):
        lanes.put(watched(compiled.create_infer_request()))
    return lanes
