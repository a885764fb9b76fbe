"""The page that inspect prints: sections, one finding, copy or file a line, no Python in it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import from_arrays
from headstart.data.checks.doctor import examine
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.interfaces.cli.describe import NO_REMARK, _checkup, _dataset, describe_path
from headstart.interfaces.cli.inspect_page import inspect_page
from headstart.records import TrainSettings
from headstart.strategies.scratch import learn_network
from image_files import deep_png, saved, strokes

PYTHON = re.compile(r"[{}\[\]]|\(\d+,|'[a-z_]+':|None|True|False")


def page(dataset: Dataset, *, quick: bool = False) -> str:
    found = examine(dataset, near=not quick)
    return inspect_page({**_dataset(dataset), **_checkup(found)}, quick=quick)


def pixels(n_images: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n_images, 12, 12)).astype(np.uint8)


def test_a_clean_dataset() -> None:
    text = page(
        from_arrays(pixels(40), ["cat", "dog"] * 20, splits=["train"] * 30 + ["test"] * 10, name="pets")
    )
    sections = text.split("\n\n")
    assert sections[0] == "pets: 40 images, 2 classes"
    assert "size         12 x 12 x 1 px" in sections[1]
    assert sections[2] == "class  train  test  all\ncat       15     5   20\ndog       15     5   20"
    assert sections[3] == f"Findings: {NO_REMARK}" and len(sections) == 4
    assert not PYTHON.search(text)


def test_every_finding_copy_and_file_has_a_line(tmp_path: Path) -> None:
    for number, one in enumerate(pixels(24)):
        home = (
            tmp_path
            / ("train" if number % 4 else "val")
            / "ab"[number % 2 if number % 4 else number // 4 % 2]
        )
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one.repeat(8, 0).repeat(8, 1)).save(home / f"{number}.png")
    for split, name in (("train", "99"), ("val", "98")):
        (tmp_path / f"{split}/a/{name}.png").write_bytes((tmp_path / "train/a/2.png").read_bytes())
    (tmp_path / "train/a/page.png").write_bytes(b"<html>")
    (tmp_path / "train/a/torn.png").write_bytes(b"")
    text = page(load(tmp_path))
    assert re.search(r"Copies \(2 pairs, 1 in two splits\)\n- exact  .*\n- exact  .*\n\n", text)
    first = next(line for line in text.splitlines() if line.startswith("- exact"))
    assert "98.png (a, val)" in first and "2.png (a, train)  =  " in first
    assert "Files left out (2)\n- " in text
    assert "page.png: it is an HTML page, not an image; download the image itself" in text
    assert "torn.png: it is empty" in text
    assert not PYTHON.search(text)


def test_one_class_empty_classes_and_few_images_are_called_so() -> None:
    labels = np.array(["cat"] * 8)
    remarks = examine(Dataset("pets", pixels(8), labels, ("cat", "cow", "dog"))).remarks
    assert remarks[:3] == (
        "all images are of one class, 'cat'; a classifier learns from at least two classes",
        "2 classes have no images: 'cow', 'dog'",
        "the dataset has 8 images only, too few to measure an accuracy; 10 or more per class are better",
    )


def test_flat_images_frames_and_depth_are_named(tmp_path: Path) -> None:
    deep = (strokes().astype(np.uint16) * 16)[..., None]
    frames = [Image.fromarray(strokes()), Image.fromarray(255 - strokes())]
    contents = {
        "flat.png": saved(Image.new("RGB", (48, 48), (9, 99, 9))),
        "pale.png": saved(Image.fromarray(strokes() // 20)),
        "film.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "deep.png": deep_png(deep),
    }
    for number in range(20):
        place = tmp_path / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels(20)[number]).resize((48, 48)).save(place / f"{number}.png")
    for name, data in contents.items():
        (tmp_path / "a" / name).write_bytes(data)
    text = page(load(tmp_path))
    home = tmp_path / "a"
    for line in (
        f"- 1 image has one flat colour, such as '{home}/flat.png'",
        f"- 1 image is nearly flat (values differ by at most 15 of 255), such as '{home}/pale.png'",
        f"- 1 file holds more than one frame, such as '{home}/film.gif'; the first that is not blank is used",
        "- 16-bit files use 12 bits only: values are scaled from 0 - 4095 to 0 - 255",
        "depth        12 bits in 16-bit files",
    ):
        assert f"\n{line}\n" in text
    assert "decoded" not in text
    assert "Images were not decoded" in page(load(tmp_path), quick=True)


def test_a_name_cannot_break_a_line(tmp_path: Path) -> None:
    home = tmp_path / "a"
    home.mkdir()
    (home / "x\n\x1b[31m.png").write_bytes(b"no")
    Image.fromarray(strokes()).save(home / "1.png")
    text = page(load(tmp_path))
    assert "x\\n\\x1b[31m.png: it is a text file" in text and "\x1b" not in text


@pytest.mark.slow
def test_a_model_is_described_without_python(tmp_path: Path) -> None:
    settings = TrainSettings(epochs=1, batch_size=64)
    made = learn_network(load("digits:0-4"), network="mlp", engine="scratch", settings=settings).model
    text = inspect_page(describe_path(str(made.save(tmp_path / "m"))))
    assert not PYTHON.search(text) and "hidden1" in text and "mean 0, std 1" in text
