"""A training as a user asks for it: whose settings, what is written where, what the report says."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import ERROR, Run, Said, contents
from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays, load
from headstart.models.model import Model, open_model
from headstart.networks.logs.jsonlines import JsonLines
from headstart.networks.specs import training_for
from headstart.records import TrainSettings
from headstart.strategies.judge import cross_fitted
from headstart.workflows.train import run as trainings
from headstart.workflows.train.request import TrainingFiles, TrainingRequest, checkpoints_of, log_of
from headstart.workflows.train.run import run_training

SMALL = ("--network", "mlp", "--engine", "scratch", "--epochs", "2")


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    return digits.subset(range(600))


class Recorded:
    """Progress that keeps what is remarked."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Nothing."""

    def remark(self, text: str) -> None:
        self.remarks.append(text)


def settings_of(output: Path) -> dict[str, Any]:
    return dict(open_model(output).manifest.settings)


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (log_of(output) / "training.jsonl").read_text().splitlines()]


# --- whose settings


def settled(wanted: TrainingRequest) -> tuple[TrainSettings, Any, bool]:
    return trainings._settings(wanted)


def test_a_network_brings_its_settings_and_its_augmentation() -> None:
    own, preset = training_for("best")
    settings, augmentation, auto = settled(TrainingRequest("best"))
    assert settings == own and preset is not None and augmentation is not None and not auto
    assert settled(TrainingRequest("cnn")) == (TrainSettings(), None, False)


def test_what_is_given_replaces_the_networks_own() -> None:
    own, _ = training_for("best")
    settings, augmentation, auto = settled(
        TrainingRequest("best", augment="none", settings={"epochs": 2, "learning_rate": "auto", "mixup": 0.1})
    )
    assert (settings.epochs, settings.mixup, augmentation, auto) == (2, 0.1, None, True)
    assert settings.schedule == own.schedule and settings.learning_rate == own.learning_rate
    _, augmentation, _ = settled(TrainingRequest("cnn", augment="shear=0.2"))
    assert augmentation is not None and augmentation.operations == (("shear", 0.2),)


def test_options_of_the_command_reach_the_model(run: Run, desk: Path) -> None:
    given = (
        *("--optimizer", "adamw", "--weight-decay", "0.02", "--schedule", "cosine", "--batch-size", "64"),
        *("--label-smoothing", "0.1", "--learning-rate", "0.002", "--patience", "1", "--seed", "3"),
    )
    assert run("train", "digits", "-o", "m", *SMALL, *given, "--device", "cpu").code == 0
    found = settings_of(desk / "m")
    wanted = {
        "optimizer": "adamw",
        "weight_decay": 0.02,
        "schedule": "cosine",
        "batch_size": 64,
        "label_smoothing": 0.1,
        "learning_rate": 0.002,
        "patience": 1,
        "seed": 3,
        "epochs": 2,
    }
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.slow
def test_torch_takes_the_rest(run: Run, desk: Path) -> None:
    words = ("train", "digits:0-1", "-o", "m", "--network", "best", "--epochs", "1", "--mixup", "0.2")
    said = run(*words, "--ema", "0.9", "--augment", "shear=0.1", "--device", "cpu")
    assert said.code == 0, said.err
    found = settings_of(desk / "m")
    assert (found["mixup"], found["ema"], found["engine"]) == (0.2, 0.9, "torch")
    assert found["augmentation"]["operations"] == {"shear": 0.1}
    own, _ = training_for("best")
    assert (found["schedule"], found["learning_rate"]) == (own.schedule, own.learning_rate)
    assert "torch on cpu" in (desk / "m" / "report.html").read_text()


# --- the learning rate


def test_a_rate_found_by_itself_is_used_told_and_drawn(run: Run, desk: Path) -> None:
    said = run("train", "digits", "-o", "m", *SMALL, "--learning-rate", "auto")
    assert said.code == 0
    rate = settings_of(desk / "m")["learning_rate"]
    assert 1e-4 < rate < 0.3 and f"learning rate {rate:.2g}, found by a rate test" in said.err
    page = (desk / "m" / "report.html").read_text()
    assert page.index('<section id="figures">') < page.index('<section id="training">')
    assert f"suggested: {float(f'{rate:.2g}'):g}" in page
    assert lines(desk / "m")[0]["settings"]["learning_rate"] == rate
    assert run("train", "digits", "-o", "m", *SMALL).code == 0
    assert 'id="figures"' not in (desk / "m" / "report.html").read_text()


