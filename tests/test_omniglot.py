"""Omniglot: two archives, one dataset, and the bundled source that learnt from it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.readers import load
from headstart.errors import BrokenDataError, MissingDataError
from headstart.sources import open_source


def archive(path: Path, places: list[str], side: int = 105) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as home:
        for number, place in enumerate(places):
            pixels = np.full((side, side), 255, np.uint8)
            pixels[40:60, 10 : 20 + number] = 0
            data = io.BytesIO()
            Image.fromarray(pixels).convert("1").save(data, "png")
            home.writestr(f"{path.stem}/{place}", data.getvalue())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path))
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    archive(
        tmp_path / "omniglot-py/images_background_small1.zip",
        ["Greek/character01/0394_01.png", "Greek/character01/0394_02.png", "Latin/character02/0683_01.png"],
    )
    archive(
        tmp_path / "omniglot-py/images_background_small2.zip",
        ["Greek/character01/0394_02.png", "Korean/character01/0540_20.png"],
    )
    return tmp_path


def test_both_archives_are_one_set_and_nothing_is_there_twice(home: Path) -> None:
    data = load("omniglot-small")
    assert data.labels.tolist() == [
        "Greek/character01", "Greek/character01", "Korean/character01", "Latin/character02"
    ]  # fmt: skip
    assert data.groups is not None
    assert data.groups.tolist() == ["Greek 01", "Greek 02", "Korean 20", "Latin 01"]
    assert data.images.pixels.shape == (4, 105, 105, 1)  # type: ignore[attr-defined]
    assert set(np.unique(data.images.pixels)) == {0, 255}  # type: ignore[attr-defined]


def test_a_missing_or_broken_archive_is_said(home: Path) -> None:
    place = home / "omniglot-py/images_background_small2.zip"
    archive(place, ["Greek/character01/0394_02.png"], side=28)
    with pytest.raises(BrokenDataError, match="28 x 28 px"):
        load("omniglot-small")
    place.write_bytes(b"no zip")
    with pytest.raises(BrokenDataError, match="cannot be read"):
        load("omniglot-small")
    place.unlink()
    with pytest.raises(MissingDataError, match="omniglot"):
        load("omniglot-small", download=False)


def test_the_bundled_source_reads_drawings() -> None:
    source = open_source("drawings")
    assert source.input.policy == "ink" and source.taps[source.default_tap] == (128, 3, 3)
    assert source.notes["licence"] == "MIT"
