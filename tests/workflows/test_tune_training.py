"""The search over training: budgets, networks made wider, resuming to the same end, what no trial may see."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.stores import ArrayImages
from headstart.errors import DataError, SettingError
from headstart.networks.specs import architecture
from headstart.records import InputSpec
from headstart.workflows.tune import space, trials
from headstart.workflows.tune import training as module
from headstart.workflows.tune.regime import Regime, default_regime
from headstart.workflows.tune.setup import hold_out_part
from headstart.workflows.tune.training import TrainingTuning, tune_training

optuna = pytest.importorskip("optuna")


@pytest.fixture
def few(digits: Dataset) -> Dataset:
    """120 images of three digits."""
    return threes(digits, 120)


def threes(digits: Dataset, n_images: int) -> Dataset:
    chosen = np.flatnonzero(np.isin(digits.labels, ["0", "1", "2"]))[:n_images]
    return replace(digits.subset(chosen), classes=("0", "1", "2"))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few epochs, large batches: what is tested is the search."""
    monkeypatch.setitem(space.SPACE, "epochs", space.Range(2, 6, whole=True))
    monkeypatch.setitem(space.SPACE, "batch_size", space.Range(5, 7, 2, whole=True))


Tune = Callable[..., TrainingTuning]


@pytest.fixture
def tuned(few: Dataset, tmp_path: Path) -> Tune:
    def run(n_trials: int | None = 2, name: str = "trials", dataset: Dataset = few, **options: Any) -> Any:
        return tune_training(
            dataset,
            **{"network": "mlp", "engine": "scratch", "budget_s": None, "n_trials": n_trials, **options},
            storage=tmp_path / f"{name}.sqlite",
        )

    return run


def timeless(found: TrainingTuning) -> TrainingTuning:
    trials = tuple(replace(one, seconds=0.0) for one in found.trials)
    return replace(found, trials=trials, seconds=0.0, n_resumed=0)


# --- words


@pytest.mark.parametrize("network", ["cnn", "mlp", "mlp-wide"])
def test_the_default_is_the_network_as_train_makes_it(network: str) -> None:
    spec = architecture(network, InputSpec(8, 8, 1), 10)
    regime = default_regime(spec)
    assert regime.network(spec) == spec
    assert space.regime_of(space.params_of(regime)) == regime
    assert regime.settings(3).epochs == 5 and regime.settings(3).seed == 3


# --- the search


def test_the_first_trial_is_the_default_and_the_winner_is_judged_anew(tuned: Tune, few: Dataset) -> None:
    found = tuned(4)
    assert sorted(one.number for one in found.trials) == [0, 1, 2, 3]
    first = next(one for one in found.trials if one.number == 0)
    assert first.regime == found.default_regime == Regime() and first.epochs_done == 5
    assert [one.rank for one in found.trials] == sorted(one.rank for one in found.trials)
    assert found.best.accuracy == found.selection.value > first.accuracy  # the same training once more
    assert (found.n_fit, found.selection.n, found.evaluation.n, found.default.n) == (72, 24, 24, 24)
    assert found.lead.value == pytest.approx(found.evaluation.value - found.default.value)
    setup = module.make_setup(few, "mlp", "scratch", 0, module.SILENT)
    for regime, score in ((found.best.regime, found.evaluation), (Regime(), found.default)):
        network = setup.trained(regime, lambda network: lambda *rest: None)
        assert score.value == pytest.approx(trials.measure(network, *setup.evaluation)[1])


