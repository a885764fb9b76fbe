"""Copies that two augmentations share are computed once, and are the same to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.images.augment import augment, parse_augmentation, same_copies
from headstart.data.readers.load import load
from headstart.records import Images
from headstart.sources import features
from headstart.sources.features import AugmentedCopy, Extraction, extract_all
from headstart.sources.registry import open_source
from headstart.strategies.copies import copy_rows
from headstart.strategies.probe import training_rows
from headstart.system.cache import FolderCache

pytest.importorskip("kornia", reason="augmentation needs it")

FLIPS = parse_augmentation("flip=0.5,shear=0.2,zoom=0.2", 2)
NONE = parse_augmentation("shear=0.2,zoom=0.2", 2)
PLACES = [("values", "flat")]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits").subset(np.arange(0, 400, 10))


def images_of(dataset: Dataset) -> Images:
    pixels = dataset.images.pixels
    assert pixels is not None
    return pixels


@pytest.mark.parametrize("other", ["shear=0.2,zoom=0.2", "flip=0.2,shear=0.2,zoom=0.2", "shear=0.2,zoom=0.1"])
@pytest.mark.parametrize("copy", [0, 1])
def test_copies_that_are_said_to_be_the_same_are_the_same_to_the_bit(
    digits: Dataset, other: str, copy: int
) -> None:
    pixels, where = images_of(digits), np.arange(len(digits))
    one, two = (
        augment(pixels, way, seed=3, indices=where, copy=copy) for way in (FLIPS, parse_augmentation(other))
    )
    same = same_copies(FLIPS, parse_augmentation(other), seed=3, indices=where, copy=copy)
    equal = (one == two).reshape(len(one), -1).all(axis=1)
    assert np.array_equal(same, equal) and same.any() == (other != "shear=0.2,zoom=0.1") and not same.all()


def test_no_image_has_no_copy() -> None:
    assert same_copies(FLIPS, NONE, seed=0, indices=[], copy=0).shape == (0,)


def test_rows_are_those_of_each_augmentation_and_shared_copies_are_not_computed_again(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, options = open_source("pixels", digits), Extraction(FolderCache(tmp_path))
    copies = [AugmentedCopy(one, 0, 1) for one in (FLIPS, NONE)]
    (expected,) = extract_all(digits, source, PLACES, copy=copies[1])
    extract_all(digits, source, PLACES, copy=copies[0], options=options)
    computed: list[int] = []
    real = features._computed

    def counting(dataset: Dataset, *rest: object) -> object:
        computed.append(len(dataset))
        return real(dataset, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "_computed", counting)
    (found,) = copy_rows(digits, source, PLACES, copies[1], options, FLIPS)
    same = same_copies(FLIPS, NONE, seed=0, indices=np.arange(len(digits)), copy=1)
    assert np.array_equal(found, expected)
    assert computed == [int((~same).sum())] and 0 < computed[0] < len(digits)


def test_all_rows_of_training_are_the_same_with_and_without_a_known_augmentation(
    digits: Dataset, tmp_path: Path
) -> None:
    source, options = open_source("pixels", digits), Extraction(FolderCache(tmp_path))
    (plain,), labels, images = training_rows(source, digits, PLACES, NONE, 0, Extraction())
    (known,), labels_too, images_too = training_rows(source, digits, PLACES, NONE, 0, options, like=FLIPS)
    assert np.array_equal(plain, known) and np.array_equal(images, images_too)
    assert labels.tolist() == labels_too.tolist() and len(plain) == 3 * len(digits)


def test_without_a_cache_nothing_is_computed_that_is_not_used(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[object] = []
    real = features._computed

    def counting(*given: object) -> object:
        computed.append(given[-2])
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "_computed", counting)
    copy = AugmentedCopy(NONE, 0, 0)
    copy_rows(digits, open_source("pixels", digits), PLACES, copy, Extraction(), FLIPS)
    assert computed == [copy]
