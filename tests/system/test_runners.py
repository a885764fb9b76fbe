"""Every runner keeps the contract: each task once, errors as raised, flat memory; the cluster is a real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from headstart.data.readers.load import load
from headstart.errors import DataError, HeadstartError, RunnerError, SettingError
from headstart.records import Array
from headstart.system.runners import LOCAL, ProcessRunner, Runner, in_order, runner_named
from headstart.system.runners.local import _ONE_THREAD
from headstart.workflows.comparison.controls import majority
from headstart.workflows.comparison.protocol import Protocol
from headstart.workflows.comparison.table import run_table
from ray_cluster import ray_cluster

KINDS = ("local", "processes", "ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two machines with a core each, which are processes here."""
    with ray_cluster(1, 1) as made:
        yield made


@pytest.fixture(scope="module")
def runners(cluster: Any) -> Iterator[dict[str, Runner]]:
    with runner_named(f"ray:{cluster.address}") as ray:
        yield {"local": LOCAL, "processes": ProcessRunner(), "ray": ray}


@pytest.fixture(params=KINDS)
def runner(request: pytest.FixtureRequest, runners: dict[str, Runner]) -> Runner:
    return runners[request.param]


def plain(work: Callable[[Any], Any]) -> Callable[[], Callable[[Any], Any]]:
    return lambda: work


def test_each_task_is_done_once_and_has_its_number(runner: Runner) -> None:
    found = list(runner.map(plain(lambda task: task * task), range(50)))
    assert sorted(found) == [(number, number * number) for number in range(50)]
    assert list(in_order(iter(found))) == [number * number for number in range(50)]
    assert not list(runner.map(plain(abs), []))


def test_remote_is_what_runs_in_other_processes(runner: Runner) -> None:
    where = {one for _, one in runner.map(plain(lambda task: os.getpid()), range(20))}
    assert (os.getpid() in where) is not runner.remote
    assert runner.n_workers >= 1


def test_what_starts_the_work_runs_once_for_each_worker_and_its_arrays_are_read_only(runner: Runner) -> None:
    big = np.arange(200_000)

    def start() -> Callable[[int], tuple[str, int, bool]]:
        token = uuid4().hex
        return lambda task: (token, int(big[task]), big.flags.writeable)

    found = [one for _, one in runner.map(start, range(30))]
    assert sum(value for _, value, _ in found) == sum(range(30))
    assert len({token for token, _, _ in found}) <= runner.n_workers
    if runner.name == "ray":
        assert not any(writeable for _, _, writeable in found)  # memory that all workers of a machine share


def test_the_first_error_is_raised_as_it_was_and_the_runner_goes_on(runner: Runner) -> None:
    def refuse(task: int) -> int:
        if task == 5:
            raise DataError(f"task is {task}, expected another; leave it out")
        return task

    with pytest.raises(DataError, match="task is 5, expected another; leave it out"):
        list(runner.map(plain(refuse), range(20)))
    assert len(list(runner.map(plain(abs), range(4)))) == 4


def test_an_error_where_the_work_starts_arrives(runner: Runner) -> None:
    def start() -> Callable[[int], int]:
        raise DataError("graph is empty, expected one; write it again")

    with pytest.raises(DataError, match="graph is empty"):
        list(runner.map(start, range(3)))
    assert len(list(runner.map(plain(abs), range(4)))) == 4


def test_tasks_are_taken_as_they_are_needed_and_leaving_early_stops_them(
    runner: Runner, tmp_path: Path
) -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for number in range(1_000):
            taken.append(number)
            yield number

    found = runner.map(plain(lambda task: (tmp_path / str(task)).touch() or task), tasks())
    assert next(iter(found))[0] in range(10)
    time.sleep(0.5)
    assert len(taken) < 40  # nobody takes the results
    found.close()  # type: ignore[attr-defined]
    done = len(list(tmp_path.iterdir()))
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == done < 40


