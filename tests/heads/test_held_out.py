"""A test set held out: stratified, seeded, copies and groups on one side, new to the source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headstart.data.checks.hold_out import hold_out, holdout_sentence
from headstart.data.checks.seen import inherited, record
from headstart.data.dataset import Dataset
from headstart.data.subsets import apply_subset
from headstart.errors import DataError, SettingError
from synthetic_images import fields


@pytest.fixture(scope="module")
def pets() -> Dataset:
    """Forty cats, sixty dogs."""
    labels = np.repeat(["cat", "dog"], [40, 60])
    return Dataset("pets", fields(100, 40), labels, ("cat", "dog"))


def held(dataset: Dataset) -> list[int]:
    assert dataset.splits is not None
    return np.flatnonzero(dataset.splits == "test").tolist()


def test_classes_are_drawn_from_alike_by_the_seed_alone(pets: Dataset) -> None:
    divided = hold_out(pets, 0.2, 3)
    assert divided.split("test").counts() == {"cat": 8, "dog": 12}
    assert divided.split("train").counts() == {"cat": 32, "dog": 48}
    assert held(hold_out(pets, 0.2, 3)) == held(divided) != held(hold_out(pets, 0.2, 4))
    assert divided.holdout is not None and divided.holdout.n_images == 20
    assert "20 images (20%, seed 3) were held out as a test set" in str(holdout_sentence(divided))
    assert hold_out(pets, None) is pets and holdout_sentence(pets) is None


def test_copies_stay_on_one_side(pets: Dataset) -> None:
    pixels = pets.images.pixels
    copied = (pixels[:30] * 0.9).astype(np.uint8)  # near copies of thirty cats
    both = Dataset(
        "twice",
        np.concatenate([pixels, copied, pixels[40:70]]),
        np.concatenate([pets.labels, pets.labels[:30], pets.labels[40:70]]),
        pets.classes,
    )
    for seed in range(5):
        test = set(held(hold_out(both, 0.3, seed)))
        assert all((place in test) == (100 + place in test) for place in range(30))
        assert all((place in test) == (90 + place in test) for place in range(40, 70))
        assert 0.2 <= len(test) / len(both) <= 0.4


def test_groups_stay_on_one_side(pets: Dataset) -> None:
    groups = np.array([f"writer {place % 10}" for place in range(100)])
    divided = hold_out(replace(pets, groups=groups), 0.3, 0)
    test, rest = divided.split("test"), divided.split("train")
    assert not set(test.groups.tolist()) & set(rest.groups.tolist())
    assert 20 <= len(test) <= 40 and min(test.counts().values()) > 0


def test_validation_images_stay_where_they_are(pets: Dataset) -> None:
    splits = np.where(np.arange(100) % 5 == 0, "val", "train")
    divided = hold_out(replace(pets, splits=splits), 0.25, 0)
    assert divided.splits is not None
    assert (divided.splits[splits == "val"] == "val").all() and len(held(divided)) == 20


def test_what_the_source_has_seen_is_not_held_out(pets: Dataset) -> None:
    source = hold_out(pets, 0.2, 0)
    made = inherited(
        record([("learned", source.split("train").images), ("test", source.split("test").images)])
    )
    by_size = np.array(["large" if place % 3 else "small" for place in range(100)])
    other = replace(pets, labels=by_size, classes=("large", "small"))
    assert held(hold_out(other, 0.2, 5, made)) == held(source), "the only images that are new"
    fewer = hold_out(other, 0.4, 5, made)
    assert held(fewer) == held(source)
    assert "fewer than the 40% requested" in str(holdout_sentence(fewer))
    assert set(held(hold_out(other, 0.1, 5, made))) < set(held(source))
    everything = record([("learned", pets.images)])
    with pytest.raises(
        DataError, match=r"^source has seen all images of classes 'large', 'small' of .*same holdout"
    ):
        hold_out(other, 0.2, 5, inherited(everything))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 20])
def test_a_share_is_between_0_and_1(pets: Dataset, share: float) -> None:
    with pytest.raises(SettingError, match=r"holdout is .*, expected a number between 0 and 1"):
        hold_out(pets, share)


def test_what_cannot_be_divided_is_refused(pets: Dataset) -> None:
    with pytest.raises(DataError, match=r"^dataset 'pets' has a test split of its own, expected none"):
        hold_out(replace(pets, splits=np.where(np.arange(100) % 5 == 0, "test", "train")), 0.2)
    with pytest.raises(DataError, match="no images of class 'cat' that can be held out, expected two"):
        hold_out(pets.subset(np.arange(39, 100)), 0.2)


def test_a_view_of_a_divided_dataset_keeps_the_division(pets: Dataset) -> None:
    divided = hold_out(pets, 0.2, 3)
    assert apply_subset(divided, "cat").holdout == divided.holdout
