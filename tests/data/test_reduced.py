"""Large JPEGs decoded at a reduced size: nearly the pixels of the whole image, and the same ones everywhere."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.given import GivenImages
from headstart.data.images.decode import decode_bytes, decode_reduced
from headstart.data.images.fit import fit_again, fit_bytes, fit_image, reduction_for
from headstart.data.readers.load import load
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError
from headstart.interfaces.http.images import _prepared as uploaded
from headstart.models.predict import _prepared as predicted
from headstart.models.values import input_spec
from headstart.records import InputSpec

MEAN_LEVELS, MOST_LEVELS = 1.0, 16
"""The promise of docs/decisions/0024, for photos full of sharp detail; of other photos it is a third of that."""

SQUISH = InputSpec(20, 30, 3)
CROP = InputSpec(20, 20, 3, policy="crop", interpolation="bicubic", crop_share=0.875)


def photo(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A slope with edges and detail at several scales, brighter to the right and to the bottom."""
    rng, layers = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    for size in (8, 32, 128):
        noise = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        layers += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 5
    layers += np.linspace(0, 70, width)[:, None] + np.linspace(0, 30, height)[:, None, None]
    return Image.fromarray(layers.clip(0, 255).astype(np.uint8)).convert(mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def check_close(data: bytes, spec: InputSpec) -> None:
    whole = fit_image(decode_bytes(data, "x"), spec).astype(int)
    apart = np.abs(fit_bytes(data, "x", spec).astype(int) - whole)
    assert apart.mean() <= MEAN_LEVELS and apart.max() <= MOST_LEVELS, (apart.mean(), apart.max())


def factor(data: bytes, spec: InputSpec) -> int:
    return decode_reduced(data, "x", reduction_for(spec)).factor


@pytest.mark.parametrize("spec", [SQUISH, CROP, replace(SQUISH, channels=1, mean=(0.0,), std=(1.0,))])
@pytest.mark.parametrize("size", [(640, 480), (643, 485), (331, 247), (207, 407), (1207, 131)])
def test_reduced_is_nearly_the_whole(size: tuple[int, int], spec: InputSpec) -> None:
    for mode in ("RGB", "L"):
        check_close(jpeg(photo(*size, mode)), spec)


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30}]
)
def test_however_it_is_encoded(options: dict[str, object]) -> None:
    data = jpeg(photo(603, 455), **options)
    assert factor(data, SQUISH) == 8
    check_close(data, SQUISH)


@pytest.mark.parametrize("spec", [SQUISH, CROP])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_however_it_is_turned(orientation: int, spec: InputSpec) -> None:
    """The last row and column of a reduced image may cover less than a pixel; they may come to lie first."""
    data = jpeg(photo(401, 599), exif=turned(orientation))
    assert factor(data, spec) > 1
    check_close(data, spec)


def test_a_small_input_shows_where_the_image_ends() -> None:
    """107 px at an eighth are 14 px, of which the image covers 13.375: without that it would be 5 % too wide."""
    slope = Image.fromarray(np.tile(np.linspace(0, 255, 107).astype(np.uint8), (107, 1)))
    spec = InputSpec(5, 5, 1)
    for orientation in range(1, 9):
        data = jpeg(slope, exif=turned(orientation), quality=98)
        assert factor(data, spec) == 8
        apart = np.abs(fit_bytes(data, "x", spec).astype(int) - fit_image(decode_bytes(data, "x"), spec))
        assert apart.max() <= 3, (orientation, apart.max())


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((49, 74), 1),
        ((99, 999), 1),
        ((100, 150), 2),
        ((199, 300), 2),
        ((200, 300), 4),
        ((400, 600), 8),
        ((900, 900), 8),
    ],
)
def test_pixels_enough_are_left(size: tuple[int, int], expected: int) -> None:
    """At least 2.5 for each pixel of the input, in both directions."""
    height, width = size
    data = jpeg(Image.new("RGB", (width, height)))
    assert factor(data, SQUISH) == expected
    sideways = jpeg(Image.new("RGB", (height, width)), exif=turned(6))
    assert factor(sideways, SQUISH) == expected, "as it is seen, not as it is stored"


