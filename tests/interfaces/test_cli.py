"""The command line as a user sees it: exit status, standard output and error, files left behind."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from command import ERROR, Run, Said, contents, pieces
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.graph import run as runtime
from headstart.interfaces.cli import main as cli
from headstart.models.model import open_model
from headstart.records import TrainSettings
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.strategies.scratch import learn_network

SMALL = ("--network", "mlp", "--engine", "scratch", "--epochs", "1")
# keys below these are names of the user's or of files, not ours
NAMED_BY_OTHERS = {
    "images_per_split_and_class",
    "modes",
    "formats",
    "polarity",
    "images_per_class",
    "layers",
    "files",
    "versions",
    "skipped",
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """``digits`` (ten classes, trained whole) and ``parity`` (a head on it); nobody may change them."""
    home = tmp_path_factory.mktemp("models")
    trained = learn_network(
        digits, network="mlp", engine="scratch", settings=TrainSettings(epochs=10, learning_rate=3e-3)
    )
    trained.model.save(home / "digits")
    learn_head(trained.model.source(), load("digits:parity"), Probe("hidden2", head="ridge")).model.save(
        home / "parity"
    )
    return home


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """``3-0.png`` ... : two pictures of each of the digits 3, 4 and 5, named for what they show."""
    home = tmp_path_factory.mktemp("images")
    for name in "345":
        for number, index in enumerate(np.flatnonzero(digits.labels == name)[:2]):
            save_picture(home / f"{name}-{number}.png", digits.images.pixels[index, ..., 0])
    return home


def save_picture(path: Path, pixels: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def grey(path: Path, seed: int = 0) -> Path:
    return save_picture(path, np.random.default_rng(seed).integers(0, 256, (8, 8)))


def check_keys(value: Any) -> None:
    """Snake case throughout, and every score whole."""
    if isinstance(value, list):
        for inner in value:
            check_keys(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            assert re.fullmatch(r"[a-z][a-z0-9_]*", key), key
            if key not in NAMED_BY_OTHERS:
                check_keys(inner)
        if "value" in value:
            assert {"value", "low", "high", "n"} <= set(value)
            assert value["low"] <= value["value"] <= value["high"] and isinstance(value["n"], int)


# --- the whole path on digits


def test_whole_path_from_training_to_prediction(run: Run, desk: Path, pictures: Path) -> None:
    made = ("--network", "mlp", "--engine", "scratch", "--holdout", "0.2")
    said = run("train", "digits", "-o", "source", *made)
    assert said.code == 0 and said.err == ""
    assert said.out.startswith("source: mlp on digits, 10 classes, trained in ")
    assert sorted(path.name for path in (desk / "source").iterdir()) == [
        "card.md",
        "learned.safetensors",
        "manifest.json",
        "model.onnx",
        "report.html",
        "samples.safetensors",
        "weights.safetensors",
    ]
    assert said.out.endswith("Report: source/report.html\nLog: source.log/training.jsonl\n")

    said = run("transfer", "source", "digits:parity", "-o", "parity", "--tap", "hidden1", "--head", "ridge",
               "--holdout", "0.2")  # fmt: skip
    assert (said.code, said.err) == (0, "")
    assert "source to digits:parity" in said.out and said.out.endswith("Report: parity/report.html\n")
    manifest = open_model("parity").manifest
    assert manifest.source["tap"] == "hidden1" and manifest.head["name"] == "ridge"

    said = run("evaluate", "parity", "digits:parity")
    assert (said.code, said.err) == (0, "")
    accuracy = re.search(r"accuracy (\S+) \[(\S+), (\S+)\] on 359 images", said.out)
    assert accuracy and 0.9 < float(accuracy[2]) < float(accuracy[1]) < float(accuracy[3]) <= 1
    for words in ("precision", "recall", "F1", "true \\ predicted", "even", "odd"):
        assert words in said.out

    said = run("predict", "parity", pictures / "4-0.png")
    assert (said.code, said.err) == (0, "")
    assert re.search(r"4-0\.png +even +[01]\.\d{4} +\d+\.\d+ +odd [01]\.\d{4}\n$", said.out), said.out
    assert sorted(path.name for path in desk.iterdir()) == ["parity", "source", "source.log"]


def test_train_as_json(run: Run, desk: Path) -> None:
    said = run("train", "digits:0-4", "-o", "m", *SMALL, "--json")
    check_keys(said.document)
    assert said.code == 0 and said.err == ""
    assert said.document["model"] == "m" and said.document["classes"] == list("01234")
    assert said.document["scores"]["val_accuracy"]["n"] == open_model("m").manifest.data["n_held"]
    assert said.document["learning_s"] >= 0
    assert said.document["report"] == "m/report.html" and said.document["log"] == "m.log/training.jsonl"
    assert said.document["result"]["evaluations"][0]["accuracy"] == said.document["scores"]["val_accuracy"]


@pytest.mark.slow
def test_transfer_as_json_without_a_cache(run: Run, desk: Path, models: Path) -> None:
    words = ("transfer", models / "digits", "digits:parity", "-o", "m", "--json", "--head", "prototypes")
    said = run(*words, "--no-cache")
    check_keys(said.document)
    assert said.document["head"]["name"] == "prototypes"
    assert said.document["scores"]["val_accuracy"]["n"] == 180
    assert "0 arrays" in run("cache").out


def test_pixels_and_random_networks_are_sources(run: Run, desk: Path) -> None:
    for source in ("pixels", "random:mlp"):
        assert run("transfer", source, "digits:0-1", "-o", "m", "--head", "ridge").code == 0
        assert open_model("m").classes == ("0", "1")


def test_evaluate_as_json(run: Run, models: Path) -> None:
    found = run("evaluate", models / "parity", "digits:parity", "--json").document
    check_keys(found)
    n_new = found["new"]["n"]
    assert found["about"] == "new images" and n_new + found["learned"]["n"] == 1797
    assert found["counts"]["learned"] == 1797 - n_new >= 1617
    assert found["classes"] == ["even", "odd"] and found["accuracy"] == found["new"]
    assert np.asarray(found["confusion"]).sum() == n_new
    assert [one["name"] for one in found["per_class"]] == ["even", "odd"]
    assert found["macro"]["recall"]["n"] == n_new and found["absent_classes"] == []
    assert found["calibration"]["n"] == n_new and found["detection"] is None and found["warnings"] == []


def test_evaluate_measures_the_detection_of_novel_images(run: Run, models: Path, desk: Path) -> None:
    (desk / "noise" / "x").mkdir(parents=True)
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        save_picture(desk / "noise" / "x" / f"{number}.png", noise)
    asked = ["evaluate", models / "parity", "digits:parity", "--novel", "noise"]
    found = run(*asked, "--json").document["detection"]
    assert found["auroc"]["value"] > 0.8 and found["detected"]["n"] == 12
    assert "known images rejected at that threshold" in run(*asked).out


def test_evaluate_uses_the_requested_split(run: Run, desk: Path, models: Path) -> None:
    digits = load("digits:parity")
    lines = ["path,label,split"]
    for number, (label, pixels) in enumerate(zip(digits.labels[:60], digits.images.pixels[:60], strict=True)):
        save_picture(desk / f"{number}.png", pixels[..., 0])
        lines.append(f"{number}.png,{label},{'test' if number < 20 else 'train'}")
    (desk / "table.csv").write_text("\n".join(lines) + "\n")

    def n_images(*words: str) -> int:
        document = run("evaluate", models / "parity", "table.csv", "--json", *words).document
        return int(document["counts"]["images"])

    assert (n_images(), n_images("--split", "train"), n_images("--split", "all")) == (20, 40, 60)


def test_both_runtimes_agree(run: Run, models: Path, pictures: Path) -> None:
    first, second = (
        run("predict", models / "digits", pictures, "--json", "--runtime", name).document["answers"]
        for name in runtime.RUNTIMES
    )
    for one, other in zip(first, second, strict=True):
        assert one["classes"] == other["classes"]
        assert np.allclose(one["probabilities"], other["probabilities"], atol=1e-4)


# --- predict


def test_predict_takes_files_folders_globs_and_a_list(run: Run, models: Path, pictures: Path) -> None:
    def names(*words: object, stdin: str = "") -> list[str]:
        said = run("predict", models / "digits", *words, "--json", stdin=stdin)
        assert (said.code, said.err) == (0, "")
        return [Path(one["path"]).name for one in said.document["answers"]]

    everything = ["3-0.png", "3-1.png", "4-0.png", "4-1.png", "5-0.png", "5-1.png"]
    assert names(pictures / "5-1.png", pictures / "3-0.png") == ["5-1.png", "3-0.png"]
    assert names(pictures) == everything
    assert names(pictures / "*-1.png") == ["3-1.png", "4-1.png", "5-1.png"]
    assert names("-", stdin=f"{pictures}/4-0.png\n\n{pictures}/3-0.png\n") == ["4-0.png", "3-0.png"]
    # one that is meant twice is answered once, where it was first named
    assert names(pictures / "4-0.png", pictures) == [
        "4-0.png",
        *(name for name in everything if name != "4-0.png"),
    ]


def test_predict_is_right_and_ranks_the_other_classes(run: Run, models: Path, pictures: Path) -> None:
    said = run("predict", models / "digits", pictures, "--json", "--top", "10")
    check_keys(said.document)
    right = 0
    for one in said.document["answers"]:
        assert sorted(one["classes"]) == list("0123456789")
        assert one["probabilities"] == sorted(one["probabilities"], reverse=True)
        assert sum(one["probabilities"]) == pytest.approx(1, abs=1e-4)
        right += Path(one["path"]).name[0] == one["classes"][0]
    assert right >= 5  # of 6


def test_predict_as_csv(run: Run, models: Path, pictures: Path) -> None:
    said = run("predict", models / "digits", pictures, "--csv", "-", "--top", "2")
    rows = list(csv.reader(io.StringIO(said.out)))
    assert rows[0] == [
        *("path", "name", "class_1", "probability_1", "class_2", "probability_2", "novelty", "error")
    ]
    assert len(rows) == 7 and rows[1][0].endswith("3-0.png")
    assert float(rows[1][3]) >= float(rows[1][5])


def test_transfer_and_predict_take_a_novelty_rate_and_a_level(run: Run, desk: Path, pictures: Path) -> None:
    made = run("transfer", "pixels", "digits:0-1", "--head", "ridge", "-o", "m", "--novelty-rate", "0.2")
    assert made.code == 0 and "Up to 20 % of the images" in made.out
    described = run("inspect", "m", "--json").document
    assert "Up to 20 %" in described["none_of_these"] and "images" in described["answer_sets"]
    said = run("predict", "m", pictures, "--json", "--sets", "0.9", "--novelty-rate", "off").document
    assert all(one["novelty"] is None and one["answer_set"] for one in said["answers"])
    rows = list(csv.DictReader(io.StringIO(run("predict", "m", pictures, "--csv", "-", "--sets", "0.9").out)))
    assert [json.loads(row["answer_set"]) for row in rows] == [one["answer_set"] for one in said["answers"]]
    high = run("predict", "m", pictures, "--sets", "0.9999")
    assert high.code == 0 and "every set holds all classes" in high.err and " or " in high.out
    for words in (("--sets", "95"), ("--novelty-rate", "2")):
        wrong = run("predict", "m", pictures, *words)
        assert wrong.code == 1 and "expected a share in (0, 1)" in wrong.err


@pytest.mark.parametrize("form", ["--json", None])
def test_an_unreadable_image_does_not_stop_the_others(
    run: Run, desk: Path, models: Path, form: str | None
) -> None:
    grey(desk / "good.png")
    (desk / "torn.png").write_bytes((desk / "good.png").read_bytes()[:40])
    asked = ["torn.png", "good.png", "absent.png"]
    said = run("predict", models / "digits", *asked, *([form] if form else []))
    assert said.code == 1
    if form == "--json":
        assert [one["path"] for one in said.document["answers"]] == ["good.png"]
        assert len(said.document["faults"]) == 2
    else:
        assert said.out.count("good.png") == 1 and "torn.png" not in said.out
    lines = said.err.splitlines()
    assert len(lines) == 2 and all(line.startswith(ERROR) for line in lines), lines
    assert "'torn.png'" in lines[0] and "'absent.png' does not exist" in lines[1]


# --- inspect, sources, cache, recipes


def test_inspect_a_model(run: Run, models: Path) -> None:
    said = run("inspect", models / "parity")
    assert (said.code, said.err) == (0, "")
    for words in ("digits:parity", "even, odd", "8 x 8 px", "ridge", "hidden2", "weights.safetensors"):
        assert words in said.out
    document = run("inspect", models / "parity", "--json").document
    check_keys({key: value for key, value in document.items() if key != "files"})
    assert document["classes"] == ["even", "odd"] and document["default_layer"] == "hidden2"


def test_inspect_a_dataset(run: Run) -> None:
    said = run("inspect", "digits:odd")
    assert (said.code, said.err) == (0, "") and said.out.startswith("digits:odd: 906 images, 5 classes\n")
    document = run("inspect", "digits:odd", "--json").document
    check_keys(document)
    assert list(document["images_per_class"]) == ["1", "3", "5", "7", "9"]
    assert sum(document["images_per_class"].values()) == document["n_images"] == 906


def test_sources_are_listed_and_shown(run: Run, models: Path) -> None:
    assert run("sources").out == run("sources", "list").out
    for name in ("pixels", "random:cnn", "random:mlp", "FOLDER"):
        assert name in run("sources").out
    document = run("sources", "show", models / "digits", "--json").document
    check_keys(document)
    assert document["layers"]["hidden1"] == "128" and document["default_layer"] == "hidden2"
    said = run("sources", "show", "random:cnn", "--data", "digits")
    assert (said.code, said.err) == (0, "") and "64 x 3 x 3" in said.out


@pytest.mark.slow
def test_the_cache_is_found_filled_listed_and_cleared(run: Run, desk: Path, models: Path) -> None:
    assert Path(run("cache", "path").out.strip()).is_relative_to(os.environ["HEADSTART_CACHE"])
    assert run("cache", "list").out == "0 arrays, 0.0 MiB\n"
    assert run("transfer", models / "digits", "digits:parity", "--head", "ridge", "-o", "m").code == 0
    document = run("cache", "list", "--json").document
    check_keys(document)
    kept = len(document["entries"])
    assert kept == 10, (
        "1,500, train and held-out images at both layers; the latter two as HOG and as raw pixels"
    )
    layers = {entry["parts"]["tap"] for entry in document["entries"]}
    assert layers == {"hidden1", "hidden2", "histograms", "values"}
    assert "hidden2" in run("cache").out and run("cache").out.endswith(" MiB\n")
    assert re.fullmatch(rf"removed {kept} arrays, \d+\.\d MiB\n", run("cache", "clear").out)
    assert run("cache", "list").out == "0 arrays, 0.0 MiB\n"


@pytest.mark.slow
def test_a_damaged_cache_is_one_line_and_the_same_result(run: Run, desk: Path, models: Path) -> None:
    command = ("transfer", models / "digits", "digits:parity", "--seed", "3", "--head", "ridge", "-o")
    assert run(*command, "whole").code == 0
    for path in (Path(os.environ["HEADSTART_CACHE"]) / "features").glob("*.npy"):
        content = bytearray(path.read_bytes())
        content[1_000] ^= 1
        path.write_bytes(content)
    assert [entry["state"] for entry in run("cache", "list", "--json").document["entries"]] == [
        "complete"
    ] * 10
    said = run(*command, "again")
    lines = [line for line in said.err.splitlines() if "damaged" in line]
    assert (
        said.code == 0
        and len(lines) == 10
        and all(line.startswith("headstart: features in ") for line in lines)
    )
    weights = [(desk / name / "weights.safetensors").read_bytes() for name in ("whole", "again")]
    assert weights[0] == weights[1] and "damaged" not in run(*command, "third").err


def test_recipes_are_listed_and_shown(run: Run) -> None:
    assert run("recipes").out == run("recipes", "list").out
    assert re.search(r"^odd-to-even +Odd digits to even", run("recipes").out, re.MULTILINE)
    said = run("recipes", "show", "parity")
    home = Path(headstart.__file__).parent / "workflows/recipes"
    assert (said.code, said.out) == (0, (home / "parity.toml").read_text())


# --- run


def small_recipe(desk: Path, name: str = "parity", replaced: tuple[tuple[str, str], ...] = ()) -> Path:
    """A bundled recipe cut down to seconds."""
    text = (Path(headstart.__file__).parent / "workflows/recipes" / f"{name}.toml").read_text()
    shorter = (
        (r"^draws = .*", "draws = 2"),
        (r"^labels_per_class = .*", "labels_per_class = [1, 5]"),
        (r"^epochs = \d\d?$", "epochs = 1"),
        (r"^min_steps = .*", "min_steps = 5"),
        *replaced,
    )
    for pattern, new in shorter:
        text, number = re.subn(pattern, new, text, flags=re.MULTILINE)
        assert number, pattern
    path = desk / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.slow
def test_run_without_controls_has_no_verdict(run: Run, desk: Path) -> None:
    said = run("run", "odd-to-even", "--data", "digits", "--no-controls", "-o", "out", "--seed", "1")
    assert (said.code, said.err) == (0, "")
    assert re.search(r"^probe +\d+\.\d\d \[\d\d\.\d, \d+\.\d\]$", said.out, re.MULTILINE)
    assert "no control was run, so the benefit of transfer is unknown" in said.out
    assert said.out.endswith("\nReport: out/report.html\n")
    assert sorted(path.name for path in (desk / "out").iterdir()) == [
        "card.md",
        "model",
        "report.html",
        "result.json",
        "source",
    ]
    assert open_model("out/source").classes == ("1", "3", "5", "7", "9")
    assert open_model("out/model").classes == ("0", "2", "4", "6", "8")
    assert "headstart run odd-to-even --data digits --no-controls" in (desk / "out/report.html").read_text()


@pytest.mark.slow
def test_run_whole_as_json_is_what_it_wrote(run: Run, desk: Path) -> None:
    small_recipe(
        desk,
        replaced=(
            (r'^name = "cnn"', 'name = "mlp"'),
            (r"^layer = .*", 'layer = "hidden1"'),
            (r"^engine = .*", 'engine = "scratch"'),
        ),
    )
    said = run("run", "parity.toml", "-o", "out", "--json")
    assert (said.code, said.err) == (0, "")
    check_keys(said.document)
    assert said.out == (desk / "out" / "result.json").read_text()
    cells = {(row["strategy"], row["labels_per_class"]) for row in said.document["rows"]}
    strategies = ("probe", "scratch", "random frozen", "HOG", "raw pixels", "collapse", "majority")
    assert cells == {(name, budget) for name in strategies for budget in (1, 5, None)}
    assert {row["accuracy"]["n"] for row in said.document["rows"]} == {said.document["sizes"]["test"]}
    assert len(said.document["comparisons"]) == 18 and said.document["verdict"]
    assert said.document["verdict"] in (desk / "out" / "report.html").read_text()


@pytest.mark.slow
def test_run_the_first_recipe_whole(run: Run, desk: Path) -> None:
    said = run("run", "odd-to-even", "--data", "digits")
    assert said.code == 0 and said.out.endswith("\nReport: runs/odd-to-even-digits/report.html\n")
    for name in ("probe", "textbook probe", "scratch", "random frozen", "HOG", "raw pixels"):
        assert re.search(rf"^{name}( +\d+\.\d\d \[\d+\.\d, \d+\.\d\]){{5}}$", said.out, re.MULTILINE)


@pytest.mark.slow
def test_run_again_replaces_an_older_result_only(run: Run, desk: Path) -> None:
    words = ("run", "odd-to-even", "--data", "digits:0-3", "--no-controls", "-o", "out")
    assert run(*words).code == 0
    (desk / "out" / "notes.txt").write_text("mine")
    first = (desk / "out" / "result.json").read_text()
    assert run(*words, "--seed", "3").code == 0
    assert (desk / "out" / "result.json").read_text() != first
    assert (desk / "out" / "notes.txt").read_text() == "mine"
    assert not [path for path in desk.rglob(".*")]


@pytest.mark.slow
def test_run_names_what_it_left_out(run: Run, desk: Path) -> None:
    digits = load("digits:0-3").subset(np.arange(120))
    for number, (label, pixels) in enumerate(zip(digits.labels, digits.images.pixels, strict=True)):
        save_picture(desk / "pics" / label / f"{number}.png", pixels[..., 0])
    (desk / "pics" / "2" / "torn.png").write_bytes(b"torn")
    said = run("run", "odd-to-even", "--data", "pics", "--no-controls")
    assert said.code == 0 and said.out.endswith("Report: runs/odd-to-even-pics/report.html\n")
    sentence = f"1 of {len(digits) + 1} files could not be read and are left out"
    assert sentence in said.err and sentence in said.out
    assert "torn.png" in (desk / "runs/odd-to-even-pics/report.html").read_text()


# --- wrong usage and help


@pytest.mark.parametrize(
    "words",
    [
        ("trian",),
        ("train",),
        ("train", "digits"),
        ("train", "digits", "-o", "m", "--epochs", "none"),
        ("train", "digits", "-o", "m", "--epochs", "0"),
        ("train", "digits", "-o", "m", "--seed", "-1"),
        ("train", "digits", "-o", "m", "--nonsense"),
        ("predict", "m"),
        ("predict", "m", "x.png", "--top", "0"),
        ("cache", "eat"),
    ],
)
def test_wrong_usage_is_status_2(run: Run, desk: Path, words: tuple[str, ...]) -> None:
    said = run(*words)
    assert said.code == 2 and said.out == "" and "Error:" in said.err and "Traceback" not in said.err
    assert contents(desk) == {}


def test_help_and_version(run: Run) -> None:
    assert run("--version") == Said(0, f"headstart {headstart.__version__}\n", "")
    said = run("--help")
    assert said.code == 0 and said.err == ""
    for name in "run train transfer evaluate predict inspect recipes sources cache".split():
        assert re.search(rf"^  {name} ", said.out, re.MULTILINE)
        assert run(name, "-h").code == 0


# --- bad input: one line, status 1, nothing half-written


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("train", "mnits", "-o", "m"), ("'mnits'", "nearest are mnist", "kmnist")),
        (("train", "digits:prime", "-o", "m"), ("'prime'", "odd", "parity")),
        (("train", "digits:1,x", "-o", "m"), ("'x'", "'1,x'")),
        (("train", "digits:7-12", "-o", "m"), ("'12'",)),
        (("train", "digits:3", "-o", "m", *SMALL), ("'digits:3'", "'3'", "at least 2")),
        (("train", "digits", "-o", "m", "--engine", "scratch", "--network", "cmn"), ("'cmn'", "cnn")),
        (("train", "digits", "-o", "m", *SMALL, "--engine", "scrach"), ("'scrach'", "scratch")),
        (("train", "digits", "-o", "m", *SMALL, "--schedule", "onecycle"), ("'onecycle'", "one-cycle")),
        (("train", "digits", "-o", "m", *SMALL, "--learning-rate", "-1"), ("learning_rate is -1",)),
        (("train", "absent/folder", "-o", "m"), ("'absent/folder'", "does not exist")),
        (("train", "absent.csv", "-o", "m"), ("'absent.csv'", "does not exist")),
        (("transfer", "pixel", "digits", "-o", "m"), ("'pixel'", "pixels")),
        (("transfer", "random:mpl", "digits", "-o", "m"), ("'random:mpl'", "random:mlp")),
        (("transfer", "random:mlp", "digits", "-o", "m", "--tap", "hiden1"), ("'hiden1'", "hidden1")),
        (("transfer", "pixels", "digits", "-o", "m", "--pooling", "max"), ("'max'", "avg")),
        (("transfer", "pixels", "digits", "-o", "m", "--head", "rigde"), ("'rigde'", "ridge")),
        (("transfer", "pixels", "digits", "-o", "m", "--runtime", "onnx"), ("'onnx'", "onnxruntime")),
        (("study", "pixels", "digits", "-o", "m", "--precision", "fp8"), ("'fp8'", "bf16")),
        (("evaluate", "absent", "digits"), ("'absent'", "model folder")),
        (("predict", "absent", "x.png"), ("'absent'", "model folder")),
        (("inspect", "absent"), ("'absent'", "unknown")),
        (("sources", "show", "absent"), ("'absent'", "headstart sources")),
        (("run", "odd-to-evem"), ("'odd-to-evem'", "odd-to-even")),
        (("recipes", "show", "party"), ("'party'", "parity")),
        (("run", "absent.toml"), ("'absent.toml'", "does not exist")),
        (("run", "parity", "--data", "mnits"), ("'mnits'", "mnist")),
        (("run", "parity", "--data", "digits:x"), ("'x'",)),
        (("run", "parity", "--data", "digits:0-4", "--engine", "scrach"), ("'scrach'", "scratch")),
    ],
)
def test_a_wrong_name_gets_the_nearest(
    refused: Callable[..., Said], words: tuple[str, ...], names: tuple[str, ...]
) -> None:
    refused(*words, names=names)


def idx(*shape: int) -> bytes:
    """A whole IDX file of ones."""
    sizes = b"".join(size.to_bytes(4, "big") for size in shape)
    return bytes([0, 0, 8, len(shape)]) + sizes + b"\x01" * int(np.prod(shape))


HARM: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-2],
    "altered head": lambda data: b"\x01" + data[1:],
    "zipped and truncated": lambda data: gzip.compress(data[:-2]),
    "zip truncated": lambda data: gzip.compress(data)[:-12],
    "zip empty": lambda data: b"",
}


@pytest.mark.parametrize("broken", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("harm", HARM)
def test_a_broken_idx_file_is_named(
    refused: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, desk: Path, broken: str, harm: str
) -> None:
    home = desk / "data" / "MNIST" / "raw"
    home.mkdir(parents=True)
    for stem in ("train", "t10k"):
        for name, shape in ((f"{stem}-images-idx3-ubyte", (4, 28, 28)), (f"{stem}-labels-idx1-ubyte", (4,))):
            if name == broken:
                (home / (name + ".gz" * harm.startswith("zip"))).write_bytes(HARM[harm](idx(*shape)))
            else:
                (home / name).write_bytes(idx(*shape))
    monkeypatch.setenv("HEADSTART_DATA", str(desk / "data"))
    refused("train", "mnist", "-o", "m", *SMALL, names=(broken,))


def test_a_folder_with_one_class(refused: Callable[..., Said], desk: Path) -> None:
    grey(desk / "pets" / "cat" / "1.png")
    refused("train", "pets", "-o", "m", *SMALL, names=("'pets'", "'cat'", "at least 2"))


def test_a_folder_with_one_class_left_after_skipping(run: Run, desk: Path) -> None:
    for number in range(3):
        grey(desk / "pets" / "cat" / f"{number}.png", 40 * number)
    (desk / "pets" / "dog").mkdir()
    (desk / "pets" / "dog" / "1.png").write_bytes(b"no picture")
    said = run("train", "pets", "-o", "m", *SMALL)
    assert said.code == 1 and not (desk / "m").exists()
    assert "1 of 4 files skipped: pets/dog/1.png (it is a text file" in said.err
    assert (
        "class 'dog' of dataset 'pets' has 0 training images ('pets/dog/1.png' is not used: it is a t"
        in said.err
    )


def test_a_table_that_names_a_missing_file(refused: Callable[..., Said], desk: Path) -> None:
    grey(desk / "1.png")
    (desk / "pets.csv").write_text("path,label\n1.png,cat\n2.png,dog\n")
    refused("train", "pets.csv", "-o", "m", *SMALL, names=("2.png", "1 of 2 missing"))


def test_skipped_files_are_reported_and_strict_refuses_them(
    run: Run, refused: Callable[..., Said], desk: Path
) -> None:
    for label in ("cat", "dog"):
        for number in range(3):
            grey(desk / "pets" / label / f"{number}.png", number)
    (desk / "pets" / "dog" / "torn.png").write_bytes(b"no picture")
    said = refused("train", "pets", "-o", "m", *SMALL, "--strict", names=("torn.png", "1 of 7"))
    assert "not an image" in said.err
    said = run("train", "pets", "-o", "m", *SMALL)
    assert said.code == 0 and said.err.count("headstart: ") == 1
    assert said.err.startswith("headstart: 1 of 7 files skipped: ") and "torn.png" in said.err


def test_evaluate_names_the_class_that_the_model_does_not_know(
    refused: Callable[..., Said], models: Path
) -> None:
    refused(
        "evaluate", models / "parity", "digits:0-4", names=("has classes '0', '1'", "'even', 'odd'", "subset")
    )
    refused("evaluate", models / "digits", "digits", "--split", "test", names=("no splits", "'test'"))


def test_a_class_in_one_split_only_is_named(refused: Callable[..., Said], desk: Path) -> None:
    for number, place in enumerate(("train/1", "train/2", "train/3", "test/1", "test/2", "test/4")):
        for copy in range(4):
            grey(desk / "pics" / place / f"{copy}.png", 10 * number + copy)
    refused("run", "parity", "--data", "pics:1,2,3,4", "-o", "out", names=("'4'", "is in test only"))
    refused("train", "pics", "-o", "m", *SMALL, names=("'4'", "'pics'", "is in test only"))
    refused("transfer", "pixels", "pics", "-o", "m", names=("'4'", "'pics'", "is in test only"))


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "weights.safetensors", "card.md"])
@pytest.mark.parametrize("harm", ["missing", "truncated", "altered", "empty"])
def test_a_damaged_model_folder(
    refused: Callable[..., Said], desk: Path, models: Path, name: str, harm: str
) -> None:
    (desk / "m").mkdir()
    for path in (models / "digits").iterdir():
        (desk / "m" / path.name).write_bytes(path.read_bytes())
    victim = desk / "m" / name
    data = victim.read_bytes()
    if harm == "missing":
        victim.unlink()
    else:
        middle = len(data) // 2
        altered = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
        victim.write_bytes({"truncated": data[:middle], "altered": altered, "empty": b""}[harm])
    what = "manifest" if name == "manifest.json" else name
    grey(desk / "1.png")
    refused("predict", "m", "1.png", names=("'m'", what))
    refused("transfer", "m", "digits", "-o", "new", names=("'m'", what))


def test_a_model_where_a_file_is_a_folder(refused: Callable[..., Said], desk: Path) -> None:
    (desk / "m" / "manifest.json").mkdir(parents=True)
    refused("evaluate", "m", "digits", names=("'m'", "manifest.json"))
    (desk / "file").write_text("")
    refused("evaluate", "file", "digits", names=("'file'", "is not a folder"))


@pytest.mark.parametrize(
    "words",
    [
        ("train", "digits:0-1", *SMALL),
        ("transfer", "pixels", "digits:0-1", "--head", "ridge"),
        ("run", "odd-to-even", "--no-controls"),
    ],
)
def test_other_files_in_the_output_folder_are_kept(
    refused: Callable[..., Said], desk: Path, words: tuple[str, ...]
) -> None:
    (desk / "mine").mkdir()
    (desk / "mine" / "thesis.txt").write_text("years of work")
    (desk / "file").write_text("more of it")
    refused(*words, "-o", "mine", names=("'mine'", "new or empty folder"))
    refused(*words, "-o", "file", names=("'file'",))
    refused(*words, "-o", "file/below", names=("file",))


@pytest.mark.slow
def test_an_output_that_cannot_be_written(refused: Callable[..., Said]) -> None:
    refused("train", "digits:0-1", *SMALL, "-o", "/proc/below", names=("/proc",))
    refused(
        "run", "odd-to-even", "--data", "digits:0-3", "--no-controls", "-o", "/proc/below", names=("/proc",)
    )


def test_another_model_folder_inside_the_output_is_kept(refused: Callable[..., Said], desk: Path) -> None:
    (desk / "out" / "model").mkdir(parents=True)
    (desk / "out" / "model" / "mine.txt").write_text("mine")
    (desk / "out" / "result.json").write_text("{}")
    refused("run", "odd-to-even", "--no-controls", "-o", "out", names=("'out'",))


def test_an_older_model_is_replaced(run: Run, desk: Path) -> None:
    for view in ("0-1", "0-2"):
        assert run("train", f"digits:{view}", "-o", "m", *SMALL).code == 0
    assert open_model("m").classes == ("0", "1", "2")
    assert sorted(path.name for path in desk.iterdir()) == ["m", "m.log"]
    assert (desk / "m.log" / "training.jsonl").read_text().count("started") == 1


def test_an_invalid_recipe(refused: Callable[..., Said], desk: Path) -> None:
    (desk / "torn.toml").write_text("title = \n")
    refused("run", "torn.toml", names=("'torn.toml'", "not TOML"))
    (desk / "bare.toml").write_text('title = "t"\nsummary = "s"\n')
    refused("run", "bare.toml", names=("'bare.toml'", "[data] is missing", "[study] is missing"))
    (desk / "latin.toml").write_bytes('title = "Übung"'.encode("latin-1"))
    refused("run", "latin.toml", names=("'latin.toml'", "UTF-8"))
    (desk / "folder.toml").mkdir()
    refused("run", "folder.toml", names=("'folder.toml'",))


@pytest.mark.parametrize(
    ("pattern", "new", "names"),
    [
        (r"^layer = .*", 'layer = "hiden1"', ("'hiden1'", "hidden1")),
        (r"^head = .*", 'head = "rigde"', ("'rigde'", "ridge")),
        (r'^name = "cnn"', 'name = "cmn"', ("'cmn'", "cnn")),
    ],
)
def test_a_wrong_name_in_a_recipe_is_found_before_training(
    refused: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
    desk: Path,
    pattern: str,
    new: str,
    names: tuple[str, ...],
) -> None:
    small_recipe(desk, replaced=((pattern, new),))
    monkeypatch.setattr(
        "headstart.workflows.recipes.run.learn_network", lambda *_, **__: pytest.fail("it trained")
    )
    refused("run", "parity.toml", "--engine", "scratch", names=names)


def test_an_argument_that_names_no_image(refused: Callable[..., Said], desk: Path, models: Path) -> None:
    grey(desk / "good.png")
    (desk / "empty").mkdir()
    (desk / "empty" / ".hidden.png").write_bytes(b"")
    refused("predict", models / "digits", "empty", names=("'empty'", "no image"))
    refused("predict", models / "digits", "good.png", "*.jpg", names=("'*.jpg'", "no image"))


def test_an_error_of_the_operating_system_is_one_line(
    refused: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/disk/model.onnx")

    monkeypatch.setattr("headstart.models.model.Model.save", full)
    words = ("digits:0-1", "-o", "m")
    refused(
        *("transfer", "pixels", *words, "--head", "ridge"),
        names=("'/disk/model.onnx'", "No space left on device"),
    )


def test_a_training_that_cannot_be_saved_can_be_once_there_is_room(
    run: Run, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/disk/model.onnx")

    words = ("train", "digits:0-1", "-o", "m", *SMALL[:-1], "2")
    with monkeypatch.context() as broken:
        broken.setattr("headstart.models.model.Model.save", full)
        said = run(*words)
    assert said.code == 1 and "No space left on device" in said.err and said.err.count("\n") == 1
    assert sorted(path.name for path in desk.iterdir()) == ["m.checkpoints", "m.log"]
    assert run(*words, "--resume").code == 0
    assert sorted(path.name for path in desk.iterdir()) == ["m", "m.log"]


def test_an_unexpected_error_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("headstart.interfaces.cli.describe.describe_path", broken)
    said = run("inspect", "digits")
    assert said.code == 1 and said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(ERROR + "ZeroDivisionError was not expected (division by zero)")
    assert "--debug" in said.err


def test_debug_lets_the_traceback_through(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (["--debug", "inspect", "absent"], ["inspect", "absent", "--debug"]):
        monkeypatch.setattr(sys, "argv", ["headstart", *where])
        with pytest.raises(headstart.HeadstartError, match="'absent'"):
            cli.main()


# --- real processes


def process(*words: object, code: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    start = ["-m", "headstart.interfaces.cli.main"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, "-W", "error", *start, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=120,
        check=False,
    )


NO_TORCH = """
import sys
from importlib.machinery import PathFinder

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "torch" else super().find_spec(name, path, target)

