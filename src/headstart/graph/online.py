"""Run a graph for whoever asks now: any number of images at once, answered as soon as they are.

In: an ONNX model and small batches of uint8 images. Out: every output of the graph, rows in their order.
Owns openvino beside runtime, which is made for long streams. Must not import a training framework.
Called by the server.
"""

from __future__ import annotations

import os
from queue import SimpleQueue
from typing import Any

import numpy as np

from headstart.graph.build import INPUT
from headstart.graph.run import _core, resolve_precision
from headstart.records import Array, Images

__all__ = ["OnlineRun"]


class OnlineRun:
    """A compiled graph that takes batches of any size; threads may call it at the same time.

    Parameters
    ----------
    graph : bytes
        Serialized ONNX model with the input ``images``.
    precision : {'fp32', 'bf16', 'auto'}, default='fp32'
        As for `headstart.graph.run.compile_graph`.
    n_threads : int, optional
        Threads for one batch. Default: OpenVINO's choice, all cores.
    n_lanes : int, optional
        Batches at a time, among which the threads are shared; more of them wait. Default: one for every
        core, at most 4.

    Notes
    -----
    One image costs the time of one image: nothing is padded. The batch's size varies from call to call,
    so the plugin chooses its kernels anew for sizes it has not seen, once each.
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
        self.n_lanes = n_lanes = n_lanes or min(4, os.cpu_count() or 1)
        model = _core().read_model(graph)
        model.reshape({INPUT: openvino.PartialShape([-1, *list(model.input(0).partial_shape)[1:]])})
        hints: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": n_lanes,
            "ENABLE_CPU_PINNING": False,  # the threads that unpack pictures need the cores too
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self.precision],
        }
        if n_threads is not None:
            hints["INFERENCE_NUM_THREADS"] = n_threads
        self._compiled = _core().compile_model(model, "CPU", hints)
        self._lanes: SimpleQueue[Any] = SimpleQueue()
        for _ in range(n_lanes):
            self._lanes.put(self._compiled.create_infer_request())

    def __call__(self, images: Images) -> tuple[Array, ...]:
        """Every output for some images.

        Parameters
        ----------
        images : ndarray of shape (n_images, height, width, channels), uint8
            At least one.

        Returns
        -------
        tuple of ndarray of shape (n_images, ...), float32
            In the order of the graph's outputs.
        """
        lane = self._lanes.get()
        try:
            lane.infer({INPUT: np.ascontiguousarray(images)}, share_inputs=True)
            return tuple(tensor.data.copy() for tensor in lane.output_tensors)
        finally:
            self._lanes.put(lane)
