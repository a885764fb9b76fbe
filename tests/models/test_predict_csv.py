"""A large folder as a table: rows in order, names that survive, runs that go on where they were killed."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command import ERROR, Run
from headstart.data.readers.load import load
from headstart.errors import MissingDataError, ModelError, SettingError
from headstart.models import predict_csv as predict_batch
from headstart.models.model import Model, open_model
from headstart.models.predict import BATCH, ImagePrediction, UnreadableImage, predict_images
from headstart.models.predict_csv import check_file, predict_to_file, predict_to_stream, row
from headstart.models.predict_job import PredictRequest, columns
from headstart.records import NONE_OF_THESE, Prediction, TrainSettings
from headstart.strategies.scratch import learn_network

N_PICTURES = 3 * BATCH + 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Zeros against ones, well learnt."""
    settings = TrainSettings(epochs=10, learning_rate=3e-3)
    learnt = learn_network(load("digits:0-1"), network="mlp", engine="scratch", settings=settings)
    return str(learnt.model.save(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits in folders, one of them torn."""
    home = tmp_path_factory.mktemp("shelf")
    pixels = load("digits").images.pixels  # type: ignore[attr-defined]
    for index in range(N_PICTURES):
        path = home / f"{index % 3}" / f"{index:04}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[index, ..., 0]).save(path)
    torn = home / "1" / "0004.png"
    torn.write_bytes(torn.read_bytes()[:40])
    return home


@pytest.fixture
def asked(model: str, shelf: Path, desk: Path) -> PredictRequest:
    return PredictRequest(model, (str(shelf),), top=2)


@pytest.fixture
def whole(asked: PredictRequest, tmp_path: Path) -> bytes:
    """What a run that nothing interrupts writes."""
    predict_to_file(asked, tmp_path / "whole.csv")
    return (tmp_path / "whole.csv").read_bytes()


def rows_of(content: bytes) -> list[dict[str, str]]:
    text = content.decode("utf-8", "surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


class Heard:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.remarks: list[str] = []

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        self.steps.append((done, total))

    def remark(self, text: str) -> None:
        self.remarks.append(text)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[PredictRequest, int], Heard]:
    """Run and press Ctrl-C after some batches."""

    def run(asked: PredictRequest, n_batches: int) -> Heard:
        def stopping(*words: Any, **options: Any) -> Iterator[list[ImagePrediction | UnreadableImage]]:
            for index, batch in enumerate(predict_images(*words, **options)):
                if index == n_batches:
                    raise KeyboardInterrupt
                yield batch

        heard = Heard()
        with monkeypatch.context() as patch:
            patch.setattr(predict_batch, "predict_images", stopping)
            with pytest.raises(KeyboardInterrupt):
                predict_to_file(asked, "out.csv", heard)
        return heard

    return run


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the model is asked about, batch by batch."""
    sizes: list[int] = []
    real = Model.predict_prepared

    def counting(self: Model, prepared: Any, **options: Any) -> Prediction:
        batches = list(prepared)
        sizes.extend(len(one) for one in batches)
        return real(self, batches, **options)

    monkeypatch.setattr(Model, "predict_prepared", counting)
    return sizes


@pytest.mark.slow
def test_every_picture_is_a_row_in_order(asked: PredictRequest, whole: bytes, shelf: Path) -> None:
    rows = rows_of(whole)
    assert [one["path"] for one in rows] == sorted(str(path) for path in shelf.rglob("*.png"))
    (torn,) = [one for one in rows if one["error"]]
    assert torn["path"].endswith("1/0004.png") and repr(torn["path"]) in torn["error"]
    assert torn["name"] == torn["class_1"] == torn["probability_2"] == torn["novelty"] == ""
    opened = open_model(asked.model)
    good = [one for one in rows if not one["error"]]
    dataset = load("digits").subset([int(Path(one["path"]).stem) for one in good])
    said = opened.prediction(dataset)
    best = said.probabilities
    assert [float(one["probability_1"]) for one in good] == pytest.approx(best.max(axis=1), rel=1e-5)
    assert [one["class_1"] for one in good] == [opened.classes[code] for code in best.argmax(axis=1)]
    assert [one["name"] for one in good] == said.names(opened.classes).tolist()
    assert all({one["class_1"], one["class_2"]} == {"0", "1"} for one in good)
    if said.novelty is not None:  # the batches are others here, and with them the last digits
        assert [float(one["novelty"]) for one in good] == pytest.approx(said.novelty, rel=1e-4)


def test_what_is_said_of_a_run(asked: PredictRequest) -> None:
    heard = Heard()
    done = predict_to_file(asked, "new/out.csv", heard)
    assert (done.csv, done.n_images, done.n_unread, done.n_kept) == ("new/out.csv", N_PICTURES, 1, 0)
    assert heard.steps[-1] == (N_PICTURES, N_PICTURES) and heard.remarks == []
    assert os.listdir("new") == ["out.csv"]


def test_a_stream_gets_the_same(asked: PredictRequest, whole: bytes) -> None:
    stream = io.BytesIO()
    done = predict_to_stream(asked, stream)
    assert stream.getvalue() == whole and (done.csv, done.n_images, done.n_unread) == ("-", N_PICTURES, 1)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_how_many_batches_go_together_does_not_matter(
    asked: PredictRequest, whole: bytes, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, alone = io.BytesIO(), io.BytesIO()
    predict_to_stream(replace(asked, runtime_name=runtime), together)
    monkeypatch.setattr("headstart.models.predict._TOGETHER_S", -1)
    predict_to_stream(replace(asked, runtime_name=runtime), alone)
    assert alone.getvalue() == together.getvalue()
    assert (together.getvalue() == whole) or runtime == "onnxruntime"


def test_a_batch_of_torn_images_only(model: str, desk: Path) -> None:
    for index in range(BATCH + 1):
        Path(f"{index:03}.png").write_bytes(b"torn")
    Image.new("L", (8, 8)).save("good.png")
    done = predict_to_file(PredictRequest(model, (".",)), "out.csv")
    rows = rows_of(Path("out.csv").read_bytes())
    assert (done.n_images, done.n_unread) == (BATCH + 2, BATCH + 1)
    assert [one["path"] for one in rows if not one["error"]] == ["good.png"]
    assert predict_to_file(PredictRequest(model, ("000.png",)), "one.csv").n_unread == 1


def test_an_older_file_stands_until_the_new_is_whole(
    asked: PredictRequest, whole: bytes, interrupt: Callable[[PredictRequest, int], Heard]
) -> None:
    Path("out.csv").write_text("older")
    interrupt(asked, 1)
    assert Path("out.csv").read_text() == "older"
    predict_to_file(asked, "out.csv")
    assert Path("out.csv").read_bytes() == whole


def test_an_interrupted_run_goes_on(
    asked: PredictRequest,
    whole: bytes,
    interrupt: Callable[[PredictRequest, int], Heard],
    answered: list[int],
) -> None:
    heard = interrupt(asked, 2)
    assert heard.remarks == [
        f"headstart: {2 * BATCH} of {N_PICTURES} images are in out.csv.part; "
        "the same command continues from there"
    ]
    assert sorted(os.listdir()) == ["out.csv.part", "out.csv.part.json"]
    answered.clear()
    again = Heard()
    done = predict_to_file(asked, "out.csv", again)
    assert Path("out.csv").read_bytes() == whole and os.listdir() == ["out.csv"]
    assert answered == [BATCH, 7]
    assert (done.n_images, done.n_unread, done.n_kept) == (N_PICTURES, 1, 2 * BATCH)
    assert again.remarks == ["headstart: continuing after 128 images of an interrupted run"]
    assert again.steps[0] == (2 * BATCH, N_PICTURES)


@pytest.mark.slow
def test_killed_at_any_byte_it_ends_the_same(
    asked: PredictRequest, whole: bytes, interrupt: Callable[[PredictRequest, int], Heard]
) -> None:
    interrupt(asked, 3)
    about = Path("out.csv.part.json").read_text()
    lines = whole.splitlines(keepends=True)
    batch_end = len(b"".join(lines[: 1 + BATCH]))
    rng = np.random.default_rng(0)
    cuts = [0, 5, len(lines[0]), len(lines[0]) + 1, batch_end - 1, batch_end, batch_end + 1, len(whole)]
    for cut in [*cuts, *rng.integers(0, len(whole), 8)]:
        Path("out.csv.part").write_bytes(whole[:cut])
        Path("out.csv.part.json").write_text(about)
        done = predict_to_file(asked, "out.csv")
        assert Path("out.csv").read_bytes() == whole, cut
        n_lines = whole[:cut].count(b"\n") - 1
        assert done.n_kept == max(0, n_lines // BATCH * BATCH), cut


@pytest.mark.parametrize("damage", [b"\0" * 4096, b'"a,\n' * 9, b"\xff\xfe\n", b"a,b\n", b'x"y"z,"\n"'])
def test_what_a_crash_of_the_machine_leaves_is_cut(
    asked: PredictRequest, whole: bytes, interrupt: Callable[[PredictRequest, int], Heard], damage: bytes
) -> None:
    interrupt(asked, 1)
    with Path("out.csv.part").open("ab") as part:
        part.write(damage)
    assert predict_to_file(asked, "out.csv").n_kept == BATCH
    assert Path("out.csv").read_bytes() == whole


def test_what_changed_in_the_folder_is_answered_anew(
    model: str, desk: Path, interrupt: Callable[[PredictRequest, int], Heard]
) -> None:
    pixels = load("digits").images.pixels  # type: ignore[attr-defined]
    (desk / "in").mkdir()
    for index in range(3 * BATCH):
        Image.fromarray(pixels[index, ..., 0]).save(f"in/{index:04}.png")
    asked = PredictRequest(model, ("in",))
    interrupt(asked, 2)
    Path(f"in/{BATCH + 9:04}.png").rename("in/9999.png")
    done = predict_to_file(asked, "out.csv")
    assert done.n_kept == BATCH
    predict_to_file(asked, "whole.csv")
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.slow
def test_killed_for_good_at_some_moment(asked: PredictRequest, whole: bytes, shelf: Path) -> None:
    """Kill -9 on the real command, then the same command."""
    slow = (
        "import sys, time\nfrom pathlib import Path\n"
        "from headstart.models import predict_csv as predict_batch\n"
        "real, part = predict_batch.predict_images, Path('out.csv.part')\n"
        "def slowly(*words, **options):\n    for batch in real(*words, **options):\n"
        "        if part.exists() and part.stat().st_size > 4096:\n            time.sleep(600)\n"
        "        yield batch\n"
        "predict_batch.predict_images = slowly\nfrom headstart.interfaces.cli.main import main\nmain()\n"
    )
    words = ["predict", asked.model, str(shelf), "--top", "2", "--csv", "out.csv"]
    with subprocess.Popen([sys.executable, "-c", slow, *words]) as process:
        part, until = Path("out.csv.part"), time.monotonic() + 60
        while time.monotonic() < until and not (part.exists() and part.stat().st_size > 4096):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not Path("out.csv").exists()
    assert 4096 < part.stat().st_size < len(whole)
    again = subprocess.run(
        [sys.executable, "-m", "headstart", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 1  # for the torn one
    assert "of them by an interrupted run" in again.stdout and "1 of 199 images" in again.stderr
    assert Path("out.csv").read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top": 1}, "another --top"),
        ({"runtime_name": "onnxruntime"}, "another --runtime"),
        ({"patterns": (".",)}, "other images"),
        ({"model": "other"}, "another model"),
    ],
)
def test_what_another_run_left_is_not_gone_on_with(
    asked: PredictRequest,
    interrupt: Callable[[PredictRequest, int], Heard],
    change: dict[str, Any],
    said: str,
) -> None:
    opened = open_model(asked.model)
    replace(opened, manifest=replace(opened.manifest, classes=("no", "yes"))).save("other")
    Image.new("L", (8, 8)).save("a.png")
    interrupt(asked, 1)
    before = Path("out.csv.part").read_bytes()
    with pytest.raises(SettingError, match=f"{said}.*expected the same.*delete out.csv.part"):
        predict_to_file(replace(asked, **change), "out.csv")
    assert Path("out.csv.part").read_bytes() == before


def test_a_model_that_only_moved_is_the_same(
    asked: PredictRequest, whole: bytes, interrupt: Callable[[PredictRequest, int], Heard]
) -> None:
    interrupt(asked, 1)
    open_model(asked.model).save("moved")
    assert predict_to_file(replace(asked, model="moved"), "out.csv").n_kept == BATCH
    assert Path("out.csv").read_bytes() == whole


@pytest.mark.parametrize("about", [None, "", "[]", "{}"])
def test_a_part_that_nobody_knows_is_left_alone(asked: PredictRequest, about: str | None) -> None:
    Path("out.csv.part").write_text("somebody's")
    if about is not None:
        Path("out.csv.part.json").write_text(about)
    with pytest.raises(SettingError, match="expected both or neither"):
        predict_to_file(asked, "out.csv")
    assert Path("out.csv.part").read_text() == "somebody's"


def test_two_runs_do_not_write_one_file(
    asked: PredictRequest, interrupt: Callable[[PredictRequest, int], Heard]
) -> None:
    fcntl = pytest.importorskip("fcntl")
    interrupt(asked, 1)
    with Path("out.csv.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SettingError, match="another run"):
            predict_to_file(asked, "out.csv")
    assert predict_to_file(asked, "out.csv").n_kept == BATCH


STRANGE = [
    "a,b.png",
    'say "hi".png',
    "two\nlines.png",
    "back\rhome.png",
    " lead.png",
    b"\xff\xfe.png",
    "é漢.png",
    '"\n,.png',
]


def test_strange_names_survive_and_are_gone_on_with(
    model: str, desk: Path, interrupt: Callable[[PredictRequest, int], Heard]
) -> None:
    (desk / "in").mkdir()
    for name in [*STRANGE, *(f"{index}.png" for index in range(2 * BATCH))]:
        Image.new("L", (8, 8)).save(os.path.join("in", os.fsdecode(name)))
    asked = PredictRequest(model, ("in",))
    predict_to_file(asked, "whole.csv")
    names = {os.fsencode(one["path"].removeprefix("in/")) for one in rows_of(Path("whole.csv").read_bytes())}
    assert {os.fsencode(name) for name in STRANGE} < names and len(names) == 2 * BATCH + len(STRANGE)
    interrupt(asked, 2)
    assert predict_to_file(asked, "out.csv").n_kept == 2 * BATCH
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_words_that_mean_nothing_leave_nothing(asked: PredictRequest, desk: Path) -> None:
    for words in (("*.png",), (".",), (*asked.patterns, "*.png")):
        with pytest.raises(MissingDataError, match="contains no image"):
            predict_to_file(replace(asked, patterns=words), "out.csv")
    with pytest.raises(ModelError):
        predict_to_file(replace(asked, model="absent"), "out.csv")
    assert os.listdir() == []


@pytest.mark.parametrize("name", ["a.png", "A.JPG", "--top", "."])
def test_what_is_no_place_for_a_table(desk: Path, name: str) -> None:
    with pytest.raises(SettingError, match=r"expected a file to write such as out\.csv"):
        check_file(name)


def test_rows_and_header_are_as_wide() -> None:
    known = ImagePrediction("a", "x", ("x", "y"), (2 / 3, 1 / 3), 0.25)
    strange = ImagePrediction("a", NONE_OF_THESE, ("x", "y"), (2 / 3, 1 / 3), 3.0)
    assert row(known, 2) == ["a", "x", "x", "0.666667", "y", "0.333333", "0.25", ""]
    assert row(strange, 2)[1:3] == [NONE_OF_THESE, "x"] and row(strange, 2)[-2:] == ["3", ""]
    assert row(UnreadableImage("a", "torn"), 2) == ["a", "", "", "", "", "", "", "torn"]
    assert len(columns(2)) == 8


def test_the_command_writes_a_file(run: Run, asked: PredictRequest, whole: bytes, shelf: Path) -> None:
    said = run("predict", asked.model, shelf, "--top", "2", "--csv", "out.csv")
    assert said.code == 1 and said.out.startswith("out.csv: 199 images in ")
    assert said.err == (
        f"{ERROR}1 of 199 images could not be read, expected complete image files; "
        "the reasons are in the column error of out.csv\n"
    )
    assert Path("out.csv").read_bytes() == whole
    said = run("predict", asked.model, shelf / "0", "--csv", "out.csv", "--json")
    assert (said.code, said.err) == (0, "") and said.document["n_unread"] == 0


def test_the_command_writes_to_stdout(run: Run, asked: PredictRequest, whole: bytes, shelf: Path) -> None:
    said = run("predict", asked.model, shelf, "--top", "2", "--csv", "-")
    assert said.code == 1 and said.out.encode() == whole and said.err.startswith(f"{ERROR}1 of 199 images")


def test_the_command_never_writes_over_a_picture(
    refused: Callable[..., Any], asked: PredictRequest, desk: Path
) -> None:
    Image.new("L", (8, 8)).save("a.png")
    refused("predict", asked.model, "a.png", "--csv", "a.png", names=("'a.png'", "out.csv"))
    refused("predict", asked.model, "a.png", "--csv", "--json", names=("'--json'",))
    refused("predict", asked.model, "a.png", "--json", "--csv", "-", names=("--json and --csv -",))


def test_the_command_interrupted(
    run: Run, asked: PredictRequest, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*words: Any, **options: Any) -> Iterator[list[ImagePrediction | UnreadableImage]]:
        yield next(iter(predict_images(*words, **options)))
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_batch, "predict_images", stopping)
    said = run("predict", asked.model, shelf, "--csv", "out.csv")
    assert said.code == 130 and "the same command continues from there" in said.err and said.out == ""


def test_names_in_no_encoding_are_json_and_table(run: Run, model: str, desk: Path) -> None:
    Image.new("L", (8, 8)).save(os.fsdecode(b"\xff.png"))
    said = run("predict", model, ".", "--json")
    assert json.loads(said.out)["answers"][0]["path"] == os.fsdecode(b"\xff.png")
    assert r"\udcff.png" in run("predict", model, ".").out
