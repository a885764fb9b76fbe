"""Exact and near duplicates: copies are found, neighbours are not, groups make trees."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from headstart.data.checks import duplicates
from headstart.data.checks.duplicates import THUMB_PX, detail_similarity, exact_pairs, near_pairs, thumbnails
from headstart.data.dataset import Dataset
from synthetic_images import fields, moved


def found(images: np.ndarray, *, tiny: bool = False) -> list[tuple[int, int]]:
    pairs = near_pairs(thumbnails(images), np.full(len(images), tiny))
    return [(first, second) for first, second, _ in pairs]


def test_exact_pairs_go_to_the_first():
    assert exact_pairs([b"a", b"b", b"a", b"c", b"b", b"a"]) == [(0, 2), (1, 4), (0, 5)]
    assert exact_pairs([b"a"]) == []


@pytest.mark.slow
def test_distinct_photos_are_no_pair():
    assert found(fields(60)) == []


@pytest.mark.parametrize(
    "copied",
    [
        lambda image: (image * 0.8).astype(np.uint8),
        lambda image: (image // 8) * 8,
        lambda image: moved(image, 0.03),
        lambda image: image.repeat(2, axis=0).repeat(2, axis=1)[::2, ::2],
    ],
    ids=["darker", "coarser", "cropped", "resized"],
)
def test_a_copy_is_found(copied):
    images = fields(20)
    assert found(np.concatenate([images, copied(images[4])[None]])) == [(4, 20)]


@pytest.mark.parametrize(
    "changed",
    [
        lambda image: 255 - image,
        lambda image: image[..., ::-1],
        lambda image: moved(image, 0.2),
    ],
    ids=["negative", "other colours", "cropped much"],
)
def test_another_picture_is_not(changed):
    images = fields(20)
    assert found(np.concatenate([images, changed(images[4])[None]])) == []


def test_many_copies_make_a_star():
    images = fields(6)
    copies = np.stack([images[2] - images[2] // step for step in (5, 8, 12, 20)])
    assert found(np.concatenate([images, copies])) == [(2, 6), (2, 7), (2, 8), (2, 9)]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    images = fields(20)
    images = np.concatenate([images, images[::4] // 2])
    whole = found(images)
    assert len(whole) == 5
    for name in ("_BLOCK", "_CHUNK"):
        monkeypatch.setattr(f"headstart.data.checks.duplicates.{name}", 3)
    assert sorted(found(images)) == sorted(whole)


def test_tiny_images_must_agree_in_every_stroke():
    image = fields(1)
    pair = np.concatenate([image, moved(image[0], 0.03)[None]])
    assert found(pair) == [(0, 1)]
    assert found(pair, tiny=True) == []
    assert found(np.concatenate([image, image // 2]), tiny=True) == [(0, 1)]


def test_only_what_may_be_cropped_is_moved_to_fit():
    image = fields(1)
    first, second = thumbnails(image), thumbnails(moved(image[0], 0.03)[None])
    fitted, rigid = (detail_similarity(first, second, np.array([strict]))[0] for strict in (False, True))
    assert fitted > 0.97 and rigid < fitted - 0.02


def test_drawings_are_judged_as_strictly_as_tiny_images():
    images = np.full((2, 160, 160, 1), 255, np.uint8)
    images[0, 40:120, 70:90] = images[1, 40:120, 74:94] = 0
    images[0, 70:90, 40:120] = images[1, 70:90, 40:120] = 0
    assert found(images) == []
    assert found(np.concatenate([images, images[:1] // 2 + 100])) == [(0, 2)]


def test_flat_images_are_no_pair():
    assert found(np.stack([np.full((40, 40, 3), value, np.uint8) for value in (0, 100, 100, 255)])) == []


def test_thumbnails_are_averages():
    ramp = np.tile(np.arange(128, dtype=np.uint8)[None, :, None], (64, 1, 1))[None]
    small = thumbnails(ramp)
    assert small.shape == (1, THUMB_PX, THUMB_PX, 3) and small.dtype == np.uint8
    np.testing.assert_allclose(small[0, 5, 1:-1, 2], np.arange(1, 31) * 4 + 1.5, atol=0.51)


@pytest.mark.slow
@pytest.mark.mnist
def test_honest_digits_are_no_leaks(mnist: Dataset):
    pixels = mnist.images.pixels[np.r_[0:3000, 60000:63000]]
    assert found(pixels, tiny=True) == []
    assert found(np.concatenate([pixels, pixels[:2] // 2]), tiny=True) == [(0, 6000), (1, 6001)]


@pytest.mark.parametrize("name", ["mirrored", "upside down", "turned", "grey"])
def test_altered_copies_of_photos_are_found(name: str) -> None:
    """Folders with augmented copies hold them: 60 photos with random labels and mirrors had 97 % right."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (20, 8, 8, 3))
    photos = thumbnails(coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8))
    grey = (photos @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[..., None].repeat(3, axis=3)
    altered = {
        "mirrored": photos[:, :, ::-1],
        "upside down": photos[:, ::-1],
        "turned": photos.swapaxes(1, 2)[:, ::-1],
        "grey": grey,
    }[name]
    found = near_pairs(np.concatenate([photos, altered]), np.zeros(40, np.bool_))
    assert [(first, second) for first, second, _ in found] == [(i, i + 20) for i in range(20)]


def test_a_mirrored_drawing_is_another_one() -> None:
    drawings = np.full((2, 32, 32, 3), 255, np.uint8)
    drawings[0, 6:26, 8:11] = drawings[0, 6:9, 8:20] = drawings[0, 14:17, 8:16] = 0  # an F
    drawings[1] = drawings[0][:, ::-1]
    assert not near_pairs(drawings, np.zeros(2, np.bool_))


def test_thumbnails_of_large_images_are_made_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 50, 40, 3)).astype(np.uint8)
    whole = duplicates.thumbnails(pixels)
    sizes: list[int] = []
    squish = duplicates._squish
    monkeypatch.setattr(duplicates, "_squish", lambda length: sizes.append(length) or squish(length))
    monkeypatch.setattr(duplicates, "_FLOATS", 2 * 50 * 40 * 3)
    assert np.array_equal(duplicates.thumbnails(pixels), whole) and len(sizes) == 2 * 4
    assert duplicates.thumbnails(pixels[:0]).shape == (0, 32, 32, 3)


