"""Subsets: what each keeps and how it is named, and the message for a wrong one."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.data import Dataset, apply_subset, from_arrays, subset_map
from headstart.errors import UnknownClassError, UnknownSubsetError


@pytest.fixture
def digits() -> Dataset:
    labels = [10, 0, 1, 2, 3, 9]
    return from_arrays(np.arange(6, dtype=np.uint8).reshape(6, 1, 1), labels, groups=labels, name="digits")


@pytest.mark.parametrize(
    ("subset", "labels", "classes"),
    [
        ("odd", ["1", "3", "9"], ("1", "3", "9")),
        ("even", ["10", "0", "2"], ("0", "2", "10")),
        ("parity", ["even", "even", "odd", "even", "odd", "odd"], ("even", "odd")),
        ("1-9", ["1", "2", "3", "9"], ("1", "2", "3", "9")),
        ("3, 10,1", ["10", "1", "3"], ("1", "3", "10")),
        ("9", ["9"], ("9",)),
    ],
)
def test_what_a_subset_keeps(
    digits: Dataset, subset: str, labels: list[str], classes: tuple[str, ...]
) -> None:
    seen = apply_subset(digits, subset)
    assert seen.name == f"digits:{subset}"
    assert seen.labels.tolist() == labels
    assert seen.classes == classes
    assert seen.groups is not None and len(seen.groups) == len(labels)
    assert seen.fingerprint != digits.fingerprint


def test_a_subset_of_a_subset(digits: Dataset) -> None:
    seen = apply_subset(apply_subset(digits, "0-3"), "parity")
    assert seen.name == "digits:0-3:parity"
    assert seen.labels.tolist() == ["even", "odd", "even", "odd"]


def test_parity_names_even_first() -> None:
    data = from_arrays(np.zeros((2, 1, 1), np.uint8), [1, 2])
    assert apply_subset(data, "parity").classes == ("even", "odd")
    assert apply_subset(data, "parity").codes().tolist() == [1, 0]


def test_a_class_named_like_a_subset_comes_first() -> None:
    data = from_arrays(np.zeros((3, 1, 1), np.uint8), ["odd", "even", "odd"])
    assert apply_subset(data, "odd").classes == ("odd",)
    assert apply_subset(data, "odd").labels.tolist() == ["odd", "odd"]


def test_images_follow_their_labels(digits: Dataset) -> None:
    assert apply_subset(digits, "odd").images.pixels.ravel().tolist() == [2, 4, 5]  # type: ignore[attr-defined]


def test_the_mapping_of_a_collapse() -> None:
    assert subset_map(["0", "1", "2"], "parity") == {"0": "even", "1": "odd", "2": "even"}
    assert subset_map(["0", "1", "2"], "even") == {"0": "0", "1": None, "2": "2"}


@pytest.mark.parametrize(
    ("subset", "kind", "sentence"),
    [
        (
            "od",
            UnknownSubsetError,
            r"^subset 'od' is unknown, expected odd, even, parity, 0-4, a,b,c, turned or a class \(known",
        ),
        ("", UnknownSubsetError, r"^subset '' is unknown"),
        ("3-1", UnknownSubsetError, r"^subset '3-1' runs downwards, expected low-high; write 1-3$"),
        (
            "0-12",
            UnknownClassError,
            r"^subset '0-12' names class '12', expected classes of the dataset, nearest are",
        ),
        (
            "1,33",
            UnknownClassError,
            r"^subset '1,33' names class '33', expected classes of the dataset, nearest are 3; correct",
        ),
        ("1,", UnknownClassError, r"^subset '1,' names class ''"),
    ],
)
def test_a_subset_that_is_none(digits: Dataset, subset: str, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        apply_subset(digits, subset)


@pytest.mark.parametrize("subset", ["odd", "even", "parity", "0-4"])
def test_numbers_are_needed(subset: str) -> None:
    with pytest.raises(
        UnknownSubsetError,
        match=rf"^subset '{subset}' does not fit classes 'ants', 'bees', expected classes that are whole",
    ):
        subset_map(["ants", "bees"], subset)


def test_turned_images_are_classes_of_their_own() -> None:
    pixels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    seen = apply_subset(from_arrays(pixels, ["b", "a"], groups=["x", "y"], name="two"), "turned")
    assert seen.name == "two:turned" and len(seen.classes) == 8
    assert seen.classes[:3] == ("a", "b", "a turned 90")
    assert seen.labels.tolist()[:4] == ["b", "a", "b turned 90", "a turned 90"]
    assert seen.images.pixels[2, :, :, 0].tolist() == [[1, 3], [0, 2]]  # type: ignore[attr-defined]
    assert seen.groups is not None and seen.groups.tolist() == ["x", "y"] * 4


def test_what_is_not_square_is_not_turned() -> None:
    with pytest.raises(UnknownSubsetError, match=r"^subset 'turned' does not fit dataset 'arrays', expected"):
        apply_subset(from_arrays(np.zeros((2, 1, 2), np.uint8), ["a", "b"]), "turned")


def test_a_subset_that_keeps_nothing(digits: Dataset) -> None:
    with pytest.raises(
        UnknownSubsetError,
        match=r"^subset 'odd' keeps no image of dataset 'digits:even', expected one that does; its",
    ):
        apply_subset(apply_subset(digits, "even"), "odd")
