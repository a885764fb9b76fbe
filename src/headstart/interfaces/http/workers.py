"""Several processes that serve one address: started together, replaced when they die, drained together.

The parent imports neither web framework nor runtime, so that it stays small and has no threads of ours. The
children are new interpreters, because a fork of a process with threads can hang.
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
    "notify_parent",
    "read_job",
    "supervise",
]

BACKLOG = 512
MOST_WORKERS = 4
_MOST_DEATHS, _WITHIN_S = 5, 10.0
_KILL_AFTER_S = 5.0  # beyond the time to drain, before a child is killed
_PROGRAM = "import sys; sys.path[:] = {path!r}; from headstart.interfaces.http.server import work; work()"


class WorkersError(HeadstartError, RuntimeError):
    """The worker processes do not stay alive."""


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def divided(limits: Limits, n_workers: int) -> tuple[Limits, int]:
    """Limits of each worker, so that together they accept no more than one would; number of workers."""
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
    """A context manager that one process at a time can enter, by a lock on a file; death releases it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def __enter__(self) -> None:
        """Wait for the lock."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        wait_for_lock(self._file)

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        assert self._file is not None
        os.close(self._file)
        self._file = None


def read_job() -> dict[str, Any]:
    """The job of this process, which is a child of `supervise`."""
    line = b""
    while not line.endswith(b"\n"):  # unbuffered: the event loop watches the rest of stdin
        piece = os.read(0, 65_536)
        if not piece:
            raise SystemExit(1)
        line += piece
    job: dict[str, Any] = json.loads(line)
    return job


def notify_parent(job: Mapping[str, Any], fault: str = "") -> None:
    """Report that this child serves, or why it cannot."""
    with suppress(BrokenPipeError):  # the parent has died: the lifeline reports that
        os.write(job["parent"], fault.encode()[:4000] + b"\n")


def supervise(
    job: Mapping[str, Any],
    listener: socket.socket,
    n_workers: int,
    drain_s: float,
    ready: Callable[[], object],
) -> None:
    """Run child processes until SIGTERM or SIGINT; then let them finish the requests in progress."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headstart-serve-"))
        except OSError as error:
            raise SettingError(
                f"temporary folder cannot be made ({error}), expected one that can be written; "
                "set TMPDIR, or use --workers 1"
            ) from error
        workers = _Workers({**job, "folder": folder}, listener, n_workers, stack)
        try:
            workers.watch(ready)
        finally:
            listener.close()  # new connections must be refused, not left waiting
            workers.drain(drain_s + _KILL_AFTER_S)


class _Child:
    """A process, the pipe that keeps it alive, and the pipe on which it reports."""

    def __init__(self, job: Mapping[str, Any], listener: socket.socket, folder: Path) -> None:
        self.read_end, write_end = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(path=sys.path)],
                stdin=subprocess.PIPE,
                pass_fds=(listener.fileno(), write_end),
                env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
                process_group=0,  # Ctrl-C goes to the parent, which forwards it once
            )
        except BaseException:
            os.close(self.read_end)
            raise
        finally:
            os.close(write_end)
        self.serving = False
        assert self.process.stdin is not None
        line = json.dumps({**job, "listener": listener.fileno(), "parent": write_end}) + "\n"
        with suppress(BrokenPipeError):  # it has died: its pipe reports that
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()

    def reap(self) -> int:
        """Wait for its end, close its pipes, return its exit status."""
        status = self.process.wait()
        os.close(self.read_end)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        return status


class _Workers:
    """All children of one server."""

    def __init__(
        self, job: Mapping[str, Any], listener: socket.socket, n_workers: int, stack: ExitStack
    ) -> None:
        self._job, self._listener, self._folder = job, listener, Path(job["folder"])
        self._n_workers = n_workers
        self._children: dict[int, _Child] = {}  # by the read end of its pipe
        self._deaths: deque[float] = deque(maxlen=_MOST_DEATHS)
        self._failed_starts = 0  # in a row
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._signals = stack.enter_context(self._signal_pipe())
        self._selector.register(self._signals, selectors.EVENT_READ)
        self._stopping = False

    def watch(self, ready: Callable[[], object]) -> None:
        """Start all and replace those that die, until a signal arrives."""
        announced = False
        while not self._stopping:
            while len(self._children) < self._n_workers:
                self._start()
            for key, _ in self._selector.select():
                self._handle(key.fd, announced)
            if not announced and not self._stopping and all(one.serving for one in self._children.values()):
                if len(self._children) == self._n_workers:
                    ready()
                    announced = True

    def drain(self, within_s: float) -> None:
        """Signal all that were not signalled, wait for them, kill those that do not end."""
        if not self._stopping:
            self._signal_all(signal.SIGTERM)
        self._stopping = True
        end = time.monotonic() + within_s
        while self._children and (left := end - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._handle(key.fd, True)
        for child in self._children.values():
            child.process.kill()
            child.reap()

    def _start(self) -> None:
        child = _Child(self._job, self._listener, self._folder)
        self._children[child.read_end] = child
        self._selector.register(child.read_end, selectors.EVENT_READ)

    def _handle(self, source: int, announced: bool) -> None:
        """Handle a signal or a report; the end of a child's pipe is the end of the child."""
        if source == self._signals:
            for number in os.read(source, 64):
                self._stopping = True
                self._signal_all(number)
            return
        child = self._children[source]
        if words := os.read(source, 4096):
            if (fault := words.decode(errors="replace").strip()) and not self._stopping:
                raise SettingError(fault)
            child.serving, self._failed_starts = True, 0
            return
        self._selector.unregister(source)
        del self._children[source]
        status = child.reap()
        for file in self._folder.glob(f"gauge_live*_{child.process.pid}.db"):
            file.unlink()  # counters go on, gauges do not
        if not self._stopping:
            self._count_death(child, status, announced)

    def _count_death(self, child: _Child, status: int, announced: bool) -> None:
        how = f"status {status}" if status >= 0 else f"signal {-status}"
        self._failed_starts += not child.serving
        self._deaths.append(time.monotonic())
        if not announced and not child.serving:
            raise WorkersError(
                f"worker ended ({how}) before it was ready, expected it to keep running; see above, or use "
                "--workers 1"
            )
        quick = len(self._deaths) == _MOST_DEATHS and self._deaths[-1] - self._deaths[0] < _WITHIN_S
        if quick or self._failed_starts >= _MOST_DEATHS:
            raise WorkersError(
                f"worker ended ({how}), the last of {_MOST_DEATHS} that ended, expected them to keep running; see "
                "above"
            )
        print(
            f"headstart: warning: worker {child.process.pid} ended ({how}); starting another",
            file=sys.stderr,
            flush=True,
        )

    def _signal_all(self, number: int) -> None:
        for child in self._children.values():
            child.process.send_signal(number)

    @contextmanager
    def _signal_pipe(self) -> Iterator[int]:
        """A pipe that receives the numbers of signals, so that one select waits for everything."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)

        def forward(number: int, _: object) -> None:
            with suppress(BlockingIOError):
                os.write(write_end, bytes([number]))

        before = {one: signal.signal(one, forward) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield read_end
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            os.close(read_end)
            os.close(write_end)
