"""Predicting files: which pictures are meant, what is said of each, and how it is written down."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.readers import load
from headstart.errors import MissingDataError, ModelError, SettingError
from headstart.model import open_model
from headstart.predict import Answer, Answers, predict_files, to_csv, to_table
from headstart.records import TrainSettings
from headstart.strategies import learn_network


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Zeros against ones, well learnt."""
    settings = TrainSettings(epochs=10, learning_rate=3e-3)
    learnt = learn_network(load("digits:0-1"), network="mlp", engine="scratch", settings=settings)
    return str(learnt.model.save(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Dataset) -> Path:
    """A zero and a one in three folders, among what is no picture."""
    for place in ("", "deep/er", ".hidden"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name in "01":
            index = int(np.flatnonzero(digits.labels == name)[0])
            Image.fromarray(digits.images.pixels[index, ..., 0]).save(tmp_path / place / f"{name}.png")  # type: ignore[attr-defined]
    (tmp_path / "._0.png").write_bytes(b"left by a Mac")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(found: Answers) -> list[str]:
    return [one.path for one in found.answers]


def test_a_folder_means_the_pictures_below_it_that_are_not_hidden(model: str, album: Path) -> None:
    found = predict_files(model, ["."])
    assert paths(found) == ["0.png", "1.png", "deep/er/0.png", "deep/er/1.png"]
    assert [one.classes[0] for one in found.answers] == ["0", "1", "0", "1"]
    assert found.faults == () and found.model == model


def test_a_glob_means_files(model: str, album: Path) -> None:
    assert paths(predict_files(model, ["*.png"])) == ["0.png", "1.png"]
    assert paths(predict_files(model, ["**/*.png"])) == ["0.png", "1.png", "deep/er/0.png", "deep/er/1.png"]


def test_a_name_with_signs_of_a_glob_is_a_name_where_it_is_there(model: str, album: Path) -> None:
    (album / "1.png").rename(album / "a[1].png")
    assert paths(predict_files(model, ["a[1].png"])) == ["a[1].png"]


def test_a_list_comes_from_standard_input(model: str, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (album / "1.png").rename(album / "a one.png")
    monkeypatch.setattr("sys.stdin", io.StringIO("a one.png\n\n  0.png  \n"))
    assert paths(predict_files(model, ["deep/er/0.png", "-"])) == ["deep/er/0.png", "a one.png", "0.png"]


def test_one_that_is_meant_twice_is_answered_once(model: str, album: Path) -> None:
    assert paths(predict_files(model, ["1.png", "*.png", "1.png"])) == ["1.png", "0.png"]


def test_a_fault_stops_no_other_and_is_one_sentence(model: str, album: Path) -> None:
    (album / "torn.png").write_bytes((album / "0.png").read_bytes()[:50])
    (album / "empty.jpg").write_bytes(b"")
    found = predict_files(model, ["torn.png", "1.png", "absent.png", "empty.jpg", "notes.txt"])
    assert paths(found) == ["1.png"] and found.answers[0].classes[0] == "1"
    named = [fault.split("'")[1] for fault in found.faults]
    assert named == ["torn.png", "absent.png", "empty.jpg", "notes.txt"]
    assert all("need" in fault and "\n" not in fault for fault in found.faults)


def test_only_faults_are_no_answer(model: str, album: Path) -> None:
    found = predict_files(model, ["absent.png"])
    assert found.answers == () and len(found.faults) == 1
    assert to_table(found) == "" and to_csv(found) == "path,class_1,probability_1\n"


@pytest.mark.parametrize("word", ["empty", "*.jpg", "**/*.gif"])
def test_a_word_that_means_nothing_is_an_error(model: str, album: Path, word: str) -> None:
    (album / "empty").mkdir()
    with pytest.raises(MissingDataError, match="means no picture") as found:
        predict_files(model, ["0.png", word])
    assert repr(word) in str(found.value)


def test_the_model_is_opened_before_any_picture(album: Path) -> None:
    with pytest.raises(ModelError, match="'absent'"):
        predict_files("absent", ["also-absent.png"])


def test_an_unknown_runtime(model: str, album: Path) -> None:
    with pytest.raises(SettingError, match="onnxruntime"):
        predict_files(model, ["0.png"], runtime_name="onnx")


def test_probabilities_are_those_of_the_model(model: str, album: Path, digits: Dataset) -> None:
    index = int(np.flatnonzero(digits.labels == "1")[0])
    (expected,) = open_model(model).probabilities(digits.subset([index]))
    (found,) = predict_files(model, ["1.png"], top=9).answers
    assert found.classes == ("1", "0")
    assert found.probabilities == pytest.approx((expected[1], expected[0]), abs=1e-6)
    assert predict_files(model, ["1.png"], top=1).answers[0].classes == ("1",)


def test_pictures_of_any_size_and_colour_are_taken(model: str, album: Path) -> None:
    with Image.open("1.png") as picture:
        large = picture.resize((80, 80), Image.Resampling.NEAREST).convert("RGB")
    large.save("large.jpg", quality=95)
    (found,) = predict_files(model, ["large.jpg"]).answers
    assert found.classes[0] == "1"


def test_the_table_and_the_lines_say_the_same() -> None:
    found = Answers(
        "m",
        (Answer("a, b.png", ("cat", "dog"), (0.75, 0.25)), Answer("c.png", ("dog", "cat"), (2 / 3, 1 / 3))),
        (),
    )
    header, first, second = to_table(found).splitlines()
    assert header.split() == ["picture", "class", "probability", "runners-up"]
    assert first == "a, b.png  cat    0.7500       dog 0.2500"
    assert second == "c.png     dog    0.6667       cat 0.3333"
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert rows[0] == {
        "path": "a, b.png",
        "class_1": "cat",
        "probability_1": "0.75",
        "class_2": "dog",
        "probability_2": "0.25",
    }
    assert float(rows[1]["probability_1"]) == 2 / 3
