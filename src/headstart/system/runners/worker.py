"""What runs in a worker on a cluster: it does tasks with as many threads as it was given."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

from headstart.system.threads import limit_process

__all__ = ["NotStartedError", "Worker", "versions"]

_PACKAGES = ("numpy", "scipy", "scikit-learn", "pillow", "openvino", "onnxruntime", "onnx", "torch")
"""Packages of which another version may compute other bits."""


class NotStartedError(Exception):
    """What starts the work could not be read in this process: the call of `Worker.start` has the error."""


class Worker:
    """The body of an actor: one function at a time, which keeps what it needs, such as a compiled graph."""

    def __init__(self, threads: int) -> None:
        limit_process(threads)
        self._work: Callable[[Any], Any] | None = None

    def versions(self) -> dict[str, str]:
        """What this worker computes with."""
        return versions()

    def start(self, start: Callable[[], Callable[[Any], Any]]) -> None:
        """Get ready for the tasks of one map; an error is that of every task."""
        self._work = None  # frees what the last map needed
        try:
            self._work = start()
        except Exception as error:
            self._work = partial(_raise, error)

    def run(self, task: Any) -> Any:
        """Do one task."""
        if self._work is None:
            raise NotStartedError
        return self._work(task)


def _raise(error: Exception, task: Any) -> Any:
    raise error


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, and the content of this package."""
    found = {"python": ".".join(platform.python_version_tuple()[:2]), "headstart": _content()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _content() -> str:
    """The first digits of a SHA-256 over the modules of this package: a version in development has many contents."""
    home, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        digest.update(str(path.relative_to(home)).replace(os.sep, "/").encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
