"""Evaluation: new and learned images are told apart whatever their names, files and formats."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from command import Run, Said
from headstart.data.checks.seen import recognise
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.evaluation.clusters import clustered_score
from headstart.models.model import Model, open_model
from headstart.records import TrainSettings
from headstart.workflows.evaluate import run_evaluation
from synthetic_images import fields

SHADES = {"dark": 0.55, "light": 1.3}


def painted(folder: Path, n_images: int, seed: int) -> Path:
    """A folder of photo-like images, dark and light."""
    for code, (name, shade) in enumerate(SHADES.items()):
        (folder / name).mkdir(parents=True)
        for number, pixels in enumerate(fields(n_images, 120, seed=2 * seed + code)):
            image = Image.fromarray((pixels * shade).clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{number}.jpg", quality=92)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``known`` and ``strangers``, 24 and 16 images; ``m``, a model of the first."""
    home = tmp_path_factory.mktemp("photos")
    known = painted(home / "known", 12, 0)
    painted(home / "strangers", 8, 1)
    hs.transfer("pixels", load(known), head="ridge").save(home / "m")
    return home


def table(path: Path, rows: list[tuple[Path, str, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    return path


def listed(folder: Path, most: int = 99) -> list[tuple[Path, str, str]]:
    """Images of a folder by label, in two groups of each."""
    return [
        (path, name, f"{name} {number % 2}")
        for name in SHADES
        for number, path in enumerate(sorted((folder / name).iterdir())[:most])
    ]


def test_its_own_training_folder_has_no_new_images(run: Run, home: Path) -> None:
    said = run("evaluate", home / "m", home / "known")
    assert said.code == 0 and said.err.startswith(
        "headstart: warning: none of the 24 images is new to the model"
    )
    assert "no estimate of its accuracy on new images" in said.err and said.err.count("\n") == 1
    assert "new images                0 " in said.out and "images learned from      24 " in said.out
    assert "24 images that the model learned from: no estimate" in said.out
    found = run("evaluate", home / "m", home / "known", "--json").document
    assert found["about"] == "images learned from" and found["new"] is None
    assert found["learned"]["n"] == 24 == found["counts"]["learned"] and len(found["warnings"]) == 1
    assert found["title"].endswith("images learned from")


def test_renamed_and_reencoded_copies_are_learned_images(home: Path, tmp_path: Path) -> None:
    for number, (path, name, _) in enumerate(listed(home / "known")):
        (tmp_path / name).mkdir(exist_ok=True)
        image = Image.open(path)
        place = tmp_path / name / f"IMG_{100 - number}"
        if number % 3 == 0:
            image.save(place.with_suffix(".png"))
        elif number % 3 == 1:
            image.save(place.with_suffix(".jpg"), quality=50)
        else:
            image.resize((60, 60)).resize((90, 90)).save(place.with_suffix(".webp"), quality=90)
    with pytest.warns(UserWarning, match="none of the 24 images is new"):
        found = hs.evaluate(home / "m", str(tmp_path))
    assert found.counts["learned"] == 24 and found.counts["near_copies"] == 16, "PNG has the same pixels"


def test_a_mixture_is_divided(run: Run, home: Path, tmp_path: Path) -> None:
    mixed = table(tmp_path / "mixed.csv", [*listed(home / "known", 5), *listed(home / "strangers", 6)])
    said = run("evaluate", home / "m", mixed, "--json")
    found = said.document
    assert (found["new"]["n"], found["learned"]["n"], said.err) == (12, 10, "")
    assert found["about"] == "new images" and found["accuracy"] == found["new"]
    assert np.sum(found["confusion"]) == 12 == found["calibration"]["n"]
    alone = run("evaluate", home / "m", home / "strangers", "--json").document
    assert (alone["new"]["n"], alone["learned"], alone["counts"]["learned"]) == (16, None, 0)


def test_groups_widen_the_intervals(home: Path, tmp_path: Path) -> None:
    model, strangers = open_model(home / "m"), load(table(tmp_path / "t.csv", listed(home / "strangers")))
    assert strangers.groups is not None
    found = run_evaluation(model, strangers)
    right = model.probabilities(strangers).argmax(axis=1) == strangers.codes(model.classes)
    assert found.new == clustered_score(right, strangers.groups) == found.evaluation.accuracy
    assert found.n_groups == 4 and any("4 groups" in remark for remark in found.remarks)
    plain = run_evaluation(model, replace(strangers, groups=None))
    assert found.new is not None and plain.new is not None and found.new.low < plain.new.low
    single = run_evaluation(model, replace(strangers, groups=np.full(16, "only")))
    assert single.new is not None and (single.new.low, single.new.high) == (0, 1)
    assert any("one group" in remark for remark in single.remarks)


def test_a_test_set_without_a_class_uses_the_others(run: Run, home: Path, tmp_path: Path) -> None:
    dark = [row for row in listed(home / "strangers") if row[1] == "dark"]
    said = run("evaluate", home / "m", table(tmp_path / "dark.csv", dark))
    assert said.code == 0 and "there are no images of class 'light'" in said.out
    found = run("evaluate", home / "m", tmp_path / "dark.csv", "--json").document
    assert found["absent_classes"] == ["light"]
    assert found["macro"]["recall"]["value"] == found["per_class"][0]["recall"]["value"]
    extra = table(tmp_path / "extra.csv", [*dark, (home / "strangers" / "light" / "0.jpg", "green", "g")])
    said = run("evaluate", home / "m", extra)
    assert said.code == 1 and "has class 'green', expected only classes of model" in said.err


def test_a_model_without_a_record_is_a_warning(run: Run, home: Path, tmp_path: Path) -> None:
    replace(open_model(home / "m"), seen=None).save(tmp_path / "old")
    said = run("evaluate", tmp_path / "old", home / "known")
    assert "has no record of its training images" in said.err and said.code == 0
    assert "images  " in said.out and "it is unknown whether the model learned from them" in said.out
    found = run("evaluate", tmp_path / "old", home / "known", "--json").document
    assert (found["about"], found["new"], found["learned"], found["counts"]) == (
        "images",
        None,
        None,
        {"images": 24},
    )


def test_holdout_is_found_again(run: Run, home: Path, tmp_path: Path) -> None:
    made = run(
        "transfer", "pixels", home / "known", "-o", tmp_path / "h", "--head", "ridge", "--holdout", "0.25"
    )
    assert made.code == 0 and "6 images (25%, seed 0) were held out as a test set" in made.out
    assert open_model(tmp_path / "h").manifest.data["holdout"] == {"share": 0.25, "seed": 0, "n_images": 6}
    said = run("evaluate", tmp_path / "h", home / "known")
    assert said.err == "" and "the 6 images held out when the model was made (share 0.25, seed 0)" in said.out

    def counts(*words: object) -> dict[str, int]:
        return dict(run("evaluate", tmp_path / "h", *words, "--json").document["counts"])

    known = home / "known"
    assert counts(known)["images"] == counts(known)["new"] == counts(known, "--split", "test")["new"] == 6
    assert counts(known, "--split", "train") | {"near_copies": 0} == counts(known, "--split", "train")
    assert counts(known, "--split", "train")["learned"] == 18
    everything = counts(known, "--split", "all")
    assert (everything["new"], everything["learned"]) == (6, 18)
    assert counts(home / "strangers")["new"] == 16, "other data are evaluated whole"
    grown = table(tmp_path / "grown.csv", [*listed(home / "known"), *listed(home / "strangers", 2)])
    said = run("evaluate", tmp_path / "h", grown)
    assert "the other 22 (4 of them new) are left out" in said.out
    said = run("evaluate", tmp_path / "h", home / "strangers", "--split", "val")
    assert said.code == 1 and "has no image in dataset" in said.err


@pytest.mark.filterwarnings("ignore:The network is not significantly better")  # one epoch
def test_the_images_held_out_are_the_same_for_all_who_make_models(home: Path) -> None:
    known = load(home / "known")
    made = [
        hs.transfer("pixels", known, head="ridge", holdout=0.25),
        hs.train(known, network="mlp", engine="scratch", settings=hs.TrainSettings(epochs=1), holdout=0.25),
    ]
    tests = [
        {bytes(one) for one in model.seen.digests[model.seen.roles == 4]} for model in made if model.seen
    ]
    assert tests[0] == tests[1] and len(tests[0]) == 6
    assert all(hs.evaluate(model, known).counts["images"] == 6 for model in made)


@pytest.mark.slow
def test_images_of_the_source_are_not_new(digits: Dataset) -> None:
    quick = hs.TrainSettings(epochs=1)
    source = hs.train(digits, network="mlp", engine="scratch", settings=quick)
    model = hs.transfer(source, load("digits:parity"), layer="hidden1", head="ridge", judge=False)
    found = hs.evaluate(model, "digits:parity")
    assert found.counts["learned_by_source"] > 100 and any("source network" in one for one in found.remarks)
    assert found.counts["new"] + found.counts["learned"] == 1797 and found.counts["new"] < 60
    source = hs.train(digits, network="mlp", engine="scratch", settings=quick, holdout=0.2)
    model = hs.transfer(
        source, load("digits:parity"), layer="hidden1", head="ridge", holdout=0.2, judge=False
    )
    found = hs.evaluate(model, "digits:parity")
    assert (found.counts["new"], found.counts["learned"], found.split) == (359, 0, "test")


def test_copies_count_as_one_image(home: Path) -> None:
    strangers = load(home / "strangers")
    few = strangers.subset(np.repeat(np.arange(16), 10))
    found, alone = (run_evaluation(open_model(home / "m"), one) for one in (few, strangers))
    assert found.new is not None and alone.new is not None and found.new.value == alone.new.value
    assert any("144 of the 160 images are copies" in one for one in found.remarks)
    once = run_evaluation(open_model(home / "m"), strangers.subset(np.zeros(30, int)))
    assert once.new is not None and (once.new.low, once.new.high) == (0, 1)


def test_copies_of_part_of_the_test_set_are_not_all_of_it(home: Path) -> None:
    known = load(home / "known")
    model = hs.transfer("pixels", known, head="ridge", holdout=0.25)
    whole = run_evaluation(model, known)
    test = run_evaluation(model, known, split="test")
    assert test.counts["images"] == 6 and whole.split == "test"
    assert model.seen is not None
    held = recognise(known.images, model.seen).of("test")
    some = known.subset(np.repeat(np.flatnonzero(held)[:2], 5))
    found = run_evaluation(model, some)
    assert any("2 of the 6 images of the model's own test set are here" in one for one in found.remarks)


def test_validation_images_are_new_with_a_remark(digits: Dataset) -> None:
    model = hs.transfer("pixels", digits, head="ridge")
    found = hs.evaluate(model, digits)
    assert (found.counts["new"], found.counts["validation"]) == (180, 180)
    assert not any("slightly optimistic" in one for one in found.remarks), "a transfer is only judged by them"
    model = hs.train(digits, network="mlp", engine="scratch", settings=TrainSettings(epochs=1))
    found = hs.evaluate(model, digits)
    assert found.counts["validation"] == 180
    assert any("180 of the new images were held out" in one for one in found.remarks)


def test_every_way_to_make_a_model_records_its_images(digits: Dataset, tmp_path: Path) -> None:
    some = digits.subset(np.arange(300))
    made = hs.TransferClassifier(head="ridge").fit(some)
    made.save(tmp_path / "c")
    assert run_evaluation(open_model(tmp_path / "c"), some).counts["learned"] == 300
    made = hs.TransferClassifier(head="ridge").fit(some.images.pixels, some.labels)
    assert made.model_.seen is not None and made.model_.seen.count("learned") == 300


def test_refusals_of_holdout_are_one_sentence(refused: Callable[..., Said], home: Path) -> None:
    refused("transfer", "pixels", home / "known", "-o", "x", "--holdout", "1.5", names=("holdout is 1.5",))
    refused("train", home / "known", "-o", "x", "--holdout", "0", names=("holdout is 0.0",))


def test_a_model_keeps_its_record_in_memory(home: Path) -> None:
    model = open_model(home / "m")
    assert isinstance(model, Model) and model.source().seen is model.seen
