"""One image from whatever a program holds: the pixels that a file of the same content has, or one sentence."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.given import GivenImages, array_images, decoded_store, many_images
from headstart.data.images.decode import decode_bytes
from headstart.data.images.inputs import eight_bits, one_image
from headstart.data.names import near_paths
from headstart.data.readers.load import load
from headstart.errors import BrokenDataError, DataError, HeadstartError, MissingDataError, ShapeError
from headstart.records import InputSpec

PIXELS = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
GREY = PIXELS[..., 0]


def png(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def upside_down(pixels: np.ndarray) -> bytes:
    """A file whose header says that it is to be turned by 180 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 3
    return png(pixels[::-1, ::-1], exif=exif)


def transparent() -> bytes:
    return png(np.dstack([PIXELS, np.tile(np.array([0, 128, 255], np.uint8), (8, 2))]))


def palette() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert("P", palette=Image.Palette.ADAPTIVE).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        png(PIXELS),
        png(GREY),
        upside_down(PIXELS),
        transparent(),
        palette(),
        png(GREY.astype(np.uint16) * 257),
    ],
    ids=["colour", "grey", "turned", "transparent", "palette", "16 bits"],
)
def test_every_carrier_of_a_file_gives_its_pixels(data: bytes, tmp_path: Path) -> None:
    expected = decode_bytes(data, "x")
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(path, "x.png")
    written = io.BytesIO()
    written.write(data)  # its position is at the end, as after Pillow's save
    with path.open("rb") as file:
        for item in (
            path,
            str(path),
            data,
            bytearray(data),
            memoryview(data),
            written,
            file,
            zipfile.Path(tmp_path / "x.zip") / "x.png",
            opened(data),
        ):
            np.testing.assert_array_equal(one_image(item, "image 0"), expected)


def test_a_pillow_image_stays_as_it_is() -> None:
    image = opened(upside_down(PIXELS))
    np.testing.assert_array_equal(one_image(image, "image 0"), PIXELS)
    np.testing.assert_array_equal(one_image(image, "image 0"), PIXELS)
    np.testing.assert_array_equal(np.asarray(image), PIXELS[::-1, ::-1])


@pytest.mark.parametrize(
    "array",
    [
        PIXELS,
        PIXELS.astype(np.int64),
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        np.moveaxis(PIXELS, -1, 0),
        PIXELS[None],
        np.moveaxis(PIXELS, -1, 0)[None] / 255,
        np.dstack([PIXELS, np.full((8, 6), 255, np.uint8)]),
        np.ma.masked_array(PIXELS, PIXELS > 200),
        PIXELS.astype(np.uint16) * 257,
    ],
)
def test_arrays_of_one_image_in_every_form(array: np.ndarray) -> None:
    np.testing.assert_array_equal(one_image(array, "image 0"), PIXELS)


def test_transparent_pixels_of_arrays_are_put_on_white() -> None:
    """An alpha that is 0 everywhere is ignored, as in a file."""
    rgba, grey = np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 2), np.uint8)
    assert not one_image(rgba, "image 0").any() and not one_image(grey, "image 0").any()
    rgba[0, 0, 3] = grey[0, 0, 1] = 255
    for one, channels in ((rgba, 3), (grey, 1)):
        pixels = one_image(one, "image 0")
        assert pixels.shape == (2, 2, channels) and not pixels[0, 0].any() and (pixels[1:] == 255).all()


