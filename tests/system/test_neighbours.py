"""Threads beside other programs: what is counted, what is set, and that the environment takes precedence."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from headstart.system.neighbours import Usage, allowed_cores, cores_left

READS = sys.platform.startswith("linux")
CODE = """
from headstart.system.threads import settle, share_cores
share_cores()
import time; time.sleep(0.6)
print(settle())
import torch, threadpoolctl, scipy.linalg
from headstart.system.optional import require
require("torch", extra="train", for_="a test")
print(torch.get_num_threads(), max(one["num_threads"] for one in threadpoolctl.threadpool_info()))
"""


@pytest.mark.parametrize(
    ("everyone", "own", "n_cores", "n_allowed", "left"),
    [
        (0.0, 0.0, 4, 4, 4),
        (2.0, 2.0, 4, 4, 4),  # all of it was this process
        (2.0, 0.0, 2, 2, 1),  # one busy neighbour
        (0.8, 0.0, 2, 2, 2),  # less than half a core
        (9.0, 0.0, 2, 2, 1),  # never none
        (0.0, 0.0, 64, 2, 2),  # a container with a quota
        (120.0, 0.0, 64, 8, 4),
        (1.0, 1.3, 2, 2, 2),  # clocks of different resolution
    ],
)
def test_cores_that_others_leave(everyone, own, n_cores, n_allowed, left):
    before, after = Usage(10.0, 100.0, 1.0), Usage(12.0, 100.0 + everyone, 1.0 + own)
    assert cores_left(before, after, n_cores, n_allowed) == left


def test_this_process_may_use_a_core_at_least():
    assert 1 <= allowed_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not READS, reason="the system does not tell how busy it is")
def test_own_work_is_not_that_of_others():
    before = Usage.now()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    after = Usage.now()
    assert before is not None and after is not None
    assert after.own_s - before.own_s > 0.05
    assert after.everyone_s - before.everyone_s > 0.0


def _printed(**environment: str) -> list[str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    run = subprocess.run(
        [sys.executable, "-c", CODE], env=kept | environment, capture_output=True, text=True, check=True
    )
    return run.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(not READS, reason="the system does not tell how busy it is")
def test_beside_busy_programs_one_thread_is_used():
    pytest.importorskip("torch")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(0.3)
        assert _printed() == ["1", "1", "1"]
        assert _printed(OMP_NUM_THREADS="2")[:2] == ["None", "2"]
    finally:
        for one in busy:
            one.kill()
            one.wait()
