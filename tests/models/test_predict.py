"""Predicting files: which pictures are meant, what is said of each, and how it is written down."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.readers.image_files import count_images, find_images
from headstart.data.readers.load import load
from headstart.errors import MissingDataError, ModelError, SettingError
from headstart.models.model import Model, open_model
from headstart.models.predict import (
    BATCH,
    FilePredictions,
    ImagePrediction,
    predict_files,
    to_table,
)
from headstart.records import NONE_OF_THESE, TrainSettings
from headstart.strategies.scratch import learn_network


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Zeros against ones, well learnt."""
    settings = TrainSettings(epochs=10, learning_rate=3e-3)
    learnt = learn_network(load("digits:0-1"), network="mlp", engine="scratch", settings=settings)
    return str(learnt.model.save(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture(scope="module")
def doubter(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model, to which a picture is new that is bright all over."""
    return str(with_novelty(open_model(model)).save(tmp_path_factory.mktemp("doubter") / "m"))


def with_novelty(model: Model) -> Model:
    """Novelty as the mean of the pixels, a threshold at half of white."""
    graph = onnx.ModelProto.FromString(model.graph)
    del graph.graph.output[1:]  # what it learnt of novelty by itself
    for node in graph.graph.node:
        node.output[:] = ["own_" + name if name == "novelty" else name for name in node.output]
    half = onnx.numpy_helper.from_array(np.float32(127.5), "half")
    axes = onnx.numpy_helper.from_array(np.array([1, 2, 3]), "all_axes")
    graph.graph.initializer.extend([half, axes])
    graph.graph.node.extend(
        [
            onnx.helper.make_node("Cast", ["images"], ["as_floats"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("ReduceMean", ["as_floats", "all_axes"], ["brightness"], keepdims=0),
            onnx.helper.make_node("Div", ["brightness", "half"], ["novelty"]),
        ]
    )
    graph.graph.output.append(onnx.helper.make_tensor_value_info("novelty", onnx.TensorProto.FLOAT, ["n"]))
    manifest = replace(model.manifest, novelty={"kind": "brightness", "false_rejection": 0.05})
    return replace(model, manifest=manifest, graph=graph.SerializeToString())


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


def paths(found: FilePredictions) -> list[str]:
    return [one.path for one in found.answers]


def test_a_folder_means_the_images_below_it_that_are_not_hidden(model: str, album: Path) -> None:
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
    assert all("expected" in fault and "\n" not in fault for fault in found.faults)


def test_only_faults_are_no_answer(model: str, album: Path) -> None:
    found = predict_files(model, ["absent.png"])
    assert found.answers == () and len(found.faults) == 1
    assert to_table(found) == ""


@pytest.mark.parametrize("word", ["empty", "*.jpg", "**/*.gif"])
def test_a_word_that_means_nothing_is_an_error(model: str, album: Path, word: str) -> None:
    (album / "empty").mkdir()
    with pytest.raises(MissingDataError, match="contains no image") as found:
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


def test_images_of_any_size_and_colour_are_taken(model: str, album: Path) -> None:
    with Image.open("1.png") as picture:
        large = picture.resize((80, 80), Image.Resampling.NEAREST).convert("RGB")
    large.save("large.jpg", quality=95)
    (found,) = predict_files(model, ["large.jpg"]).answers
    assert found.classes[0] == "1"


def test_every_file_is_read_once(model: str, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counting(path: Path, *words: Any, **options: Any) -> Any:
        read.append(path.name)
        return whole(path, *words, **options)

    (album / "torn.png").write_bytes((album / "0.png").read_bytes()[:50])
    whole = Path.open
    monkeypatch.setattr(Path, "open", counting)
    predict_files(model, ["."])
    pictures = sorted(name for name in read if name.endswith(".png"))
    assert pictures == ["0.png", "0.png", "1.png", "1.png", "torn.png"]


def test_more_than_a_batch_stays_in_order(model: str, album: Path) -> None:
    (album / "deep" / "0.png").write_bytes(b"torn")
    names = [f"{index:03}.png" for index in range(2 * BATCH + 3)]
    for index, name in enumerate(names):
        (album / name).symlink_to(f"{index % 2}.png")
    (album / "100.png").unlink()
    found = predict_files(model, ["deep/0.png", *names, "absent.png"])
    assert paths(found) == [name for name in names if name != "100.png"]
    assert all(int(one.path[:3]) % 2 == int(one.name) for one in found.answers)
    assert len(found.faults) == 3


def test_none_of_these_is_the_answer_and_the_classes_follow(doubter: str, album: Path) -> None:
    Image.new("L", (8, 8), 255).save("white.png")
    known, strange = predict_files(doubter, ["1.png", "white.png"]).answers
    assert known.name == "1" == known.classes[0] and known.novelty is not None and known.novelty < 1
    assert strange.name == NONE_OF_THESE and strange.novelty == pytest.approx(2.0)
    assert set(strange.classes) == {"0", "1"} and sum(strange.probabilities) == pytest.approx(1)


def test_a_folder_comes_in_the_order_of_a_sorted_list(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "a/b/c.PNG", "a.png", "a0/x.jpg", "é.png", "a/.x/no.png", "a/no.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = list(find_images([str(tmp_path)]))
    assert found == [
        str(path)
        for path in sorted(tmp_path.rglob("*"))
        if not path.is_dir() and path.suffix != ".txt" and ".x" not in path.parts and "link" not in path.parts
    ]
    assert len(found) == 7 == count_images([str(tmp_path), "-"])


def test_a_folder_that_cannot_be_listed_is_a_fault(
    model: str, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if path == "deep":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = predict_files(model, ["."])
    assert paths(found) == ["0.png", "1.png"]
    assert len(found.faults) == 1 and "'deep'" in found.faults[0]


def test_a_name_that_no_file_can_have_is_a_fault(model: str, album: Path) -> None:
    found = predict_files(model, ["a\0b.png", "1.png"])
    assert paths(found) == ["1.png"] and len(found.faults) == 1


def test_names_in_no_encoding_come_from_standard_input(
    model: str, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (album / "1.png").rename(album / os.fsdecode(b"\xff.png"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff.png\n")))
    (found,) = predict_files(model, ["-"]).answers
    assert found.path == os.fsdecode(b"\xff.png") and found.name == "1"


def test_the_table() -> None:
    found = FilePredictions(
        "m",
        (
            ImagePrediction("a, b.png", "cat", ("cat", "dog"), (0.75, 0.25)),
            ImagePrediction("c.png", "dog", ("dog", "cat"), (2 / 3, 1 / 3)),
        ),
        (),
    )
    header, first, second = to_table(found).splitlines()
    assert header.split() == ["image", "class", "probability", "runners-up"]
    assert first == "a, b.png  cat    0.7500       dog 0.2500"
    assert second == "c.png     dog    0.6667       cat 0.3333"


def test_the_table_of_a_model_that_says_none_of_these() -> None:
    found = FilePredictions(
        "m",
        (
            ImagePrediction("a\n\udcff.png", "cat", ("cat", "dog"), (0.75, 0.25), 0.5),
            ImagePrediction("é.png", NONE_OF_THESE, ("dog", "cat"), (0.75, 0.25), 12.345),
        ),
        (),
    )
    assert to_table(found).splitlines() == [
        "image          class          probability  novelty  runners-up",
        r"a\n\udcff.png  cat            0.7500       0.50     dog 0.2500",
        "é.png          none of these               12.35    dog 0.7500, cat 0.2500",
    ]


def test_every_file_of_a_folder_is_predicted_or_counted(model: str, album: Path) -> None:
    """By content, through links once, and with the reason for every file that is not an image."""
    (album / "2.jfif").write_bytes((album / "0.png").read_bytes())
    (album / "3").write_bytes((album / "0.png").read_bytes())
    (album / "gone.png").symlink_to("/nowhere/gone.png")
    (album / "more").symlink_to(album / "deep")
    (album / "round").symlink_to(album)
    (album / "notes.txt").write_text("some words")
    (album / "pipe").unlink(missing_ok=True)
    os.mkfifo(album / "pipe")
    found = predict_files(model, ["."])
    assert {"2.jfif", "3"} <= set(paths(found))
    assert len(found.faults) == 1 and "it is a link to '/nowhere/gone.png'" in found.faults[0]
    assert found.others.n_files == 2 and found.others.first.endswith("notes.txt")
    assert found.others.reason == "it is a text file, not an image; leave it out"
