"""Several processes that serve one address: started together, replaced when they die, drained together.

The parent imports neither web framework nor runtime, so that it stays small. The children are new
interpreters, because a fork of a process with threads can hang.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError, SettingError
from headstart.interfaces.http.limits import Limits
from headstart.interfaces.http.pins import Pin
from headstart.system.lock import release_lock, wait_for_lock
from headstart.system.temporary import own_folder

__all__ = [
    "BACKLOG",
    "MOST_WORKERS",
    "Turn",
    "WorkersError",
    "divided",
    "leave",
    "n_cores",
    "notify_parent",
    "read_job",
    "stop_signals",
    "supervise",
]

BACKLOG = 512
MOST_WORKERS = 4
_MOST_DEATHS, _WITHIN_S = 5, 10.0
_QUICK_WAIT_S = 2.0  # before another start, after so many deaths within that time
_MOST_FAILED_STARTS = 8  # in a row, while no worker serves
_LONGEST_WAIT_S, _UNREADABLE_WAIT_S = (
    5.0,
    30.0,
)  # before another start, at most; where models cannot be opened
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


def stop_signals() -> tuple[signal.Signals, ...]:
    """Signals that stop a server in order: also that of a terminal that is closed, unless nohup ignores it."""
    found = [signal.SIGINT, signal.SIGTERM]
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        found.append(hangup)
    return tuple(found)


class Turn:
    """A context manager that one process at a time can enter, by a lock on a file; death releases it.

    The file stays open: where the parent dies, its folder goes while requests are still answered.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def __enter__(self) -> None:
        """Wait for the lock."""
        wait_for_lock(self._file)

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        release_lock(self._file)


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


def leave(job: Mapping[str, Any]) -> None:
    """Remove the server's temporary folder where the parent has died and cannot."""
    if select.select([0], [], [], 0)[0] and not os.read(0, 1):
        shutil.rmtree(job["folder"], ignore_errors=True)


def notify_parent(job: Mapping[str, Any], fault: str = "") -> None:
    """Report that this child serves, or why it cannot."""
    with suppress(BrokenPipeError):  # the parent has died: the lifeline reports that
        os.write(job["parent"], fault.encode()[:4000] + b"\n")


def supervise(
    job: Mapping[str, Any],
    pins: Sequence[Pin],
    listener: socket.socket,
    n_workers: int,
    drain_s: float,
    ready: Callable[[], object],
) -> None:
    """Run child processes until a signal stops them; then let them finish the requests in progress."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(own_folder("headstart-serve-"))
            models = [pin.job(folder / f"model-{number}") for number, pin in enumerate(pins)]
        except OSError as error:
            raise SettingError(
                f"temporary folder cannot be made ({error}), expected one that can be written; "
                "set TMPDIR, or use --workers 1"
            ) from error
        files = [number for pin in pins for number in pin.files.values()]
        workers = _Workers(
            {**job, "folder": str(folder), "models": models}, listener, files, n_workers, stack
        )
        try:
            workers.watch(ready)
        finally:
            listener.close()  # new connections must be refused, not left waiting
            workers.drain(drain_s + _KILL_AFTER_S)


class _Child:
    """A process, the pipe that keeps it alive, and the pipe on which it reports."""

    def __init__(self, job: Mapping[str, Any], listener: socket.socket, files: Sequence[int]) -> None:
        self.fault = ""  # why it cannot serve, by its own report
        self.read_end, write_end = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(path=sys.path)],
                stdin=subprocess.PIPE,
                pass_fds=(listener.fileno(), write_end, *files),
                env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(job["folder"])},
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
        self,
        job: Mapping[str, Any],
        listener: socket.socket,
        files: Sequence[int],
        n_workers: int,
        stack: ExitStack,
    ) -> None:
        self._job, self._listener, self._files = job, listener, files
        self._n_workers = n_workers
        self._children: dict[int, _Child] = {}  # by the read end of its pipe
        self._deaths: deque[float] = deque(maxlen=_MOST_DEATHS)
        self._failed_starts = 0  # in a row
        self._not_before = 0.0  # when the next one may start
        self._fault = ""  # the last that was printed
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._signals = stack.enter_context(self._signal_pipe())
        self._selector.register(self._signals, selectors.EVENT_READ)
        self._stopping = False

    def watch(self, ready: Callable[[], object]) -> None:
        """Start all and replace those that die, until a signal arrives."""
        announced = False
        while not self._stopping:
            wait_s = None
            if len(self._children) < self._n_workers:
                wait_s = max(0.0, self._not_before - time.monotonic())
                if not wait_s:
                    self._start()
            for key, _ in self._selector.select(wait_s):
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
        child = _Child(self._job, self._listener, self._files)
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
            if (fault := words.decode(errors="replace").strip()) and not announced and not self._stopping:
                raise SettingError(fault)
            child.fault, child.serving = fault, not fault
            if child.serving:
                self._failed_starts, self._fault = 0, ""
            return
        self._selector.unregister(source)
        del self._children[source]
        status = child.reap()
        for file in Path(self._job["folder"]).glob(f"gauge_live*_{child.process.pid}.db"):
            file.unlink()  # counters go on, gauges do not
        if not self._stopping:
            self._count_death(child, status, announced)

    def _count_death(self, child: _Child, status: int, announced: bool) -> None:
        """Decide when another starts; the server ends only where none serves and none can be started."""
        how = f"status {status}" if status >= 0 else f"signal {-status}"
        self._failed_starts += not child.serving
        self._deaths.append(time.monotonic())
        if not announced and not child.serving:
            raise WorkersError(
                f"worker ended ({how}) before it was ready, expected it to keep running; see above, or use "
                "--workers 1"
            )
        quick = len(self._deaths) == _MOST_DEATHS and self._deaths[-1] - self._deaths[0] < _WITHIN_S
        alone = not any(one.serving for one in self._children.values())
        if alone and not child.fault and self._failed_starts >= _MOST_FAILED_STARTS:
            raise WorkersError(
                f"worker ended ({how}), the last of {self._failed_starts} that ended before they were ready, "
                "expected them to keep running; see above"
            )
        longest_s = _UNREADABLE_WAIT_S if child.fault else _LONGEST_WAIT_S
        wait_s = min(longest_s, 2.0 ** (self._failed_starts - 1)) if self._failed_starts else 0.0
        wait_s = max(wait_s, _QUICK_WAIT_S if quick else 0.0)
        self._not_before = time.monotonic() + wait_s
        if child.fault:
            if child.fault != self._fault:
                _warn(f"worker cannot start: {child.fault}; the others keep serving, and it is tried again")
            self._fault = child.fault
        else:
            later = f" in {wait_s:g} s" if wait_s else ""
            _warn(f"worker {child.process.pid} ended ({how}); starting another{later}")

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

        before = {one: signal.signal(one, forward) for one in stop_signals()}
        try:
            yield read_end
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            os.close(read_end)
            os.close(write_end)


def _warn(sentence: str) -> None:
    print(f"headstart: warning: {sentence}", file=sys.stderr, flush=True)
