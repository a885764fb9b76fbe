"""The same training with several seeds: the same wherever they run, and what the mean and its interval are about."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import ERROR, Run
from headstart.data.dataset import Dataset
from headstart.errors import DataError, SettingError
from headstart.evaluation.clusters import accuracy_score
from headstart.models.model import Model, open_model
from headstart.strategies.parts import training_parts
from headstart.system.runners import LOCAL, Runner, runner_named
from headstart.system.runners.local import LocalRunner
from headstart.workflows.train import Trained, run_training
from headstart.workflows.train import run as trainings
from headstart.workflows.train import seeds as module
from headstart.workflows.train.request import TrainingFiles, TrainingRequest, log_of
from ray_cluster import ray_cluster

SMALL = TrainingRequest("mlp", "scratch", settings={"epochs": 2})


@pytest.fixture(scope="module")
def ray() -> Iterator[Runner]:
    """A cluster of two machines with a core each, which are processes here."""
    with ray_cluster(1, 1) as made, runner_named(f"ray:{made.address}") as runner:
        yield runner


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(600))


class Backwards(LocalRunner):
    """Does the last task first; after ``left`` of them it is interrupted."""

    remote = True

    def __init__(self, left: int | None = None) -> None:
        self.left, self.seeds = left, list[int]()

    def map(self, start: Any, tasks: Iterable[Any], *, threads: int = 1) -> Iterator[tuple[int, Any]]:
        work = start()
        for number, task in reversed(list(enumerate(tasks))):
            if len(self.seeds) == self.left:
                raise KeyboardInterrupt
            self.seeds.append(task)
            yield number, work(task)


def trained(
    dataset: Dataset,
    output: Path,
    runner: Runner | None = None,
    request: TrainingRequest = SMALL,
    *,
    n_seeds: int = 3,
    resume: bool = False,
) -> Trained:
    found = run_training(
        dataset,
        replace(request, n_seeds=n_seeds),
        TrainingFiles(output, resume),
        runner=Backwards() if runner is None else runner,
    )
    assert isinstance(found, Trained)
    return found


def shown(found: Trained) -> Any:
    return [replace(row, seconds=0.0) for row in found.result.rows], found.result.verdict


# --- where they run


@pytest.mark.slow
def test_seeds_give_the_same_on_a_cluster_in_processes_and_in_another_order(
    some: Dataset, ray: Runner, tmp_path: Path
) -> None:
    request = replace(SMALL, engine="scratch", augment="shear=0.1")  # torch: see the trials of tune
    ways = [("processes", LOCAL), ("ray", ray), ("backwards", Backwards())]
    found = [shown(trained(some, tmp_path / name, runner, request)) for name, runner in ways]
    assert all(one == found[0] for one in found)
    assert len({row.accuracy.value for row in found[0][0]}) > 2  # seeds differ


def test_the_model_is_that_of_the_command_without_seeds(some: Dataset, tmp_path: Path) -> None:
    trained(some, tmp_path / "several")
    trained(some, tmp_path / "one", n_seeds=1)
    first, other = (open_model(tmp_path / name) for name in ("several", "one"))
    assert first.manifest.scores == other.manifest.scores
    for name in ("model.onnx", "weights.safetensors"):
        assert (tmp_path / "several" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


# --- what the numbers are about


@pytest.mark.parametrize("settings", [{"epochs": 2}, {"epochs": 4, "patience": 2}])
def test_every_seed_is_evaluated_on_the_images_of_the_first(
    some: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    seen: list[module.SeedTrainings] = []
    made = module._trainings
    monkeypatch.setattr(module, "_trainings", lambda *rest: seen.append(made(*rest)) or seen[-1])
    found = trained(some, tmp_path / "m", request=replace(SMALL, settings={**settings, "seed": 5}))
    predictions = found.learned.predictions
    assert predictions is not None and seen[0].evaluated is not None and seen[0].stopping is not None
    images = predictions.images
    assert np.array_equal(seen[0].evaluated[1], images.codes(some.classes))
    held = training_parts(some, 5).held
    assert held is not None
    stopped_by = {one.tobytes() for one in seen[0].stopping[0]}
    if "patience" in settings:  # the other half stopped the trainings early
        assert len(images) < len(held) and not stopped_by & {one.tobytes() for one in seen[0].evaluated[0]}
    right = predictions.probabilities.argmax(axis=1) == images.codes()
    assert np.array_equal(seen[0].done(5).right, right)  # the oracle: the first training once more
    rows = found.result.rows
    assert [row.strategy for row in rows] == ["seed 5", "seed 6", "seed 7", "mean of 3 seeds"]
    assert rows[0].accuracy == found.result.evaluations[0].accuracy
    assert rows[3].accuracy.value == pytest.approx(np.mean([row.accuracy.value for row in rows[:3]]))
    assert rows[3].spread == pytest.approx(np.std([row.accuracy.value for row in rows[:3]], ddof=1))
    every = np.stack([right, seen[0].done(6).right, seen[0].done(7).right])
    assert rows[3].accuracy == accuracy_score(every) and rows[3].draws == 3
    assert "The saved model is that of seed 5: " in found.result.verdict


def test_few_images_are_cross_validated_with_every_seed(digits: Dataset, tmp_path: Path) -> None:
    few = digits.subset(np.arange(120))
    found = trained(few, tmp_path / "m")
    assert found.result.judged_on == "cross-validated" and found.result.rows[3].accuracy.n == 120
    predictions = found.learned.predictions
    assert predictions is not None
    request = replace(SMALL, n_seeds=3)
    settings, augmentation, auto = trainings._settings(request)
    plan = module.TrainingPlan(settings, augmentation, auto)
    again = module._trainings(few, training_parts(few, 0), request, plan, LOCAL).done(0)
    assert np.array_equal(again.right, predictions.probabilities.argmax(axis=1) == few.codes())


def test_the_interval_of_cross_validated_seeds_holds_the_variation_of_seeds() -> None:
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.random((1, 100)) < 0.8, 3, axis=0)
    apart = np.stack([rng.random(100) < share for share in (0.6, 0.8, 0.95)])
    groups = np.arange(100) // 2
    for clusters in (None, groups):
        plain, wide = (
            accuracy_score(apart, clusters, crossed=True, redrawn=redrawn) for redrawn in (False, True)
        )
        assert wide.low < plain.low - 0.03 and wide.value == plain.value
        assert accuracy_score(alike, clusters, crossed=True, redrawn=True) == accuracy_score(
            alike, clusters, crossed=True
        )


def test_a_seed_that_diverges_is_named_and_counts_as_wrong(
    some: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = module._trainings

    def steep(*rest: Any) -> module.SeedTrainings:
        plain = made(*rest)
        settings = replace(plain.plan.settings, learning_rate=1e30, optimizer="sgd")
        return replace(plain, plan=replace(plain.plan, settings=settings))

    monkeypatch.setattr(module, "_trainings", steep)
    found = trained(some, tmp_path / "m", n_seeds=2)
    assert [row.accuracy.value for row in found.result.rows[1:]] == [
        0.0,
        found.result.rows[0].accuracy.value / 2,
    ]
    remark = next(one for one in found.result.remarks if one.startswith("Seed 1: "))
    assert "training diverged: loss is " in remark and "none of its predictions is counted" in remark
    assert open_model(tmp_path / "m").classes == some.classes


def test_each_seed_finds_its_rate(some: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, seen = replace(SMALL, settings={"epochs": 1, "learning_rate": "auto"}), list[int]()
    find = module.find_rate

    def noted(network: Any, images: Any, labels: Any, settings: Any, **more: Any) -> Any:
        seen.append(settings.seed)
        if settings.seed == 2:
            raise SettingError("loss is inf at the first step, expected a finite one; scale the images")
        return find(network, images, labels, settings, **more)

    monkeypatch.setattr(module, "find_rate", noted)
    found = trained(some, tmp_path / "m", request=request)
    assert sorted(seen) == [1, 2] and found.result.rows[2].accuracy.value == 0.0
    assert any(
        one.startswith("Seed 2: learning rate was not found: loss is inf at the first step; none of")
        for one in found.result.remarks
    )


# --- interrupted


def test_an_interrupted_run_trains_only_the_seeds_that_are_missing(some: Dataset, tmp_path: Path) -> None:
    whole = trained(some, tmp_path / "whole", n_seeds=4)
    with pytest.raises(KeyboardInterrupt):
        trained(some, tmp_path / "m", Backwards(2), n_seeds=4)
    kept = log_of(tmp_path / "m") / "seeds.jsonl"
    with kept.open("a") as file:
        file.write('{"run": "of another", "seed": 1, "right": "00", "seconds": 1.0, "diverged": ""}\n{"run"')
    later = Backwards()
    assert shown(trained(some, tmp_path / "m", later, n_seeds=4, resume=True)) == shown(whole)
    assert later.seeds == [1]
    again = run_training(some, replace(SMALL, n_seeds=4), TrainingFiles(tmp_path / "m", True))
    assert isinstance(again, Model)  # finished
    for n_seeds in (1, 3):
        with pytest.raises(SettingError, match=r"another run \(other number of seeds\)"):
            run_training(some, replace(SMALL, n_seeds=n_seeds), TrainingFiles(tmp_path / "m", True))


def test_what_is_kept_of_another_run_is_not_used(some: Dataset, tmp_path: Path) -> None:
    trained(some, tmp_path / "m")
    for output in (tmp_path / "m").iterdir():
        output.unlink()
    later = Backwards()
    trained(some, tmp_path / "m", later, replace(SMALL, settings={"epochs": 1}), resume=True)
    assert sorted(later.seeds) == [1, 2]


# --- the command and what is refused


def test_the_command_prints_the_mean_and_the_model(run: Run, tmp_path: Path) -> None:
    words = (
        "train",
        "digits:0-4",
        "--network",
        "mlp",
        "--engine",
        "scratch",
        "--epochs",
        "2",
        "--seeds",
        "2",
    )
    said = run(*words, "-o", tmp_path / "m", "--json")
    rows = said.document["result"]["rows"]
    assert [row["strategy"] for row in rows] == ["seed 0", "seed 1", "mean of 2 seeds"]
    assert said.document["scores"]["val_accuracy"] == rows[0]["accuracy"]
    page = (tmp_path / "m" / "report.html").read_text()
    assert "mean of 2 seeds" in page and "sd" in page and "repeated with the seeds 0 to 1" in page
    lines = (log_of(tmp_path / "m") / "seeds.jsonl").read_text().splitlines()
    noted = [json.loads(line)["seed"] for line in lines]
    assert noted == [1]


def test_what_makes_no_sense_is_refused(
    run: Run, some: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run("train", "digits", "-o", tmp_path / "m", "--runner", "ray")
    assert said.code == 1
    assert said.err == f"{ERROR}runner is 'ray', expected it left out for one seed; add --seeds 5\n"
    with pytest.raises(SettingError, match="seeds is 0, expected at least 1"):
        trained(some, tmp_path / "m", n_seeds=0)
    alone = some.subset(np.arange(100))
    lonely = replace(alone, groups=np.where(alone.labels == "3", "g", np.arange(100).astype(str)))
    with pytest.raises(DataError, match=r"one group only, .* expected two to compare seeds on"):
        trained(lonely, tmp_path / "m")
    monkeypatch.setenv("HEADSTART_RUNNER", "ray:127.0.0.1:9")  # nobody listens there, and nobody needs it
    words = ("train", "digits:0-1", "--network", "mlp", "--engine", "scratch", "--epochs", "1")
    assert run(*words, "-o", tmp_path / "m").code == 0