def test_tensors_with_gradients_and_channels_first() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(np.moveaxis(PIXELS, -1, 0) / 255, requires_grad=True)
    np.testing.assert_array_equal(one_image(tensor, "image 0"), PIXELS)
    with pytest.raises(DataError, match="bfloat16 that NumPy cannot hold"):
        one_image(torch.zeros(8, 8, dtype=torch.bfloat16), "image 0")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.0, 255.0], "values from 0 to 255, expected 0 to 1; convert pixels 0 - 255"),
        ([0.0, 16.0], "values from 0 to 16, expected 0 to 1"),
        ([-1.0, 1.0], "values from -1 to 1, expected 0 to 1; pass the pixels as they were before"),
        ([0.0, 65535.0], "divide them by the largest value possible"),
        ([0.0, np.nan], "not finite"),
        ([0.0, np.inf], "not finite"),
        ([0, 256], "int64 values from 0 to 256, expected 0 to 255"),
        ([-1, 255], "int64 values from -1 to 255"),
    ],
)
def test_other_ranges_are_refused(values: list[float], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        eight_bits(np.array(values), "images")


def test_a_range_is_met_within_half_a_level() -> None:
    assert eight_bits(np.array([-0.001, 1.001]), "x").tolist() == [0, 255]
    assert eight_bits(np.array([False, True]), "x").tolist() == [0, 255]
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(eight_bits(levels / 255, "x"), levels)
    assert np.array_equal(eight_bits((levels / 255).astype(np.float16).astype(np.float32), "x"), levels)


@pytest.mark.parametrize(
    ("shape", "number", "size"),
    [
        ((8, 6), 1, (8, 6, 1)),
        ((320, 480, 3), 1, (320, 480, 3)),
        ((8, 6, 1), 1, (8, 6, 1)),
        ((1, 1), 1, (1, 1, 1)),
        ((5, 8, 6), 5, (8, 6, 1)),
        ((1, 8, 6), 1, (8, 6, 1)),
        ((5, 8, 6, 3), 5, (8, 6, 3)),
        ((5, 3, 8, 6), 5, (8, 6, 3)),
        ((5, 1, 8, 6), 5, (8, 6, 1)),
        ((5, 8, 6, 4), 5, (8, 6, 3)),
        ((0, 8, 6), 0, None),
    ],
)
def test_an_array_is_one_image_or_many(
    shape: tuple[int, ...], number: int, size: tuple[int, ...] | None
) -> None:
    store = array_images(np.full(shape, 255, np.uint8))
    assert len(store) == number
    assert size is None or store.image(0).shape == size


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 8, 6), "expected one image with channels last, or 3 grey images"),
        ((4, 8, 6), "or 4 grey images"),
        ((64,), "expected one image"),
        ((2, 2, 8, 6, 3), "expected one image"),
        ((2, 5, 8, 6), "expected one image"),
        ((0, 6), "expected one image"),
        ((5, 64), r"5 images that are not flattened; use images.reshape\(-1, 8, 8\)"),
    ],
)
def test_shapes_that_may_be_either_or_neither_are_refused(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        array_images(np.zeros(shape, np.uint8), InputSpec(8, 8, 1))


def test_three_grey_images_of_the_model_s_own_size_are_three() -> None:
    three = np.zeros((3, 8, 6), np.uint8)
    assert len(array_images(three, None, InputSpec(8, 6, 1))) == 3
    for other in (InputSpec(8, 6, 3), InputSpec(6, 8, 1)):
        with pytest.raises(ShapeError, match="or 3 grey images"):
            array_images(three, None, other)


def test_many_images_are_never_one() -> None:
    assert len(many_images(np.zeros((3, 8, 8), np.uint8))) == 3
    with pytest.raises(ShapeError, match=r"X\[None\] for one image"):
        many_images(PIXELS)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("https://example.org/cat.jpg", "address 'https://example.org/cat.jpg', expected a file"),
        ("s3://bucket/cat.jpg", "address"),
        ("", "a path that is empty"),
        ("a\0b.png", "null character"),
        ("no-such.png", "does not exist"),
        (".", "is the folder"),
        (b"", "it is empty"),
        (b"GIF?", "it is a text file, not an image"),
        (io.StringIO("text"), "opened as text"),
        ((PIXELS, 0), "a tuple of 2, .*; pass images without labels"),
        ({"image": PIXELS}, "dict with the keys image"),
        (None, "of type NoneType"),
        (7, "of type int"),
        (float("nan"), "the number nan"),
        (PIXELS.astype(complex), "array of complex128"),
        (pd.DataFrame({"path": ["a.png"]}), "a DataFrame, .*; pass its column of paths"),
        (Image.new("F", (3, 3)), "floating-point"),
    ],
)
def test_what_is_no_image_is_one_sentence(item: Any, said: str) -> None:
    with pytest.raises(HeadstartError, match=said) as caught:
        one_image(item, "image 3")
    text = str(caught.value)
    assert ", expected " in text and "; " in text and "\n" not in text


def test_a_closed_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(GREY))
    with (tmp_path / "x.png").open("rb") as file:
        pass
    with pytest.raises(BrokenDataError, match="closed file"):
        one_image(file, "image 0")


def test_given_images_are_a_store() -> None:
    given = GivenImages([PIXELS, png(GREY), opened(upside_down(PIXELS))])
    assert given.pixels is None and given.paths is None and given.image_shape is None
    assert given.digests[0] == given.digests[2] != given.digests[1]
    assert given.subset(np.array([2, 0])).digests == (given.digests[2], given.digests[0])
    joined = given.joined(given)
    assert joined is not None and len(joined) == 6
    header, pixels = given.preview(1, 32)
    assert (header.width_px, header.height_px, header.mode) == (6, 8, "L") and pixels.shape == (8, 6, 1)
    assert decoded_store([PIXELS, PIXELS]).pixels is not None
    assert decoded_store([PIXELS, GREY]).pixels is None


