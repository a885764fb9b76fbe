"""Several processes that answer at one address: started together, replaced when they die, drained together.

Must not import a web framework or a runtime: the parent stays small and has no threads of ours. The
children are fresh interpreters, not forks: whoever calls us may have threads, and a fork of those can
hang.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError, SettingError
from headstart.interfaces.http.limits import Limits
from headstart.system.lock import wait_for_lock

__all__ = [
    "BACKLOG",
    "MOST_WORKERS",
    "Turn",
    "WorkersError",
    "divided",
    "n_cores",
    "read_job",
    "supervise",
    "tell_parent",
]

BACKLOG = 512
MOST_WORKERS = 4
_DEATHS, _WITHIN_S = 5, 10.0
_MERCY_S = 5.0  # beyond the time to drain, before a child is killed
_PROGRAM = "import sys; sys.path[:] = {path!r}; from headstart.interfaces.http.server import work; work()"


class WorkersError(HeadstartError, RuntimeError):
    """The processes that should answer do not stay alive."""


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def divided(limits: Limits, n_workers: int) -> tuple[Limits, int]:
    """What each of some workers takes, so that together they take no more than one would.

    Examples
    --------
    >>> each, n_workers = divided(Limits(), 4)
    >>> n_workers, each.waiting, divided(Limits(waiting=64), 4)[1]
    (4, 128, 1)
    """
    n_workers = max(
        1,
        min(
            n_workers,
            limits.bodies_bytes // max(1, limits.body_bytes),
            limits.waiting // max(1, limits.files),
            limits.requests,
        ),
    )
    each = replace(
        limits,
        bodies_bytes=limits.bodies_bytes // n_workers,
        waiting=limits.waiting // n_workers,
        requests=limits.requests // n_workers,
    )
    return each, n_workers


class Turn:
    """A context manager that one process at a time is inside of; who dies inside has left it.

    Parameters
    ----------
    path : Path
        Of a file that all of them can write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def __enter__(self) -> None:
        """Wait for the turn."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        wait_for_lock(self._file)

    def __exit__(self, *_: object) -> None:
        """Let the next one in."""
        assert self._file is not None
        os.close(self._file)
        self._file = None


def read_job() -> dict[str, Any]:
    """The job of this process, which is a child of `supervise`."""
    line = b""
    while not line.endswith(b"\n"):  # no buffer may take more than the line: the loop watches the rest
        piece = os.read(0, 65_536)
        if not piece:
            raise SystemExit(1)
        line += piece
    job: dict[str, Any] = json.loads(line)
    return job


def tell_parent(job: Mapping[str, Any], fault: str = "") -> None:
    """Say that this child answers, or why it never will."""
    with suppress(BrokenPipeError):  # then the lifeline tells us
        os.write(job["parent"], fault.encode()[:4000] + b"\n")


def supervise(
    job: Mapping[str, Any],
    listener: socket.socket,
    n_workers: int,
    drain_s: float,
    ready: Callable[[], object],
) -> None:
    """Run some children until SIGTERM or SIGINT; then let them finish what is under way."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headstart-serve-"))
        except OSError as error:
            raise SettingError(
                f"temporary folder cannot be made ({error}), expected one that can be written; "
                "set TMPDIR, or use --workers 1"
            ) from error
        crew = _Crew({**job, "folder": folder}, listener, n_workers, stack)
        try:
            crew.watch(ready)
        finally:
            listener.close()  # whoever comes now must be refused, not left waiting
            crew.drain(drain_s + _MERCY_S)


class _Child:
    """A process, the pipe that holds it alive, and the one on which it speaks."""

    def __init__(self, job: Mapping[str, Any], listener: socket.socket, folder: Path) -> None:
        self.ears, mouth = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(path=sys.path)],
                stdin=subprocess.PIPE,
                pass_fds=(listener.fileno(), mouth),
                env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
                process_group=0,  # Ctrl-C is for the parent, which passes it on once
            )
        except BaseException:
            os.close(self.ears)
            raise
        finally:
            os.close(mouth)
        self.answers = False
        assert self.process.stdin is not None
        line = json.dumps({**job, "listener": listener.fileno(), "parent": mouth}) + "\n"
        with suppress(BrokenPipeError):  # it is dead already: its pipe says so
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()

    def bury(self) -> int:
        """Its status, once it has ended."""
        status = self.process.wait()
        os.close(self.ears)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        return status


