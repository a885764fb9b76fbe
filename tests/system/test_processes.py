"""Calls in another process: the same values, errors, and the death of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from headstart.data.readers.load import load
from headstart.errors import DataError, HeadstartError
from headstart.records import Array
from headstart.system import processes as beside
from headstart.system.processes import run_in_process, warm_up
from headstart.workflows.comparison.controls import majority
from headstart.workflows.comparison.protocol import Protocol
from headstart.workflows.comparison.table import run_table


def test_calls_run_in_other_processes_in_order_and_their_errors_arrive() -> None:
    first, second = run_in_process(os.getpid), run_in_process(np.arange, 3)
    assert first() != os.getpid()
    assert second().tolist() == [0, 1, 2]

    def refuse() -> None:
        raise DataError("images is 0, expected 1; add one")

    with pytest.raises(DataError, match="images is 0"):
        run_in_process(refuse)()


def test_linear_algebra_has_one_thread_there() -> None:
    wait = run_in_process(lambda: {name: os.environ.get(name) for name in beside._ONE_THREAD})
    assert set(wait().values()) == {"1"}


def test_a_process_that_dies_is_an_error_of_one_line_and_the_next_call_works() -> None:
    wait = run_in_process(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(HeadstartError, match=r"died .* expected it"):
        wait()
    assert run_in_process(max, 1, 2)() == 2


def test_on_one_core_the_call_is_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert run_in_process(os.getpid)() == os.getpid()


def test_a_module_is_made_ready_and_not_imported_here() -> None:
    import sys

    sys.modules.pop("colorsys", None)
    warm_up("colorsys")
    assert run_in_process(lambda: "colorsys" in __import__("sys").modules)()
    assert "colorsys" not in sys.modules


def test_a_table_is_the_same_whatever_ran_beside_it() -> None:
    data = load("digits:0-1")
    pool, asked = data.subset(np.arange(60)), data.subset(np.arange(60, 160))
    pixels = data.images.pixels.reshape(len(data), -1).astype(np.float32)  # type: ignore[attr-defined]
    codes = data.codes()

    def nearest_mean(learn: Array, wanted: Array, seed: int) -> Array:
        assert seed in (3, 4, 5)
        means = np.stack([pixels[:60][learn][codes[learn] == code].mean(axis=0) for code in (0, 1)])
        far = ((pixels[60:160][wanted][:, None] - means) ** 2).sum(axis=2)
        return np.exp(-far / far.max()).astype(np.float32)

    strategies = {"probe": nearest_mean, "control": nearest_mean, "majority": majority(pool)}
    protocol = Protocol(labels_per_class=(2, 5), draws=3, seed=3)
    here = run_table(strategies, pool, asked, protocol)
    there = run_table(strategies, pool, asked, protocol, in_processes=("control",))
    assert [(row.strategy, row.labels_per_class, row.accuracy, row.spread) for row in here.rows] == [
        (row.strategy, row.labels_per_class, row.accuracy, row.spread) for row in there.rows
    ]
    assert here.verdict == there.verdict


def test_where_no_process_can_be_started_the_call_runs_here() -> None:
    """A limit of 0 bytes on files leaves no semaphores: loky says only "File too large"."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
        "from headstart.system.processes import run_in_process; assert run_in_process(max, 3, 5)() == 5"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
