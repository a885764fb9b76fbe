"""Augmented copies: what each operation does to a pixel, and that a batch changes nothing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from headstart.data.images import augment as augment_module
from headstart.data.images.augment import (
    OPERATIONS,
    PRESETS,
    Augmentation,
    _draw,
    augment,
    flip_warning,
    parse_augmentation,
)
from headstart.data.images.warp import blurred
from headstart.errors import MissingExtraError, SettingError, ShapeError
from headstart.records import Images

EVERYTHING = "photo,elastic=0.05,shear=0.2,flip_vertical=0.5,stroke=0.05"


def noise(*shape: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def copied(images: Images, text: str, *, seed: int = 0, copy: int = 0) -> Images:
    pytest.importorskip("kornia")
    return augment(images, parse_augmentation(text), seed=seed, indices=range(len(images)), copy=copy)


def dot(side: int, y: int, x: int) -> Images:
    images = np.zeros((64, side, side, 1), np.uint8)
    images[:, y, x] = 255
    return images


def centres(images: Images) -> np.ndarray:
    """Row and column of the centre of mass of each image, from the middle, in pixels."""
    mass = images[..., 0].astype(float)
    away = np.arange(mass.shape[1]) - (mass.shape[1] - 1) / 2
    total = mass.sum((1, 2))
    return np.stack([mass.sum(2) @ away, mass.sum(1) @ away], 1) / total[:, None]


# the same whatever the batch


@pytest.mark.parametrize("shape", [(40, 28, 28, 1), (11, 60, 91, 3)])
def test_an_image_does_not_depend_on_its_batch(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kornia")
    images, change = noise(*shape), parse_augmentation(EVERYTHING)
    together = augment(images, change, seed=3, indices=range(len(images)), copy=2)
    order = np.random.default_rng(1).permutation(len(images))
    assert np.array_equal(augment(images[order], change, seed=3, indices=order, copy=2), together[order])
    for size in (1, 7):
        parts = [
            augment(
                images[at : at + size], change, seed=3, indices=range(at, min(at + size, len(images))), copy=2
            )
            for at in range(0, len(images), size)
        ]
        assert np.array_equal(np.concatenate(parts), together)
    monkeypatch.setattr("headstart.data.images.augment._CHUNK_VALUES", 3 * images[0].size)
    assert np.array_equal(augment(images, change, seed=3, indices=range(len(images)), copy=2), together)


def test_seed_view_and_index_each_change_the_draw() -> None:
    pytest.importorskip("kornia")
    images, change = np.repeat(noise(1, 28, 28, 1), 3, 0), parse_augmentation("handwriting")
    one = augment(images, change, seed=1, indices=[5, 5, 6], copy=2)
    assert np.array_equal(one[0], one[1]) and not np.array_equal(one[0], one[2])
    assert not np.array_equal(one[0], augment(images, change, seed=2, indices=[5, 5, 6], copy=2)[0])
    assert not np.array_equal(one[0], augment(images, change, seed=1, indices=[5, 5, 6], copy=1)[0])


def test_switching_one_operation_on_leaves_the_draws_of_others() -> None:
    images = noise(20, 16, 16, 1)
    assert np.array_equal(copied(images, "shift=0.2,flip_vertical=1e-9"), copied(images, "shift=0.2"))
    with_brightness = copied(images, "shift=0.2,brightness=1e-6").astype(int)
    assert np.abs(with_brightness - copied(images, "shift=0.2")).max() <= 1  # a rounding


def test_global_generators_are_neither_read_nor_changed() -> None:
    torch = pytest.importorskip("torch")
    images = noise(4, 28, 28, 1)
    with torch.random.fork_rng():
        torch.rand(1), np.random.random()  # away from any start
        before_numpy, before_torch = np.random.get_state()[1:3], torch.get_rng_state()
        first = copied(images, EVERYTHING)
        assert np.array_equal(before_numpy[0], np.random.get_state()[1])
        assert before_numpy[1] == np.random.get_state()[2]
        assert torch.equal(before_torch, torch.get_rng_state()) and torch.is_grad_enabled()
        torch.manual_seed(9), np.random.seed(9)
        assert np.array_equal(copied(images, EVERYTHING), first)


# what each operation does


@pytest.mark.parametrize(
    "shape", [(3, 28, 28, 1), (2, 224, 224, 3), (2, 5, 9, 4), (2, 1, 1, 1), (0, 8, 8, 3)]
)
def test_nothing_changes_at_strength_0_and_shapes_stay(shape: tuple[int, ...]) -> None:
    pytest.importorskip("kornia")
    images = noise(*shape)
    images.flags.writeable = False
    off = Augmentation(tuple((name, 0.0) for name in sorted(OPERATIONS)))
    same = augment(images, off, seed=0, indices=range(len(images)), copy=0)
    assert np.array_equal(same, images) and same.dtype == np.uint8 and same.flags.writeable
    assert copied(images, EVERYTHING).shape == shape


@pytest.mark.parametrize("side", [(28, 28), (224, 224), (17, 30)])
def test_flips_are_exact_mirrors(side: tuple[int, int]) -> None:
    images = noise(2, *side, 3)
    assert np.array_equal(copied(images, "flip=1"), images[:, :, ::-1])
    assert np.array_equal(copied(images, "flip_vertical=1"), images[:, ::-1])
    assert np.array_equal(copied(images, "flip=1,flip_vertical=1"), images[:, ::-1, ::-1])


def test_flip_is_a_probability() -> None:
    images = np.tile(np.array([[[0], [255]]], np.uint8), (1000, 1, 1, 1))
    share = (copied(images, "flip=0.3")[:, 0, 0, 0] == 255).mean()
    assert 0.25 < share < 0.35


def test_shift_moves_by_a_share_of_each_side() -> None:
    moved = centres(copied(dot(41, 20, 20), "shift=0.25"))
    assert np.all(np.abs(moved) < 0.25 * 41 + 0.1)
    assert np.all(moved.max(0) > 0.2 * 41) and np.all(moved.min(0) < -0.2 * 41)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.5
    wide = np.zeros((64, 11, 101, 1), np.uint8)
    wide[:, 5, 50] = 255
    columns = copied(wide, "shift=0.25")[..., 0].sum(1).argmax(1) - 50
    assert np.abs(columns).max() > 20


def test_zoom_keeps_the_centre_and_scales_both_ways_alike() -> None:
    assert np.all(copied(dot(41, 20, 20), "zoom=0.3")[:, 20, 20] == 255)
    across = centres(copied(dot(41, 20, 30), "zoom=0.3"))[:, 1] / 10
    down = centres(copied(dot(41, 30, 20), "zoom=0.3"))[:, 0] / 10
    assert np.allclose(across, down)
    assert 0.69 < across.min() < 0.75 and 1.25 < across.max() < 1.31


def test_rotation_turns_about_the_centre_by_degrees() -> None:
    moved = centres(copied(dot(41, 20, 30), "rotation=30"))
    degrees = np.degrees(np.arctan2(moved[:, 0], moved[:, 1]))
    assert np.allclose(np.hypot(*moved.T), 10, atol=0.3)
    assert 25 < degrees.max() < 31 and -31 < degrees.min() < -25


def test_shear_is_a_tangent() -> None:
    moved = centres(copied(dot(41, 30, 20), "shear=0.5"))
    assert np.allclose(moved[:, 0], 10, atol=0.01)
    assert 4 < moved[:, 1].max() < 5.1 and -5.1 < moved[:, 1].min() < -4


def test_operations_compose_mirror_zoom_shear_rotation_shift() -> None:
    """All in one map; checked on a dot against the matrices written out."""
    pytest.importorskip("kornia")
    change = parse_augmentation("flip=0.5,zoom=0.2,shear=0.3,rotation=40,shift=0.1")
    draws = _draw(0, 0, range(64))
    signed = {name: 2 * values - 1 for name, values in draws.items()}
    moved = centres(copied(dot(61, 34, 40), "flip=0.5,zoom=0.2,shear=0.3,rotation=40,shift=0.1"))
    strength = dict(change.operations)
    for at in range(64):
        zoom, angle = 1 + 0.2 * signed["zoom"][at], np.radians(40 * signed["rotation"][at])
        mirror = np.diag([-1 if draws["flip"][at] < 0.5 else 1, 1])
        shear = np.array([[1, strength["shear"] * signed["shear"][at]], [0, 1]])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = 6.1 * np.array([signed["shift_x"][at], signed["shift_y"][at]])
        assert np.allclose(turn @ shear @ (zoom * mirror) @ [10, 4] + shift, moved[at, ::-1], atol=0.35)


def test_brightness_multiplies() -> None:
    done = copied(np.full((500, 2, 2, 1), 100, np.uint8), "brightness=0.2")
    assert np.all(done == done[:, :1, :1])
    assert done.min() == 80 and done.max() in (119, 120) and len(np.unique(done)) >= 40
    bright = copied(np.full((64, 2, 2, 1), 240, np.uint8), "brightness=0.5")
    assert bright.max() == 255 and bright.min() >= 120


def test_blur_spreads_up_to_its_sigma_and_keeps_the_sum() -> None:
    done = copied(dot(41, 20, 20), "blur=0.05")[..., 0].astype(float)
    assert np.allclose(done.sum((1, 2)), 255, rtol=0.1)
    spread = np.sqrt(done.sum(1) @ np.arange(-20, 21) ** 2 / done.sum((1, 2)))
    assert 1.7 < spread.max() < 0.05 * 41 + 0.05 and spread.min() < 0.3


def test_a_blur_of_no_width_is_none() -> None:
    assert np.array_equal(copied(noise(2, 9, 9, 1), "blur=1e-30"), noise(2, 9, 9, 1))


@pytest.mark.slow
def test_a_blur_does_not_depend_on_the_batch_by_the_last_bit() -> None:
    torch, kornia = pytest.importorskip("torch"), pytest.importorskip("kornia")
    values = torch.from_numpy(np.random.default_rng(0).random((64, 1, 28, 28), np.float32))
    sigmas = np.linspace(0, 0.05, 64)
    together = blurred(values, sigmas, 0.05, torch, kornia)
    for at in range(64):
        alone = blurred(values[at : at + 1], sigmas[at : at + 1], 0.05, torch, kornia)
        assert torch.equal(alone[0], together[at])


def test_elastic_moves_smoothly_within_its_bound_and_keeps_the_mean() -> None:
    ramp = np.tile((2 * np.arange(100, dtype=np.uint8))[None, None, :, None], (256, 100, 1, 1))
    done = copied(ramp, "elastic=0.06").astype(int)
    moved = (done - ramp)[:, 10:-10, 10:-10] / 2  # pixels
    assert 5 < np.abs(moved).max() < 1.5 * 6 + 0.5
    assert abs(moved.mean()) < 0.2 and np.abs(moved.mean((1, 2, 3))).max() < 3
    assert np.diff(done, axis=2).min() >= 0  # no fold
    assert np.abs(np.diff(moved, axis=1)).max() < 1.5 and not np.all(moved == moved[:, :1])


def test_stroke_grows_and_shrinks_by_parts_of_a_pixel() -> None:
    bar = np.zeros((64, 28, 28, 1), np.uint8)
    bar[:, :, 12:16] = 200
    done = copied(bar, "stroke=0.05")  # up to 1.4 of 28 pixels at each edge
    width = done[:, 14, :, 0].sum(axis=1) / 200
    assert (done == done[:, :1]).all(), "along the bar nothing changes"
    assert width.min() >= 4 - 2 * 1.4 - 0.05 and width.max() <= 4 + 2 * 1.4 + 0.05
    assert width.min() < 2 and width.max() > 6 and abs(width.mean() - 4) < 0.6
    edges = done[:, 14, 11, 0]
    assert ((edges > 0) & (edges < 200)).sum() > 5, "an edge may move by a part of a pixel"


def test_stroke_was_added_without_moving_what_others_draw() -> None:
    rows = np.random.default_rng([3, 1, 7]).random(9 + 50)  # as before there was stroke
    draws = _draw(3, 1, [7])
    assert draws["blur"][0] == rows[0] and draws["zoom"][0] == rows[8]
    assert np.array_equal(draws["knots"].ravel(), rows[9:])


# written forms and errors


def test_presets_parse_and_are_written_sorted() -> None:
    for name, text in PRESETS.items():
        change = parse_augmentation(name)
        assert change == parse_augmentation(text) and change.n_copies == 3
        assert ",".join(f"{operation}={strength:g}" for operation, strength in change.operations) == text
    assert {name: parse_augmentation(name).flips for name in PRESETS} == {
        "handwriting": False,
        "many-hands": False,
        "photo": True,
        "textbook": True,
    }


def test_a_preset_can_be_changed() -> None:
    assert parse_augmentation("textbook, flip=0, rotation = 5", 2) == parse_augmentation(
        "zoom=0.2,shear=0.2,rotation=5", 2
    )
    assert parse_augmentation("flip_vertical=0.1").flips
    assert not parse_augmentation("textbook,flip=0").flips and not Augmentation((("flip", 0.0),)).flips
    assert parse_augmentation("zoom=0.2,shear=0.1", 5).parts() == {
        "operations": {"shear": 0.1, "zoom": 0.2},
        "n_copies": 5,
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("texbook", r"^augmentation 'texbook' is unknown, .*; nearest are textbook$"),
        (
            "",
            r"^augmentation '' is unknown, expected one of handwriting, many-hands, photo, ",
        ),
        ("zoom=0.1,photo", r"^augmentation 'photo' is unknown"),
        ("shaer=0.2", r"^operation 'shaer' is unknown, expected one of blur, .*; nearest are shear$"),
        ("shear=much", r"^strength of shear is 'much', expected a number; write it like shear=0.2$"),
        (
            "rotation=181",
            r"^strength of rotation is 181, expected 0 to 180 \(degrees: .*\); choose one in that",
        ),
        ("zoom=-0.1", r"^strength of zoom is -0.1, expected 0 to 0.9 \(relative change"),
        ("flip=nan", r"^strength of flip is nan, expected 0 to 1 \(probability"),
        ("shaer=1,shift=2", r"operation 'shaer' .*; also strength of shift is 2, expected 0 to 0.5"),
    ],
)
def test_parse_errors(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_augmentation(text)


def test_an_augmentation_made_by_hand_is_checked_too() -> None:
    with pytest.raises(
        SettingError, match=r"^n_copies is 0, expected at least 1; leave augmentation out for none$"
    ):
        parse_augmentation("textbook", 0)
    with pytest.raises(SettingError, match=r"^operations are not sorted, expected each once, by name"):
        Augmentation((("zoom", 0.1), ("shear", 0.1)))
    with pytest.raises(SettingError, match=r"^operations are not sorted, expected each once"):
        Augmentation((("zoom", 0.1), ("zoom", 0.2)))
    with pytest.raises(SettingError, match=r"^strength of zoom is 3, expected"):
        Augmentation((("zoom", 3.0),))


@pytest.mark.parametrize(
    ("images", "indices", "sentence"),
    [
        (
            np.zeros((2, 4, 4), np.uint8),
            [0, 1],
            r"^images has shape \(2, 4, 4\) and dtype uint8, expected \(n_im",
        ),
        (
            np.zeros((2, 4, 4, 1)),
            [0, 1],
            r"^images has shape \(2, 4, 4, 1\) and dtype float64, expected .* uint8",
        ),
        (np.zeros((2, 0, 4, 1), np.uint8), [0, 1], r"^images has shape \(2, 0, 4, 1\)"),
        (np.zeros((2, 4, 4, 1), np.uint8), [0], r"^indices has 1 entries, expected 2 to match images"),
    ],
)
def test_images_of_a_wrong_shape(images: Images, indices: list[int], sentence: str) -> None:
    with pytest.raises(ShapeError, match=sentence):
        augment(images, parse_augmentation("textbook"), seed=0, indices=indices, copy=0)


@pytest.mark.parametrize(("seed", "index", "copy"), [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_negative_seeds(seed: int, index: int, copy: int) -> None:
    with pytest.raises(SettingError, match=r"is -1, expected at least 0; count from 0$"):
        augment(noise(1, 4, 4, 1), parse_augmentation("photo"), seed=seed, indices=[index], copy=copy)


@pytest.mark.parametrize("package", ["torch", "kornia"])
def test_says_which_extra_is_missing(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if package == "kornia":
        pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, package, None)
    augment_module._packages.cache_clear()  # found by a test before
    with pytest.raises(
        MissingExtraError, match=rf"^augmentation: expected the package {package}, .* 'headstart\[train\]'$"
    ):
        augment(noise(1, 4, 4, 1), parse_augmentation("photo"), seed=0, indices=[0], copy=0)


@pytest.mark.parametrize(
    "classes", [list("0123456789"), ["a", "B"], ["zero", "One"], ["alpha", "beta", "gamma"], ["odd", "even"]]
)
def test_flips_of_characters_are_warned_of(classes: list[str]) -> None:
    said = flip_warning(classes, parse_augmentation("textbook"))
    assert said is not None and said.startswith("a flip changes what digits and letters mean")
    assert flip_warning(classes, parse_augmentation("flip_vertical=0.1")) == said
    assert flip_warning(classes, parse_augmentation("handwriting")) is None


@pytest.mark.parametrize("classes", [["ants", "bees"], ["alpha", "bees"], []])
def test_flips_of_other_things_are_not(classes: list[str]) -> None:
    assert flip_warning(classes, parse_augmentation("photo")) is None