def test_linear_algebra_has_one_thread_in_other_processes(runners: dict[str, Runner]) -> None:
    def threads(task: int) -> set[int]:
        import scipy.linalg  # noqa: F401
        from threadpoolctl import threadpool_info

        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    for name in ("processes", "ray"):
        ((_, found),) = runners[name].map(plain(threads), [0])
        assert found == {1}, name


# --- processes of this machine


def test_a_process_that_dies_is_an_error_of_one_line_and_the_next_call_works() -> None:
    with pytest.raises(HeadstartError, match=r"died .* expected it"):
        list(ProcessRunner().map(plain(lambda task: os.kill(os.getpid(), signal.SIGKILL)), [0]))
    assert list(ProcessRunner().map(plain(abs), [-2])) == [(0, 2)]


def test_on_one_core_tasks_are_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert list(ProcessRunner().map(plain(lambda task: os.getpid()), [0])) == [(0, os.getpid())]


def test_background_processes_have_one_thread_by_their_environment() -> None:
    ((_, found),) = ProcessRunner().map(
        plain(lambda task: [os.environ.get(name) for name in _ONE_THREAD]), [0]
    )
    assert set(found) == {"1"}


def test_where_no_process_can_be_started_tasks_are_done_here() -> None:
    """A limit of 0 bytes on files leaves no semaphores: loky says only "File too large"."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
        "from headstart.system.runners import ProcessRunner; "
        "assert list(ProcessRunner().map(lambda: abs, [-3])) == [(0, 3)]"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the cluster


def test_a_worker_that_dies_is_replaced_and_its_tasks_are_done_again(
    runners: dict[str, Runner], tmp_path: Path
) -> None:
    def once(task: int) -> int:
        mark = tmp_path / str(task)
        if task == 7 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    assert sorted(runners["ray"].map(plain(once), range(30))) == [(number, number) for number in range(30)]


def test_a_task_that_ends_every_worker_is_an_error_that_names_it(runners: dict[str, Runner]) -> None:
    def deadly(task: int) -> int:
        if task == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    with pytest.raises(RunnerError, match=r"task 4 ended its worker 3 times .*, expected workers to survive"):
        list(runners["ray"].map(plain(deadly), range(6)))
    assert len(list(runners["ray"].map(plain(abs), range(4)))) == 4


def test_a_whole_machine_may_be_lost(cluster: Any, runners: dict[str, Runner], tmp_path: Path) -> None:
    """The raylet of a node and all that runs on it are killed while both nodes compute."""
    node = cluster.add_node(num_cpus=1)

    def slow(task: int) -> int:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(0.05)
        return task

    lost = False

    def tasks() -> Iterator[int]:
        """Until the machine is lost, and then 100 more."""
        left = 100
        for number in range(10_000):
            left -= lost
            if not left:
                return
            yield number

    found = runners["ray"].map(plain(slow), tasks())
    first = [next(found) for _ in range(20)]
    while len(list(tmp_path.iterdir())) < 3:  # the new machine takes part
        first.append(next(found))
    cluster.remove_node(node, allow_graceful=False)
    lost = True
    every = sorted([*first, *found])
    assert every == [(number, number) for number in range(len(every))] and len(every) >= 120


def test_more_threads_than_any_machine_has_are_refused(runners: dict[str, Runner]) -> None:
    with pytest.raises(
        RunnerError, match=r"machines with 1, 1.* cores for Ray, expected one with 64 for a worker"
    ):
        list(runners["ray"].map(plain(abs), [1], threads=64))


def test_workers_with_other_versions_are_refused(
    runners: dict[str, Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.system.runners import cluster as module

    there = module.versions()
    runners["ray"].close_workers()  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "versions", lambda: {**there, "numpy": "1.0"})
    with pytest.raises(
        RunnerError, match=rf"has numpy {there['numpy']}, expected 1.0 as here; install the same"
    ):
        list(runners["ray"].map(plain(abs), [1]))
    monkeypatch.setattr(module, "versions", lambda: {**there, "headstart": "0123"})
    with pytest.raises(RunnerError, match="has the code of headstart "):
        list(runners["ray"].map(plain(abs), [1]))


def test_work_that_a_worker_cannot_read_is_an_error_that_says_so(runners: dict[str, Runner]) -> None:
    unknown = sys.modules[__name__].plain  # by its name in a module that is not installed there
    with pytest.raises(RunnerError, match=r"No module named"):
        list(runners["ray"].map(partial(unknown, abs), [1]))


def test_signals_are_handled_as_before_and_the_cluster_stays(
    cluster: Any, runners: dict[str, Runner]
) -> None:
    runners["ray"].close_workers()  # type: ignore[attr-defined]  # they hold all cores
    code = f"""
