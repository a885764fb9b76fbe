"""The command embed, and commands that start from what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from command import Run, Said
from headstart.data.images.thumbnails import png_bytes
from headstart.system import optional

pytest.importorskip("pyarrow")


def test_features_of_a_dataset_and_a_model_from_them(run: Run, desk: Path) -> None:
    said = run("embed", "pixels", "digits:0-1", "-o", "f.parquet")
    assert (said.code, said.err) == (0, ""), said
    assert said.out.splitlines() == [
        "360 images of digits:0-1: 64 features as float32, from pixels at values, flat",
        "Features: f.parquet",
    ]
    again = run("embed", "pixels", "digits:0-1", "-o", "f.parquet")
    assert "1 of 1 files were there already and were kept" in again.out
    made = run("transfer", "f.parquet", "-o", "model", "--head", "ridge", "--json")
    assert made.code == 0, made
    assert made.err == "headstart: source pixels, which computed the features\n"
    assert "read from f.parquet: 360 rows" in json.loads(made.out)["result"]["facts"]["features"]
    assert "read from f.parquet" in (desk / "model/report.html").read_text()


def test_the_source_may_be_left_out_and_is_named(run: Run, desk: Path) -> None:
    said = run("embed", "digits:0-1", "-o", "parts", "--shard-size", "200", "--float16", "--json")
    found = json.loads(said.out)
    assert (found["source"], found["dtype"], found["n_kept"]) == ("drawings", "float16", 0)
    assert found["files"] == ["parts/part-00000.parquet", "parts/part-00001.parquet"]
    assert "source drawings, since" in said.err
    listed = run("inspect", "parts")
    assert listed.code == 0 and "digits:0-1: 360 images, 2 classes" in listed.out


def test_a_study_from_features_of_images_that_are_gone(run: Run, desk: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(40):
        place = desk / "photos" / ("ant" if number % 2 else "bee") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shade = 150 if number % 2 else 20
        place.write_bytes(png_bytes(rng.integers(shade, shade + 80, (20, 20, 3)).astype(np.uint8)))
    (desk / "photos/ant/broken.png").write_bytes(b"\x89PNG")
    said = run("embed", "pixels", "photos", "-o", "f.parquet", "--json")
    assert said.code == 0 and "1 of 41 files skipped" in said.err
    assert [one["path"] for one in json.loads(said.out)["skipped"]] == ["photos/ant/broken.png"]
    assert run("embed", "pixels", "photos", "-o", "g.parquet", "--strict").code == 1
    assert not (desk / "g.parquet").exists()
    (desk / "photos").rename(desk / "elsewhere")
    done = run("study", "f.parquet", "-o", "report", "--labels", "all", "--head", "ridge")
    assert done.code == 0, done
    assert "The controls scratch and HOG are left out, because the images are not there" in done.out
    assert "40 of 40 image files are not there" in done.out


def test_wrong_requests_are_one_line(refused: Callable[..., Said], run: Run, desk: Path) -> None:
    run("embed", "pixels", "digits:0-1", "-o", "f.parquet")
    refused(
        "embed", "pixels", "digits:0-1", "-o", "f.parquet", "--float16", names=("dtype", "another request")
    )
    refused("embed", "pixels", "digits:0-1", "-o", "x", "--layer", "nothing", names=("layer 'nothing'",))
    refused("embed", "pixels", "digits:0-1", "-o", "x", "--precision", "bf16", names=("precision is 'bf16'",))
    refused("embed", "digits:0-1", "pixels", "-o", "x", names=("swap them",))
    refused("transfer", "f.parquet", "-o", "m", "--policy", "crop", names=("policy is 'crop'",))
    refused("transfer", "photos", "f.parquet", "-o", "m", names=("source 'photos' has the fingerprint",))


def test_without_pyarrow_it_is_one_sentence(
    refused: Callable[..., Said], run: Run, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("embed", "pixels", "digits:0-1", "-o", "f.parquet")
    real_find, real_import = optional.find_spec, optional.import_module

    def missing(module: str) -> object:
        if module.startswith("pyarrow"):
            raise ModuleNotFoundError(f"No module named {module!r}", name="pyarrow")
        return real_import(module)

    monkeypatch.setattr(optional, "import_module", missing)
    monkeypatch.setattr(optional, "find_spec", lambda name: None if name == "pyarrow" else real_find(name))
    said = "install it with: pip install 'headstart[tables]'"
    refused("embed", "pixels", "digits:0-1", "-o", "g.parquet", names=(said,))
    refused("transfer", "f.parquet", "-o", "m", names=(said,))
