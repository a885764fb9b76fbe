"""Trials that are drawn together: the same wherever they run, in whatever order, interrupted or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import ERROR, Run
from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.errors import SettingError
from headstart.records import NetworkSpec
from headstart.sources.features import Extraction
from headstart.sources.registry import open_source
from headstart.system.progress import SILENT
from headstart.system.runners import LOCAL, Runner, runner_named
from headstart.system.runners.local import LocalRunner
from headstart.system.threads import one_thread
from headstart.workflows.tune import draws, search, space, storage
from headstart.workflows.tune import training as module
from headstart.workflows.tune.features import tune_features
from headstart.workflows.tune.request import Search
from headstart.workflows.tune.run import run_tuning
from headstart.workflows.tune.setup import make_setup
from headstart.workflows.tune.training import TrainingTuning, tune_training
from ray_cluster import ray_cluster

optuna = pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def ray() -> Iterator[Runner]:
    """A cluster of two machines with a core each, which are processes here."""
    with ray_cluster(1, 1) as made, runner_named(f"ray:{made.address}") as runner:
        yield runner


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few epochs, large batches: what is tested is the search."""
    monkeypatch.setitem(space.SPACE, "epochs", space.Range(2, 6, whole=True))
    monkeypatch.setitem(space.SPACE, "batch_size", space.Range(5, 7, 2, whole=True))


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(300))


Tune = Callable[..., TrainingTuning]


@pytest.fixture
def tuned(few: Dataset, tmp_path: Path) -> Tune:
    def run(n_trials: int | None, name: str = "trials", **options: Any) -> TrainingTuning:
        given: dict[str, Any] = {"network": "mlp", "engine": "scratch", "budget_s": None, "at_once": 4}
        place = tmp_path / f"{name}.sqlite"
        return tune_training(few, **{**given, **options}, n_trials=n_trials, storage=place)

    return run


def timeless(found: TrainingTuning) -> TrainingTuning:
    trials = tuple(replace(one, seconds=0.0) for one in found.trials)
    return replace(found, trials=trials, seconds=0.0, n_resumed=0)


class Backwards(LocalRunner):
    """Does the last task first; ``dies_after`` so many it is interrupted."""

    remote = True

    def __init__(self, dies_after: int | None = None) -> None:
        self.left = dies_after

    def map(self, start: Any, tasks: Iterable[Any], *, threads: int = 1) -> Iterator[tuple[int, Any]]:
        work = start()
        for number, task in reversed(list(enumerate(tasks))):
            if self.left is not None:
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
            yield number, work(task)


# --- where they run


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "scratch"])
def test_trials_are_the_same_on_a_cluster_in_processes_and_in_another_order(
    tuned: Tune, ray: Runner, engine: str
) -> None:
    pytest.importorskip("torch")
    n_trials = 14 if engine == "scratch" else 4
    ways = [("processes", LOCAL), ("ray", ray), ("backwards", Backwards())]
    if engine == "torch":  # which takes longer, and whose trials come in the same order
        del ways[2]
    found = [tuned(n_trials, name, engine=engine, runner=runner) for name, runner in ways]
    assert all(timeless(one) == timeless(found[0]) for one in found)
    assert len({one.regime for one in found[0].trials}) == n_trials
    if engine == "scratch":
        assert found[0].n_pruned and found[0].factors  # they would show other trials


def test_the_number_at_once_is_part_of_the_result(tuned: Tune) -> None:
    regimes = [
        [one.regime for one in sorted(tuned(13, str(n), at_once=n).trials, key=lambda one: one.number)]
        for n in (1, 4)
    ]
    assert regimes[0][:10] == regimes[1][:10]  # drawn at random, by number
    assert regimes[0][12] != regimes[1][12]  # drawn from the others


def test_trials_of_a_batch_differ_and_do_not_depend_on_where_it_is_cut(few: Dataset) -> None:
    setup = make_setup(few, "mlp", "scratch", 0, SILENT, at_once=4)
    with storage.quiet_optuna():
        batch = draws.next_batch({}, setup, None)
        again = draws.next_batch({}, setup, 3)
    assert [one.number for one in batch.tasks(None, "")] == [0, 1, 2, 3]
    assert [one.number for one in again.tasks(None, "")] == [0, 1, 2]
    assert len({one.regime for one in batch.tasks(None, "")}) == 4
    assert [one.regime for one in again.tasks(None, "")] == [one.regime for one in batch.tasks(None, "")][:3]


# --- what stops a trial


