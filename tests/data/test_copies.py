"""Copies in borders, cropped and recoloured ones: found; distinct images in equal borders: not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from headstart.data.checks.alignment import aligned_similarity
from headstart.data.checks.borders import inside
from headstart.data.checks.copies import near_copies, parts_of
from headstart.data.checks.duplicates import thumbnails
from synthetic_images import fields, moved

Change = Callable[[Image.Image], Image.Image]


def found(images: list[np.ndarray]) -> list[tuple[int, int]]:
    thumbs = np.concatenate([thumbnails(one[None]) for one in images])
    parts = {place: parts_of(one, thumbs[place]) for place, one in enumerate(images)}
    here = {place: one for place, one in parts.items() if one is not None}
    return [pair[:2] for pair in near_copies(thumbs, np.zeros(len(images), np.bool_), here)]


def letterboxed(image: Image.Image) -> Image.Image:
    return ImageOps.pad(image, (image.width, round(image.height * 1.6)), color="black")


def with_caption(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (image.width, round(image.height * 1.15)), "white")
    canvas.paste(image, (0, 0))
    ImageDraw.Draw(canvas).text((4, image.height + 4), "when you see it", fill="black")
    return canvas


def screenshot(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (round(image.width * 1.2), round(image.height * 1.3)), (30, 30, 34))
    canvas.paste(image, (image.width // 10, image.height // 5))
    ImageDraw.Draw(canvas).text((8, 8), "< back     share", fill="white")
    return canvas


BORDERS: dict[str, Change] = {
    "frame": lambda image: ImageOps.expand(image, 8, "white"),
    "letterbox": letterboxed,
    "caption": with_caption,
    "screenshot": screenshot,
}


@pytest.mark.parametrize("name", BORDERS)
def test_a_copy_in_a_border_is_found(name: str) -> None:
    photos = list(fields(12))
    assert found([*photos, np.asarray(BORDERS[name](Image.fromarray(photos[5])))]) == [(5, 12)]


@pytest.mark.parametrize("name", BORDERS)
def test_distinct_images_in_equal_borders_are_no_copies(name: str) -> None:
    """Of 60 photos in black frames, 13 pairs were called copies; of 40 letters, 37."""
    assert found([np.asarray(BORDERS[name](Image.fromarray(photo))) for photo in fields(12)]) == []


def letter(shape: str) -> np.ndarray:
    pixels = np.full((160, 160, 3), 250, np.uint8)
    pixels[30:130, 40:60] = 0
    pixels[30:48, 40 : 120 if shape in "FE" else 70] = 0
    if shape == "E":
        pixels[112:130, 40:120] = 0
    return pixels


@pytest.mark.parametrize("shape", "FEI")
def test_paper_around_a_letter_is_no_border(shape: str) -> None:
    assert inside(letter(shape)) is None


def test_letters_in_frames() -> None:
    framed = [np.asarray(ImageOps.expand(Image.fromarray(letter(shape)), 7, "black")) for shape in "FE"]
    assert found(framed) == []
    assert found([letter("F"), letter("E"), framed[0]]) == [(0, 2)]


def test_what_is_inside_a_border() -> None:
    photo = fields(1)[0]
    framed = np.asarray(ImageOps.expand(Image.fromarray(photo), 9, "red"))
    within = inside(framed)
    assert within is not None and inside(photo) is None
    assert abs(np.array(within.shape) - photo.shape).max() <= 2
    assert inside(np.zeros((6, 6, 1), np.uint8)) is None and inside(np.zeros((90, 90, 1), np.uint8)) is None


def test_a_cropped_photo_is_aligned() -> None:
    """Of 60 photos of which 8 % were cropped, 43 were found; now 57."""
    photos = fields(20)
    height, width = photos.shape[1:3]
    cropped = photos[4][round(0.08 * height) :, round(0.08 * width) :]
    assert found([*photos, cropped]) == [(4, 20)]


def test_only_copies_are_aligned() -> None:
    first, others = thumbnails(fields(30)[:1]), thumbnails(fields(30)[1:])
    assert aligned_similarity(np.repeat(first, len(others), axis=0), others).max() < 0.9
    near = thumbnails(moved(fields(30)[0], 0.08)[None])
    assert aligned_similarity(first, near)[0] > 0.95


def test_a_recoloured_photo_is_found() -> None:
    photos = fields(12)
    grey = photos[3].astype(float) @ [0.299, 0.587, 0.114]
    pale = (0.3 * photos[3] + 0.7 * grey[..., None]).astype(np.uint8)
    assert found([*photos, pale]) == [(3, 12)]


def test_a_small_copy_of_a_drawing_is_found() -> None:
    """A letter of 128 px and its copy of 64 px were compared as strictly as two digits of 28 px."""
    drawing = Image.fromarray(letter("F"))
    small = drawing.resize((64, 64), Image.Resampling.BILINEAR)
    pixels = np.asarray(small).astype(np.int16) + np.random.default_rng(0).integers(-9, 10, (64, 64, 1))
    small_copy = pixels.clip(0, 255).astype(np.uint8)
    thumbs = np.concatenate([thumbnails(one[None]) for one in (letter("F"), letter("E"), small_copy)])
    pairs = near_copies(thumbs, np.array([False, False, True]), {})
    assert [pair[:2] for pair in pairs] == [(0, 2)]
