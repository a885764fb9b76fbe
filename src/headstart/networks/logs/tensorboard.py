"""A training log in TensorBoard."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from socket import gethostname
from time import time
from typing import Any
from weakref import finalize

from headstart.networks.logs.values import (
    MEASURES,
    cell_text,
    close_quietly,
    flattened,
    log_value,
    number_items,
)
from headstart.records import Epoch
from headstart.system.optional import require

__all__ = ["TensorBoard", "tensorboard_module"]


class TensorBoard:
    """Event files for TensorBoard: a curve for each measure of an epoch, facts as text.

    With ``resume_epoch``, the first epoch still to be computed, TensorBoard discards older points of it and of later
    epochs; otherwise older event files are removed. Events are written by the calling thread: the package's usual
    writer uses another thread, and when that dies of a full disk, waits for it for ever.
    """

    def __init__(self, folder: str | os.PathLike[str], *, resume_epoch: int | None = None) -> None:
        tensorboard_module()
        self._summary = import_module("tensorboardX.summary")
        self._event = import_module("tensorboardX.proto.event_pb2")
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        old = sorted(place.glob("events.out.tfevents.*"))
        if resume_epoch is None:
            for file in old:
                file.unlink()
        self._last = 0 if resume_epoch is None else resume_epoch - 1
        # read in the order of names; the number separates files of the same second
        name = f"events.out.tfevents.{int(time()):010d}.{gethostname()}.{len(old):04d}"
        self._file = import_module("tensorboardX.record_writer").RecordWriter(str(place / name))
        self._close = finalize(self, close_quietly, self._file)  # also when a run ends early
        self._write(0, file_version="brain.Event:2")
        if resume_epoch is not None:
            again = self._event.SessionLog(status=self._event.SessionLog.START)
            self._write(resume_epoch, session_log=again)

    def started(self, facts: Mapping[str, Any]) -> None:
        """Write the facts as a table."""
        self._write_table("started", facts)

    def epoch(self, epoch: Epoch) -> None:
        """Write a point of every curve that was measured."""
        self._last = epoch.number
        measured = {tag: float(getattr(epoch, name)) for name, tag in MEASURES.items()}
        self._points(measured, epoch.number)

    def finished(self, facts: Mapping[str, Any]) -> None:
        """Write numbers as points at the last epoch, all facts as a table, and close the file."""
        self._points({f"final/{name}": value for name, value in number_items(facts)}, self._last)
        self._write_table("finished", facts)
        self._close()

    def _write_table(self, name: str, facts: Mapping[str, Any]) -> None:
        lines = [f"| {key} | {cell_text(value)} |" for key, value in flattened(log_value(facts))]
        table = "\n".join(["| fact | value |", "|---|---|", *lines])
        self._write(self._last, summary=self._summary.text(name, table))

    def _points(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            if math.isfinite(value):
                self._write(step, summary=self._summary.scalar(tag, value))

    def _write(self, step: int, **what: Any) -> None:
        self._file.write(self._event.Event(wall_time=time(), step=step, **what).SerializeToString())
        self._file.flush()


def tensorboard_module() -> None:
    """Check that tensorboardX is installed."""
    require("tensorboardX", extra="track", for_="log 'tensorboard'")
