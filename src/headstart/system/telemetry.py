"""Switch off the telemetry of other packages.

`headstart/__init__.py` calls it. Python imports that file before any other module of the package, so it
runs before any heavy package is imported, in worker processes and subprocesses too.
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
"""Environment variables that switch telemetry off, with the value that does."""

_OPENVINO = "openvino_telemetry"


def switch_off() -> None:
    """Switch off the telemetry of openvino, onnxruntime, gradio, huggingface_hub, mlflow and ray.

    A variable that is already set keeps its value, so a user can switch telemetry on. Child processes inherit
    the variables. ONNX Runtime reads its variable while its library is loaded:
    ``onnxruntime.disable_telemetry_events()`` would come too late for the device id (onnxruntime 1.31).

    OpenVINO has no such variable. Importing it generates a client id in the home folder, sends an event,
    and forks the process for that, which can deadlock where threads are running. It reports through the
    package openvino_telemetry, and uses a stub where that package is missing. The entry None in
    `sys.modules` makes the import of that package fail. If it was imported before, nothing is changed.
    """
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault(_OPENVINO, None)  # type: ignore[arg-type]  # None is documented, see importlib
