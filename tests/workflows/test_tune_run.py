"""Tuning as a user asks for it: the report, the command that uses the winner, the verb, what is refused."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from command import Run, contents
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.data.stores import ArrayImages
from headstart.errors import DataError, SettingError
from headstart.evaluation.intervals import wilson
from headstart.interfaces.cli.main import app
from headstart.records import TrainSettings
from headstart.report.page import render
from headstart.sources.features import Extraction
from headstart.sources.fitting import fitting_policy
from headstart.strategies.scratch import learn_network
from headstart.workflows.tune import run as tunings
from headstart.workflows.tune.features import FeatureTuning
from headstart.workflows.tune.request import Search, SearchRequest
from headstart.workflows.tune.run import augmentations_for, policies_for, run_tuning
from headstart.workflows.tune.training import TrainingTuning, tune_training

PLAIN = Extraction(runtime="onnxruntime")


@pytest.fixture
def few(digits: Dataset) -> Dataset:
    """90 images of three digits."""
    return replace(digits.subset(np.flatnonzero(np.isin(digits.labels, ["0", "1", "2"]))[:90]),
                   classes=("0", "1", "2"))  # fmt: skip


@pytest.fixture
def photos(desk: Path, digits: Dataset) -> Path:
    """A folder of pictures, oblong, of what is no character."""
    assert isinstance(digits.images, ArrayImages)
    for name, label in (("ants", "1"), ("bees", "8")):
        (desk / "photos" / name).mkdir(parents=True)
        for index in np.flatnonzero(digits.labels == label)[:12]:
            wide = np.repeat(digits.images.pixels[index, ..., 0], 2, axis=1)
            Image.fromarray(wide).save(desk / "photos" / name / f"{index}.png")
    return desk / "photos"


# --- what is tried when nobody says


def test_characters_are_tried_as_ink_and_as_handwriting(few: Dataset) -> None:
    assert policies_for(few) == ("ink",)
    augmentations = augmentations_for(few, n_copies=2)
    assert list(augmentations) == ["handwriting"] and augmentations["handwriting"].n_copies == 2
    assert policies_for(few, ["crop", "squish", "crop"]) == ("crop", "squish")
    assert augmentations_for(few, ["none"]) == {} and list(augmentations_for(few, ["none", "photo"])) == [
        "photo"
    ]


def test_photos_are_tried_in_every_shape_and_mirrored(photos: Path) -> None:
    dataset = load(str(photos))
    assert policies_for(dataset) == ("squish", "crop", "letterbox")
    assert augmentations_for(dataset)["photo"].flips


def test_without_torch_no_views_are_tried(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "headstart.workflows.tune.run.find_spec", lambda name: None if name == "torch" else object()
    )
    assert augmentations_for(few) == {}
    assert list(augmentations_for(few, ["photo"])) == ["photo"]  # asked for: an error later, not silence


def test_the_preparation_that_transfer_takes_is_the_default(desk: Path, digits: Dataset) -> None:
    """A network of digits reads drawings of another size by ink, in transfer and here."""
    model = learn_network(digits.subset(np.arange(300)), settings=TrainSettings(epochs=1)).model
    model.save(desk / "network")
    drawings = load("omniglot-greek").subset(np.arange(80))
    assert fitting_policy(model.source(), drawings) == "ink"
    request = SearchRequest(str(desk / "network"), drawings, Search(), 0, "", "omniglot-greek")
    assert next(iter(tunings._sources(request, policies_for(drawings)))) == "ink"


# --- the report


def test_the_verdict_is_about_images_that_the_search_did_not_see(few: Dataset) -> None:
    done = run_tuning("pixels", few, Search(augments=()), options=PLAIN, command="headstart tune x")
    found, result = done.found, done.result
    assert isinstance(found, FeatureTuning)
    rows = {row.strategy: row for row in result.rows}
    assert list(rows) == ["tuned", "default preparation", "default settings", "majority"]
    assert rows["tuned"].accuracy == found.nested
    assert f"{found.nested.value:.2%}" in result.verdict
    assert any(f"best of {len(found.trials):,}" in remark for remark in result.remarks)
    worst = min(result.comparisons, key=lambda one: one.difference.value)
    assert worst.control in result.verdict and worst.control != "majority"
    assert result.factors == found.factors and result.judged_on == "nested cross-validated training"
    assert {table.title for table in result.tables} == {"Importance of the settings", "The best trials"}
    page = render(result)
    for text in (
        "Importance of the settings",
        "headstart tune x",
        "nested cross-validated training",
        "Use it: headstart",
    ):
        assert text in page, text
    assert [one.p_adjusted >= one.difference.p_value for one in result.comparisons] == [True] * 3


def test_the_report_of_a_network_says_both_scores(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flattered(*words: Any, **options: Any) -> TrainingTuning:
        return replace(tune_training(*words, **options), selection=wilson(17.5, 18))

    monkeypatch.setattr(tunings, "tune_training", flattered)
    search = Search(n_trials=2, engine="scratch", storage=tmp_path / "t.sqlite")
    done = run_tuning("mlp", few, search, data="digits:0-2")
    found, result = done.found, done.result
    assert isinstance(found, TrainingTuning)
    assert [row.accuracy for row in result.rows] == [found.evaluation, found.default]
    assert f"{found.evaluation.value:.2%}" in result.verdict and "97.22%" not in result.verdict
    assert any("97.22%" in one and "selected on" in one for one in result.remarks)
    assert result.judged_on == "held-out training" and "held-out training" in render(result)
    assert [table.title for table in result.tables] == ["The best trials"]  # two trials tell nothing more
    assert done.command.startswith("headstart train digits:0-2 -o MODEL --network mlp --engine scratch")
    assert found.best.regime != found.default_regime
    (untyped,) = (one for one in result.remarks if "no option yet" in one)
    assert "width" in untyped and "learning rate" not in untyped


@pytest.mark.parametrize("name", ["pixels", "mlp"])
def test_the_recommended_command_can_be_typed(
    name: str, run: Run, desk: Path, few: Dataset, tmp_path: Path
) -> None:
    search = Search(
        policies=None if name == "mlp" else ("squish",),
        n_trials=2 if name == "mlp" else None,
        engine="scratch" if name == "mlp" else None,
        storage=tmp_path / "t.sqlite",
    )
    if name == "pixels":
        search = replace(search, augments=())
    done = run_tuning(name, few, search, seed=3, options=PLAIN, data="digits:0-2")
    words = [desk / "m" if word == "MODEL" else word for word in shlex.split(done.command)[1:]]
    said = run(*words)
    assert said.code == 0, said.err
    assert words[-2:] == ["--seed", "3"] and (desk / "m" / "manifest.json").is_file()


@pytest.mark.slow
def test_images_that_the_source_has_seen_are_a_remark(few: Dataset, tmp_path: Path) -> None:
    """Rank and transfer said so, the search did not."""
    trained = learn_network(few, network="mlp", engine="scratch", settings=TrainSettings(epochs=1)).model
    name = str(trained.save(tmp_path / "source"))
    found = run_tuning(name, few, Search(augments=(), policies=("squish",)), options=PLAIN)
    assert any("the source saw 90 of these 90 images" in remark for remark in found.result.remarks)


# --- what is refused


@pytest.mark.parametrize(
    ("name", "search", "said"),
    [
        ("mlp", Search(policies=("crop",)), "policies is .*, expected it left out for a network"),
        ("mlp", Search(size_px=64), "size is 64, expected it left out for a network"),
        ("mlp", Search(augments=("photo",)), "augments is .*, expected it left out for a network"),
        ("mlp", Search(n_copies=2), "copies is 2, expected it left out for a network"),
        ("pixels", Search(engine="torch"), "engine is 'torch', expected it left out for a source"),
        ("pixels", Search(n_trials=3), "trials is 3, expected it left out for a source"),
        ("pixels", Search(policies=("crp",)), "policy is 'crp', expected one of .*nearest are crop"),
        ("pixels", Search(augments=("photos",)), "nearest are photo"),
    ],
)
def test_options_that_mean_nothing_are_refused(few: Dataset, name: str, search: Search, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        run_tuning(name, few, search)


@pytest.mark.parametrize("name", ["pixels", "mlp"])
def test_an_image_in_two_splits_is_refused(few: Dataset, name: str, tmp_path: Path) -> None:
    doubled = few.subset(np.concatenate([np.arange(60), [0, 1, 2]]))
    leaking = replace(doubled, splits=np.array(["train"] * 60 + ["test"] * 3))
    with pytest.raises(DataError, match="in two splits"):
        run_tuning(name, leaking, Search(storage=tmp_path / "t.sqlite"))
    assert not list(tmp_path.iterdir())


# --- the verb


Tune = Callable[..., Result]


@pytest.fixture
def tune(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    def invoke(*words: Any) -> Result:
        monkeypatch.setattr(sys, "argv", ["headstart", "tune", *map(str, words)])
        return CliRunner().invoke(app, ["tune", *map(str, words), "--runtime", "onnxruntime"])

    return invoke


def test_the_verb_writes_a_report_and_says_what_it_found(tune: Tune, photos: Path) -> None:
    said = tune("pixels", "photos", "-o", "out", "--policies", "squish,letterbox", "--augments", "none")
    assert said.exit_code == 0, said.output
    assert sorted(contents(Path("out"))) == ["card.md", "report.html", "result.json"]
    assert "Use it: headstart transfer pixels photos -o MODEL --layer values" in said.stdout
    assert said.stdout.endswith("\nReport: out/report.html\n") and said.stderr == ""
    document = json.loads(Path("out/result.json").read_text())
    assert document["judged_on"] == "nested cross-validated training" and document["verdict"] in said.stdout
    assert "headstart tune pixels photos -o out" in Path("out/report.html").read_text()
    assert {one["name"] for one in document["factors"]} >= {"preparation", "head"}


def test_the_verb_goes_on_with_a_network_and_answers_machines(tune: Tune) -> None:
    words = ("mlp", "digits:0-2", "-o", "out", "--engine", "scratch", "--json", "--trials")
    first = tune(*words, 1)
    assert first.exit_code == 0, first.output
    Path("out/result.json").unlink()  # as a search that was killed leaves it
    document = json.loads(tune(*words, 2).stdout)
    assert document["report"] == "out/report.html" and document["command"].startswith("headstart train")
    assert document["result"]["sizes"]["trials"] == 2
    assert sorted(contents(Path("out"))) == ["card.md", "report.html", "result.json", "trials.sqlite"]


def test_a_budget_that_is_too_small_is_said(digits: Dataset) -> None:
    some = digits.subset(np.arange(60))
    said = run_tuning("pixels", some, Search(budget_s=1e-6)).result.remarks
    assert any(one.startswith("The search took") and "budget of 1e-06 s" in one for one in said)
    assert not any("The search took" in one for one in run_tuning("pixels", some).result.remarks)


def test_the_verb_leaves_the_folders_of_others_alone(tune: Tune, desk: Path) -> None:
    (desk / "out").mkdir()
    (desk / "out/diary.txt").write_text("mine")
    said = tune("pixels", "digits", "-o", "out")
    assert isinstance(said.exception, SettingError) and "expected a new or empty folder" in str(
        said.exception
    )
    said = tune("pixels", "digits", "-o", "new", "--budget", "soon")
    assert isinstance(said.exception, SettingError) and "write it like 90s, 5m or 1h" in str(said.exception)
    assert not (desk / "new").exists()