import signal, sys
from headstart.system.runners import runner_named
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
with runner_named("ray:{cluster.address}") as runner:
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    assert list(runner.map(lambda: abs, [-1])) == [(0, 1)]
assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
"""
    for _ in range(2):  # the first one did not stop the cluster
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["rey", "ray:", "ray://", "local:2", ""])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=r"runner is '.*', expected local, ray \("), runner_named(name):
        pass


def test_a_cluster_that_is_not_there_is_refused_in_one_sentence() -> None:
    code = """
from headstart.errors import RunnerError
from headstart.system.runners import runner_named
try:
    with runner_named("ray:127.0.0.1:9"):
        pass
except RunnerError as error:
    assert "\\n" not in str(error), error
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "cluster '127.0.0.1:9' cannot be joined" in done.stdout, done


def test_the_variable_names_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_RUNNER", "slurm")
    with pytest.raises(SettingError, match="runner in HEADSTART_RUNNER is 'slurm'"), runner_named():
        pass
    with runner_named("local") as runner:
        assert runner is LOCAL


# --- tables


def test_a_table_is_the_same_wherever_it_runs(runners: dict[str, Runner]) -> None:
    data = load("digits:0-1")
    pool, test = data.subset(np.arange(60)), data.subset(np.arange(60, 160))
    pixels = data.images.pixels.reshape(len(data), -1).astype(np.float32)  # type: ignore[union-attr]
    codes = data.codes()

    def nearest_mean(train: Array, wanted: Array, seed: int) -> Array:
        if seed not in (3, 4, 5):  # an assertion would hold the module, which workers cannot import
            raise ValueError(seed)
        means = np.stack([pixels[:60][train][codes[train] == code].mean(axis=0) for code in (0, 1)])
        far = ((pixels[60:160][wanted][:, None] - means) ** 2).sum(axis=2)
        return np.exp(-far / far.max()).astype(np.float32)  # type: ignore[no-any-return]

    strategies = {"probe": nearest_mean, "control": nearest_mean, "majority": majority(pool)}
    protocol = Protocol(labels_per_class=(2, 5), draws=3, seed=3, redrawn=("control",), networks=2)
    tables = [
        run_table(strategies, pool, test, protocol),
        run_table(strategies, pool, test, replace(protocol, redrawn=()), in_processes=("control",)),
        run_table(strategies, pool, test, protocol, runner=runners["ray"]),
        run_table(strategies, pool, test, protocol, runner=runners["ray"], here=("control",)),
    ]
    shown = [
        [(row.strategy, row.labels_per_class, row.accuracy, row.spread) for row in table.rows]
        for table in tables
    ]
    assert shown[0] == shown[2] == shown[3]
    assert [row for row in shown[1] if row[0] != "control"] == [
        row for row in shown[0] if row[0] != "control"
    ]
    assert tables[0].verdict == tables[2].verdict


def test_workers_that_cannot_start_are_an_error_and_no_endless_loop(
    runners: dict[str, Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.system.runners import cluster as module

    class Unable:
        def __init__(self, threads: int) -> None:
            import os

            os._exit(1)

        def versions(self) -> dict[str, str]:
            return {}

    runners["ray"].close_workers()  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "Worker", Unable)
    with pytest.raises(RunnerError, match=r"10 workers in a row could not start on the cluster \("):
        list(runners["ray"].map(plain(abs), range(3)))
