"""Occlusion maps: they are where the evidence is, and their colours show how much it counts."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import SettingError, ShapeError
from headstart.records import Array, Images
from headstart.workflows import occlusion as explain
from headstart.workflows.occlusion import occlusion, overlay


def ask_ink(images: Images) -> Array:
    """Ink in rows 6 - 11, columns 2 - 7 makes it class 1."""
    ink = images[:, 6:12, 2:8].mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - ink, ink], axis=1).astype(np.float32)


def inked(n_images: int = 1, channels: int = 1) -> Images:
    images = np.zeros((n_images, 28, 14, channels), np.uint8)
    images[:, 6:12, 2:8] = 255
    return images


def test_map_is_where_the_evidence_is() -> None:
    heat = occlusion(ask_ink, inked(), np.array([1]))[0]
    assert heat.shape == (7, 7) and heat.dtype == np.float32
    rows, columns = np.nonzero(heat > 0)
    # cells are 4 x 2 px and a patch is two of them each way: what touches the ink, and its neighbours
    assert set(rows) == {0, 1, 2, 3} and set(columns) == {0, 1, 2, 3, 4}
    assert np.unravel_index(heat.argmax(), heat.shape) == (2, 2)
    whole = occlusion(ask_ink, inked(), np.array([1]), n_cells=2)
    assert whole[0].tolist() == [[1.0, 1.0], [1.0, 1.0]]  # one patch covers all: everything is lost


def test_every_image_has_the_map_of_its_own_class() -> None:
    heat = occlusion(ask_ink, inked(2), np.array([1, 0]))
    assert heat[0].max() > 0.3
    assert np.allclose(heat[0], -heat[1], atol=1e-6)


def test_the_map_does_not_depend_on_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def predict(images: Images) -> Array:
        asked.append(len(images))
        return ask_ink(images)

    images = inked(5)
    images[3:] = images[3:, ::-1]
    whole = occlusion(predict, images, np.ones(5, np.int64))
    assert asked == [5 * 37]
    monkeypatch.setattr(explain, "_LIMIT_BYTES", 2 * 37 * images[0].nbytes)
    again = occlusion(predict, images, np.ones(5, np.int64))
    assert asked[1:] == [2 * 37, 2 * 37, 37]
    assert np.array_equal(whole, again)


def covers(image: Images) -> set[tuple[int, ...]]:
    """Colours seen in the middle of the pictures asked about, but the image's own."""
    seen: set[tuple[int, ...]] = set()

    def predict(images: Images) -> Array:
        middles = images[1:, images.shape[1] // 2, images.shape[2] // 2]
        seen.update(tuple(map(int, one)) for one in middles)
        return np.zeros((len(images), 2), np.float32)

    occlusion(predict, image[None], np.array([0]))
    return seen - {tuple(map(int, image[image.shape[0] // 2, image.shape[1] // 2]))}


def test_paper_covers_drawings_and_the_mean_covers_photos() -> None:
    rng = np.random.default_rng(0)
    drawing = np.full((28, 28, 1), 250, np.uint8)
    drawing[8:20, 8:20] = 10
    drawing[0, :5] = 0  # a smudge on the border
    assert covers(drawing) == {(250,)}
    assert covers(drawing.repeat(3, axis=2)) == {(250, 250, 250)}
    photo = rng.integers(0, 256, (28, 28, 3)).astype(np.uint8)
    photo[14, 14] = 0
    assert covers(photo) == {tuple(photo.mean(axis=(0, 1)).round().astype(int).tolist())}
    grey = photo[..., :1]
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    assert covers(grey) == {(round(float(np.median(border))),)}


def test_images_are_not_modified_and_none_is_allowed() -> None:
    images = inked()
    images.flags.writeable = False
    occlusion(ask_ink, images, np.array([1]))
    assert occlusion(ask_ink, images[:0], np.zeros(0, np.int64)).shape == (0, 7, 7)


@pytest.mark.parametrize(
    ("images", "codes", "n_cells", "kind", "said"),
    [
        (inked()[0], np.array([0]), 7, ShapeError, r"images have shape \(28, 14, 1\)"),
        (inked().astype(float), np.array([0]), 7, ShapeError, "dtype float64"),
        (inked(2), np.array([0]), 7, ShapeError, r"codes have shape \(1,\), expected \(2,\)"),
        (inked(), np.array([0]), 1, SettingError, "n_cells is 1, expected 2 to 14"),
        (inked(), np.array([0]), 15, SettingError, "n_cells is 15, expected 2 to 14"),
    ],
)
def test_invalid_arguments_are_refused(
    images: Images, codes: np.ndarray, n_cells: int, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        occlusion(ask_ink, images, codes, n_cells=n_cells)


def lightness(colour: np.ndarray) -> float:
    """L* of CIELAB, 0 - 100."""
    linear = np.where(colour <= 10.3, colour / 3294.6, ((colour / 255 + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return 116 * luminance ** (1 / 3) - 16


def test_colours_rise_in_lightness_by_even_steps() -> None:
    steps = np.diff([lightness(colour) for colour in explain._COLOURS])
    assert (steps > 10).all() and steps.max() < 1.7 * steps.min()


def test_overlay_is_brightest_where_the_fall_is_greatest() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2], heat[3, 0] = 0.8, -0.5
    picture = np.full((40, 80, 3), (90, 100, 110), np.uint8)
    laid = overlay(picture, heat)
    assert laid.shape == (40, 80, 3) and laid.dtype == np.uint8
    warmth = laid[..., 0].astype(int) - laid[..., 2]
    row, column = np.unravel_index(warmth.argmax(), warmth.shape)
    assert 10 <= row < 20 and 40 <= column < 60
    grey = round(0.299 * 90 + 0.587 * 100 + 0.114 * 110)
    assert laid[35, 5].tolist() == [grey] * 3  # covering helped there: nothing is shown
    assert (overlay(picture[..., :1], np.zeros((4, 4), np.float32)) == 90).all()


def test_a_map_of_small_falls_stays_faint() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 1.0
    picture = np.full((40, 40, 1), 100, np.uint8)
    strong, faint = (np.ptp(overlay(picture, heat * size), axis=2).max() for size in (1.0, 0.005))
    assert strong > 120 and faint < 20
    assert np.array_equal(overlay(picture, heat), overlay(picture, heat * 0.3))