def test_parts_share_no_image_and_hold_every_class(few: Dataset) -> None:
    setup = module.make_setup(few, "mlp", "scratch", 0, module.SILENT)
    parts = [
        {image.tobytes() for image in images} for images, _ in (setup.fit, setup.selection, setup.evaluation)
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(few)
    for _, codes in (setup.fit, setup.selection, setup.evaluation):
        assert np.ptp(np.bincount(codes)) <= 2 and len(np.bincount(codes)) == 3
    groups = np.array([f"g{n % 12}" for n in range(len(few))])
    whole = hold_out_part(replace(few, groups=groups), np.arange(len(few)), 0.25, 0)
    assert not set(groups[whole[0]]) & set(groups[whole[1]])


@pytest.mark.slow
def test_a_search_that_goes_on_ends_as_one_that_was_not_interrupted(tuned: Tune) -> None:
    whole = tuned(5, "whole")
    assert tuned(2, "parted").n_resumed == 0
    parted = tuned(5, "parted")
    assert parted.n_resumed == 2 and timeless(parted) == timeless(whole)
    assert len({one.regime for one in whole.trials}) == 5
    assert {one.name for one in whole.factors} == {
        name.replace("_", " ") for name in space.SPACE
    }  # what mattered
    assert sum(one.importance for one in whole.factors) == pytest.approx(1.0)
    assert timeless(tuned(5, "other", seed=1)) != timeless(whole)


def test_a_search_that_has_its_trials_only_judges_again(tuned: Tune) -> None:
    first = tuned(2)
    again = tuned(2)
    assert again.n_resumed == 2 and timeless(again) == timeless(first)


class Interrupting:
    """Progress that presses Ctrl-C in some trial."""

    def __init__(self, trial: int) -> None:
        self._task = f"trial {trial}"

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        if task == self._task:
            raise KeyboardInterrupt

    def remark(self, text: str) -> None: ...


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(tuned: Tune) -> None:
    stopped = tuned(4, progress=Interrupting(3))
    assert stopped.interrupted and len(stopped.trials) == 2
    later = tuned(4)
    assert not later.interrupted and later.n_resumed == 2
    whole = tuned(4, "whole")
    assert [one.regime for one in later.trials] == [one.regime for one in whole.trials]
    assert later.evaluation == whole.evaluation


def test_ctrl_c_before_anything_is_done_leaves_and_can_be_begun_again(tuned: Tune) -> None:
    with pytest.raises(KeyboardInterrupt):
        tuned(2, progress=Interrupting(1))
    found = tuned(2)
    assert [one.regime for one in found.trials if one.regime == Regime()] and len(found.trials) == 2


@pytest.mark.slow
def test_a_killed_run_leaves_no_trial_that_is_waited_for(tuned: Tune, tmp_path: Path) -> None:
    def states(ask: bool) -> list[str]:
        storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'trials.sqlite'}")
        study = optuna.load_study(study_name="headstart", storage=storage)
        if ask:
            study.ask()
        found = [one.state.name for one in study.get_trials()]
        storage.remove_session()
        storage.engine.dispose()
        return found

    tuned(2)
    assert states(ask=True)[-1] == "RUNNING"
    found = tuned(3)
    assert "RUNNING" not in states(ask=False) and len(found.trials) == 3
    assert found.evaluation == tuned(3, "whole").evaluation


def test_only_training_images_are_looked_at(tuned: Tune, digits: Dataset) -> None:
    some = threes(digits, 200)
    splits = np.array(["train"] * 90 + ["val"] * 50 + ["test"] * 60)
    assert isinstance(some.images, ArrayImages)
    pixels, labels = some.images.pixels.copy(), some.labels.copy()
    pixels[90:], labels[90:] = 255 - pixels[90:], labels[90:][::-1]
    first = tuned(2, "one", dataset=replace(some, splits=splits))
    other = Dataset("d", ArrayImages(pixels), labels, some.classes, splits=splits)
    assert timeless(first) == timeless(tuned(2, "two", dataset=other))
    assert first.n_fit + first.selection.n + first.evaluation.n == 90