# ---- datasets from objects


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        Path(f"{number}.png").write_bytes(png(np.full((4, 4), 60 * number, np.uint8)))
    return [f"{number}.png" for number in range(4)]


def test_a_data_frame_is_a_dataset(files: list[str]) -> None:
    table = pd.DataFrame(
        {"Path": files, "Label": ["b", "a", "b", "a"], "split": ["train", "train", "test", "valid"]}
    )
    found = load(table)
    assert found.labels.tolist() == ["b", "a", "b", "a"] and found.classes == ("a", "b")
    assert found.splits is not None and found.splits.tolist() == ["train", "train", "test", "val"]
    assert found.images.paths == tuple(map(Path, files))
    assert load(table, split="test").labels.tolist() == ["b"]
    other = table.rename(columns={"Path": "file_name", "Label": "class"}).assign(writer=[1, 1, 2, 2], more=0)
    assert load(other).groups.tolist() == ["1", "1", "2", "2"]  # type: ignore[union-attr]


@pytest.mark.parametrize("codes", [[3, 1, 3, 1], np.array([3, 1, 3, 1]), pd.Categorical([3, 1, 3, 1])])
def test_pairs_are_a_dataset(files: list[str], codes: Any) -> None:
    expected = load(pd.DataFrame({"path": files, "label": codes}))
    for pairs in (
        list(zip(files, codes, strict=True)),
        zip(map(Path, files), codes, strict=True),
        [[Path(file), code] for file, code in zip(files, codes, strict=True)],
    ):
        found = load(pairs)
        assert found.labels.tolist() == ["3", "1", "3", "1"] and found.fingerprint == expected.fingerprint
    images = load([(Image.open(file), code) for file, code in zip(files, codes, strict=True)])
    assert images.images.pixels is not None and images.images.pixels[:, 0, 0, 0].tolist() == [0, 60, 120, 180]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["0.png", "1.png"], "item 0 of data is '0.png', expected a pair"),
        ([], "data is empty"),
        ([("0.png", "a", "b")], "item 0 of data is a tuple of 3"),
        ([("0.png", None)], "label of row 0 is missing"),
        ([("0.png", float("nan"))], "label of row 0 is missing"),
        ([("0.png", pd.NA)], "label of row 0 is missing"),
        ([("0.png", " ")], "label of row 0 is missing"),
        ([("0.png", 1.0)], r"label of row 0 is 1.0 \(float\).*astype"),
        ([("0.png", ["a", "b"])], r"label of row 0 is \['a', 'b'\] \(list\)"),
        ([("", "a")], "path of row 0"),
        ([("gone.png", "a"), ("0.png", "b")], "'gone.png' does not exist, 1 of 2 missing"),
        ([("http://x/a.png", "a")], "address"),
        ({"a": ["0.png"]}, "data is a dict"),
        (None, "data is None"),
        (7, "data is a int"),
        (
            pd.DataFrame({"a": ["0.png"], "label": ["a"]}),
            "has the columns 'a', 'label', expected path and label",
        ),
        (pd.DataFrame({"path": ["0.png"], "label": ["a"], "split": ["3"]}), "row 0 has split '3'"),
        (pd.DataFrame({"file": ["0.png"], "image": ["0.png"], "label": ["a"]}), "expected one path"),
        (pd.DataFrame({"path": [], "label": []}), "has no rows"),
        (pd.DataFrame({"path": [None], "label": ["a"]}), "image 0 is of type"),
    ],
)
def test_objects_that_are_no_dataset_are_one_sentence(files: list[str], given: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load(given)
    assert ", expected " in str(caught.value) and "\n" not in str(caught.value)


def test_a_dataset_is_itself(digits: Dataset) -> None:
    assert load(digits) is digits


# ---- mistyped paths


def test_a_mistyped_folder_comes_before_names_of_the_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("desk/Photos/train", "desk/.photos", "letters"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "desk" / "labels.csv").write_text("path,label\n")
    monkeypatch.chdir(tmp_path / "desk")
    assert near_paths("fotos") == ["Photos/"] and near_paths("letter") == [f"..{os.sep}letters/"]
    assert near_paths("fotos/train") == ["Photos/train/"] and near_paths("fotos/val") == []
    assert near_paths("label.csv", (".csv",)) == ["labels.csv"] and near_paths("label.csv") == []
    with pytest.raises(DataError, match="nearest are Photos/"):
        load("fotos")
    with pytest.raises(MissingDataError, match="nearest are Photos/train/"):
        load("fotos/train")