def thumb_of(image: np.ndarray, side_px: int) -> np.ndarray:
    small = Image.fromarray(image).resize((side_px, side_px), Image.Resampling.BICUBIC)
    return thumbnails(np.asarray(small)[None])[0]


def test_a_photo_is_found_by_its_thumbnail():
    """Small images were compared as if all were digits: 37 of 51 photos of 32 px were found, of 64 px nearest 20."""
    images = fields(20)
    for side_px in (32, 48, 64):
        small = thumb_of(images[4], side_px)
        thumbs = np.concatenate([thumbnails(images), small[None]])
        tiny = np.array([False] * 20 + [True])
        assert [pair[:2] for pair in near_pairs(thumbs, tiny)] == [(4, 20)], side_px


def on_paper(n_images: int) -> np.ndarray:
    """Coloured objects of one outline on an even background."""
    images = np.full((n_images, 160, 160, 3), 250, np.uint8)
    down, across = np.mgrid[:160, :160]
    inside = ((down - 80) / 50) ** 2 + ((across - 80) / 40) ** 2 < 1
    for image, inner in zip(images, fields(n_images, seed=3), strict=True):
        image[inside] = inner[inside]
    return images


def test_a_grey_copy_on_paper_is_found_and_other_objects_are_not():
    images = on_paper(12)
    assert found(images) == []
    grey = np.asarray(Image.fromarray(images[4]).convert("L").convert("RGB"))
    assert found(np.concatenate([images, grey[None]])) == [(4, 12)]
