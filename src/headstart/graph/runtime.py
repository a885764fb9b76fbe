"""Run graphs: OpenVINO for speed, ONNX Runtime as the reference. Neither needs the framework that trained.

In: an ONNX model and batches of uint8 images. Out: float32 arrays, rows in the order of the images.
Owns the packages openvino and onnxruntime, each imported on first use.
Must not import a training framework. Called by features and model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import onnx

from headstart.errors import SettingError, nearest
from headstart.graph.build import INPUT
from headstart.records import Array, Images

__all__ = ["PRECISIONS", "RUNTIMES", "Executable", "compile_graph", "resolve_precision", "split_batches"]

RUNTIMES = ("openvino", "onnxruntime")
PRECISIONS = ("auto", "fp32", "bf16")


class Executable(Protocol):
    """A compiled graph with one output."""

    runtime: str
    precision: str

    def run(self, batches: Iterable[Images], n_images: int, out: Array | None = None) -> Array:
        """Outputs of all images in order, (n_images, ...); written into ``out`` where given."""
        ...


def split_batches(images: Images, batch_size: int) -> Iterator[Images]:
    """Consecutive slices of at most ``batch_size`` images, without copying."""
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size]


def resolve_precision(precision: str, runtime: str) -> str:
    """Say which precision a request means on this machine.

    Parameters
    ----------
    precision : {'auto', 'fp32', 'bf16'}
        ``auto`` is bf16 where OpenVINO finds the CPU capable of it, else fp32.
    runtime : {'openvino', 'onnxruntime'}
        ONNX Runtime computes in fp32 only.

    Returns
    -------
    str
        ``'fp32'`` or ``'bf16'``.

    Raises
    ------
    SettingError
        If a name is unknown, or bf16 is asked of what cannot do it.
    """
    for value, known, what in ((precision, PRECISIONS, "precision"), (runtime, RUNTIMES, "runtime")):
        if value not in known:
            raise SettingError(
                f"{what} is {value!r}, need one of {', '.join(known)}; {nearest(value, known)}"
            )
    if precision == "fp32":
        return "fp32"
    capable = runtime == "openvino" and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not capable:
        raise SettingError(
            f"precision is 'bf16', need a CPU and a runtime that compute it (runtime is {runtime!r}); "
            "use fp32"
        )
    return "bf16" if capable else "fp32"


def compile_graph(
    model: onnx.ModelProto, *, runtime: str = "openvino", precision: str = "auto", batch_size: int = 64
) -> Executable:
    """Make a graph ready to run.

    Parameters
    ----------
    model : onnx.ModelProto
        A graph with the input ``images`` and one output.
    runtime : {'openvino', 'onnxruntime'}, default='openvino'
        What executes it.
    precision : {'auto', 'fp32', 'bf16'}, default='auto'
        See `resolve_precision`.
    batch_size : int, default=64
        Images per batch the caller will mostly send; larger ones work.

    Returns
    -------
    Executable
        Its ``run`` is deterministic for the same batches on the same machine.

    Raises
    ------
    SettingError
        If a name is unknown or the precision cannot be had.
    """
    resolved = resolve_precision(precision, runtime)
    if runtime == "onnxruntime":
        return _OnnxRuntime(model)
    return _OpenVino(model, resolved, batch_size)


_CORES: list[Any] = []


def _core() -> Any:
    """One OpenVINO core per process: making it scans the plugins."""
    if not _CORES:
        import openvino

        _CORES.append(openvino.Core())
    return _CORES[0]


class _OpenVino:
    """Several requests in flight, each writing its rows where they belong."""

    runtime = "openvino"

    def __init__(self, model: onnx.ModelProto, precision: str, batch_size: int) -> None:
        import openvino

        self.precision = precision
        graph = _core().read_model(model.SerializeToString())
        # a fixed batch lets the plugin choose its kernels once; a smaller last batch is padded
        graph.reshape({INPUT: openvino.PartialShape([batch_size, *list(graph.input(0).partial_shape)[1:]])})
        self._batch_size = batch_size
        hints = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        }
        self._compiled = _core().compile_model(graph, "CPU", hints)

    def run(self, batches: Iterable[Images], n_images: int, out: Array | None = None) -> Array:
        shape = tuple(self._compiled.output(0).shape)[1:]
        result = np.empty((n_images, *shape), np.float32) if out is None else out
        lanes = [_Lane(request) for request in self._requests()]
        start = 0
        try:
            for number, batch in enumerate(
                part for whole in batches for part in split_batches(whole, self._batch_size)
            ):
                lane = lanes[number % len(lanes)]
                lane.finish(result)
                rows = slice(start, start + len(batch))
                lane.begin(_padded(batch, self._batch_size), rows)
                start = rows.stop
        finally:  # a reader's error must not leave requests running
            for lane in lanes:
                lane.finish(result)
        _expect(start, n_images)
        return result

    def _requests(self) -> list[Any]:
        number = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        return [self._compiled.create_infer_request() for _ in range(2 * number)]  # as many wait as run


class _Lane:
    """One request that runs beside others; its rows are fetched when it is wanted again.

    OpenVINO's own queue calls back into Python from its threads, which ends in a crash now and then
    when the queue is torn down (seen 2026-11-20: a reader's error, one run in five). Here nothing
    calls back: equal batches take turns, and the one begun first is waited for first.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        self._rows: slice | None = None

    def begin(self, batch: Images, rows: slice) -> None:
        """Start on a batch whose outputs belong into these rows."""
        self._request.start_async({INPUT: batch})
        self._rows = rows

    def finish(self, result: Array) -> None:
        """Wait for what was begun, if anything, and put its outputs where they belong."""
        if self._rows is not None:
            self._request.wait()
            result[self._rows] = self._request.get_output_tensor(0).data[: self._rows.stop - self._rows.start]
            self._rows = None


def _padded(batch: Images, size: int) -> Images:
    """The batch with its first image repeated up to the size."""
    if len(batch) == size:
        return np.ascontiguousarray(batch)
    return np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])


def _expect(seen: int, n_images: int) -> None:
    """A promise to ourselves: the caller said how many images there are."""
    assert seen == n_images, f"batches held {seen} images, {n_images} were announced"


class _OnnxRuntime:
    """The reference: one batch after the other, fp32."""

    runtime = "onnxruntime"
    precision = "fp32"

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, batches: Iterable[Images], n_images: int, out: Array | None = None) -> Array:
        result, start = out, 0
        for batch in batches:
            values = self._session.run(None, {INPUT: np.ascontiguousarray(batch)})[0]
            if result is None:
                result = np.empty((n_images, *values.shape[1:]), np.float32)
            result[start : start + len(batch)] = values
            start += len(batch)
        _expect(start, n_images)
        assert result is not None, "no batch was given"
        return result