class _Crew:
    """All children of one server."""

    def __init__(
        self, job: Mapping[str, Any], listener: socket.socket, n_workers: int, stack: ExitStack
    ) -> None:
        self._job, self._listener, self._folder = job, listener, Path(job["folder"])
        self._n_workers = n_workers
        self._children: dict[int, _Child] = {}  # by the end of the pipe we hear
        self._deaths: deque[float] = deque(maxlen=_DEATHS)
        self._stillborn = 0  # in a row
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._signals = stack.enter_context(self._heard_signals())
        self._selector.register(self._signals, selectors.EVENT_READ)
        self._stopping = False

    def watch(self, ready: Callable[[], object]) -> None:
        """Start all, replace the dead, until a signal comes."""
        said = False
        while not self._stopping:
            while len(self._children) < self._n_workers:
                self._start()
            for key, _ in self._selector.select():
                self._hear(key.fd, said)
            if not said and not self._stopping and all(one.answers for one in self._children.values()):
                if len(self._children) == self._n_workers:
                    ready()
                    said = True

    def drain(self, within_s: float) -> None:
        """Wait for all, who have been told or are told now; kill who does not end."""
        if not self._stopping:
            self._tell_all(signal.SIGTERM)
        self._stopping = True
        end = time.monotonic() + within_s
        while self._children and (left := end - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._hear(key.fd, True)
        for child in self._children.values():
            child.process.kill()
            child.bury()

    def _start(self) -> None:
        child = _Child(self._job, self._listener, self._folder)
        self._children[child.ears] = child
        self._selector.register(child.ears, selectors.EVENT_READ)

    def _hear(self, source: int, said: bool) -> None:
        """A signal, or what a child says; the end of its pipe is the end of the child."""
        if source == self._signals:
            for number in os.read(source, 64):
                self._stopping = True
                self._tell_all(number)
            return
        child = self._children[source]
        if words := os.read(source, 4096):
            if (fault := words.decode(errors="replace").strip()) and not self._stopping:
                raise SettingError(fault)
            child.answers, self._stillborn = True, 0
            return
        self._selector.unregister(source)
        del self._children[source]
        status = child.bury()
        for file in self._folder.glob(f"gauge_live*_{child.process.pid}.db"):
            file.unlink()  # counts go on, what it held does not
        if not self._stopping:
            self._count_death(child, status, said)

    def _count_death(self, child: _Child, status: int, said: bool) -> None:
        how = f"status {status}" if status >= 0 else f"signal {-status}"
        self._stillborn += not child.answers
        self._deaths.append(time.monotonic())
        if not said and not child.answers:
            raise WorkersError(
                f"worker ended ({how}) before it answered, expected it to stay; see above, or use --workers 1"
            )
        quick = len(self._deaths) == _DEATHS and self._deaths[-1] - self._deaths[0] < _WITHIN_S
        if quick or self._stillborn >= _DEATHS:
            raise WorkersError(
                f"worker ended ({how}), the last of {_DEATHS} that did not stay, expected them to; see above"
            )
        print(
            f"headstart: warning: worker {child.process.pid} ended ({how}); starting another",
            file=sys.stderr,
            flush=True,
        )

    def _tell_all(self, number: int) -> None:
        for child in self._children.values():
            child.process.send_signal(number)

    @contextmanager
    def _heard_signals(self) -> Iterator[int]:
        """A pipe out of which come the numbers of signals, so that one wait is enough for all."""
        ears, mouth = os.pipe()
        os.set_blocking(mouth, False)

        def heard(number: int, _: object) -> None:
            with suppress(BlockingIOError):
                os.write(mouth, bytes([number]))

        before = {one: signal.signal(one, heard) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield ears
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            os.close(ears)
            os.close(mouth)
