"""A training log as JSON lines in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headstart.networks.logs.values import log_value, parsed_text
from headstart.records import Epoch
from headstart.system.files import write_atomic

__all__ = ["LINES_FILE", "JsonLines"]


LINES_FILE = "training.jsonl"


class JsonLines:
    """One JSON object a line: ``event`` (started, epoch, finished), ``time`` (ISO 8601, UTC), and the facts.

    With ``resume_epoch``, the first epoch still to be computed, lines of it and of later epochs are dropped, and so
    are ``finished`` and incomplete lines; otherwise the file starts empty. Numbers that are not finite become null.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume_epoch: int | None = None) -> None:
        self._path = Path(path)
        kept = b"" if resume_epoch is None or not self._path.exists() else self._kept(resume_epoch)
        write_atomic(self._path, kept)

    def _kept(self, resume_epoch: int) -> bytes:
        """Lines that stay valid after a resume, byte for byte."""
        kept = []
        for line in self._path.read_bytes().split(b"\n"):
            fields = parsed_text(line)
            if fields is None or fields.get("event") == "finished":
                continue
            number = fields.get("number")
            if fields.get("event") != "epoch" or (isinstance(number, int) and number < resume_epoch):
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
        # the line's own keys come first and override facts of the same name
        fields = {"event": event, "time": now, **log_value(facts), **{"event": event, "time": now}}
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"
        with self._path.open("ab") as file:
            file.write(line.encode())
