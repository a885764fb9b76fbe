"""Headstart: take a trained network, teach it your classes from few labels, find out whether it was worth it.

In: nothing heavy; every name below loads its module on first use. Called by users.

Importing it switches off the telemetry of packages that it uses, by environment variables and by an entry in
``sys.modules`` (see `headstart.system.telemetry`). It changes nothing else in the process: no seed, no
logger, no warning filter.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headstart.system.telemetry import switch_off as _switch_off

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "HeadstartError",
    "Model",
    "TrainSettings",
    "TransferClassifier",
    "__version__",
    "embed",
    "evaluate",
    "load",
    "open",
    "runner",
    "study",
    "train",
    "transfer",
]

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset
    from headstart.data.readers.load import load
    from headstart.errors import HeadstartError
    from headstart.interfaces.python import embed, evaluate, study, train, transfer
    from headstart.interfaces.runner import runner
    from headstart.interfaces.sklearn import TransferClassifier
    from headstart.models.model import Model
    from headstart.models.model import open_model as open
    from headstart.records import TrainSettings

_HOMES = {
    "Dataset": ("headstart.data.dataset", "Dataset"),
    "HeadstartError": ("headstart.errors", "HeadstartError"),
    "Model": ("headstart.models.model", "Model"),
    "TrainSettings": ("headstart.records", "TrainSettings"),
    "TransferClassifier": ("headstart.interfaces.sklearn", "TransferClassifier"),
    "embed": ("headstart.interfaces.python", "embed"),
    "evaluate": ("headstart.interfaces.python", "evaluate"),
    "load": ("headstart.data.readers.load", "load"),
    "open": ("headstart.models.model", "open_model"),
    "runner": ("headstart.interfaces.runner", "runner"),
    "study": ("headstart.interfaces.python", "study"),
    "train": ("headstart.interfaces.python", "train"),
    "transfer": ("headstart.interfaces.python", "transfer"),
}

_switch_off()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
