"""Graphs as files: written for OpenVINO, and run in the runtime that the suffix names."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from headstart.graph.run import ReferenceRun
from headstart.records import Array

__all__ = ["IR_FILES", "run_file", "write_openvino"]

IR_FILES = ("model.xml", "model.bin")


def write_openvino(graph: bytes, folder: Path, metadata: Mapping[str, str]) -> None:
    """Write a serialized ONNX model as ``model.xml`` and ``model.bin`` in full precision.

    The metadata goes into the model's ``rt_info`` under ``headstart``. OSError where the disk is full.
    """
    import openvino

    model = openvino.Core().read_model(graph)
    for key, value in metadata.items():
        model.set_rt_info(value, ["headstart", key])
    try:
        openvino.save_model(model, folder / IR_FILES[0], compress_to_fp16=False)
    except RuntimeError as error:  # its streams do not say why; a full disk is the usual reason
        reason = f"OpenVINO could not write it: {' '.join(str(error).split())[:100]}"
        raise OSError(errno.EIO, reason, str(folder / IR_FILES[1])) from error


def run_file(path: Path, *tensors: str) -> Callable[[NDArray[np.uint8]], tuple[Array, ...]]:
    """Load a graph of one image, an ``.xml`` in OpenVINO, any other in ONNX Runtime, both in fp32.

    The result maps uint8 (height, width, 3) to every output, and then to the ``tensors`` of these names.
    """
    if path.suffix != ".xml":
        return ReferenceRun(_with_outputs(path, tensors) if tensors else str(path))
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    for name in tensors:
        model.add_outputs(name)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(image: NDArray[np.uint8]) -> tuple[Array, ...]:
        found = compiled([np.ascontiguousarray(image)])
        return tuple(found[number].copy() for number in range(len(compiled.outputs)))

    return run


def _with_outputs(path: Path, tensors: Sequence[str]) -> bytes:
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    whole: bytes = model.SerializeToString()
    return whole
