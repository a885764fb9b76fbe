"""Predictions as a Parquet table: one row per input in order, from files, shards and buckets, also after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from command import ERROR, Run
from headstart.data.readers.load import load
from headstart.errors import DataError, FetchError, MissingDataError, SettingError
from headstart.models import predict_parquet
from headstart.models.model import open_model
from headstart.models.predict import BATCH, predict_files
from headstart.models.predict_job import PredictRequest
from headstart.models.predict_parquet import predict_to_parquet
from headstart.records import TrainSettings
from headstart.strategies.scratch import learn_network
from headstart.system.runners import ProcessRunner
from ray_cluster import ray_cluster
from shard_files import cells, in_parts, parquet_of, tar_of

pa = pytest.importorskip("pyarrow", reason="needs headstart[tables]")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs headstart[tables]")
N_IMAGES = 5 * BATCH + 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    settings = TrainSettings(epochs=5, learning_rate=3e-3)
    learned = learn_network(load("digits:0-1"), network="mlp", engine="scratch", settings=settings)
    return str(learned.model.save(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as files, the third one cut off."""
    home, digits = tmp_path_factory.mktemp("photos"), load("digits:0-1")
    for number in range(N_IMAGES):
        Image.fromarray(digits.images.pixels[number % 360][..., 0]).save(home / f"{number:04}.png")  # type: ignore[index]
    whole = (home / "0002.png").read_bytes()
    (home / "0002.png").write_bytes(whole[:40])
    (home / "notes.txt").write_text("not an image")
    return home


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_parquet, "_PART", BATCH)


def rows(path: Path) -> list[dict[str, Any]]:
    return parquet.read_table(path).to_pylist()  # type: ignore[no-any-return]


def ask(model: str, *names: object, **more: Any) -> PredictRequest:
    return PredictRequest(model, tuple(map(str, names)), **more)


