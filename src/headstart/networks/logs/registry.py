"""What a training run does, told line by line: to a file always, to TensorBoard and MLflow if asked.

In: facts and epochs, as they come. Out: files in a folder of the run's own, or a server's records. Owns
tensorboardX and mlflow, imported when one of them is asked for. Must not import what trains: it only
listens. Called by the command line, which hands a log to whoever trains.
"""

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
"""Logs there are beside the file of lines, by name."""


def make_log(
    names: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    title: str = "training",
    resume_epoch: int | None = None,
    remark: Callable[[str], None] | None = None,
) -> TrainingLog:
    """Make one log of all that are asked for; none of them can stop the training.

    Parameters
    ----------
    names : sequence of {'tensorboard', 'mlflow'}
        Beside the file of lines, which is always written.
    folder : path
        Where logs are kept: ``training.jsonl``, ``tensorboard/``, ``mlruns/``.
    title : str, default="training"
        What MLflow calls the run.
    resume_epoch : int, optional
        Number of the first epoch that is still to be computed; what older logs in the folder say of it
        and later ones is withdrawn. Default: a new run, and older lines are replaced.
    remark : callable, optional
        Told, in a sentence, of a log that failed. Default: a line on stderr.

    Returns
    -------
    TrainingLog
        A log that fails (the disk is full, a server is away) is left out from then on, with a remark.

    Raises
    ------
    SettingError
        If a name is unknown.
    MissingExtraError
        If the package behind a name is not installed.

    Examples
    --------
    >>> import json, math
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = make_log([], folder)
    ...     log.started({"network": "mlp"})
    ...     log.epoch(Epoch(1, 0.9, 0.7, math.nan, math.nan, 1e-3, 2.5))
    ...     lines = Path(folder, "training.jsonl").read_text().splitlines()
    >>> [json.loads(line)["event"] for line in lines], '"val_loss": null' in lines[1]
    (['started', 'epoch'], True)
    """
    unknown = [name for name in names if name not in LOGS]
    if unknown:
        raise SettingError(
            f"log is {unknown[0]!r}, expected one of {', '.join(LOGS)}; {nearest(unknown[0], LOGS)}"
        )
    for name in names:
        _PACKAGES[name]()  # a missing package is an error now, all else a remark later
    place = Path(folder)
    makers: dict[str, Callable[[], TrainingLog]] = {
        LINES_FILE: lambda: JsonLines(place / LINES_FILE, resume_epoch=resume_epoch)
    }
    if "tensorboard" in names:
        makers["tensorboard"] = lambda: TensorBoard(place / "tensorboard", resume_epoch=resume_epoch)
    if "mlflow" in names:
        makers["mlflow"] = lambda: MLflow(place, title=title, resume_epoch=resume_epoch)
    return _Several(makers, remark if remark is not None else to_stderr)


class _Several:
    """Logs side by side; one that fails is left out from then on."""

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
        """Tell all."""
        self._tell(lambda log: log.started(facts))

    def epoch(self, epoch: Epoch) -> None:
        """Tell all."""
        self._tell(lambda log: log.epoch(epoch))

    def finished(self, facts: Mapping[str, Any]) -> None:
        """Tell all."""
        self._tell(lambda log: log.finished(facts))

    def _tell(self, say: Callable[[TrainingLog], None]) -> None:
        for name, log in list(self._logs.items()):
            self._guarded(name, partial(say, log))

    def _guarded(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever a foreign package raises, hours of training are worth more
            self._logs.pop(name, None)
            first = (str(error).splitlines() or [""])[0]
            self._remark(f"log {name} failed and is left out from here on: {type(error).__name__}: {first}")


_PACKAGES = {"tensorboard": tensorboard_module, "mlflow": mlflow_module}