@pytest.mark.slow
def test_a_hopeless_trial_is_stopped(tuned: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    networks: dict[int, int] = {}
    kept: list[Any] = []

    def measured(network: Any, images: Any, labels: Any) -> tuple[float, float]:
        kept.append(network)  # else another may get its id
        number = networks.setdefault(id(network), len(networks))
        return 1.0, 0.9 if number < 6 else 0.1

    monkeypatch.setattr(trials, "measure", measured)
    found = tuned(9)
    assert found.n_pruned >= 2 and not found.best.pruned
    assert [one.pruned for one in found.trials] == sorted(one.pruned for one in found.trials)
    assert all(one.epochs_done < one.regime.epochs and one.number >= 6 for one in found.trials if one.pruned)


@pytest.mark.slow
def test_a_training_that_diverges_is_no_winner(tuned: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count()
    # the default's five epochs, then nonsense
    monkeypatch.setattr(
        trials, "measure", lambda *rest: (0.5, 0.4) if next(calls) < 5 else (float("nan"), 1.0)
    )
    found = tuned(2)
    assert (found.best.number, found.n_pruned, found.trials[1].loss) == (0, 1, float("inf"))
    assert found.trials[1].accuracy == 0.0 and found.trials[1].epochs_done == 1
    monkeypatch.setattr(trials, "measure", lambda *rest: (float("nan"), 1.0))
    for n_trials, budget_s in ((2, None), (None, 1e-9)):
        with pytest.raises(SettingError, match="no training of 'mlp' came to its end"):
            tuned(n_trials, f"nonsense {n_trials}", budget_s=budget_s)


@pytest.mark.slow
def test_a_budget_ends_the_search_but_not_before_one_trial(
    tuned: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuned(None, budget_s=1e-9)
    assert len(found.trials) == 1 and not found.best.pruned and found.lead.value == 0
    ticks = count(0.0, 0.01)
    monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))
    more = tuned(None, "more", budget_s=0.3)
    assert 1 < len(more.trials) < 20


def test_nothing_is_said_and_optuna_is_left_as_it_was(
    tuned: Tune, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    logger, before = logging.getLogger("optuna"), optuna.logging.get_verbosity()
    logger.addHandler(handler)
    try:
        tuned(2)
    finally:
        logger.removeHandler(handler)
    assert not said and capsys.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


# --- what is refused


@pytest.mark.slow
def test_another_search_is_not_mixed_into_this_one(tuned: Tune, few: Dataset) -> None:
    first = tuned(2)
    other = few.subset(np.arange(100))
    for options, said in (
        ({"seed": 1}, "another seed, expected"),
        ({"network": "mlp-wide"}, "another network, expected"),
        ({"dataset": other}, "another data, expected"),
        ({"dataset": other, "seed": 1}, "another data and another seed, expected"),
    ):
        with pytest.raises(SettingError, match=f"was started with {said} the same to continue"):
            tuned(3, **options)
    assert tuned(2).n_resumed == 2 and timeless(tuned(2)) == timeless(first)


def test_another_search_space_is_another_search(tuned: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned(1)
    monkeypatch.setitem(space.SPACE, "dropout", space.Range(0.0, 0.4))
    with pytest.raises(SettingError, match="another search space, expected"):
        tuned(1)


def test_a_file_of_another_kind_is_left_alone(tuned: Tune, tmp_path: Path) -> None:
    (tmp_path / "trials.sqlite").write_text("my notes")
    with pytest.raises(
        SettingError, match="is not an SQLite file, expected one of an earlier search or none"
    ):
        tuned(1)
    assert (tmp_path / "trials.sqlite").read_text() == "my notes"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"n_trials": None}, SettingError, "neither a budget nor a number of trials"),
        ({"n_trials": 0}, SettingError, "trials is 0, expected at least 1"),
        ({"network": "mpl"}, SettingError, "network is 'mpl'"),
        ({"engine": "scrach"}, SettingError, "engine is 'scrach'"),
    ],
)
def test_wrong_words_are_refused_before_a_file_is_written(
    tuned: Tune, tmp_path: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        tuned(**options)
    assert not list(tmp_path.iterdir())


def test_a_class_of_two_images_cannot_be_parted_in_three(tuned: Tune, few: Dataset) -> None:
    keep = np.flatnonzero((few.labels != "2") | (np.cumsum(few.labels == "2") <= 2))
    with pytest.raises(DataError, match=r"class '2' .* has 2 training images, expected at least 3"):
        tuned(1, dataset=few.subset(keep))


def test_a_place_with_odd_characters_is_a_place(few: Dataset, tmp_path: Path) -> None:
    place = tmp_path / "what? 50% #1" / "t.sqlite"
    options: dict[str, Any] = {"network": "mlp", "engine": "scratch", "budget_s": None}
    tune_training(few, storage=place, n_trials=1, **options)
    assert place.is_file() and tune_training(few, storage=place, n_trials=1, **options).n_resumed == 1
