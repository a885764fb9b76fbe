"""All logs of a training run as one: a file always, TensorBoard and MLflow on request."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from headstart.errors import SettingError, nearest
from headstart.networks.logs.jsonlines import LINES_FILE, JsonLines
from headstart.networks.logs.mlflow import MLflow, mlflow_module
from headstart.networks.logs.tensorboard import TensorBoard, tensorboard_module
from headstart.networks.logs.values import TrainingLog, to_stderr
from headstart.records import Epoch

__all__ = ["LOGS", "make_log"]

LOGS = ("mlflow", "tensorboard")
"""Names of the logs that can be added to the file of JSON lines."""


def make_log(
    names: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    title: str = "training",
    resume_epoch: int | None = None,
    remark: Callable[[str], None] | None = None,
) -> TrainingLog:
    """Make one log of ``training.jsonl``, which is always written, and those in ``names``; none can stop training.

    A log that fails (full disk, no server) is dropped with a remark (default: a line on stderr). ``resume_epoch`` is
    the first epoch still to be computed; older logs of it and of later ones are withdrawn. SettingError for an
    unknown name, MissingExtraError if its package is not installed.
    """
    unknown = [name for name in names if name not in LOGS]
    if unknown:
        raise SettingError(
            f"log is {unknown[0]!r}, expected one of {', '.join(LOGS)}; {nearest(unknown[0], LOGS)}"
        )
    for name in names:
        _PACKAGES[name]()  # a missing package is an error; later failures are remarks
    place = Path(folder)
    makers: dict[str, Callable[[], TrainingLog]] = {
        LINES_FILE: lambda: JsonLines(place / LINES_FILE, resume_epoch=resume_epoch)
    }
    if "tensorboard" in names:
        makers["tensorboard"] = lambda: TensorBoard(place / "tensorboard", resume_epoch=resume_epoch)
    if "mlflow" in names:
        makers["mlflow"] = lambda: MLflow(place, title=title, resume_epoch=resume_epoch)
    return _CombinedLog(makers, remark if remark is not None else to_stderr)


class _CombinedLog:
    """Several logs as one; a log that fails is dropped."""

    def __init__(
        self, makers: Mapping[str, Callable[[], TrainingLog]], remark: Callable[[str], None]
    ) -> None:
        self._remark = remark
        self._logs: dict[str, TrainingLog] = {}
        for name, make in makers.items():
            self._guarded(name, partial(self._add, name, make))

    def _add(self, name: str, make: Callable[[], TrainingLog]) -> None:
        self._logs[name] = make()

    def started(self, facts: Mapping[str, Any]) -> None:
        """Forward to all logs."""
        self._forward(lambda log: log.started(facts))

    def epoch(self, epoch: Epoch) -> None:
        """Forward to all logs."""
        self._forward(lambda log: log.epoch(epoch))

    def finished(self, facts: Mapping[str, Any]) -> None:
        """Forward to all logs."""
        self._forward(lambda log: log.finished(facts))

    def _forward(self, call: Callable[[TrainingLog], None]) -> None:
        for name, log in list(self._logs.items()):
            self._guarded(name, partial(call, log))

    def _guarded(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever a package raises must not stop training
            self._logs.pop(name, None)
            first = (str(error).splitlines() or [""])[0]
            known = isinstance(error, OSError) and error.strerror
            reason = known.splitlines()[0] if known else f"{type(error).__name__}: {first}"
            self._remark(f"log {name} failed and is disabled ({reason})")


_PACKAGES = {"tensorboard": tensorboard_module, "mlflow": mlflow_module}
