"""The source that is taken where none is named: drawings for drawings, photos for photos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import Run
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.interfaces.cli.console import source_and_data
from headstart.records import TrainSettings
from headstart.sources.fitting import fitting_policy, fitting_source
from headstart.sources.registry import open_source
from headstart.strategies.scratch import learn_network


@pytest.mark.parametrize("name", ["omniglot-greek", "digits"])
def test_drawings_take_the_source_for_drawings(name: str) -> None:
    """Ink on paper, and small grey images."""
    found = fitting_source(load(name))
    assert found.name == "drawings" and found.n_drawings > found.n_images / 2
    assert f"{found.n_drawings} of {found.n_images} images looked at are drawings" in found.sentence


def textured(folder: Path, *, grey: bool = False) -> Path:
    """Images whose values vary everywhere, of two classes."""
    rng = np.random.default_rng(0)
    for place in range(12):
        coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        image = Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC)
        path = folder / ("sky", "sea")[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (image.convert("L") if grey else image).save(path)
    return folder


@pytest.mark.parametrize("grey", [False, True])
def test_photos_take_the_source_for_photos(tmp_path: Path, grey: bool) -> None:
    """Also grey ones."""
    assert fitting_source(load(str(textured(tmp_path / "made", grey=grey)))).name == "photos"


def test_scans_of_a_grey_object_on_black_are_no_drawings(tmp_path: Path) -> None:
    """An even background is not enough: the values of the object vary, as in an X-ray."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:96, :96]
    inside = (down - 48) ** 2 + (across - 48) ** 2 < 40**2
    for place in range(12):
        soft = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).resize((96, 96)))
        path = tmp_path / ("ill", "well")[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(inside, soft, 0).astype(np.uint8)).save(path)
    assert fitting_source(load(str(tmp_path))).name == "photos"


@pytest.mark.parametrize(
    ("name", "source"),
    [("greek", "drawings"), ("greek-photos", "drawings"), ("usps", "drawings"), ("hymenoptera", "photos")],
)
def test_real_data_take_the_source_that_fits(real_data: Path, name: str, source: str) -> None:
    """Letters photographed by other people are drawings, too."""
    folder = real_data / name
    assert fitting_source(load(str(folder) if name == "hymenoptera" else name)).name == source


def test_a_name_of_a_source_without_data_is_wrong_usage(run: Run, desk: Path) -> None:
    """It is said what is missing; three names are one too many."""
    said = run("transfer", "drawings", "-o", "out")
    assert said.code == 2 and "'drawings' is a source, expected a dataset after it" in said.err
    said = run("study", "drawings", "digits", "digits", "-o", "out")
    assert said.code == 2 and "3 names are given" in said.err


def test_one_name_is_the_data(run: Run, desk: Path) -> None:
    """The source that was taken is named on stderr, and stands in the report."""
    assert source_and_data(["digits"]) == (None, "digits")
    said = run("transfer", "digits:0-1", "-o", "out", "--head", "ridge")
    assert said.code == 0 and "headstart: source drawings, since" in said.err
    assert "drawings to digits:0-1" in said.out


def test_drawings_of_another_size_are_prepared_by_ink(digits: Dataset) -> None:
    """A network of small grey images sees them as it saw its digits; other images and sizes stay as they are."""
    letters = load("omniglot-greek")
    small = open_source("random:cnn", digits)  # 28 x 28 px, grey
    small = replace(small, input=replace(small.input, height_px=28, width_px=28))
    assert fitting_policy(small, letters) == "ink"
    assert fitting_policy(replace(small, input=replace(small.input, policy="crop")), letters) is None
    assert fitting_policy(open_source("pixels", letters), letters) is None
    assert fitting_policy(open_source("drawings"), letters) is None  # ink is its own
    assert fitting_policy(small, digits) is None  # 8 x 8 px, no paper around the ink
    whole = replace(small, input=replace(small.input, height_px=105, width_px=105))
    assert fitting_policy(whole, letters) is None


@pytest.mark.slow
def test_a_network_of_digits_reads_photographed_letters(
    run: Run, desk: Path, mnist: Dataset, real_data: Path
) -> None:
    """Of other people's photos 49 % were classified correctly without a word before (2026-11-29)."""
    some = mnist.subset(np.arange(6_000))
    learned = learn_network(replace(some, splits=None), engine="scratch", settings=TrainSettings(epochs=2))
    learned.model.save("digits-model")
    said = run("transfer", "digits-model", "greek", "-o", "letters", "--json")
    assert said.code == 0 and "policy ink, since the images are drawings of another size" in said.err
    document = run("evaluate", "letters", "greek-photos", "--split", "all", "--json").document
    assert document["accuracy"]["value"] > 0.75
