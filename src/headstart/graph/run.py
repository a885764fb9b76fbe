"""Run graphs over streams of images: OpenVINO for speed, ONNX Runtime as the reference."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
import onnx
from numpy.typing import NDArray

from headstart.errors import SettingError, unknown
from headstart.graph.build import INPUT
from headstart.graph.forked import PerProcess, watched
from headstart.graph.refusals import refusals
from headstart.records import Array, Images
from headstart.system.threads import process_limit

__all__ = [
    "INT8",
    "PRECISIONS",
    "RUNTIMES",
    "Executable",
    "ReferenceRun",
    "compile_graph",
    "hint_of",
    "import_runtime",
    "openvino_core",
    "resolve_precision",
    "split_batches",
]

RUNTIMES = ("openvino", "onnxruntime")
INT8 = "int8"
"""The precision of a graph whose convolutions are in 8 bits; `quantize` writes them."""
PRECISIONS = ("auto", "fp32", "bf16", INT8)
_FATAL = 4  # what ONNX Runtime refuses is in its error; below, it prints lines of its own, too


class Executable(Protocol):
    """A compiled graph."""

    runtime: str
    precision: str

    def stream(self, batches: Iterable[Images]) -> Iterator[tuple[Array, ...]]:
        """Every output for batch after batch, in order; memory stays flat."""
        ...

    def run(self, batches: Iterable[Images], n_images: int) -> Array:
        """The first output of all images in order, (n_images, ...)."""
        ...


def split_batches(images: Images, batch_size: int) -> Iterator[Images]:
    """Consecutive slices of at most ``batch_size`` images, without copying."""
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size]


def resolve_precision(precision: str, runtime: str) -> str:
    """Precision that a request means on this machine: ``fp32``, ``bf16`` or ``int8``; SettingError if impossible.

    ``auto`` is bf16 where OpenVINO reports that the CPU supports it; ONNX Runtime computes in fp32 only, but for
    what a graph has in 8 bits.
    """
    _check_name(precision, PRECISIONS, "precision")
    _check_name(runtime, RUNTIMES, "runtime")
    if precision in ("fp32", INT8):
        return precision
    capable = runtime == "openvino" and "BF16" in openvino_core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    )
    if precision == "bf16" and not capable:
        raise SettingError(
            f"precision is 'bf16', expected a CPU and a runtime that compute it (runtime is {runtime!r}); "
            "use fp32"
        )
    return "bf16" if capable else "fp32"


def hint_of(precision: str, graph: bytes) -> str:
    """How OpenVINO computes what a graph has in floats; SettingError for int8 if the graph has nothing in 8 bits."""
    if precision == INT8 and b"DequantizeLinear" not in graph:
        raise SettingError(
            "precision is 'int8' for a graph in fp32, expected a source or model that was made in int8; make it with "
            "--precision int8 of transfer, or leave the precision out"
        )
    return {"fp32": "f32", "bf16": "bf16", INT8: "f32"}[precision]


def import_runtime(runtime: str) -> None:
    """Import the package that executes graphs, for callers that start threads before they compile.

    A native library initialises itself while it is loaded, and may fork; neither is safe while other threads
    compute.
    """
    _check_name(runtime, RUNTIMES, "runtime")
    import_module(runtime)


def compile_graph(
    model: onnx.ModelProto | bytes,
    *,
    runtime: str = "openvino",
    precision: str = "auto",
    batch_size: int = 64,
) -> Executable:
    """Compile a graph for a runtime.

    Parameters
    ----------
    model : onnx.ModelProto or bytes
        A graph with the input ``images`` and one output, serialized or not.
    runtime : {'openvino', 'onnxruntime'}, default='openvino'
        What executes it.
    precision : {'auto', 'fp32', 'bf16', 'int8'}, default='auto'
        ``auto`` is bf16 where OpenVINO reports that the CPU supports it, else fp32; ONNX Runtime computes in fp32
        only. ``int8`` is for a graph with operations in 8 bits, and computes the others in fp32. Operations in 8 bits
        are computed so whatever is given.
    batch_size : int, default=64
        Usual number of images per batch; larger batches work, too.

    Returns
    -------
    Executable
        Its ``run`` is deterministic for the same batches on the same machine. It works in forked processes,
        too, where the first run compiles the graph again.

    Raises
    ------
    SettingError
        If a name is unknown or the precision is not available.
    ModelError
        If the runtime refuses the graph; also when it runs.
    """
    resolved = resolve_precision(precision, runtime)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    hint = hint_of(resolved, content)
    with refusals(runtime):
        if runtime == "onnxruntime":
            return _OnnxRuntime(content, resolved)
        return _OpenVino(content, resolved, hint, batch_size)


def _check_name(value: str, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise SettingError(unknown(what, value, known))


_CORES: list[PerProcess[Any]] = []


def openvino_core() -> Any:
    """One OpenVINO core per process: making it scans the plugins."""
    if not _CORES:
        import openvino

        _CORES.append(PerProcess(lambda: watched(openvino.Core())))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_occupy_idle_threads)
    return _CORES[0].get()


_COMPILED: WeakSet[Any] = WeakSet()
_PEAK: list[int] = [0]
_HELD: list[Any] = []  # they live as long as the process


def _compile(graph: Any, hints: Mapping[str, Any]) -> Any:
    compiled = watched(openvino_core().compile_model(graph, "CPU", dict(hints)))
    _COMPILED.add(compiled)
    _PEAK[0] = max(_PEAK[0], len(_COMPILED))
    return compiled


def _occupy_idle_threads() -> None:
    """Give the threads of deleted graphs to tiny ones, which are kept.

    OpenVINO keeps them for new graphs: a forked process would compile for threads that it does not have, and wait
    for ever (2026.4, seen 2026-11-30).
    """
    import openvino

    if not _CORES[0].made_here:
        return
    while len(_COMPILED) < _PEAK[0]:
        one = openvino.opset13.parameter([1], np.float32)
        tiny = openvino.Model([openvino.opset13.relu(one)], [one])
        hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
        _HELD.append(_compile(tiny, hints))


class _Streaming:
    """Base of the runtimes: ``run`` by means of ``stream``."""

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

    def __init__(self, model: bytes, precision: str, hint: str, batch_size: int) -> None:
        import openvino

        self.precision = precision
        graph = openvino_core().read_model(model)
        # a fixed batch lets the plugin choose its kernels once; a smaller last batch is padded
        graph.reshape({INPUT: openvino.PartialShape([batch_size, *list(graph.input(0).partial_shape)[1:]])})
        self._batch_size = batch_size
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": hint}
        if (limit := process_limit()) is not None:
            hints["INFERENCE_NUM_THREADS"] = limit
        # the compiled model shares the memory of the graph, so keeping it for forked processes costs nothing
        self._compiled = PerProcess(lambda: _compile(graph, hints))

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
        compiled = self._compiled.get()
        number = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        return [watched(compiled.create_infer_request()) for _ in range(2 * number)]  # as many wait as run


class _Lane:
    """One of several requests in flight; its outputs are fetched before it is used again.

    OpenVINO's own queue calls back into Python from its threads, which sometimes ends in a crash when the
    queue is destroyed (seen 2026-11-20: after a reader's error, one run in five). Here nothing calls back:
    equal batches take turns, and the oldest is waited for first.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        self._n_images = 0

    def begin(self, batch: Images, n_images: int) -> None:
        """Start on a batch whose first ``n_images`` are wanted; the rest is padding."""
        with refusals("openvino"):
            self._request.start_async({INPUT: batch})
        self._n_images = n_images

    def finish(self) -> tuple[Array, ...] | None:
        """Wait for the batch in progress, if any; copies, because the next batch overwrites the outputs."""
        if not self._n_images:
            return None
        wanted, self._n_images = self._n_images, 0  # first: a request that failed is not waited for again
        with refusals("openvino"):
            self._request.wait()
        return tuple(tensor.data[:wanted].copy() for tensor in self._request.output_tensors)


def _padded(batch: Images, size: int) -> Images:
    """The batch with its first image repeated up to the size."""
    if len(batch) == size:
        return np.ascontiguousarray(batch)
    return np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])


class ReferenceRun:
    """Any graph of one input in ONNX Runtime, fp32: what an export is compared with."""

    def __init__(self, model: onnx.ModelProto | bytes | str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        # a path, or the model itself
        source = model if isinstance(model, str | bytes) else model.SerializeToString()
        providers = ["CPUExecutionProvider"]
        self._session = PerProcess(
            lambda: watched(onnxruntime.InferenceSession(source, options, providers=providers))
        )
        self._input = self._session.get().get_inputs()[0].name
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _FATAL

    def __call__(self, values: NDArray[Any]) -> tuple[Array, ...]:
        """Every output for one batch."""
        with refusals("onnxruntime"):
            given = {self._input: np.ascontiguousarray(values)}
            return tuple(self._session.get().run(None, given, self._options))


class _OnnxRuntime(_Streaming):
    """The reference: one batch after the other, in fp32 but for what the graph has in 8 bits."""

    runtime = "onnxruntime"

    def __init__(self, model: bytes, precision: str) -> None:
        self.precision = precision
        self._run = ReferenceRun(model)

    def stream(self, batches: Iterable[Images]) -> Iterator[tuple[Array, ...]]:
        for batch in batches:
            yield self._run(batch)