def test_what_needs_all_pixels_gets_them() -> None:
    image = photo(640, 480)
    data = jpeg(image)
    assert factor(data, SQUISH) == 8
    for other in (
        replace(SQUISH, policy="letterbox"),
        replace(SQUISH, policy="ink"),
        replace(SQUISH, version=1),
    ):
        assert factor(data, other) == 1
        assert np.array_equal(fit_bytes(data, "x", other), fit_image(decode_bytes(data, "x"), other))
    assert factor(jpeg(image.convert("CMYK")), SQUISH) == 1, "an average of inks is another colour"
    file = io.BytesIO()
    image.save(file, "PNG")
    assert factor(file.getvalue(), SQUISH) == 1


def test_several_photos_in_one_file() -> None:
    file = io.BytesIO()
    photo(640, 480).save(file, "MPO", save_all=True, append_images=[photo(640, 480, seed=1)])
    assert factor(file.getvalue(), SQUISH) == 8
    check_close(file.getvalue(), SQUISH)


def test_cut_off_files_and_huge_ones_are_refused_as_before() -> None:
    data = jpeg(photo(640, 480))
    with pytest.raises(BrokenDataError, match="truncated"):
        fit_bytes(data[: len(data) // 2], "x", SQUISH)
    at = data.index(b"\xff\xc0") + 5  # height and width of the frame
    for size in ((60_000, 60_000), (1, 65_535)):
        huge = data[:at] + struct.pack(">2H", *size) + data[at + 4 :]
        with pytest.raises(BrokenDataError):
            fit_bytes(huge, "x", SQUISH)
        with pytest.raises(BrokenDataError):
            decode_bytes(huge, "x")


def test_what_was_decoded_for_something_else_serves_where_it_is_the_same() -> None:
    for image in (photo(640, 480), photo(640, 480).convert("CMYK"), photo(60, 50)):
        data = jpeg(image)
        for spec in (SQUISH, CROP, replace(SQUISH, version=1), replace(SQUISH, policy="letterbox")):
            expected = fit_bytes(data, "x", spec)
            for reduction in (None, reduction_for(SQUISH), lambda width_px, height_px: 4):
                read = decode_reduced(data, "x", reduction)
                assert np.array_equal(fit_again(read, data, "x", spec), expected)


def test_models_saved_before_have_the_first_version() -> None:
    spec = replace(SQUISH, version=1)
    document = {
        "height_px": 20,
        "width_px": 30,
        "channels": 3,
        "mean": [0.0],
        "std": [1.0],
        "policy": "squish",
    }
    assert input_spec(document) == spec
    assert input_spec({**document, "version": 2}) == SQUISH
    for other in (0, 3, True, "2", None):
        with pytest.raises((TypeError, ValueError)):
            input_spec({**document, "version": other})


def test_one_photo_gives_the_same_pixels_everywhere(tmp_path: Path) -> None:
    """In a folder, an archive, a Parquet table, a list of a program, an upload, and a prediction from a file."""
    import pyarrow
    import pyarrow.parquet

    spec = replace(CROP, mean=(0.5,) * 3, std=(0.2,) * 3)
    photos = {f"{label}{n}": jpeg(photo(603, 455, seed=n)) for n, label in enumerate("abab")}
    for name, data in photos.items():
        (tmp_path / "folder" / name[0]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name[0] / f"{name}.jpg").write_bytes(data)
    paths = sorted((tmp_path / "folder").rglob("*.jpg"))
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(tmp_path / "folder"))
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    table = pyarrow.table({"image": cells, "label": [path.parent.name for path in paths]})
    pyarrow.parquet.write_table(table, tmp_path / "some.parquet")
    expected = np.stack([fit_bytes(path.read_bytes(), "x", spec) for path in paths])
    assert (
        np.abs(
            expected.astype(int) - [fit_image(decode_bytes(p.read_bytes(), "x"), spec) for p in paths]
        ).max()
        > 0
    )
    stores = {name: load(tmp_path / name).images for name in ("folder", "some.zip", "some.parquet")}
    stores["files"] = FileImages(paths)
    last = io.BytesIO(paths[3].read_bytes())
    stores["given"] = GivenImages([paths[0], str(paths[1]), paths[2].read_bytes(), last])
    for name, store in stores.items():
        got = np.stack([store.prepared(place, spec) for place in range(len(store))])
        assert np.array_equal(got, expected), name
    from_files = np.stack(
        [pixels for _, pixels in predicted([(str(path), path.read_bytes) for path in paths], spec)]
    )
    assert np.array_equal(from_files, expected)
    uploads = np.stack([uploaded(path.read_bytes(), "x", spec) for path in paths])
    assert np.array_equal(uploads, expected)
