"""Predictions for inputs of every kind: one answer per image, in their order; copies and forks of models."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays, load
from headstart.errors import BrokenDataError, DataError, HeadstartError, MissingDataError
from headstart.models.model import Model
from headstart.models.predict import predict_files
from tiny_model import tiny_model

LEVELS = [0, 51, 102, 204, 255]
MANY = np.stack([np.full((8, 8), level, np.uint8) for level in LEVELS])
NAMES = ["dark", "dark", "dark", "light", "light"]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "album").mkdir()
    for number, pixels in enumerate(MANY):
        Image.fromarray(pixels).save(tmp_path / "album" / f"{number}.png")
    return [Path("album") / f"{number}.png" for number in range(len(MANY))]


def stream() -> Iterator[Any]:
    yield from MANY


def test_many_images_in_every_form(model: Model, album: list[Path]) -> None:
    expected = model.probabilities(from_arrays(MANY, NAMES))
    np.testing.assert_allclose(expected[:, 1], np.array(LEVELS) / 255, atol=1e-6)
    for images in (
        MANY,
        MANY[..., None],
        MANY[:, None],
        MANY / 255,
        np.repeat(MANY[..., None], 3, axis=-1),
        MANY.tolist(),
        list(MANY),
        tuple(MANY),
        stream(),
        np.array([*MANY[:4], np.full((9, 9), 255, np.uint8)], dtype=object),
        "album",
        Path("album"),
        "album/*.png",
        album,
        [str(path) for path in album],
        np.array([str(path) for path in album]),
        pd.Series([str(path) for path in album], index=[5, 4, 3, 2, 1]),
        [path.read_bytes() for path in album],
        [Image.open(path) for path in album],
        (Image.open(path) for path in album),
        [album[0], MANY[1], Image.open(album[2]), album[3].read_bytes(), io.BytesIO(album[4].read_bytes())],
    ):
        np.testing.assert_allclose(model.probabilities(images), expected, atol=1e-6)


def test_one_image_gives_one_answer(model: Model, album: list[Path]) -> None:
    with album[3].open("rb") as file:
        for image in (
            album[3],
            str(album[3]),
            album[3].read_bytes(),
            file,
            Image.open(album[3]),
            MANY[3],
            MANY[3:4],
            np.full((320, 480, 3), 204, np.uint8),
            np.full((1, 1), 0.8),
        ):
            found = model.predict(image)
            assert found.shape == (1,) and found.tolist() == ["light"]
            assert model.probabilities(image).shape == (1, 2)


def test_the_order_and_number_of_a_list_are_kept(model: Model, album: list[Path]) -> None:
    names = model.predict([album[4], album[0], album[4], album[4]])
    assert names.tolist() == ["light", "dark", "light", "light"]
    same = Image.open(album[4])
    assert model.predict([same] * 9).tolist() == ["light"] * 9


def test_nothing_gives_nothing(model: Model) -> None:
    for images in ([], (), iter([]), MANY[:0], pd.Series([], dtype=object)):
        assert model.predict(images).shape == (0,) and model.probabilities(images).shape == (0, 2)


def test_a_stream_is_read_batch_by_batch(model: Model) -> None:
    read = []

    def watched() -> Iterator[Any]:
        for number in range(200):
            read.append(number)
            yield MANY[number % 5]

    prepared = model.predict(watched())
    assert len(prepared) == 200 == len(read) and prepared.tolist() == NAMES * 40

    def failing() -> Iterator[Any]:
        yield from MANY
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="camera"):
        model.predict(failing())


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (None, "images is None"),
        ({"a": 1}, "images is of type dict"),
        ({"a.png"}, "images is of type set"),
        (3, "images is of type int"),
        (pd.DataFrame({"path": ["a.png"]}), "DataFrame, .*; pass its column of paths"),
        ("digits:0-1", r"pass headstart.load\('digits:0-1'\)"),
        ("data.zip", r"table or an archive, .*headstart.load\('data.zip'\)"),
        ("https://example.org/a.png", "address"),
        (["album/0.png", "album/gone.png"], "'album/gone.png' does not exist"),
        (["album/0.png", "note.txt"], "'note.txt' cannot be read"),
        (["album"], "image 0 is the folder 'album'"),
        ([(MANY[0], 1)], "image 0 is a tuple of 2"),
        (["album/0.png", None], "image 1 is of type NoneType"),
        ([MANY[0], MANY[1] * 2.0], "image 1 has float64 values"),
        ("*.gif", "contains no image"),
        ("", "empty"),
        ([[1, 2], [3]], "images is a list of 2, expected a path"),
        ("~nobody-of-this-name/a.png", "'~nobody-of-this-name/a.png' does not exist"),
        (np.ma.array(MANY, mask=MANY > 200), "images is an array with masked values"),
        ([np.ma.array(MANY[0], mask=True)], "image 0 is an array with masked values"),
    ],
)
def test_other_inputs_are_one_sentence(model: Model, album: list[Path], images: Any, said: str) -> None:
    Path("note.txt").write_text("no image")
    Path("data.zip").write_bytes(b"PK")
    with pytest.raises(HeadstartError, match=said) as caught:
        model.predict(images)
    assert ", expected " in str(caught.value) and "\n" not in str(caught.value)


def test_an_image_later_in_a_stream_is_named_by_its_number(model: Model) -> None:
    with pytest.raises(DataError, match="image 70 is of type int"):
        model.predict(iter([MANY[0]] * 70 + [7]))


def test_a_folder_with_a_broken_image_is_no_shorter_answer(model: Model, album: list[Path]) -> None:
    Path("album/3.png").write_bytes(b"torn")
    with pytest.raises(BrokenDataError, match=r"3\.png"):
        model.predict("album")
    found = predict_files(model, "album")
    assert [one.path for one in found.answers] == [str(path) for path in album if path.name != "3.png"]
    assert len(found.faults) == 1 and "3.png" in found.faults[0]
    with pytest.raises(MissingDataError):
        predict_files(model, ["nothing/*.png"])


# ---- copies and other processes


def test_a_model_is_copied_and_pickled_after_a_prediction(model: Model, digits: Dataset) -> None:
    before = model.probabilities(MANY)
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other is not model and other.classes == model.classes
        assert np.array_equal(other.probabilities(MANY), before)
    assert len(pickle.dumps(model)) < len(model.graph) + 20_000


FORK = """
import os, signal, sys
import numpy as np
sys.path.insert(0, {tests!r})
from tiny_model import tiny_model
signal.alarm(200)  # ends a process that hangs; each child sets its own
model, images = tiny_model(), np.full((5, 8, 8), 204, np.uint8)
before = model.probabilities(images, runtime_name={runtime!r})
{how}
"""
BY_HAND = """
for again in range(2):  # a child of a child, too
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(status != 0) if again else sys.exit(status != 0)
    signal.alarm(200)
    assert np.array_equal(model.probabilities(images, runtime_name=runtime), before)