sys.meta_path[:] = [WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
from headstart.interfaces.cli.main import main
main()
"""


@pytest.mark.slow
def test_torch_requested_and_not_installed(desk: Path) -> None:
    done = process("train", "digits", "-o", "m", "--engine", "torch", code=NO_TORCH)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{ERROR}engine 'torch': expected the package torch, which is not installed; "
        "install it with: pip install 'headstart[train]'\n"
    )
    assert contents(desk) == {}


@pytest.mark.slow
def test_a_recipe_falls_back_to_the_scratch_engine_and_says_so(desk: Path) -> None:
    small_recipe(desk, replaced=((r'^name = "cnn"', 'name = "mlp"'), (r"^layer = .*", 'layer = "hidden1"')))
    done = process("run", "parity.toml", "--data", "digits:0-3", "--no-controls", "-o", "out", code=NO_TORCH)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1 and "torch is not installed" in done.stderr
    assert "pip install 'headstart[train]'" in done.stdout
    assert json.loads((desk / "out" / "result.json").read_text())["facts"]["engine"].startswith("scratch")
    asked = process("run", "parity.toml", "--engine", "torch", "-o", "other", code=NO_TORCH)
    assert asked.returncode == 1 and "engine 'torch': expected the package torch" in asked.stderr
    assert not (desk / "other").exists()


def test_a_process_reports_its_status(desk: Path) -> None:
    done = process("inspect", "absent")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith(ERROR + "dataset 'absent'")
    assert "Traceback" not in done.stderr
    done = process("inspect", "absent", "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr and "UnknownDatasetError" in done.stderr
    assert process("nonsense").returncode == 2


def test_a_closed_pipe_gets_no_traceback() -> None:
    shell = f"{sys.executable} -m headstart recipes show parity | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_interrupt_is_status_130_and_leaves_a_checkpoint(desk: Path) -> None:
    ours, theirs = pty.openpty()
    begun = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "headstart.interfaces.cli.main",
            "train",
            "digits",
            "-o",
            "m",
            *SMALL[:-1],
            "1000000",
        ],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
        # what a shell starts in the background is deaf to it, and so are its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    os.close(theirs)
    try:
        said, sent = b"", False
        for piece in pieces(ours):
            said += piece
            if b"train mlp" in said and not sent:
                begun.send_signal(signal.SIGINT)
                sent = True
        assert begun.wait(30) == 130
        assert begun.stdout is not None and begun.stdout.read() == b""
        assert b"train mlp" in said and b"Traceback" not in said
        assert b"headstart: interrupted; continue with the same command and --resume" in said
        assert sorted(path.name for path in desk.iterdir()) == ["m.checkpoints", "m.log"]
    finally:
        begun.kill()
        begun.wait()
        os.close(ours)
        if begun.stdout is not None:
            begun.stdout.close()


def test_sigterm_leaves_no_incomplete_files(desk: Path) -> None:
    code = (
        "import os, signal, sys, time\n"
        "from headstart.interfaces.cli import main as cli\n"
        "from headstart.system.folders import atomic_folder\n"
        "def app():\n"
        "    with atomic_folder('m', marker='manifest.json') as half:\n"
        "        (half / 'manifest.json').write_text('{}')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(20)\n"
        "cli.app = app\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, b"")
    assert list(desk.iterdir()) == []


@pytest.mark.parametrize("missing", ["gradio", "starlette", "h11", "uvicorn"])
def test_teach_without_its_extra_says_how_to_install_it(
    refused: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    refused(
        "teach", "--port", 0, names=(f"expected the package {missing},", "pip install 'headstart[teach]'")
    )


@pytest.mark.parametrize(
    ("words", "extra"),
    [(("serve", "m"), "serve"), (("teach", "--port", "0"), "teach")],
    ids=["serve", "teach"],
)
def test_a_base_install_names_the_extra_of_a_server(desk: Path, words: tuple[str, ...], extra: str) -> None:
    """For teach it said that this was a bug."""
    code = (
        "import sys\n"
        "for name in ('gradio', 'starlette', 'h11', 'uvicorn', 'prometheus_client'): sys.modules[name] = None\n"
        "from headstart.interfaces.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.endswith(f"pip install 'headstart[{extra}]'\n") and "bug" not in done.stderr
