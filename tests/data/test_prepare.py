"""One preprocessing: every mode decoded, every policy's pixels, one image as many."""

from __future__ import annotations

import io
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import Dataset, FileImages, from_arrays, load
from headstart.data.images.fit import fit_image
from headstart.data.images.prepare import batches, decode, prepare
from headstart.errors import BrokenDataError, MissingDataError, SettingError, ShapeError
from headstart.records import InputSpec

RNG = np.random.default_rng(0)
POLICIES = ("squish", "crop", "letterbox")


def png(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# decoding


def test_grey_and_colour() -> None:
    grey = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
    colour = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(decode(png(Image.fromarray(grey))), grey[..., None])
    assert np.array_equal(decode(png(Image.fromarray(colour))), colour)
    assert decode(png(Image.fromarray(colour))).flags.c_contiguous


def test_black_and_white() -> None:
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert decode(png(bits)).tolist() == [[[0], [255]]]


def test_transparent_pixels_lie_on_white() -> None:
    rgba = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 128)]):
        rgba.putpixel((x, 0), pixel)
    assert decode(png(rgba)).tolist() == [[[10, 20, 30], [255, 255, 255], [127, 127, 127]]]
    grey = Image.new("LA", (2, 1), (10, 255))
    grey.putpixel((1, 0), (10, 0))
    assert decode(png(grey)).tolist() == [[[10], [255]]]


def test_palettes_with_and_without_transparency() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putpixel((1, 0), 1)
    assert decode(png(palette)).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert decode(png(palette, transparency=0)).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    assert decode(png(palette, transparency=bytes([0, 255]))).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_sixteen_bits_become_eight() -> None:
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535, 128, 129]], np.uint16))
    assert decode(png(deep)).ravel().tolist() == [0, 100, 255, 0, 1]
    assert decode(png(deep, "TIFF")).ravel().tolist() == [0, 100, 255, 0, 1]


def test_cmyk() -> None:
    assert decode(png(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF")).tolist() == [[[255, 0, 0]]]


def test_the_first_frame_of_several() -> None:
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    assert decode(png(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0, 0] == 10


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, (0, 0)), (2, (0, -1)), (3, (-1, -1)), (4, (-1, 0)), (6, (0, -1)), (8, (-1, 0))],
)
def test_orientation_is_applied(orientation: int, corner: tuple[int, int]) -> None:
    image = Image.new("L", (6, 4))
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(png(image, exif=exif))
    assert upright.shape == ((6, 4, 1) if orientation > 4 else (4, 6, 1))
    assert upright[corner][0] == 255 and upright.sum() == 255


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            b"",
            r"^image '\(bytes\)' cannot be read \(it is empty\), expected a complete image in one of PNG, JPEG",
        ),
        (
            b"hello",
            r"^image '\(bytes\)' cannot be read \(it is a text file, not an image\), expected a complete",
        ),
        (
            png(Image.new("L", (64, 64)))[:60],
            r"^image '\(bytes\)' cannot be read \(.*\), expected a complete image",
        ),
        (
            png(Image.new("F", (2, 2)), "TIFF"),
            r"its pixels are floating-point numbers, whose range is unknown\)",
        ),
        (
            png(Image.new("I", (2, 2), 70000), "TIFF"),
            r"\(its pixels are 32-bit numbers, expected 8 or 16 bits\)",
        ),
    ],
)
def test_broken_images_get_one_line(data: bytes, sentence: str) -> None:
    with pytest.raises(BrokenDataError, match=sentence) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


def test_decode_from_a_path(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(Image.new("L", (2, 2), 9)))
    assert decode(tmp_path / "1.png")[0, 0, 0] == decode(str(tmp_path / "1.png"))[0, 0, 0] == 9
    (tmp_path / "1.png").write_bytes(b"x")
    with pytest.raises(BrokenDataError, match=r"^image '.*1.png' cannot be read"):
        decode(tmp_path / "1.png")
    with pytest.raises(
        MissingDataError, match=r"^image '.*2.png' does not exist, expected a file; correct the path$"
    ):
        decode(tmp_path / "2.png")