def test_where_the_loss_is_flat_the_networks_own_rate_is_used(few: Dataset, tmp_path: Path) -> None:
    blank = from_arrays(np.random.default_rng(0).integers(0, 2, (600, 8, 8)).astype(np.uint8), few.labels)
    wanted = TrainingRequest("mlp", "scratch", settings={"epochs": 2, "learning_rate": "auto"})
    said = Recorded()
    done = run_training(blank, wanted, TrainingFiles(tmp_path / "m"), progress=said)
    own = training_for("mlp")[0].learning_rate
    assert settings_of(tmp_path / "m")["learning_rate"] == own
    sentence = f"no learning rate was suggested, the network's default {own:.2g} is used: loss does not fall"
    assert any(one.startswith(sentence) for one in said.remarks)
    assert any(sentence in one for one in done.result.remarks) and not done.result.figures
    assert "found by a test" not in (tmp_path / "m" / "report.html").read_text()


def test_a_rate_that_cannot_be_found_is_an_error_with_a_way_out(refused: Callable[..., Said]) -> None:
    words = ("train", "digits", "-o", "m", *SMALL, "--batch-size", "1", "--learning-rate", "auto")
    refused(*words, "--optimizer", "adamm", names=("'adamm'",))
    refused("train", "digits", "-o", "m", *SMALL, "--learning-rate", "fast", names=("'fast'", "or auto"))


# --- what is written where


def test_the_log_tells_settings_epochs_and_scores(few: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "runs" / "m"
    done = run_training(
        few, TrainingRequest("mlp", "scratch", settings={"epochs": 2}), TrainingFiles(output), command="typed"
    )
    assert done.log == tmp_path / "runs" / "m.log" / "training.jsonl"
    started, *epochs, finished = lines(output)
    assert started["settings"]["epochs"] == 2 and started["data"]["fingerprint"] == few.fingerprint
    assert started["command"] == "typed" and started["network"] == "mlp" and started["device"] == "cpu"
    assert [one["number"] for one in epochs] == [1, 2]
    assert finished["val_accuracy"] == done.learned.model.manifest.scores["val_accuracy"]
    assert sorted(one.name for one in output.parent.iterdir()) == ["m", "m.log"]


def test_tensorboard_and_mlflow_are_told_too(few: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    pytest.importorskip("mlflow")
    keeping = TrainingFiles(tmp_path / "m", logs=("tensorboard", "mlflow"))
    run_training(few, TrainingRequest("mlp", "scratch", settings={"epochs": 1}), keeping)
    names = {one.name for one in (tmp_path / "m.log").iterdir()}
    assert names == {"training.jsonl", "tensorboard", "mlruns", "mlflow.json"}
    assert any((tmp_path / "m.log" / "tensorboard").iterdir())


def test_a_log_that_fails_costs_a_remark_not_the_model(
    run: Run, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JsonLines, "epoch", full)
    said = run("train", "digits", "-o", "m", *SMALL)
    assert said.code == 0 and said.err.count("\n") == 1
    assert "log training.jsonl failed and is disabled" in said.err and open_model("m")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--log", "tensorbord"), ("'tensorbord'", "nearest", "tensorboard")),
        (("--checkpoint-every", "soon"), ("'soon'", "90s, 5m or 1h")),
        (("--device", "cuda"), ("'cuda'", "scratch")),
        (("--mixup", "0.2"), ("mixup is 0.2", "torch")),
        (("--augment", "huge"), ("'huge'",)),
        (("--patience", "1", "--batch-size", "7", "--schedule", "onecycle"), ("'onecycle'",)),
    ],
)
def test_what_is_refused_leaves_nothing(
    refused: Callable[..., Said], words: tuple[str, ...], names: tuple[str, ...]
) -> None:
    refused("train", "digits", "-o", "m", *SMALL, *words, names=names)


def test_a_log_without_its_package_is_refused_before_anything_is_computed(
    refused: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings, "_LOG_PACKAGES", {"mlflow": "no_such_package"})
    monkeypatch.setattr(trainings, "learn_network", lambda *_, **__: pytest.fail("it trained"))
    refused(
        "train", "digits", "-o", "m", *SMALL, "--log", "mlflow", names=("log 'mlflow'", "headstart[track]")
    )


