"""Switch off the telemetry of other packages: what they do on import must never reach the network.

`headstart/__init__.py` calls it. Python imports that file before any other module of the package, so it
runs before each import of a heavy package here, in worker processes and subprocesses too.
"""

from __future__ import annotations

import os
import sys

__all__ = ["SWITCHES", "switch_off"]

SWITCHES = {
    "GRADIO_ANALYTICS_ENABLED": "False",  # events to api.gradio.app, and a check for a newer version
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, hf_xet: installed packages, summaries of transfers
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: a device id and a queue of events in the home folder
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables by which packages are told not to report, with the value that means it."""

_OPENVINO = "openvino_telemetry"


def switch_off() -> None:
    """Switch off the telemetry of openvino, onnxruntime, gradio, huggingface_hub, mlflow and ray.

    A variable that is already set keeps its value: a user who asked for telemetry gets it. Child
    processes inherit the variables.

    OpenVINO has no such variable. Importing it generates a client id in the home folder, sends an event,
    and forks the process for that, which can deadlock where threads are running. It reports through the
    package openvino_telemetry, and has a stub of its own for the case that this package is missing. An
    entry None in `sys.modules` makes an import of it fail as if it were. If the package was imported
    before, nothing is changed.

    Notes
    -----
    ONNX Runtime decides while its library is loaded: ``onnxruntime.disable_telemetry_events()`` comes too
    late for the device id (onnxruntime 1.31).
    """
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault(_OPENVINO, None)  # type: ignore[arg-type]  # None is documented, see importlib
