"""Omniglot: two archives, one dataset, and the bundled source that learnt from it."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import headstart.data.readers.omniglot
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.errors import BrokenDataError, MissingDataError
from headstart.sources.registry import open_source


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
    assert source.input.policy == "ink" and source.layers[source.default_layer] == (128, 3, 3)
    assert source.notes["licence"] == "MIT"


# the Greek letters that are bundled


def test_the_bundled_greek_letters_are_the_published_ones() -> None:
    data = load("omniglot-greek", download=False)
    assert data.images.pixels.shape == (480, 105, 105, 1)  # type: ignore[attr-defined]
    digest = hashlib.sha256(data.images.pixels.tobytes()).hexdigest()  # type: ignore[attr-defined]
    assert digest == "23bc3330f10055367a8eba038234d019a4b972ee5f3a6f9285d60063a65dbb83"
    assert data.classes[:3] == ("alpha", "beta", "gamma") and data.classes[-1] == "omega"
    assert set(data.counts().values()) == {20} and len(data.classes) == 24


@pytest.mark.slow
def test_the_bundled_greek_letters_equal_those_of_the_archives(real_data: Path) -> None:
    if not (real_data / "omniglot-py").is_dir():
        pytest.skip("needs omniglot-py under $HEADSTART_DATA")
    everything, data = load("omniglot-small"), load("omniglot-greek")
    greek = everything.subset(np.char.startswith(everything.labels, "Greek/"))
    assert np.array_equal(greek.images.pixels, data.images.pixels)  # type: ignore[attr-defined]
    assert greek.groups is not None and data.groups is not None
    assert [name[-2:] for name in greek.groups] == [name[-2:] for name in data.groups]
    numbers = [data.classes.index(name) + 1 for name in data.labels]
    assert [f"Greek/character{number:02}" for number in numbers] == greek.labels.tolist()


def test_each_drawer_draws_every_letter_once_and_is_in_one_split() -> None:
    data = load("omniglot-greek")
    assert data.groups is not None and data.splits is not None
    assert len({(who, label) for who, label in zip(data.groups, data.labels, strict=True)}) == 480
    teaching = set(data.groups[data.splits == "train"].tolist())
    assert teaching == {f"drawer 0{number}" for number in range(1, 6)}
    assert teaching.isdisjoint(data.groups[data.splits == "test"].tolist())
    some = load("omniglot-greek:psi,omega")
    assert some.classes == ("psi", "omega") and len(some) == 40


def test_licence_and_origin_lie_beside_the_bundled_letters() -> None:
    place = Path(headstart.data.readers.omniglot.__file__).parent
    assert "Copyright (c) 2015 Brenden Lake" in (place / "omniglot-greek.LICENSE").read_text()
    assert "Lake, B. M., Salakhutdinov, R., and Tenenbaum, J. B. (2015)" in (
        place / "omniglot-greek.md"
    ).read_text(encoding="utf-8")
    assert (place / "omniglot-greek.png").stat().st_size < 120_000


def test_the_bundled_source_is_trained_without_greek(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _tool("train_drawings")
    seen: list[Dataset] = []

    def stop(data: Dataset) -> None:
        seen.append(data)
        raise InterruptedError

    monkeypatch.setattr(tool, "trained", stop)
    monkeypatch.setattr(sys, "argv", ["train_drawings.py", "--no-check"])
    with pytest.raises(InterruptedError):
        tool.main()
    assert seen[0].labels.tolist() == ["Korean/character01", "Latin/character02"]
    assert seen[0].classes == ("Korean/character01", "Latin/character02")


@pytest.mark.slow
def test_the_sheet_is_what_the_tool_packs(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (real_data / "omniglot-py").is_dir():
        pytest.skip("needs omniglot-py under $HEADSTART_DATA")
    tool = _tool("pack_omniglot_greek")
    bundled = tool.TARGET
    monkeypatch.setattr(tool, "TARGET", tmp_path / "sheet.png")
    tool.main()
    with Image.open(tmp_path / "sheet.png") as packed, Image.open(bundled) as sheet:
        assert packed.mode == sheet.mode == "1" and packed.tobytes() == sheet.tobytes()


def _tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    path = Path(__file__).parents[2] / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
