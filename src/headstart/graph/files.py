"""Graphs of one picture as files: written for OpenVINO, run from where they lie.

In: serialized ONNX models and paths. Out: files, or what a file answers. Owns openvino and onnxruntime with
runtime, each imported on first use. Must not import a training framework. Called by export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.records import Array

__all__ = ["IR_FILES", "run_file", "write_openvino"]

IR_FILES = ("model.xml", "model.bin")


def write_openvino(graph: bytes, folder: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph as OpenVINO's two files, in full precision.

    Parameters
    ----------
    graph : bytes
        A serialized ONNX model.
    folder : Path
        Takes ``model.xml`` and ``model.bin``.
    metadata : mapping of str to str
        Put into the model's ``rt_info`` under ``headstart``.
    """
    import openvino

    model = openvino.Core().read_model(graph)
    for key, value in metadata.items():
        model.set_rt_info(value, ["headstart", key])
    openvino.save_model(model, folder / IR_FILES[0], compress_to_fp16=False)


def run_file(path: Path) -> Callable[[NDArray[np.uint8]], tuple[Array, ...]]:
    """Make ready what a file holds, an ``.onnx`` in ONNX Runtime, an ``.xml`` in OpenVINO, both in fp32.

    Parameters
    ----------
    path : Path
        A graph of one picture.

    Returns
    -------
    callable
        From uint8 (height, width, 3) to every output.
    """
    if path.suffix == ".onnx":
        return _in_onnxruntime(path)
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def answer(picture: NDArray[np.uint8]) -> tuple[Array, ...]:
        found = compiled([np.ascontiguousarray(picture)])
        return tuple(found[number].copy() for number in range(len(compiled.outputs)))

    return answer


def _in_onnxruntime(path: Path) -> Callable[[NDArray[np.uint8]], tuple[Array, ...]]:
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def answer(picture: NDArray[np.uint8]) -> tuple[Array, ...]:
        return tuple(session.run(None, {name: np.ascontiguousarray(picture)}))

    return answer