def test_one_row_for_each_image_in_order_with_what_predict_gives(
    model: str, photos: Path, tmp_path: Path
) -> None:
    done = predict_to_parquet(ask(model, photos), tmp_path / "out.parquet")
    found = rows(tmp_path / "out.parquet")
    assert [Path(one["path"]).name for one in found] == [f"{number:04}.png" for number in range(N_IMAGES)]
    assert (done.n_images, done.n_unread, done.n_kept, done.others.n_files) == (N_IMAGES, 1, 0, 1)
    assert found[2]["name"] is None and "0002.png" in found[2]["error"]
    expected = {one.path: one for one in predict_files(model, [str(photos)]).answers}
    for one in found[:2] + found[3:]:
        same = expected[one["path"]]
        assert (one["name"], tuple(one["classes"]), one["error"]) == (same.name, same.classes, None)
        assert one["probabilities"] == pytest.approx(same.probabilities, abs=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_shards_give_the_same_rows_under_their_own_names(model: str, photos: Path, tmp_path: Path) -> None:
    paths = sorted(photos.glob("*.png"))
    for number, some in enumerate(in_parts(paths, 3)):
        members = [(f"{path.stem}.png", path.read_bytes()) for path in some]
        tar_of(tmp_path / "tars" / f"{number}.tar", [*members, ("about.txt", b"x")])
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        parquet_of(
            tmp_path / "tables" / f"{number}.parquet", pa.table({"image": pa.array(cells(some), kind)}), 50
        )
    asked = {
        "files": photos,
        "tars": tmp_path / "tars",
        "pattern": tmp_path / "tars" / "{0..2}.tar",
        "tables": tmp_path / "tables",
        "table and tar": (tmp_path / "tables" / "0.parquet", tmp_path / "tars" / "[12].tar"),
    }
    found = {}
    for name, names in asked.items():
        given: Sequence[object] = names if isinstance(names, tuple) else (names,)
        predict_to_parquet(ask(model, *given), tmp_path / f"{name}.parquet")
        found[name] = rows(tmp_path / f"{name}.parquet")
    assert found["tars"][0]["path"] == "0.tar:0000.png" and found["tables"][0]["path"] == "0.parquet row 1"
    assert found["tars"] == found["pattern"]
    for name, some in found.items():
        assert [one["name"] for one in some] == [one["name"] for one in found["files"]], name
        assert [one["error"] is None for one in some] == [one["error"] is None for one in found["files"]], (
            name
        )
        assert len(some) == N_IMAGES


def test_a_file_with_the_signs_of_a_pattern_in_its_name_is_that_file(
    model: str, photos: Path, tmp_path: Path
) -> None:
    data = (photos / "0000.png").read_bytes()
    for name in ("a[1].tar", "a1.tar"):
        tar_of(tmp_path / name, [(f"{name}.png", data), ("x.cls", b"0"), ("about.pdf", b"x")])
    done = predict_to_parquet(ask(model, tmp_path / "a[1].tar"), tmp_path / "out.parquet")
    assert [one["path"] for one in rows(tmp_path / "out.parquet")] == ["a[1].tar:a[1].tar.png"]
    assert done.others.n_files == 1 and done.others.first.endswith("about.pdf")  # labels are no such files


def test_a_row_without_an_image_is_a_row_with_the_reason(model: str, photos: Path, tmp_path: Path) -> None:
    data = (photos / "0000.png").read_bytes()
    parquet.write_table(pa.table({"image": pa.array([data, None, data])}), tmp_path / "in.parquet")
    predict_to_parquet(ask(model, tmp_path / "in.parquet"), tmp_path / "out.parquet")
    first, second, third = rows(tmp_path / "out.parquet")
    assert first["error"] is None and third["error"] is None and first["name"] == third["name"]
    assert second["error"] == "image 'in.parquet row 2' cannot be read (it has no image), expected a readable " \
        "image; fill it in, or drop the row"  # fmt: skip


def test_other_processes_write_the_same_file(model: str, photos: Path, tmp_path: Path) -> None:
    predict_to_parquet(ask(model, photos, top=1), tmp_path / "here.parquet")
    predict_to_parquet(ask(model, photos, top=1), tmp_path / "there.parquet", runner=ProcessRunner())
    assert rows(tmp_path / "here.parquet") == rows(tmp_path / "there.parquet")
    assert "answer_set" not in parquet.read_schema(tmp_path / "here.parquet").names


KILLED = """
import sys, time
from headstart.models import predict_parquet
from headstart.models.predict_job import PredictRequest
predict_parquet._PART = 64
real = predict_parquet._Parts.write
def write(self, number, columns):
    real(self, number, columns)
    time.sleep(0.3)
predict_parquet._Parts.write = write
predict_parquet.predict_to_parquet(PredictRequest(sys.argv[1], (sys.argv[2],)), sys.argv[3])
"""


def test_after_a_kill_the_same_command_goes_on_and_reads_nothing_twice(
    model: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, parts = tmp_path / "out.parquet", tmp_path / "out.parquet.part"
    with subprocess.Popen([sys.executable, "-c", KILLED, model, str(photos), str(target)]) as killed:
        while len(list(parts.glob("*.parquet")) if parts.exists() else ()) < 2:
            assert killed.poll() is None
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    assert not target.exists()
    n_kept = BATCH * len(list(parts.glob("*.parquet")))
    read: list[int] = []
    real = predict_parquet._Predictor._columns
    monkeypatch.setattr(
        predict_parquet._Predictor, "_columns", lambda self, part: read.append(len(part)) or real(self, part)
    )
    done = predict_to_parquet(ask(model, photos), target)
    assert (done.n_kept, done.n_images, sum(read)) == (n_kept, N_IMAGES, N_IMAGES - n_kept)
    predict_to_parquet(ask(model, photos), tmp_path / "whole.parquet")
    assert rows(target) == rows(tmp_path / "whole.parquet")
    assert not parts.exists()


def interrupted(model: str, photos: Path, target: Path) -> None:
    """Leave the first part of a run behind."""

    class Stop(Exception):
        pass

    def write(self: Any, number: int, columns: Any) -> None:
        real(self, number, columns)
        raise Stop

    real = predict_parquet._Parts.write
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(predict_parquet._Parts, "write", write)
        predict_to_parquet(ask(model, photos), target)


def test_a_part_of_other_images_or_a_damaged_one_is_made_again(
    model: str, photos: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    interrupted(model, copy, tmp_path / "out.parquet")
    (copy / "0000.png").unlink()  # every image has another place now
    done = predict_to_parquet(ask(model, copy), tmp_path / "out.parquet")
    assert (done.n_kept, done.n_images) == (0, N_IMAGES - 1)
    interrupted(model, copy, tmp_path / "second.parquet")
    (part,) = (tmp_path / "second.parquet.part").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-9])
    assert predict_to_parquet(ask(model, copy), tmp_path / "second.parquet").n_kept == 0
    assert rows(tmp_path / "out.parquet") == rows(tmp_path / "second.parquet")


def test_an_unfinished_file_of_another_run_is_refused(model: str, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    interrupted(model, photos, target)
    with pytest.raises(SettingError, match=r"is of an interrupted run with other images, expected the same"):
        predict_to_parquet(ask(model, photos / "0001.png"), target)
    with pytest.raises(SettingError, match=r"with another --top or --sets, expected the same"):
        predict_to_parquet(ask(model, photos, top=1), target)
    assert predict_to_parquet(ask(model, photos), target).n_kept == BATCH


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("nowhere/*.tar", MissingDataError, "does not exist, expected files of these names"),
        ("{empty}", MissingDataError, "contains no image"),
        ("{labels}", DataError, "expected one with the bytes of images"),
        ("s3://127.0.0.1:9/data", (FetchError, MissingDataError, DataError), "expected"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    name: str, error: Any, text: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (tmp_path / "empty").mkdir()
    parquet.write_table(pa.table({"label": ["a"]}), tmp_path / "labels.parquet")
    given = name.format(empty=tmp_path / "empty", labels=tmp_path / "labels.parquet")
    with pytest.raises(error, match=text) as caught:
        predict_to_parquet(ask(model, given), tmp_path / "out.parquet")
    assert "\n" not in str(caught.value) and not (tmp_path / "out.parquet").exists()


def test_the_command(model: str, photos: Path, tmp_path: Path, run: Run) -> None:
    target = tmp_path / "out.parquet"
    said = run("predict", model, str(photos), "-o", str(target))
    assert said.code == 1 and f"{target}: {N_IMAGES} images in " in said.out
    assert (
        f"{ERROR}1 of {N_IMAGES} images could not be read" in said.err
        and "1 files are not images" in said.err
    )
    assert len(rows(target)) == N_IMAGES
    for options, text in (
        (("-o", "out.csv"), "has another ending, expected a file to write such as answers.parquet"),
        (("-o", str(target), "--csv", "out.csv"), "both name a file"),
        (("--runner", "ray"), "without --output"),
        (("-o", str(target), "--runner", "slurm"), "runner is 'slurm', expected local, ray"),
    ):
        assert text in run("predict", model, str(photos), *options).err


@pytest.fixture
def cluster() -> Iterator[Any]:
    with ray_cluster(2) as made:
        yield made


@pytest.mark.slow
def test_on_a_cluster_the_file_is_the_same(
    cluster: Any, model: str, photos: Path, tmp_path: Path, run: Run
) -> None:
    names = [str(tmp_path / f"{one}.parquet") for one in ("here", "there")]
    run("predict", model, str(photos), "-o", names[0])
    run("predict", model, str(photos), "-o", names[1], "--runner", f"ray:{cluster.address}")
    assert rows(Path(names[0])) == rows(Path(names[1]))
    assert open_model(model).classes == ("0", "1") and os.path.exists(names[1])