def finished(accuracies: list[list[float]], ended: list[bool]) -> dict[int, Any]:
    space_of = optuna.distributions.FloatDistribution(0.0, 1.0)
    return {
        number: optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE if whole else optuna.trial.TrialState.PRUNED,
            value=some[-1],
            params={"x": 0.5},
            distributions={"x": space_of},
            intermediate_values=dict(enumerate(some, start=1)),
        )
        for number, (some, whole) in enumerate(zip(accuracies, ended, strict=True))
    }


def test_the_median_rule_is_that_of_optuna() -> None:
    rng, n_stopped = np.random.default_rng(0), 0
    pruner = optuna.pruners.MedianPruner(n_startup_trials=storage.STARTUP, n_warmup_steps=1)
    for _ in range(150):
        n_known = int(rng.integers(3, 9))
        known = [rng.integers(0, 8, rng.integers(1, 6)) / 8 for _ in range(n_known)]
        trials = finished([list(map(float, one)) for one in known], list(rng.random(n_known) < 0.8))
        with storage.quiet_optuna():
            study = draws.study_of(trials)
            trial, medians, best = study.ask(), draws._medians(trials), 0.0
            for epoch in range(1, 6):
                accuracy = float(rng.integers(0, 8)) / 8
                trial.report(accuracy, epoch)
                best = max(best, accuracy)
                frozen = study.get_trials(deepcopy=False)[-1]
                wanted = pruner.prune(study, frozen)
                assert (epoch in medians and best < medians[epoch]) == wanted
                n_stopped += wanted
    assert 50 < n_stopped < 500


# --- interrupted


@pytest.mark.slow
def test_an_interrupted_batch_goes_on_to_the_same_end_and_loses_nothing(tuned: Tune) -> None:
    whole = tuned(14, "whole", runner=Backwards())
    stopped = tuned(14, "parted", runner=Backwards(dies_after=6))
    assert stopped.interrupted and sorted(one.number for one in stopped.trials) == [0, 1, 2, 3, 6, 7]
    later = tuned(14, "parted")
    assert later.n_resumed == 6 and timeless(later) == timeless(whole)


@pytest.mark.slow
def test_more_trials_later_are_those_of_more_trials_at_once(tuned: Tune) -> None:
    assert len(tuned(6, "parted", runner=Backwards()).trials) == 6
    assert timeless(tuned(13, "parted", runner=Backwards())) == timeless(
        tuned(13, "whole", runner=Backwards())
    )


def test_an_interrupt_before_anything_is_done_is_one(tuned: Tune) -> None:
    with pytest.raises(KeyboardInterrupt):
        tuned(4, runner=Backwards(dies_after=0))
    assert len(tuned(4, runner=Backwards()).trials) == 4


def test_a_file_of_an_older_version_goes_on(tuned: Tune, tmp_path: Path) -> None:
    """It has no numbers, no number at once, and trials that failed."""
    whole = tuned(4, "whole", at_once=1)
    tuned(3, at_once=1)
    name = f"sqlite:///{tmp_path / 'trials.sqlite'}"
    study = optuna.load_study(study_name="headstart", storage=name)
    numbered = study.get_trials()
    identity = {name: one for name, one in study.user_attrs["identity"].items() if name != storage.AT_ONCE}
    optuna.delete_study(study_name="headstart", storage=name)
    old = optuna.create_study(study_name="headstart", storage=name, direction="maximize")
    old.set_user_attr("identity", identity)
    old.tell(old.ask(), state=optuna.trial.TrialState.FAIL)
    for one in numbered:
        del one._user_attrs[storage.NUMBER]
        old.add_trial(one)
    assert timeless(tuned(4, at_once=1)) == timeless(whole)
    with pytest.raises(SettingError, match="another number of trials at once, expected the same"):
        tuned(4, at_once=2)


# --- budgets


@pytest.mark.slow
def test_a_budget_ends_a_batch_but_not_before_one_trial(tuned: Tune) -> None:
    found = tuned(None, budget_s=1e-9, runner=Backwards())
    assert [one.number for one in found.trials if not one.pruned] == [0]  # the others were stopped at once
    assert len(found.trials) == 1
    later = tuned(4, runner=Backwards())
    assert timeless(later) == timeless(tuned(4, "whole", runner=Backwards()))


