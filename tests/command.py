"""The command line as tests use it: words in, status and both streams out."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["ERROR", "HANGUP", "Run", "Said", "contents", "pieces"]

ERROR = "headstart: error: "
HANGUP = pytest.param(
    signal.SIGHUP,
    marks=pytest.mark.skipif(
        signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="started by nohup: processes ignore SIGHUP"
    ),
)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below a folder: files by their bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def pieces(terminal: int) -> Iterator[bytes]:
    """What comes out of a terminal until its other end is closed."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # how Linux says that nobody writes any more
            return
        if not piece:
            return
        yield piece