# fitting


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (131, 97), (8, 8), (300, 11), (1, 1), (5, 400)])
@pytest.mark.parametrize("target", [(28, 28), (96, 64), (7, 9), (28, 97)])
def test_squish_is_pillows_antialiased_bilinear(
    channels: int, size: tuple[int, int], target: tuple[int, int]
) -> None:
    images = RNG.integers(0, 256, (3, *size, channels), dtype=np.uint8)
    for image, got in zip(
        images, prepare(from_arrays(images, range(3)), InputSpec(*target, channels)), strict=True
    ):
        pillow = Image.fromarray(image[..., 0] if channels == 1 else image)
        wanted = np.asarray(pillow.resize(target[::-1], Image.Resampling.BILINEAR))
        assert np.array_equal(got, wanted.reshape(*target, channels))


def test_grey_is_pillows_luma() -> None:
    image = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    wanted = np.asarray(Image.fromarray(image).convert("L"))
    assert np.array_equal(fit_image(image, InputSpec(40, 50, 1))[..., 0], wanted)


def test_grey_to_colour_and_back() -> None:
    grey = RNG.integers(0, 256, (9, 9), dtype=np.uint8)
    colour = fit_image(grey, InputSpec(9, 9, 3))
    assert np.array_equal(colour, np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(fit_image(colour, InputSpec(9, 9, 1))[..., 0], grey)


def test_crop_takes_the_middle() -> None:
    image = np.zeros((4, 12), np.uint8)
    image[:, 4:8] = RNG.integers(1, 256, (4, 4))
    assert np.array_equal(fit_image(image, InputSpec(4, 4, 1, policy="crop"))[..., 0], image[:, 4:8])
    assert np.array_equal(fit_image(image.T, InputSpec(4, 4, 1, policy="crop"))[..., 0], image[:, 4:8].T)
    assert fit_image(image, InputSpec(2, 2, 1, policy="crop")).min() > 0


def test_crop_is_resize_then_crop() -> None:
    image = RNG.integers(0, 256, (60, 100, 3), dtype=np.uint8)
    resized = np.asarray(Image.fromarray(image).resize((50, 30), Image.Resampling.BILINEAR))
    got = fit_image(image, InputSpec(30, 30, 3, policy="crop")).astype(int)
    assert np.abs(got[:, 1:-1] - resized[:, 11:-11]).max() <= 1  # edges see fewer neighbours


def test_letterbox_pads_with_the_border() -> None:
    image = np.full((4, 8), 7, np.uint8)
    image[1:3, 2:6] = 200
    image[0, 0] = 250  # the median is not moved by one pixel, a mean would be
    boxed = fit_image(image, InputSpec(16, 16, 1, policy="letterbox"))[..., 0]
    assert (boxed[:4] == 7).all() and (boxed[12:] == 7).all()
    wanted = np.asarray(Image.fromarray(image).resize((16, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(boxed[4:12], wanted)
    assert fit_image(np.zeros((1, 500), np.uint8), InputSpec(8, 8, 1, policy="letterbox")).shape == (8, 8, 1)


def test_letterbox_looks_at_each_image_on_its_own() -> None:
    images = np.stack([np.full((2, 8), value, np.uint8) for value in (10, 200)])
    boxed = prepare(from_arrays(images, ["a", "b"]), InputSpec(8, 8, 1, policy="letterbox"))
    assert (boxed[0] == 10).all() and (boxed[1] == 200).all()


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            InputSpec(8, 8, 1, policy="squsih"),
            r"^policy 'squsih' is unknown, expected squish, crop, letterbox, ink; nearest are sq",
        ),
        (InputSpec(0, 8, 1), r"^input size is 0 x 8 pixels, expected 1 to 16384 each way; change the spec$"),
        (InputSpec(8, 8, 4), r"^channels is 4, expected 1 \(grey\) or 3 \(colour\); change the spec$"),
        (InputSpec(8, 99_999, 2), r"^input size is 8 x 99999 pixels, .*; also channels is 2, expected 1"),
    ],
)
def test_specs_that_cannot_be(spec: InputSpec, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        fit_image(np.zeros((4, 4), np.uint8), spec)
    with pytest.raises(SettingError, match=sentence):
        batches(from_arrays(np.zeros((1, 4, 4), np.uint8), ["a"]), spec, 1)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8)]
)
def test_images_that_are_none(image: np.ndarray) -> None:
    with pytest.raises(
        ShapeError, match=r"^image has shape \(.*\) and dtype .*, expected \(height, width\) or"
    ):
        fit_image(image, InputSpec(4, 4, 1))


