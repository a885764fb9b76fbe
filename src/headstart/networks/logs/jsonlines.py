"""A training as JSON lines in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headstart.networks.logs.values import parsed_text, plain_value
from headstart.records import Epoch
from headstart.system.files import write_atomic

__all__ = ["LINES_FILE", "JsonLines"]


LINES_FILE = "training.jsonl"


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
            said = parsed_text(line)
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
        said = {"event": event, "time": now, **plain_value(facts), **{"event": event, "time": now}}
        line = json.dumps(said, ensure_ascii=False, allow_nan=False) + "\n"
        with self._path.open("ab") as file:
            file.write(line.encode())
