"""The ink policy: where the drawing is on the page, and how the page is lit, must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from headstart.data.images.ink import ink

PAPER, PEN = 240, 40


def page(
    height: int = 300, width: int = 240, *, left: int = 60, top: int = 70, size: int = 120, thick: int = 12
) -> np.ndarray:
    """A seven-like drawing, wider at the top, of ``size`` by two thirds of it: (1, height, width, 1)."""
    sheet = Image.new("L", (width, height), PAPER)
    wide = size * 2 // 3
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + wide - 1, top + thick - 1), fill=PEN)
    draw.line((left + wide - thick, top, left + thick, top + size - 1), fill=PEN, width=thick)
    return np.asarray(sheet)[None, ..., None]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of pixels, per pixel of the ink's own frame of 20 x 20 in 28 x 28."""
    return float(np.abs(one.astype(float) - other).mean() * (28 / 20) ** 2)


def extent(pixels: np.ndarray, level: int = 64) -> tuple[int, int]:
    """Height and width of what is brighter than ``level``."""
    rows, columns = np.nonzero(pixels[..., 0] > level)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


REFERENCE = ink(page(), 28, 28)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (96, 96), (28, 40)])
def test_shape_and_channels(channels, size):
    done = ink(np.repeat(page(), channels, axis=3).repeat(2, axis=0), *size)
    assert done.shape == (2, *size, channels) and done.dtype == np.uint8
    assert (done == done[..., :1]).all()
    assert done.max() > 240 and done.min() == 0


@pytest.mark.parametrize("grey", [0, 1, 128, 255])
@pytest.mark.parametrize("shape", [(50, 40), (1, 1), (2, 900)])
def test_blank_page_is_zero(grey, shape):
    assert not ink(np.full((2, *shape, 1), grey, np.uint8), 28, 28).any()


def test_noise_is_no_ink():
    noisy = np.random.default_rng(0).normal(200, 10, (1, 400, 300, 3)).clip(0, 255).astype(np.uint8)
    assert not ink(noisy, 28, 28).any()


def test_paper_is_black_and_full_strokes_are_white():
    assert (REFERENCE[0, :4] == 0).all() and (REFERENCE[0, :, :4] == 0).all()
    assert REFERENCE.max() > 250
    between = (REFERENCE > 0) & (REFERENCE < 200)
    assert between.any(), "edges of strokes are antialiased"


def test_polarity_does_not_matter():
    assert distance(ink(255 - page(), 28, 28), REFERENCE) < 1


@pytest.mark.parametrize("place", [(1, 1), (150, 170), (10, 170), (152, 5)])
def test_place_on_the_page_does_not_matter(place):
    assert distance(ink(page(left=place[0], top=place[1]), 28, 28), REFERENCE) < 4


@pytest.mark.parametrize("factor", [0.5, 1.5, 4])
def test_scale_of_the_page_does_not_matter(factor):
    whole = Image.fromarray(page()[0, ..., 0])
    sheet = np.asarray(whole.resize((int(240 * factor), int(300 * factor))))[None, ..., None]
    assert distance(ink(sheet, 28, 28), REFERENCE) < 8


def test_scale_of_the_drawing_does_not_matter():
    small = page(left=150, top=20, size=60, thick=6)
    assert distance(ink(small, 28, 28), REFERENCE) < 8


@pytest.mark.parametrize("across", [1, 2])
def test_uneven_light_does_not_matter(across):
    dark = page()
    light = np.linspace(1, 0.5, dark.shape[across])
    lit = (dark * light.reshape([-1 if axis == across else 1 for axis in range(4)])).astype(np.uint8)
    assert distance(ink(lit, 28, 28), REFERENCE) < 6


def test_vignette_is_no_ink():
    dark = page()
    y, x = np.linspace(-1, 1, dark.shape[1])[:, None], np.linspace(-1, 1, dark.shape[2])
    lit = (dark * (1 - 0.35 * (y**2 + x**2))[None, ..., None]).astype(np.uint8)
    assert distance(ink(lit, 28, 28), REFERENCE) < 6


def test_edge_of_a_shadow_is_no_ink():
    shaded = page().copy()
    shaded[:, :, 120:] = shaded[:, :, 120:] * 0.6
    assert distance(ink(shaded, 28, 28), REFERENCE) < 6


def test_ruled_paper_is_no_ink():
    ruled = page().copy()
    ruled[:, ::20] = np.minimum(ruled[:, ::20], 200)
    assert distance(ink(ruled, 28, 28), REFERENCE) < 6


def test_speck_far_away_does_not_shift_the_box():
    dusty = page().copy()
    dusty[0, 285:288, 10:13] = PEN
    assert distance(ink(dusty, 28, 28), REFERENCE) < 1


@pytest.mark.parametrize("size", [28, 56, 96])
def test_longer_side_is_20_of_28(size):
    tall, wide = extent(ink(page(), size, size)[0])
    assert abs(tall - size * 20 / 28) <= 1
    assert abs(wide / tall - 80 / 120) < 0.06


def test_wide_drawing_fills_the_width():
    tall, wide = extent(ink(page().transpose(0, 2, 1, 3), 28, 28)[0])
    assert abs(wide - 20) <= 1 and tall < wide


@pytest.mark.parametrize("size", [28, 96])
def test_centre_of_mass_is_the_centre(size):
    mass = ink(page(), size, size)[0, ..., 0].astype(float)
    for axis in (0, 1):
        centre = (mass.sum(axis=1 - axis) * np.arange(size)).sum() / mass.sum()
        assert abs(centre - size / 2) <= size / 28


def test_strokes_one_pixel_wide():
    thin = page(thick=1)
    done = ink(thin, 28, 28)
    assert done.max() > 230
    assert abs(extent(done[0], 40)[0] - 20) <= 1


@pytest.mark.parametrize("shape", [(200, 600), (600, 200)])
def test_long_pages(shape):
    assert distance(ink(page(*shape, left=40, top=40), 28, 28), REFERENCE) < 5


def test_a_drawing_in_the_frame_stays_as_it_is():
    once = ink(page(), 28, 28)
    assert distance(ink(once, 28, 28), once) < 4


@pytest.mark.parametrize("channels", [1, 3])
def test_batch_is_its_images(channels):
    rng = np.random.default_rng(1)
    noisy = np.concatenate([page(), page(left=10, top=20), page(thick=5), 255 - page(size=60)])
    noisy = (noisy + rng.normal(0, 9, (*noisy.shape[:3], channels))).clip(0, 255).astype(np.uint8)
    alone = np.concatenate([ink(one[None], 28, 28) for one in noisy])
    assert (ink(noisy, 28, 28) == alone).all()