# whole datasets


@pytest.fixture
def folder(tmp_path: Path) -> Dataset:
    """Give pictures of many sizes and modes, one of them turned on its side."""
    made = np.random.default_rng(1)
    for i in range(7):
        label = tmp_path / "ab"[i % 2]
        label.mkdir(exist_ok=True)
        size = made.integers(5, 60, 2)
        image = Image.fromarray(made.integers(0, 256, (*size, 4), dtype=np.uint8))
        image.convert(("RGBA", "L", "RGB", "P")[i % 4]).save(label / f"{i}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(made.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(tmp_path / "a/9.jpg", exif=exif)
    return load(tmp_path)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_and_a_single_image_agree(folder: Dataset, policy: str, channels: int) -> None:
    spec = InputSpec(24, 32, channels, policy=policy)
    pixels = prepare(folder, spec)
    assert pixels.shape == (8, 24, 32, channels) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert isinstance(folder.images, FileImages)
    for path, got in zip(folder.images.paths, pixels, strict=True):
        assert np.array_equal(got, fit_image(decode(path), spec))
        assert np.array_equal(got, fit_image(decode(path.read_bytes()), spec))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("spec_channels", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_and_a_single_image_agree(policy: str, spec_channels: int, channels: int) -> None:
    images = RNG.integers(0, 256, (5, 30, 41, channels), dtype=np.uint8)
    spec = InputSpec(20, 17, spec_channels, policy=policy)
    pixels = prepare(from_arrays(images, range(5)), spec)
    for image, got in zip(images, pixels, strict=True):
        assert np.array_equal(got, fit_image(image, spec))


def test_pieces_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["headstart.data.images.fit"]
    data = from_arrays(RNG.integers(0, 256, (7, 9, 9), dtype=np.uint8), range(7))
    spec = InputSpec(5, 5, 3, policy="letterbox")
    whole = prepare(data, spec)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 500)
    assert np.array_equal(prepare(data, spec), whole)


def test_prepared_pixels_are_the_callers_own() -> None:
    data = from_arrays(np.zeros((2, 4, 4), np.uint8), ["a", "b"])
    prepare(data, InputSpec(4, 4, 1))[:] = 9
    next(iter(batches(data, InputSpec(4, 4, 1), 2)))[:] = 9
    assert prepare(data, InputSpec(4, 4, 1)).max() == 0


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_batches_are_the_dataset_in_order(folder: Dataset, batch_size: int) -> None:
    spec = InputSpec(12, 12, 3)
    got = list(batches(folder, spec, batch_size))
    assert [len(batch) for batch in got[:-1]] == [batch_size] * (len(got) - 1)
    assert np.array_equal(np.concatenate(got), prepare(folder, spec))


def test_batches_stop_when_told(folder: Dataset) -> None:
    before = threading.active_count()
    stream = batches(folder, InputSpec(12, 12, 3), 1)
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_batches_read_no_further_than_two_ahead(folder: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = FileImages.read
    monkeypatch.setattr(
        FileImages, "read", lambda self, index: (read.append(index), original(self, index))[1]
    )
    stream = batches(folder, InputSpec(12, 12, 3), 1)
    next(iter(stream))
    time.sleep(0.2)  # a reader that ran ahead would be done with all eight
    assert sorted(read) == [0, 1, 2]
    stream.close()  # type: ignore[attr-defined]


def test_a_batch_has_a_size(folder: Dataset) -> None:
    with pytest.raises(SettingError, match=r"^batch_size is 0, expected at least 1; 64 suits most machines$"):
        batches(folder, InputSpec(4, 4, 1), 0)


def test_a_file_that_changed_is_refused(folder: Dataset) -> None:
    assert isinstance(folder.images, FileImages)
    Image.new("L", (3, 3)).save(folder.images.paths[2])
    with pytest.raises(
        BrokenDataError, match=r"has changed since the dataset was read, expected it as it was; load the"
    ):
        prepare(folder, InputSpec(4, 4, 1))