sys.exit(0)  # an ordinary exit, with destructors
"""
BY_POOL = """
from multiprocessing import get_context
def work(number):
    return model.probabilities(images[:number + 1], runtime_name=runtime)
with get_context("fork").Pool(2, signal.alarm, (200,)) as pool:
    for number, found in enumerate(pool.map(work, range(4))):
        np.testing.assert_allclose(found, before[:number + 1], atol=1e-6)
"""
UNUSED = """
child = os.fork()
if not child:
    signal.alarm(200)
    sys.exit(0)  # a worker that ends without having predicted anything
sys.exit(os.waitpid(child, 0)[1] != 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="needs fork")
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("how", [BY_HAND, BY_POOL, UNUSED], ids=["by hand", "pool", "unused"])
def test_a_forked_process_predicts_and_ends(runtime: str, how: str) -> None:
    code = FORK.format(
        tests=str(Path(__file__).parent.parent), runtime=runtime, how=f"runtime = {runtime!r}\n{how}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "place", ["~nobody-of-this-name/set", "~nobody-of-this-name/set.csv", "~nobody-of-this-name"]
)
def test_the_home_of_nobody_is_one_sentence(place: str) -> None:
    """pathlib raises RuntimeError for it."""
    with pytest.raises(DataError, match="expected"):
        load(place)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_forked_after_a_graph_was_deleted_predicts() -> None:
    """Learning compiles graphs and deletes them; their idle threads were used for the child's first graph."""
    code = """
import os
import numpy as np
import headstart as hs
from tiny_model import tiny_model
def compute():
    return len(tiny_model().predict(np.zeros((3, 8, 8), np.uint8)))
kept = tiny_model()
kept.predict(np.zeros((3, 8, 8), np.uint8))
compute()
child = os.fork()
if not child:
    os._exit(compute())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.stdout == "3\n", done.stderr