@pytest.mark.parametrize("moment", ["prepare", "find_rate", "load"])
def test_interrupted_before_the_first_step_nothing_is_left(
    run: Run, desk: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    place = {
        "prepare": "headstart.strategies.scratch.prepare",
        "find_rate": "headstart.workflows.train.monitor.find_rate",
        "load": "headstart.data.readers.load.load",
    }
    monkeypatch.setattr(place[moment], stop)
    said = run("train", "digits", "-o", "m", *SMALL, "--learning-rate", "auto")
    assert (said.code, said.out, said.err) == (130, "", "")
    assert contents(desk) == {}


def test_interrupted_while_the_model_is_put_together_it_can_go_on(
    run: Run, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as broken:
        broken.setattr("headstart.strategies.scratch.network_model", stop)
        said = run("train", "digits", "-o", "m", *SMALL)
    assert said.code == 130 and "continue with the same command and --resume" in said.err
    assert not (desk / "m").exists()
    assert run("train", "digits", "-o", "m", *SMALL, "--resume").code == 0
    assert open_model("m").manifest.settings["epochs"] == 2


def test_places_beside_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkpoints_of(Path("runs/v1.5")) == Path("runs/v1.5.checkpoints")
    assert log_of(Path(".")) == tmp_path.with_name(f"{tmp_path.name}.log")
    assert checkpoints_of(Path("a/..")).parent == tmp_path.parent


# --- the report


def test_the_report_says_how_good_it_is_and_how_it_was_made(run: Run, desk: Path) -> None:
    said = run("train", "digits", "-o", "m", *SMALL, "--patience", "1", "--json")
    result = said.document["result"]
    (found,) = result["evaluations"]
    assert result["sizes"]["validation"] == 180
    assert found["accuracy"]["n"] == 90, "the other half decided when to stop"
    assert sum(map(sum, found["confusion"])) == 90
    assert result["calibrations"][0]["n"] == 90 and len(result["curves"][0]["steps"]) == 2
    assert result["verdict"].startswith("mlp classifies ") and "90 validation images" in result["verdict"]
    assert "90 others were used for early stopping" in result["summary"]
    table = dict(result["tables"][0]["lines"])
    assert table["epochs"] == "2" and table["patience"] == "1" and table["augmentation"] == "none"
    assert result["facts"]["command"].startswith("headstart train digits -o m")
    page = (desk / "m" / "report.html").read_text()
    for words in ("<h2>Training</h2>", "Confusion matrix", "Calibration of the probabilities", "precision"):
        assert words in page
    assert result["verdict"].split(" [")[0] in page


def test_of_few_images_the_figure_is_cross_validated(run: Run, desk: Path) -> None:
    tiny = load("digits:0-1").subset(range(40))
    done = run_training(
        tiny, TrainingRequest("mlp", "scratch", settings={"epochs": 1}), TrainingFiles(desk / "m")
    )
    assert not isinstance(done, Model)
    (found,) = done.result.evaluations
    assert found.accuracy.n == 40 and "40 cross-validated images" in done.result.verdict
    assert done.learned.model.manifest.scores["cv_accuracy"] == found.accuracy.value
    sets = done.learned.model.manifest.answer_sets
    assert (sets["images"], sets["n_images"]) == ("cross-validated", 40)
    assert (desk / "m" / "report.html").is_file()


def test_copies_calibrate_on_one_side_of_the_halves() -> None:
    rng, cluster = np.random.default_rng(0), np.arange(60).repeat(2)
    logits = rng.normal(size=(60, 3)).astype(np.float32)[cluster] * 4
    codes = rng.integers(0, 3, 60)[cluster]
    answers = cross_fitted(logits, codes, seed=0, clusters=cluster)
    changed = codes.copy()
    changed[:2] = (codes[0] + 1) % 3
    moved = (cross_fitted(logits, changed, seed=0, clusters=cluster) != answers).any(axis=1)
    assert moved.any() and not moved[:2].any(), "no image's own label decides its temperature"


def test_a_flip_of_digits_is_warned_of(few: Dataset, tmp_path: Path) -> None:
    wanted = TrainingRequest("mlp", settings={"epochs": 1}, augment="flip=0.5")
    done = run_training(few, wanted, TrainingFiles(tmp_path / "m"))
    assert any("flip changes what digits" in one for one in done.result.remarks)


def test_a_model_in_the_way_of_somebody_else_is_refused_first(
    refused: Callable[..., Said], desk: Path
) -> None:
    (desk / "m").mkdir()
    (desk / "m" / "thesis.txt").write_text("years")
    said = refused("train", "no-such-data", "-o", "m", *SMALL, names=("'m'",))
    assert said.err.startswith(ERROR)


def test_noise_listed_twice_is_answered_by_chance(desk: Path) -> None:
    """Random labels, every image twice: copies stay in one fold, in one part of every split."""
    rng = np.random.default_rng(0)
    pixels = np.repeat(rng.integers(0, 256, (60, 8, 8)).astype(np.uint8), 2, axis=0)
    twice = from_arrays(pixels, np.repeat(np.array(["a", "b"])[rng.integers(0, 2, 60)], 2))
    wanted = TrainingRequest("mlp", "scratch", settings={"epochs": 20})
    done = run_training(twice, wanted, TrainingFiles(desk / "m"))
    (found,) = done.result.evaluations
    assert found.accuracy.low < 0.5 < found.accuracy.high and found.accuracy.n == 120
