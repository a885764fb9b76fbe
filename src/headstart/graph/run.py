"""Run graphs: OpenVINO for speed, ONNX Runtime as the reference. Neither needs the framework that trained.

In: an ONNX model and batches of uint8 images. Out: float32 arrays, rows in the order of the images.
Owns the packages openvino and onnxruntime, each imported on first use.
Must not import a training framework. Called by features and model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from headstart.errors import SettingError, unknown
from headstart.graph.build import INPUT
from headstart.records import Array, Images

__all__ = [
    "PRECISIONS",
    "RUNTIMES",
    "Executable",
    "ReferenceRun",
    "compile_graph",
    "import_runtime",
    "resolve_precision",
    "split_batches",
]

RUNTIMES = ("openvino", "onnxruntime")
PRECISIONS = ("auto", "fp32", "bf16")


class Executable(Protocol):
    """A compiled graph."""

    runtime: str
    precision: str

    def stream(self, batches: Iterable[Images]) -> Iterator[tuple[Array, ...]]:
        """Every output for some images after the other, in order; memory stays flat."""
        ...

    def run(self, batches: Iterable[Images], n_images: int) -> Array:
        """The first output of all images in order, (n_images, ...)."""
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
    _check_name(precision, PRECISIONS, "precision")
    _check_name(runtime, RUNTIMES, "runtime")
    if precision == "fp32":
        return "fp32"
    capable = runtime == "openvino" and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not capable:
        raise SettingError(
            f"precision is 'bf16', expected a CPU and a runtime that compute it (runtime is {runtime!r}); "
            "use fp32"
        )
    return "bf16" if capable else "fp32"


def import_runtime(runtime: str) -> None:
    """Import the package that executes graphs, for callers that start threads before they compile.

    A native library initialises itself while it is loaded, and may fork. Neither is safe while other
    threads compute.

    Parameters
    ----------
    runtime : {'openvino', 'onnxruntime'}
        What will execute.

    Raises
    ------
    SettingError
        If the name is unknown.
    """
    _check_name(runtime, RUNTIMES, "runtime")
    import_module(runtime)


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


def _check_name(value: str, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise SettingError(unknown(what, value, known))


_CORES: list[Any] = []


def _core() -> Any:
    """One OpenVINO core per process: making it scans the plugins."""
    if not _CORES:
        import openvino

        _CORES.append(openvino.Core())
    return _CORES[0]


class _Streaming:
    """What every runtime makes of its stream."""

    def stream(self, batches: Iterable[Images]) -> Iterator[tuple[Array, ...]]:
        raise NotImplementedError

    def run(self, batches: Iterable[Images], n_images: int) -> Array:
        result, seen = np.empty(0, np.float32), 0
        for values, *_ in self.stream(batches):
            if not seen:
                result = np.empty((n_images, *values.shape[1:]), np.float32)
            result[seen : seen + len(values)] = values[: max(0, n_images - seen)]
            seen += len(values)
        assert seen == n_images, f"batches held {seen} images, {n_images} were announced"
        return result


class _OpenVino(_Streaming):
    """Several requests in flight, which take turns."""

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

    def stream(self, batches: Iterable[Images]) -> Iterator[tuple[Array, ...]]:
        lanes = deque(_Lane(request) for request in self._requests())
        try:
            for batch in (part for whole in batches for part in split_batches(whole, self._batch_size)):
                lane = lanes.popleft()
                values = lane.finish()
                lane.begin(_padded(batch, self._batch_size), len(batch))
                lanes.append(lane)
                if values is not None:
                    yield values
            for lane in lanes:
                if (values := lane.finish()) is not None:
                    yield values
        finally:  # a reader's error must not leave requests running
            for lane in lanes:
                lane.finish()

    def _requests(self) -> list[Any]:
        number = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        return [self._compiled.create_infer_request() for _ in range(2 * number)]  # as many wait as run


class _Lane:
    """One request that runs beside others; its outputs are fetched when it is wanted again.

    OpenVINO's own queue calls back into Python from its threads, which ends in a crash now and then
    when the queue is torn down (seen 2026-11-20: a reader's error, one run in five). Here nothing
    calls back: equal batches take turns, and the one begun first is waited for first.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        self._n_images = 0

    def begin(self, batch: Images, n_images: int) -> None:
        """Start on a batch whose first ``n_images`` are wanted."""
        self._request.start_async({INPUT: batch})
        self._n_images = n_images

    def finish(self) -> tuple[Array, ...] | None:
        """Wait for what was begun, if anything; copies, because the request writes there again."""
        if not self._n_images:
            return None
        self._request.wait()
        wanted, self._n_images = self._n_images, 0
        return tuple(tensor.data[:wanted].copy() for tensor in self._request.output_tensors)


def _padded(batch: Images, size: int) -> Images:
    """The batch with its first image repeated up to the size."""
    if len(batch) == size:
        return np.ascontiguousarray(batch)
    return np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])


class ReferenceRun:
    """Any graph of one input in ONNX Runtime, fp32: what an export is compared with.

    Parameters
    ----------
    model : onnx.ModelProto
        The graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, values: NDArray[Any]) -> tuple[Array, ...]:
        """Every output for one batch."""
        return tuple(self._session.run(None, {self._input: np.ascontiguousarray(values)}))


class _OnnxRuntime(_Streaming):
    """The reference: one batch after the other, fp32."""

    runtime = "onnxruntime"
    precision = "fp32"

    def __init__(self, model: onnx.ModelProto) -> None:
        self._run = ReferenceRun(model)

    def stream(self, batches: Iterable[Images]) -> Iterator[tuple[Array, ...]]:
        for batch in batches:
            yield self._run(batch)
