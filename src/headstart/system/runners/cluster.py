"""Work on a Ray cluster: actors that each own what their tasks need, such as a compiled graph.

Paths go out and features come back: what a task reads, it reads in the actor.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from headstart.errors import RunnerError
from headstart.system.optional import require
from headstart.system.progress import SILENT, Progress
from headstart.system.runners.contract import Runner
from headstart.system.runners.worker import NotStartedError, Worker, versions

__all__ = ["RayRunner"]

T = TypeVar("T")
R = TypeVar("R")

_QUEUED = 2  # tasks of a worker: one that it does, and the next
_EARLY = 4  # results for each worker that may wait for an earlier task
_TRIES = 3  # of a task whose worker dies
_STARTS = 10  # workers that end before they are ready, one after the other
_PATIENCE_S = 300.0  # without any worker
_LOOK_S = 5.0
_ANSWER_S = 10.0  # of a machine
_LOCAL = "local"


class RayRunner(Runner):
    """Does tasks in actors on a Ray cluster, one for each ``threads`` cores that are there.

    ``address`` as in ``--runner ray:ADDRESS``; empty is RAY_ADDRESS or a cluster that runs on this machine. Only what
    was started here is stopped: with ``local`` a cluster, else this program's own actors. Where Ray is connected
    already, that connection is used and stays. RunnerError if there is no cluster, or its workers have other
    versions.
    """

    name, remote = "ray", True

    def __init__(self, address: str = "", progress: Progress = SILENT) -> None:
        self._ray = require("ray", extra="cluster", for_="runner ray")
        self._progress = progress
        self._mine = not self._ray.is_initialized()
        self._actors: dict[int, list[_Actor]] = {}
        if self._mine:
            _connect(self._ray, address)

    @property
    def n_workers(self) -> int:
        """Cores of the cluster."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 0)))

    def map(
        self, start: Callable[[], Callable[[T], R]], tasks: Iterable[T], *, threads: int = 1
    ) -> Iterator[tuple[int, R]]:
        """As the contract says; RunnerError if no machine of the cluster has so many cores."""
        self._refuse_infeasible(threads)
        for other in [number for number in self._actors if number != threads]:
            self._stop(self._actors.pop(other))  # they hold cores
        job = _Map(self, threads, self._ray.put(start), enumerate(tasks))
        job.fill()
        return job.results()

    def close(self) -> None:
        """Stop the actors, and disconnect; a cluster that was started here ends."""
        self.close_workers()
        if self._mine and self._ray.is_initialized():
            with _handlers_kept():
                self._ray.shutdown()

    def close_workers(self) -> None:
        """Stop the actors, so that their cores are free for other programs."""
        for actors in self._actors.values():
            self._stop(actors)
        self._actors.clear()

    def _refuse_infeasible(self, threads: int) -> None:
        cores = [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]
        if max(cores, default=0) < threads:
            raise RunnerError(
                f"cluster has machines with {', '.join(map(str, cores)) or 'no'} cores for Ray, expected one with "
                f"{threads} for a worker; start Ray there with --num-cpus, or ask for fewer threads"
            )

    def actors(self, threads: int, wanted: int) -> list[_Actor]:
        """At most so many actors, new ones as far as there are cores; some may not be ready yet."""
        found = self._actors.setdefault(threads, [])
        while len(found) < min(wanted, max(1, self.n_workers // threads)):
            found.append(self._new_actor(threads))
        return found

    def _new_actor(self, threads: int) -> _Actor:
        made = self._ray.remote(num_cpus=threads, max_restarts=0)(Worker).remote(threads)
        return _Actor(made, made.versions.remote())

    def dropped(self, threads: int, actor: _Actor) -> None:
        """Forget a dead actor."""
        with suppress(ValueError):
            self._actors[threads].remove(actor)
        self._stop([actor])

    def _stop(self, actors: Iterable[_Actor]) -> None:
        for one in actors:
            with suppress(Exception):  # it, or its cluster, may be gone
                self._ray.kill(one.handle)

    def remark(self, text: str) -> None:
        """Say something that the user should know."""
        self._progress.remark(text)

    @property
    def ray(self) -> Any:
        """The module."""
        return self._ray


@dataclass(eq=False)
class _Actor:
    """A worker: ``ready`` is the reference to its versions until they were checked, ``job`` what it started."""

    handle: Any
    ready: Any
    job: Any = None
    started: Any = None
    alone: bool = False
    busy: dict[Any, tuple[int, Any]] = field(default_factory=dict)  # reference of a result: number and task


@dataclass(eq=False)
class _Map:
    """One call of `RayRunner.map`."""

    runner: RayRunner
    threads: int
    start: Any
    todo: Iterator[tuple[int, Any]]
    again: deque[tuple[int, Any]] = field(default_factory=deque)
    tries: dict[int, int] = field(default_factory=dict)
    out: int = 0  # tasks that were sent or wait to be sent again, and whose result was not taken
    lowest: set[int] = field(default_factory=set)
    exhausted: bool = False
    alone_since: float = field(default_factory=monotonic)
    said: bool = False
    unopened: int = 0

    def fill(self) -> None:
        """Send tasks to actors that are free."""
        actors = self.runner.actors(self.threads, self._wanted())
        for room in range(_QUEUED):
            for actor in actors:
                if actor.ready is not None or len(actor.busy) > room or (actor.busy and actor.alone):
                    continue
                if self.again:  # alone, so that a task that ends its worker is known
                    if not actor.busy:
                        self._send(actor, self.again.popleft(), alone=True)
                elif (task := self._next(len(actors))) is not None:
                    self._send(actor, task)

    def _wanted(self) -> int:
        """Actors that are of use: no more than there are tasks, as far as that is known."""
        if self.exhausted:
            return max(1, self.out)
        return self.runner.n_workers

    def _next(self, n_actors: int) -> tuple[int, Any] | None:
        oldest = min(self.lowest, default=0)
        if self.exhausted or (self.lowest and max(self.lowest) - oldest >= _EARLY * n_actors):
            return None
        found = next(self.todo, None)
        self.exhausted = found is None
        if found is not None:
            self.lowest.add(found[0])
            self.out += 1
        return found

    def _send(self, actor: _Actor, task: tuple[int, Any], *, alone: bool = False) -> None:
        actor.alone = alone
        if actor.job is not self.start:
            actor.started = actor.handle.start.remote(self.start)
            actor.job = self.start
        actor.busy[actor.handle.run.remote(task[1])] = task

    def results(self) -> Iterator[tuple[int, Any]]:
        """Results as they come; leaving stops what is being done."""
        try:
            while self.out or not self.exhausted:
                self.fill()
                if not (self.out or not self.exhausted):
                    break
                yield from self._arrived()
        finally:
            if any(actor.busy for actor in self._own):
                for actor in list(self._own):  # a task cannot be stopped without its actor
                    self.runner.dropped(self.threads, actor)
            del self.start  # frees it on the cluster

    @property
    def _own(self) -> list[_Actor]:
        return self.runner.actors(self.threads, 0)

    def _arrived(self) -> Iterator[tuple[int, Any]]:
        """Wait for the next result or actor, and take all that are there."""
        by_reference = {reference: actor for actor in self._own for reference in actor.busy}
        opening = {actor.ready: actor for actor in self._own if actor.ready is not None}
        ray, references = self.runner.ray, [*by_reference, *opening]
        found, _ = ray.wait(references, num_returns=1, timeout=_LOOK_S) if references else ([], [])
        if found:  # those that came together
            found, _ = ray.wait(references, num_returns=len(references), timeout=0)
        for reference in found:
            if reference in opening:
                self._opened(opening[reference])
            elif reference in by_reference[reference].busy:
                yield from self._taken(by_reference[reference], reference)
        self._watch()

    def _opened(self, actor: _Actor) -> None:
        """An actor is ready; refuse one that computes with other versions."""
        try:
            theirs = self._get(actor.ready)
        except _Lost as lost:
            self.runner.dropped(self.threads, actor)
            if "ModuleNotFoundError" in lost.details:
                raise RunnerError(
                    "worker on the cluster cannot import headstart, expected the same installation on every machine; "
                    "install it there with: pip install 'headstart[cluster]'"
                ) from lost
            self.unopened += 1
            if self.unopened >= _STARTS:
                raise RunnerError(
                    f"{self.unopened} workers in a row could not start on the cluster ({lost}), expected them to; "
                    "look at the logs of Ray, and at RAY_AUTH_MODE, which must be that of the cluster"
                ) from lost
            return
        _refuse_other_versions(versions(), theirs)
        actor.ready, self.unopened = None, 0

    def _taken(self, actor: _Actor, reference: Any) -> Iterator[tuple[int, Any]]:
        """The result of a task; where its worker died, another one does it."""
        number, _ = actor.busy[reference]
        try:
            result = self._get(reference)
        except NotStartedError:
            self._get(actor.started)  # raises why
            raise
        except _Lost as lost:
            yield from self._lost(actor, lost)
            return
        del actor.busy[reference]
        yield self._counted(number, result)

    def _counted(self, number: int, result: Any) -> tuple[int, Any]:
        self.out -= 1
        self.lowest.discard(number)
        return number, result

    def _lost(self, actor: _Actor, lost: _Lost) -> Iterator[tuple[int, Any]]:
        """What a lost worker had finished; the rest is done again, each alone, since any of them may be the cause."""
        undone = []
        for reference, (number, task) in actor.busy.items():
            try:
                yield self._counted(number, self._get(reference))
            except _Lost:
                undone.append((number, task))
        actor.busy.clear()
        self.again.extend(undone)
        self.runner.dropped(self.threads, actor)
        if not undone:
            return
        number = undone[0][0]
        if len(undone) == 1 and not lost.with_machine:  # machines are interrupted, whatever they do
            self.tries[number] = self.tries.get(number, 0) + 1
        if self.tries.get(number, 0) >= _TRIES:
            raise RunnerError(
                f"task {number + 1} ended its worker {_TRIES} times ({lost}), expected workers to survive; look at "
                "the memory of the machines, or run it with --runner local"
            ) from lost
        self.runner.remark(f"A worker of the cluster was lost ({lost}): its tasks are done again.")

    def _get(self, reference: Any) -> Any:
        """The value; errors of ours as they were raised, `_Lost` where the worker or its machine is gone."""
        exceptions = self.runner.ray.exceptions
        try:
            return self.runner.ray.get(reference)
        except exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, exceptions.RayError):
                first = str(cause).split("\n", 1)[0].removeprefix("System error: ")
                raise RunnerError(
                    f"worker on the cluster cannot read its task ({first}), expected the same installation on every "
                    "machine; install there what this program imports"
                ) from error
            if isinstance(cause, Exception):
                raise cause from None
            raise RunnerError(f"task failed on the cluster, expected a result: {_line(error)}") from error
        except exceptions.RayError as error:
            raise _Lost(error) from error

    def _watch(self) -> None:
        """Say so if nothing is ready, and give up some time later."""
        if any(actor.ready is None for actor in self._own):
            self.alone_since, self.said = monotonic(), False
            return
        waited = monotonic() - self.alone_since
        if waited > _PATIENCE_S:
            raise RunnerError(
                f"cluster has no {self.threads} free core(s) after {waited:.0f} s, expected some for a worker; "
                "wait for other programs there, or add a machine"
            )
        if waited > 2 * _LOOK_S and not self.said:
            self.said = True
            self.runner.remark("Waiting for workers to start on the cluster.")


class _Lost(Exception):
    """A worker or its machine is gone; the text is a few words, ``details`` are those of Ray."""

    def __init__(self, error: BaseException) -> None:
        self.details, kind = str(error), type(error).__name__
        self.with_machine = kind == "NodeDiedError" or "its node has died" in self.details
        alone = "it ran out of memory" if kind == "OutOfMemoryError" else "its process ended"
        super().__init__("its machine is gone" if self.with_machine else alone)


def _refuse_other_versions(ours: Mapping[str, str], theirs: Mapping[str, str]) -> None:
    """RunnerError if a worker would compute with another package than this program."""
    for name in ours.keys() | theirs.keys():
        if ours.get(name) != theirs.get(name):
            what = "the code of headstart" if name == "headstart" else name
            raise RunnerError(
                f"worker on the cluster has {what} {theirs.get(name, 'not installed')}, expected "
                f"{ours.get(name, 'none')} as here; install the same versions on every machine"
            )


def _line(error: BaseException) -> str:
    """The last line of a text that may be a traceback on another machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _connect(ray: Any, address: str) -> None:
    """Join a cluster, or start one on this machine where that was asked for; our signal handlers stay."""
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of tasks that were stopped
    joined = address or os.environ.get("RAY_ADDRESS") or "auto"
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        _reach(joined)
        with _handlers_kept():
            if joined == _LOCAL:
                ray.init(address=_LOCAL, include_dashboard=False, **quiet)
            else:
                ray.init(address=joined, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "of this machine" if joined == "auto" else joined
        raise RunnerError(
            f"cluster {where!r} cannot be joined ({_line(error)}), expected one that runs; start it with: "
            "ray start --head, or use --runner ray:local; if it asks for a token, set RAY_AUTH_MODE=token "
            "and RAY_AUTH_TOKEN"
        ) from error


def _reach(address: str) -> None:
    """OSError if nobody listens at an address: Ray would end this process when its patience is over."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray puts a handler of its own in the place of ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:
                signal.signal(number, handler)
