"""The simulation behind the costs on docs/scale.md agrees with theory where there is one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from cluster_cost import Plan, expected_hours, simulate

PROGRAM = Path(__file__).parent.parent / "benchmarks/cluster_cost.py"
PLAN = Plan(
    n_images=1_000_000, machines=4, cores=8, images_per_s=50.0, image_mb=0.1, read_mb_per_s=100.0, shard=1_000
)


def shard_hours(plan: Plan) -> float:
    return plan.shard / plan.worker_images_per_s / 3_600


@pytest.mark.parametrize("machines", [1, 3, 16, 100])
@pytest.mark.parametrize("n_images", [1, 999_999, 1_234_567])
def test_without_interruptions_it_takes_the_work_by_the_workers_after_the_start(machines: int, n_images: int):
    plan = replace(PLAN, machines=machines, n_images=n_images)
    found = simulate(plan)
    by_theory = (plan.start_s + n_images / (machines * 8 * 50.0)) / 3_600
    assert by_theory <= found.hours + 1e-9
    assert found.hours <= by_theory + shard_hours(plan), "the end is within one shard's time"
    assert expected_hours(plan) == pytest.approx(by_theory)
    assert found.machine_hours == pytest.approx(machines * found.hours)
    assert (found.interruptions, found.shards_again) == (0, 0)
    assert found.shards == -(-n_images // plan.shard)


def test_each_limit_counts_where_it_is_the_lowest():
    reading = replace(PLAN, read_mb_per_s=20.0)  # 200 images/s for 8 workers
    assert reading.worker_images_per_s == pytest.approx(25.0)
    assert simulate(reading).hours == pytest.approx(expected_hours(reading), abs=shard_hours(reading))
    assert simulate(reading).hours > 1.8 * simulate(PLAN).hours
    head = replace(PLAN, features_mb=0.005, head_mb_per_s=2.0)  # takes 400 images/s of 1,600
    taking = (
        head.shard * head.features_mb / head.head_mb_per_s / 3_600
    )  # the last shard, after it was computed
    assert simulate(head).hours == pytest.approx(expected_hours(head), abs=shard_hours(head) + taking)
    assert simulate(head).hours > 3 * simulate(PLAN).hours
    busy = replace(PLAN, overhead=0.5)
    assert simulate(busy).hours == pytest.approx(expected_hours(busy), abs=shard_hours(busy))


@pytest.mark.parametrize("interruptions", [1.0, 10.0])
def test_interruptions_cost_what_renewal_theory_says(interruptions: float):
    plan = replace(PLAN, n_images=100_000_000, machines=20, interruptions=interruptions)
    found = simulate(plan, seed=1)
    assert found.hours == pytest.approx(expected_hours(plan), rel=0.03)
    assert found.hours > 1.03 * simulate(replace(plan, interruptions=0.0)).hours
    # every machine is there, or being started in the place of another, all the time
    assert found.machine_hours == pytest.approx(20 * found.hours)
    assert found.interruptions == pytest.approx(interruptions * found.machine_hours, rel=0.3)
    assert 0 < found.shards_again <= 8 * found.interruptions


def test_work_that_was_lost_is_done_by_a_worker_that_waits():
    slow = replace(PLAN, machines=2, cores=1, images_per_s=1.0, n_images=1_000, machine_start_s=3_000.0)
    runs = [simulate(replace(slow, interruptions=0.5), seed) for seed in range(200)]
    lost = [run.hours * 3_600 for run in runs if (run.interruptions, run.shards_again) == (1, 1)]
    assert lost, "some seed interrupts the one machine that works"
    # the other one begins at once, and not a machine that has to start first
    assert max(lost) <= slow.start_s + 2 * 1_000


def test_the_same_seed_gives_the_same_run_and_others_differ():
    plan = replace(PLAN, interruptions=5.0)
    assert simulate(plan, 3) == simulate(plan, 3)
    assert simulate(plan, 3) != simulate(plan, 4)


def test_the_program_runs_on_a_given_speed_and_says_what_is_missing():
    words = [sys.executable, str(PROGRAM), "--images-per-s", "50", "--photos", "100000", "--seeds", "2"]
    done = subprocess.run([*words, "--image-kb", "100"], capture_output=True, text=True, check=True)
    assert "alone on 8 cores, the given speed: 100,000 photos in 0.0694 h" in done.stdout
    assert "assumed, not quoted" in done.stdout
    wrong = subprocess.run(
        [*words, "--image-kb", "100", "--interruptions", "99"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2 and "expected fewer" in wrong.stderr, "no machine would ever work"
    wrong = subprocess.run([*words, "--image-kb", "0"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "expected a number above 0" in wrong.stderr
    wrong = subprocess.run(words, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "no size of a photo, expected --images FOLDER" in wrong.stderr
