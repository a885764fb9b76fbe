"""The dataset doctor: what was seeded is found, and nothing else; every remark, in order."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from headstart.data import from_arrays, load
from headstart.data.checks.doctor import Checkup, Pair, examine
from headstart.data.checks.refuse import check_up
from headstart.data.dataset import Dataset
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError, DataError

N_COPIES = 10
RECODED = [
    ("jpg", {"quality": 30}),
    ("jpg", {"quality": 60}),
    ("jpg", {"quality": 95}),
    ("png", {}),
]


def photos(n_images: int, seed: int = 0) -> list[Image.Image]:
    """Smooth random colour fields with detail, 200 x 150 px."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n_images):
        total = np.zeros((150, 200, 3))
        for cells in (3, 6, 12, 24, 48):
            noise = rng.normal(size=(cells, cells, 3)).astype(np.float32)
            layers = [
                Image.fromarray(noise[..., c]).resize((200, 150), Image.Resampling.BICUBIC) for c in range(3)
            ]
            total += np.stack([np.asarray(layer) for layer in layers], axis=2) / np.sqrt(cells)
        made.append(Image.fromarray((128 + 50 * total).clip(0, 255).astype(np.uint8)))
    return made


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((round(0.03 * width), 0, width, round(0.97 * height)))


CHANGES = [
    lambda image: image,
    lambda image: image,
    lambda image: image,
    lambda image: image,
    lambda image: image.resize((image.width // 2, image.height // 2)),
    lambda image: image.resize((image.width * 2, image.height * 2)),
    cropped,
    lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    lambda image: cropped(image).resize((160, 120)),
]


def seed_copies(folder: Path, originals: list[Path]) -> set[frozenset[str]]:
    """Add 10 exact and 10 re-encoded copies, 3 of them in the other split; give the pairs."""
    pairs = set()
    for number, path in enumerate(originals[: 2 * N_COPIES]):
        across = number in (0, 1, N_COPIES)
        split = "val" if across else path.relative_to(folder).parts[0]
        home = folder / split / path.parent.name
        if number < N_COPIES:
            copy = home / f"zz_{number}{path.suffix}"
            shutil.copyfile(path, copy)
        else:
            suffix, options = RECODED[number % len(RECODED)]
            copy = home / f"zz_{number}.{suffix}"
            with Image.open(path) as image:
                CHANGES[number - N_COPIES](image.convert("RGB")).save(copy, **options)
        pairs.add(frozenset((str(path), str(copy))))
    return pairs


def seed_broken(home: Path, whole: Image.Image) -> set[str]:
    """Add 5 files that are no pictures."""
    jpeg, png = io.BytesIO(), io.BytesIO()
    whole.save(jpeg, "JPEG")
    whole.save(png, "PNG")
    broken = {
        "empty.jpg": b"",
        "cut.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "text.jpg": b"a bee is not an ant",
        "noise.png": np.random.default_rng(0).bytes(3000),
        "cut.png": png.getvalue()[: len(png.getvalue()) // 2],
    }
    for name, data in broken.items():
        (home / name).write_bytes(data)
    return {str(home / name) for name in broken}


def seeded(folder: Path) -> tuple[set[frozenset[str]], set[str]]:
    """Seed a folder that has train and val."""
    originals = sorted((folder / "train").glob("*/*.jpg"))
    with Image.open(originals[0]) as image:
        broken = seed_broken(folder / "train" / originals[0].parent.name, image.convert("RGB"))
    return seed_copies(folder, originals), broken


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "pets"
    for number, photo in enumerate(photos(64)):
        place = home / ("val" if number % 4 == 3 else "train") / ("cat" if number % 8 < 4 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        photo.save(place / f"{number:02}.jpg", quality=92)
    return home


def assert_finds(checkup: Checkup, pairs: set[frozenset[str]], broken: set[str]) -> None:
    assert {frozenset((pair.first, pair.second)) for pair in checkup.pairs} == pairs
    assert len(checkup.pairs) == 2 * N_COPIES
    assert [pair.kind for pair in checkup.pairs] == ["exact"] * N_COPIES + ["near"] * N_COPIES
    assert sum(pair.leak for pair in checkup.pairs) == 3
    assert {path for path, _ in checkup.unreadable} == broken


def test_a_healthy_folder_has_no_pairs(folder: Path) -> None:
    checkup = examine(load(folder))
    assert checkup.pairs == () and checkup.unreadable == () and checkup.remarks == ()
    assert checkup.counts == {"train": {"cat": 24, "dog": 24}, "val": {"cat": 8, "dog": 8}}


def test_what_was_seeded_is_found_and_nothing_else(folder: Path) -> None:
    pairs, broken = seeded(folder)
    checkup = examine(load(folder))
    assert_finds(checkup, pairs, broken)
    leaks, repeats, unreadable, *others = checkup.remarks
    assert "of train is also in val: 3 pairs (1 of them near)" in leaks
    assert "more than once: 20 pairs (10 of them near)" in repeats
    assert unreadable.startswith("5 files were left out") and others == []
    assert json.loads(json.dumps(dataclasses.asdict(checkup)))["n_images"] == 84


def test_what_was_seeded_in_real_photos_is_found(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "hymenoptera").is_dir():
        pytest.skip("needs hymenoptera under $HEADSTART_DATA")
    folder = tmp_path / "hymenoptera"
    for path in (real_data / "hymenoptera").glob("*/*/*.jpg"):
        copy = folder / path.relative_to(real_data / "hymenoptera")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    pairs, broken = seeded(folder)
    assert_finds(examine(load(folder)), pairs, broken)


def drawn(n_images: int, seed: int = 0) -> np.ndarray:
    """Light noise inside a dark border, 12 x 12 px."""
    pixels = np.random.default_rng(seed).integers(50, 256, (n_images, 12, 12)).astype(np.uint8)
    pixels[:, [0, -1]] = 0
    pixels[:, :, [0, -1]] = 0
    return pixels


def said(dataset: Dataset) -> tuple[str, ...]:
    return examine(dataset, near=False).remarks


def balanced(n_each: int, *names: str) -> tuple[np.ndarray, list[str]]:
    return drawn(n_each * len(names)), [name for name in names for _ in range(n_each)]


def test_arrays_need_no_near_look_to_find_exact_copies() -> None:
    pixels, labels = balanced(10, "cat", "dog")
    pixels[12] = pixels[15] = pixels[3]
    splits = ["train"] * 15 + ["test"] * 5
    checkup = examine(from_arrays(pixels, labels, splits=splits), near=False)
    assert checkup.pairs == (
        Pair("image 3", "image 12", "exact", ("train", "train"), ("cat", "dog"), 1.0, (3, 12)),
        Pair("image 3", "image 15", "exact", ("train", "test"), ("cat", "dog"), 1.0, (3, 15)),
    )
    assert [pair.leak for pair in checkup.pairs] == [False, True]
    assert checkup.polarity == {"light on dark": 20} and checkup.modes == {"L": 20}
    assert checkup.sizes_px is not None and checkup.sizes_px.median == (12, 12)


def test_without_splits_nothing_leaks() -> None:
    pixels, labels = balanced(10, "cat", "dog")
    pixels[1] = pixels[0]
    (pair,) = examine(from_arrays(pixels, labels)).pairs
    assert pair.kind == "exact" and pair.splits is None and not pair.leak


def test_near_looks_at_one_of_exact_copies_only(folder: Path) -> None:
    path = folder / "train" / "cat" / "00.jpg"
    shutil.copyfile(path, path.with_name("99.jpg"))
    with Image.open(path) as image:
        image.save(path.with_name("98.jpg"), quality=40)
    pairs = examine(load(folder)).pairs
    assert [(Path(pair.first).name, Path(pair.second).name, pair.kind) for pair in pairs] == [
        ("00.jpg", "99.jpg", "exact"),
        ("00.jpg", "98.jpg", "near"),
    ]


def test_the_cheap_part_opens_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(folder)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was opened"))
    checkup = examine(dataset, near=False)
    assert (
        checkup.sizes_px is None and checkup.modes == {} and checkup.formats == {} and checkup.polarity == {}
    )


def test_headers_are_counted_as_stored(folder: Path) -> None:
    home = folder / "train" / "cat"
    big, small = photos(2, seed=1)
    big.resize((400, 300)).convert("RGBA").save(home / "big.png")
    small.resize((90, 80)).convert("L").save(home / "small.png")
    checkup = examine(load(folder))
    assert checkup.modes == {"RGB": 64, "RGBA": 1, "L": 1} and checkup.formats == {"JPEG": 64, "PNG": 2}
    assert dataclasses.astuple(checkup.sizes_px) == ((90, 80), (200, 150), (400, 300), 3)
    assert checkup.remarks == ("images are stored in 3 modes: L 1, RGB 64, RGBA 1",)


def test_a_file_that_broke_since_is_not_read_again(folder: Path) -> None:
    """The checks are about the files as they were loaded; whoever reads one again hears that it has changed."""
    dataset, expected = load(folder), examine(load(folder))
    (folder / "train" / "cat" / "00.jpg").write_bytes(b"")
    assert examine(dataset) == expected
    store = FileImages(dataset.images.paths, dataset.images.digests)
    with pytest.raises(BrokenDataError, match=r"00\.jpg' has changed"):
        examine(replace(dataset, images=store))


def test_progress_counts_every_image(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    examine(load(folder), on_image=lambda done, total: told.append((done, total)))
    assert told == [(done, 64) for done in range(1, 65)]
    told.clear()
    examine(from_arrays(*balanced(200, "cat", "dog")), on_image=lambda *counts: told.append(counts))
    assert told == [(256, 400), (400, 400)]


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (("bee", "Bees"), "'bee' and 'Bees'"),
        (("ice cream", "ice-cream"), "'ice cream' and 'ice-cream'"),
        (("Ant", "ant"), "'Ant' and 'ant'"),
        (("box", "boxes"), "'box' and 'boxes'"),
        (("berry", "berries"), "'berry' and 'berries'"),
    ],
)
def test_names_of_one_class_are_seen(names: tuple[str, str], same: str) -> None:
    """Twins are two classes, unless one of them is missing from a split."""
    pixels, labels = balanced(40, *names)
    assert said(from_arrays(pixels, labels)) == ()
    assert said(from_arrays(pixels, labels, splits=["train", "test"] * 40)) == ()
    remarks = said(from_arrays(pixels, labels, splits=["train"] * 40 + ["test"] * 40))
    assert f"classes {same} have nearly the same name" in remarks


@pytest.mark.parametrize("names", [("a", "A"), ("pin", "pine"), ("1", "11"), ("bee", "beetle")])
def test_other_names_are_left_alone(names: tuple[str, str]) -> None:
    assert said(from_arrays(*balanced(10, *names))) == ()


def test_a_class_of_one_split_is_named_with_the_nearest() -> None:
    pixels, labels = balanced(10, "ant", "bumblebee", "bumble_be")
    splits = ["train"] * 9 + ["val"] + ["train"] * 10 + ["val"] * 10
    checkup = examine(from_arrays(pixels, labels, splits=splits), near=False)
    assert checkup.label_problems == (
        "class 'bumble_be' is in val only, nearest are bumblebee",
        "class 'bumblebee' is in train only, nearest are bumble_be",
    )
    assert checkup.remarks[:2] == checkup.label_problems


def test_a_split_to_evaluate_on_may_lack_a_class() -> None:
    """It was refused, with the advice to rename a folder."""
    pixels, labels = balanced(10, "ant", "bee", "wasp")
    splits = (["train"] * 8 + ["test"] * 2) * 2 + ["train"] * 10
    checkup = check_up(from_arrays(pixels, labels, splits=splits))
    assert checkup.label_problems == ()
    assert "the split test has no image of 'wasp': figures on it say nothing of this class" in checkup.remarks
    with pytest.raises(DataError, match=r"'Bee' is in test only.*nearest are bee.*rename the folders"):
        names = np.where((np.array(splits) == "test") & (np.array(labels) == "bee"), "Bee", labels)
        check_up(from_arrays(pixels, names, splits=splits))


def test_imbalance_and_small_classes_are_said_last() -> None:
    pixels = drawn(44)
    checkup = examine(from_arrays(pixels, ["ant"] * 31 + ["bee"] * 9 + ["fly"] * 3 + ["moth"]), near=False)
    assert checkup.imbalance == 31
    assert checkup.remarks == (
        "class 'ant' has 31 images and 'moth' 1, 31.0 times as many",
        "1 class has fewer than 2 images: 'moth'",
        "2 classes have fewer than 10 images: 'bee', 'fly'",
    )
    assert said(from_arrays(drawn(40), ["ant"] * 30 + ["bee"] * 10)) == ()


def test_imbalance_is_that_of_the_training_split() -> None:
    """A test set that is skewed the other way does not make up for it."""
    labels = ["ant"] * 120 + ["bee"] * 12 + ["ant"] * 12 + ["bee"] * 108
    dataset = from_arrays(drawn(252), labels, splits=["train"] * 132 + ["test"] * 120)
    checkup = examine(dataset, near=False)
    assert checkup.imbalance == 10
    assert checkup.remarks == ("class 'ant' has 120 images and 'bee' 12 in train, 10.0 times as many",)


def test_a_skewed_test_set_is_no_imbalance() -> None:
    labels = ["ant", "bee"] * 20 + ["ant"] * 90 + ["bee"] * 10
    dataset = from_arrays(drawn(140), labels, splits=["train"] * 40 + ["test"] * 100)
    checkup = examine(dataset, near=False)
    assert checkup.imbalance == 1 and checkup.remarks == ()


def test_mixed_polarity_is_seen() -> None:
    pixels, labels = balanced(10, "ant", "bee")
    pixels[15:] = 255 - pixels[15:]
    checkup = examine(from_arrays(pixels, labels), near=False)
    assert checkup.polarity == {"light on dark": 15, "dark on light": 5}
    assert checkup.remarks == ("5 drawings are dark on light and 15 light on dark",)


def test_colour_and_uneven_borders_have_no_polarity() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3)).astype(np.uint8)
    labels = ["ant"] * 10 + ["bee"] * 10
    assert examine(from_arrays(noise, labels), near=False).polarity == {}
    assert examine(from_arrays(noise[..., :1], labels), near=False).polarity == {"unclear": 20}


@pytest.mark.mnist
def test_mnist_is_healthy(mnist: Dataset) -> None:
    checkup = examine(mnist, near=False)
    assert checkup.pairs == () and checkup.remarks == ()
    assert checkup.polarity == {"light on dark": 70_000}


def test_images_of_one_group_are_a_remark_and_of_two_are_not() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16), np.uint8)
    labels = ["cat", "dog"] * 20
    one = examine(from_arrays(pixels, labels, groups=["anna"] * 40), near=False).remarks
    assert [said for said in one if "all images are of one group (anna)" in said]
    for groups in (None, ["anna"] * 20 + ["ben"] * 20):
        others = examine(from_arrays(pixels, labels, groups=groups), near=False).remarks
        assert not [said for said in others if "one group" in said]
