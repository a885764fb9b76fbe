"""Copies by their foreground: one letter in another window is found, other letters and simple forms are not."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from headstart.data import from_arrays
from headstart.data.checks.doctor import examine
from headstart.data.checks.foregrounds import cut_out, foreground_pairs
from headstart.data.images.decode import decode_bytes, squished
from image_files import saved


def letter(seed: int, side_px: int = 160) -> Image.Image:
    """A letter that nobody writes: a few curves from random numbers, dark blue on paper."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (side_px, side_px), (246, 244, 238))
    pen = ImageDraw.Draw(image)
    for _ in range(3):
        knots = rng.uniform(0.25, 0.75, (4, 2))
        times = np.linspace(0, 1, 30)[:, None]
        basis = [(1 - times) ** 3, 3 * times * (1 - times) ** 2, 3 * times**2 * (1 - times), times**3]
        curve = sum(weight * knot for weight, knot in zip(basis, knots, strict=True)) * side_px
        pen.line([tuple(point) for point in curve], fill=(30, 30, 70), width=side_px // 26, joint="curve")
    return image


def window(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Another part of the screen: shares of the side that are added, or cut off if negative."""
    side = image.width
    shifts = [round(side * share) for share in (left, top, right, bottom)]
    size = (side + shifts[0] + shifts[2], side + shifts[1] + shifts[3])
    paper = Image.new("RGB", size, image.getpixel((0, 0)))
    paper.paste(image, (shifts[0], shifts[1]))
    return paper


def found(images: list[Image.Image]) -> set[tuple[int, int]]:
    all_cut = [cut_out(np.asarray(one), squished(np.asarray(one), 32)) for one in images]
    some = {place: one for place, one in enumerate(all_cut) if one is not None}
    return {(first, second) for first, second, _ in foreground_pairs(some)}


LETTERS = [letter(seed) for seed in range(14)]
CHANGES = {
    "window": lambda image: window(image, 0.05, -0.08, 0.2, 0.1),
    "margin": lambda image: window(image, 0.2, 0.2, 0.2, 0.2),
    "smaller": lambda image: window(image, 0.1, 0.0, 0.0, 0.1).resize((120, 120), Image.Resampling.BICUBIC),
    "encoded": lambda image: Image.open(io.BytesIO(saved(window(image, 0.1, 0, 0.1, 0), "JPEG", quality=50))),
    "larger": lambda image: window(image, 0.0, 0.1, 0.1, 0.0).resize((300, 300), Image.Resampling.BICUBIC),
}


@pytest.mark.parametrize("change", CHANGES)
def test_screenshots_of_one_letter_are_found(change: str) -> None:
    copies = [CHANGES[change](image).convert("RGB") for image in LETTERS[:4]]
    assert found([*LETTERS, *copies]) == {(place, len(LETTERS) + place) for place in range(4)}


def test_other_letters_are_not() -> None:
    assert found([letter(seed) for seed in range(40)]) == set()


@pytest.mark.parametrize("kind", ["circle", "square", "stroke", "cross"])
def test_simple_forms_are_no_copies_of_each_other(kind: str) -> None:
    rng = np.random.default_rng(0)
    forms = []
    for _ in range(8):
        image = Image.new("RGB", (160, 160), "white")
        pen = ImageDraw.Draw(image)
        side = int(rng.integers(50, 90))
        x, y = (int(value) for value in rng.integers(5, 60, 2))
        box = [x, y, x + side, y + side]
        if kind == "circle":
            pen.ellipse(box, outline="black", width=8)
        elif kind == "square":
            pen.rectangle(box, outline="black", width=8)
        else:
            pen.line(box, fill="black", width=8)
            if kind == "cross":
                pen.line([x + side, y, x, y + side], fill="black", width=8)
        forms.append(image)
    assert found(forms) == set()


def test_no_foreground_without_an_even_background() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)
    assert cut_out(noise, squished(noise, 32)) is None
    flat = np.full((90, 90, 1), 200, np.uint8)
    assert cut_out(flat, squished(flat, 32)) is None
    stroke = flat.copy()
    stroke[20:70, 44:47] = 0
    assert cut_out(stroke, squished(stroke, 32)) is None, "a stroke has no form"
    assert found([LETTERS[0]]) == set()


def test_the_edges_lie_between_pixels() -> None:
    image = np.asarray(LETTERS[0])
    _, aspect = cut_out(image, squished(image, 32))  # type: ignore[misc]
    doubled = np.asarray(LETTERS[0].resize((320, 320), Image.Resampling.BICUBIC))
    _, again = cut_out(doubled, squished(doubled, 32))  # type: ignore[misc]
    assert again == pytest.approx(aspect, rel=0.02)


def test_the_doctor_finds_them_in_arrays() -> None:
    same = [window(image, 0.1, 0.05, 0.0, 0.05).resize((160, 160)) for image in LETTERS[:2]]
    pixels = np.stack([np.asarray(image) for image in [*LETTERS, *same]])
    pairs = examine(from_arrays(pixels, ["a", "b"] * 8)).pairs
    assert {pair.places for pair in pairs} == {(0, 14), (1, 15)} and {pair.kind for pair in pairs} == {"near"}


@pytest.mark.slow
def test_screenshots_in_the_greek_letters_are_found(real_data: Path) -> None:
    home = real_data / "greek"
    if not home.is_dir():
        pytest.skip("needs greek under $HEADSTART_DATA")
    paths = sorted(home.rglob("*.png"))
    pixels = [decode_bytes(path.read_bytes(), str(path)) for path in paths]
    images = [Image.fromarray(np.broadcast_to(one, (*one.shape[:2], 3)).copy()) for one in pixels]
    names = [str(path.relative_to(home)) for path in paths]
    assert {(names[first], names[second]) for first, second in found(images)} == {
        ("photos/alpha/w09_01.png", "photos/alpha/w09_03.png"),
        ("photos/gamma/w09_01.png", "photos/gamma/w09_02.png"),
        ("train/gamma/gamma_007.png", "train/gamma/gamma_008.png"),
    }


@pytest.mark.slow
def test_no_letter_of_omniglot_is_a_copy(real_data: Path) -> None:
    archive = real_data / "omniglot-py" / "images_background_small2.zip"
    if not archive.is_file():
        pytest.skip("needs omniglot-py under $HEADSTART_DATA")
    with zipfile.ZipFile(archive) as box:
        names = sorted(name for name in box.namelist() if name.endswith(".png"))
        images = [Image.open(io.BytesIO(box.read(name))).convert("RGB") for name in names]
    assert found(images) == set()
