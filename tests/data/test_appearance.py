"""Descriptors: copies are recognised by 256 bytes, and no distinct image is taken for one."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from headstart.data.checks.appearance import LENGTH, LIMITS, Matcher, describe
from headstart.data.checks.duplicates import THUMB_PX
from headstart.data.images.decode import preview, squished
from synthetic_images import fields, moved

Change = Callable[[Image.Image], bytes]


def saved(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((round(0.03 * width), round(0.03 * height), width, height))


CHANGES: dict[str, Change] = {
    "PNG": lambda image: saved(image, "PNG", compress_level=1),  # the pixels are those of any level
    "JPEG 95": lambda image: saved(image, "JPEG", quality=95),
    "JPEG 30": lambda image: saved(image, "JPEG", quality=30),
    "half size": lambda image: saved(image.resize((image.width // 2, image.height // 2)), "JPEG", quality=90),
    "brighter": lambda image: saved(ImageEnhance.Brightness(image).enhance(1.2), "JPEG", quality=90),
}


def small(images: list[Image.Image]) -> np.ndarray:
    """Thumbnails as readers make them."""
    files = (
        saved(image, "PNG", compress_level=0) for image in images
    )  # to compress would take the most time
    return np.stack([squished(preview(one, "x", THUMB_PX)[1], THUMB_PX) for one in files])


def copies(known: np.ndarray, asked: np.ndarray, *, tiny: bool = False) -> list[int]:
    matcher = Matcher(describe(known, np.full(len(known), tiny)))
    return matcher.copies(asked, np.full(len(asked), tiny)).tolist()


def pictures(n_images: int, seed: int = 0) -> list[Image.Image]:
    return [Image.fromarray(one) for one in fields(n_images, seed=seed)]


@pytest.mark.parametrize(
    "change", ["PNG", *(pytest.param(one, marks=pytest.mark.slow) for one in CHANGES if one != "PNG")]
)
def test_a_copy_is_recognised_and_no_other_image_is(change: str) -> None:
    known, strangers = pictures(30), pictures(30, seed=1)
    changed = [Image.open(io.BytesIO(CHANGES[change](image))) for image in known]
    assert copies(small(known), small(changed)) == list(range(30))
    assert copies(small(known), small(strangers)) == [-1] * 30


@pytest.mark.slow
def test_a_small_crop_is_recognised_and_a_large_one_is_not() -> None:
    known = small(pictures(20))
    cut = small([Image.fromarray(moved(one, 0.03)) for one in fields(20)])
    much = small([Image.fromarray(moved(one, 0.2)) for one in fields(20)])
    assert copies(known, cut) == list(range(20)) and copies(known, much) == [-1] * 20


def test_descriptors_are_small_and_say_nothing_of_a_featureless_image() -> None:
    flat = np.full((2, THUMB_PX, THUMB_PX, 3), 90, np.uint8)
    flat[1, 3, 4] += 2
    looks = describe(flat, np.zeros(2, np.bool_))
    assert looks.values.shape == (2, LENGTH) and not looks.values.any()
    assert copies(flat, flat) == [-1, -1]
    assert describe(flat[:0], np.zeros(0, np.bool_)).values.shape == (0, LENGTH)
    assert copies(flat[:0], flat) == [-1, -1] and copies(flat, flat[:0]) == []


def letterboxed(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", (160, 160), "black")
    page.paste(image.resize((160, 100)), (0, 30))
    return page


def form(seed: int) -> Image.Image:
    """A printed form, filled in."""
    page, rng = Image.new("L", (300, 400), 255), np.random.default_rng(seed)
    draw = ImageDraw.Draw(page)
    draw.rectangle((20, 10, 280, 380), outline=0, width=3)
    for y in range(40, 380, 40):
        draw.line((20, y, 280, y), fill=0, width=2)
        draw.text((30, y + 8), " ".join(map(str, rng.integers(0, 99_999, 5))), fill=0)
    return page


@pytest.mark.parametrize("kind", ["letterbox", "form"])
def test_images_that_share_a_template_are_no_copies_of_one_another(kind: str) -> None:
    made = (
        [letterboxed(one) for one in pictures(90)]
        if kind == "letterbox"
        else [form(seed) for seed in range(90)]
    )
    known, strangers = small(made[:60]), small(made[60:])
    plain = describe(known, np.zeros(60, np.bool_))
    unit = plain.values / np.linalg.norm(plain.values.astype(float), axis=1, keepdims=True)
    alike = unit @ unit.T - np.eye(60)
    assert kind == "letterbox" or alike.max() > LIMITS[plain.kinds].max(), "or the test shows nothing"
    assert copies(known, strangers) == [-1] * 30
    again = small(
        [Image.open(io.BytesIO(saved(one.convert("RGB"), "JPEG", quality=90))) for one in made[:60]]
    )
    assert copies(known, again) == list(range(60))


def photos(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(folder.rglob("*.jpg"))]


@pytest.mark.slow
def test_no_photo_of_the_test_set_is_called_learned(real_data: Path) -> None:
    train, test = (photos(real_data / "hymenoptera" / part) for part in ("train", "val"))
    known = small(train)
    assert copies(known, small(test)) == [-1] * len(test)
    for name, change in CHANGES.items():
        changed = [Image.open(io.BytesIO(change(one))) for one in train]
        assert copies(known, small(changed)) == list(range(len(train))), name
    found = np.array(copies(known, small([cropped(one) for one in train])))
    assert (found == np.arange(len(train))).mean() >= 0.95
    assert ((found == np.arange(len(train))) | (found < 0)).all()


@pytest.mark.slow
@pytest.mark.mnist
def test_no_digit_of_the_test_set_is_called_learned(mnist) -> None:
    from headstart.data.checks.duplicates import thumbnails

    train, test = (mnist.split(name).images.pixels for name in ("train", "test"))
    known = np.concatenate([thumbnails(train[start : start + 500]) for start in range(0, 20_000, 500)])
    asked = np.concatenate([thumbnails(test[start : start + 500]) for start in range(0, 3_000, 500)])
    assert copies(known, asked, tiny=True) == [-1] * len(asked)
    some = [Image.fromarray(one[..., 0]) for one in train[:200]]
    again = small([Image.open(io.BytesIO(saved(one, "JPEG", quality=75))) for one in some])
    assert copies(known, again, tiny=True) == list(range(200))
