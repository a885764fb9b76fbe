"""What a training run does, told line by line: to a file always, to TensorBoard and MLflow if asked.

In: facts and epochs, as they come. Out: files in a folder of the run's own, or a server's records. Owns
tensorboardX and mlflow, imported when one of them is asked for. Must not import what trains: it only
listens. Called by the command line, which hands a log to whoever trains.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from socket import gethostname
from time import time
from typing import Any, Protocol
from weakref import finalize

import numpy as np

from headstart.errors import SettingError, nearest
from headstart.records import Epoch
from headstart.system.files import write_atomic
from headstart.system.optional import require

__all__ = ["LOGS", "JsonLines", "MLflow", "TensorBoard", "TrainingLog", "make_log"]

LOGS = ("mlflow", "tensorboard")
"""Logs there are beside the file of lines, by name."""

_LINES = "training.jsonl"
_MEASURES = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "val_accuracy": "accuracy/validation",
    "learning_rate": "learning_rate",
    "seconds": "seconds",
}
"""What is measured in an epoch, and its name in TensorBoard, which puts alike beginnings side by side."""


class TrainingLog(Protocol):
    """Told of a training run as it goes."""

    def started(self, facts: Mapping[str, Any]) -> None:
        """Settings, data, network, versions; before the first epoch, and again when a run is resumed."""
        ...

    def epoch(self, epoch: Epoch) -> None:
        """After each epoch."""
        ...

    def finished(self, facts: Mapping[str, Any]) -> None:
        """Scores and seconds; when all is done."""
        ...


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
        _LINES: lambda: JsonLines(place / _LINES, resume_epoch=resume_epoch)
    }
    if "tensorboard" in names:
        makers["tensorboard"] = lambda: TensorBoard(place / "tensorboard", resume_epoch=resume_epoch)
    if "mlflow" in names:
        makers["mlflow"] = lambda: MLflow(place, title=title, resume_epoch=resume_epoch)
    return _Several(makers, remark if remark is not None else _to_stderr)


class JsonLines:
    """A file with a JSON object a line: ``event`` (started, epoch, finished), ``time``, and what was told.

    Parameters
    ----------
    path : path
        The file; its folder is made if need be.
    resume_epoch : int, optional
        Number of the first epoch still to be computed. Lines of it and of later epochs are dropped, as are
        ``finished`` and whatever a killed run left half-written. Default: the file starts anew.

    Notes
    -----
    Time is ISO 8601 in UTC. What is no finite number is null. A line is on its way to the disk before the
    call returns, so a killed run loses none; the file is not held open between lines.

    Raises
    ------
    OSError
        If the disk refuses.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume_epoch: int | None = None) -> None:
        self._path = Path(path)
        kept = b"" if resume_epoch is None or not self._path.exists() else self._kept(resume_epoch)
        write_atomic(self._path, kept)

    def _kept(self, resume_epoch: int) -> bytes:
        """Lines that hold after a resume, to the byte."""
        kept = []
        for line in self._path.read_bytes().split(b"\n"):
            said = _parsed(line)
            if said is None or said.get("event") == "finished":
                continue
            number = said.get("number")
            if said.get("event") != "epoch" or (isinstance(number, int) and number < resume_epoch):
                kept.append(line + b"\n")
        return b"".join(kept)

    def started(self, facts: Mapping[str, Any]) -> None:
        """Write a line."""
        self._add("started", facts)

    def epoch(self, epoch: Epoch) -> None:
        """Write a line."""
        self._add("epoch", asdict(epoch))

    def finished(self, facts: Mapping[str, Any]) -> None:
        """Write a line."""
        self._add("finished", facts)

    def _add(self, event: str, facts: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        # the line's own words come last: a fact of the same name must not hide them
        said = {"event": event, "time": now, **_plain(facts), **{"event": event, "time": now}}
        line = json.dumps(said, ensure_ascii=False, allow_nan=False) + "\n"
        with self._path.open("ab") as file:
            file.write(line.encode())


class TensorBoard:
    """Event files that TensorBoard shows: a curve for each measure of an epoch, facts as text.

    Parameters
    ----------
    folder : path
        Made if need be; ``tensorboard --logdir`` takes it or a folder above.
    resume_epoch : int, optional
        Number of the first epoch still to be computed; TensorBoard then forgets what older files in the
        folder say of it and of later ones. Default: older event files in the folder are removed.

    Raises
    ------
    MissingExtraError
        If tensorboardX is not installed.
    OSError
        If the disk refuses.

    Notes
    -----
    Written at once and by the calling thread: the package's usual writer leaves that to a thread, and when
    that dies of a full disk, waits for it for ever.
    """

    def __init__(self, folder: str | os.PathLike[str], *, resume_epoch: int | None = None) -> None:
        _tensorboardx()
        self._summary = import_module("tensorboardX.summary")
        self._event = import_module("tensorboardX.proto.event_pb2")
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        old = sorted(place.glob("events.out.tfevents.*"))
        if resume_epoch is None:
            for file in old:
                file.unlink()
        self._last = 0 if resume_epoch is None else resume_epoch - 1
        # read in the order of names; the number parts files of one second
        name = f"events.out.tfevents.{int(time()):010d}.{gethostname()}.{len(old):04d}"
        self._file = import_module("tensorboardX.record_writer").RecordWriter(str(place / name))
        self._close = finalize(self, _close, self._file)  # also of a run that ends before it is finished
        self._write(0, file_version="brain.Event:2")
        if resume_epoch is not None:
            again = self._event.SessionLog(status=self._event.SessionLog.START)
            self._write(resume_epoch, session_log=again)

    def started(self, facts: Mapping[str, Any]) -> None:
        """Write the facts as a table."""
        self._tell("started", facts)

    def epoch(self, epoch: Epoch) -> None:
        """Write a point of every curve that was measured."""
        self._last = epoch.number
        measured = {tag: float(getattr(epoch, name)) for name, tag in _MEASURES.items()}
        self._points(measured, epoch.number)

    def finished(self, facts: Mapping[str, Any]) -> None:
        """Write numbers as points at the last epoch, all facts as a table, and close the file."""
        self._points({f"final/{name}": value for name, value in _numbers(facts)}, self._last)
        self._tell("finished", facts)
        self._close()

    def _tell(self, name: str, facts: Mapping[str, Any]) -> None:
        lines = [f"| {key} | {_cell(value)} |" for key, value in _flat(_plain(facts))]
        table = "\n".join(["| fact | value |", "|---|---|", *lines])
        self._write(self._last, summary=self._summary.text(name, table))

    def _points(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            if math.isfinite(value):
                self._write(step, summary=self._summary.scalar(tag, value))

    def _write(self, step: int, **what: Any) -> None:
        self._file.write(self._event.Event(wall_time=time(), step=step, **what).SerializeToString())
        self._file.flush()


class MLflow:
    """A run of MLflow: facts as parameters, measures of epochs as metrics.

    Parameters
    ----------
    folder : path
        Records go to ``mlruns`` in it, unless ``MLFLOW_TRACKING_URI`` names another place. The run's id is
        kept in ``mlflow.json``, so that a resumed training goes on with the same run.
    title : str, default="training"
        Name of the run.
    experiment : str, default="headstart"
        Where the run is put; ``MLFLOW_EXPERIMENT_NAME`` goes before.
    resume_epoch : int, optional
        Number of the first epoch still to be computed. Default: a new run.

    Raises
    ------
    MissingExtraError
        If mlflow is not installed.

    Notes
    -----
    MLflow reports its use to its makers unless told not to; here it is told not to, by
    ``MLFLOW_DISABLE_TELEMETRY`` in this process. It cannot take a metric back: what an older part of the
    run wrote of an epoch that is computed again stays, and is not written twice. A server that does not
    answer is given up after some seconds, not minutes, unless MLflow's own variables say otherwise.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        title: str = "training",
        experiment: str = "headstart",
        resume_epoch: int | None = None,
    ) -> None:
        _mlflow()
        place = Path(folder)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (place / "mlruns").absolute().as_uri()
        self._client = import_module("mlflow.tracking").MlflowClient(tracking_uri=uri)
        self._entities = import_module("mlflow.entities")
        known = place / "mlflow.json"
        self._run, self._written = "", 0
        if resume_epoch is not None and known.exists():
            self._run = str(json.loads(known.read_text(encoding="utf-8"))["run"])
            self._client.update_run(self._run, status="RUNNING")
            self._written = self._newest()
        else:
            named = os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment
            self._run = self._client.create_run(self._experiment(named), run_name=title).info.run_id
            write_atomic(known, json.dumps({"run": self._run}))

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def _newest(self) -> int:
        """The last epoch that the run knows of, 0 for none."""
        told = self._client.get_metric_history(self._run, "train_loss")
        return max((int(one.step) for one in told), default=0)

    def started(self, facts: Mapping[str, Any]) -> None:
        """Record the facts as parameters; those the run has already stay as they are."""
        old = self._client.get_run(self._run).data.params
        told = {_key(key): _cell(value) or "-" for key, value in _flat(_plain(facts))}
        new = [self._entities.Param(key, value) for key, value in told.items() if key not in old]
        for start in range(0, len(new), 100):  # as many as a server takes at once
            self._client.log_batch(self._run, params=new[start : start + 100])

    def epoch(self, epoch: Epoch) -> None:
        """Record what was measured, unless the run knows it."""
        if epoch.number > self._written:
            self._record({name: float(getattr(epoch, name)) for name in _MEASURES}, epoch.number)
            self._written = epoch.number

    def finished(self, facts: Mapping[str, Any]) -> None:
        """Record numbers as metrics, the rest as tags, and end the run."""
        numbers = dict(_numbers(facts))
        self._record({f"final.{_key(key)}": value for key, value in numbers.items()}, self._written)
        for key, value in _flat(_plain(facts)):
            if key not in numbers:
                self._client.set_tag(self._run, f"final.{_key(key)}", _cell(value))
        self._client.set_terminated(self._run, status="FINISHED")

    def _record(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time())
        metric = self._entities.Metric
        told = [metric(key, value, now, step) for key, value in values.items() if math.isfinite(value)]
        self._client.log_batch(self._run, metrics=told)


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


def _tensorboardx() -> None:
    require("tensorboardX", extra="track", for_="log 'tensorboard'")


def _close(file: Any) -> None:
    with suppress(OSError):  # every event was flushed: a full disk was an error then
        file.close()


def _mlflow() -> None:
    """Import mlflow, mute, and short of patience."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its own 7 take minutes, each epoch
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else it wants a database
    require("mlflow", extra="track", for_="log 'mlflow'")
    import_module("mlflow.telemetry").set_telemetry_client()  # had someone imported it before us


_PACKAGES = {"tensorboard": _tensorboardx, "mlflow": _mlflow}


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line as an object, or None for one that is cut off or was never ours."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _plain(value: Any) -> Any:
    """What JSON can say: no number that is none, no array, no record."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values with mappings opened: ``settings.epochs``."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _numbers(facts: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Those facts that can be points of a curve."""
    for key, value in _flat(_plain(facts)):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)


def _cell(value: Any) -> str:
    """A fact as short text for a table."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:500].replace("|", "\\|").replace("\n", " ")


def _key(name: str) -> str:
    """A name with the letters that MLflow takes."""
    return "".join(one if one.isalnum() or one in "_-. " else "_" for one in name)[:200]