@pytest.mark.slow
def test_a_budget_holds_in_processes(tuned: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(space.SPACE, "epochs", space.Range(5, 9_000, whole=True))
    tuned(1, "warm")  # starts the processes
    found = tuned(None, budget_s=4.0)
    assert found.seconds < 60 and not found.best.pruned
    assert any(one.pruned and one.epochs_done < one.regime.epochs for one in found.trials)


# --- threads


def test_one_thread_means_one_and_is_undone() -> None:
    torch = pytest.importorskip("torch")
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info

    def now() -> tuple[int, set[int]]:
        blas = {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}
        return torch.get_num_threads(), blas

    before = now()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert now() == (1, {1})
        assert now() == (3, before[1])
        with pytest.raises(ZeroDivisionError), one_thread():
            raise ZeroDivisionError
        assert now() == (3, before[1])
    finally:
        torch.set_num_threads(before[0])


def test_trials_at_once_train_on_one_thread_of_the_processor(
    few: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    seen: list[tuple[str, int]] = []
    make = module.TrialSetup.trained.__globals__["make_network"]

    def spied(spec: NetworkSpec, engine: str, seed: int, device: str = "auto") -> Any:
        seen.append((device, torch.get_num_threads()))
        return make(spec, engine, seed, device)

    monkeypatch.setitem(module.TrialSetup.trained.__globals__, "make_network", spied)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for at_once in (1, 2):
            setup = make_setup(few, "mlp", "scratch", 0, SILENT)
            replace(setup, at_once=at_once).hits(module.default_regime(setup.spec))
    finally:
        torch.set_num_threads(before)
    assert seen[-1] == ("cpu", 1) and ("auto", 2) in seen


# --- the search over features


@pytest.mark.slow
def test_a_search_over_features_is_the_same_on_a_cluster_and_in_another_order(
    digits: Dataset, ray: Runner, tmp_path: Path
) -> None:
    pytest.importorskip("kornia")
    some = digits.subset(np.arange(60))
    sources = {policy: open_source("pixels", some, policy=policy) for policy in ("squish", "ink")}
    found = [
        tune_features(
            sources,
            some,
            augmentations={"shear": parse_augmentation("shear=0.2", 1)},
            options=Extraction(runner=runner),
        )
        for runner in (LOCAL, ray, Backwards())
    ]
    first = replace(found[0], seconds=0.0)
    assert first == replace(found[1], seconds=0.0) == replace(found[2], seconds=0.0)
    assert {one.augment for one in first.trials} == {"none", "shear"} and len(first.rivals) == 3


def test_fits_that_are_done_ahead_are_not_done_again(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, n_fits = digits.subset(np.arange(60)), list[Any]()
    source = {"squish": open_source("pixels", some)}
    make = search.make_head
    monkeypatch.setattr(search, "make_head", lambda name: n_fits.append(name) or make(name))
    counts = []
    for runner, budget_s in ((LOCAL, None), (Backwards(), None), (Backwards(), 600.0)):
        n_fits.clear()
        tune_features(source, some, options=Extraction(runner=runner), budget_s=budget_s)
        counts.append(len(n_fits))
    assert counts[0] == counts[1] == counts[2] > 30


# --- the command


def test_a_cluster_without_a_number_at_once_is_a_remark(few: Dataset, tmp_path: Path) -> None:
    wanted = Search(n_trials=1, engine="scratch", storage=tmp_path / "trials.sqlite")
    remarks = run_tuning("mlp", few, wanted, options=Extraction(runner=Backwards())).result.remarks
    assert any("with --at-once N the cluster trains N at a time" in one for one in remarks)
    again = run_tuning(
        "mlp", few, replace(wanted, at_once=1), options=Extraction(runner=Backwards())
    ).result.remarks
    assert not any("--at-once" in one for one in again)
    timed = run_tuning("pixels", few, Search(budget_s=60.0), options=Extraction(runner=Backwards()))
    assert any(one.startswith("With a budget, heads were fitted on this") for one in timed.result.remarks)


def test_a_large_number_at_once_draws_only_what_is_run(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(draws, "drawn_params", lambda trial: drawn.append(space.drawn_params(trial)))
    with storage.quiet_optuna():
        draws.next_batch({}, make_setup(few, "mlp", "scratch", 0, SILENT, at_once=100_000), 3)
    assert len(drawn) == 3


def test_a_number_at_once_for_a_source_or_below_one_is_refused(run: Run, tmp_path: Path, tuned: Tune) -> None:
    said = run("tune", "pixels", "digits", "-o", tmp_path / "out", "--at-once", "2")
    assert said.code == 1 and said.err.endswith(
        f"{ERROR}at_once is 2, expected it left out for a source; it is for a network\n"
    )
    with pytest.raises(SettingError, match="at_once is 0, expected at least 1"):
        tuned(2, at_once=0)
