"""Datasets on which no score could be valid are refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.data.checks.refuse import checked, refuse_copies_only
from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays
from headstart.errors import DataError
from headstart.records import NONE_OF_THESE


@pytest.mark.parametrize("name", [NONE_OF_THESE, "None of These", " none  of these"])
def test_a_class_with_the_name_of_the_answer_to_unknown_images_is_refused(digits: Dataset, name: str) -> None:
    some = digits.subset(np.arange(40))
    labels = np.where(some.labels == "1", name, some.labels)
    data = from_arrays(some.images.pixels, labels)  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match="models predict for images unlike all training images, expected another"
    ):
        checked(data)


def test_a_similar_name_is_a_class(digits: Dataset) -> None:
    some = digits.subset(np.arange(40))
    labels = np.where(some.labels == "1", "none", some.labels)
    assert "none" in checked(from_arrays(some.images.pixels, labels))[0].classes  # type: ignore[arg-type]


def test_a_class_of_copies_of_one_image_cannot_be_held_out(digits: Dataset) -> None:
    pixels, labels = digits.images.pixels[:20], digits.labels[:20]  # type: ignore[index]
    pixels = np.concatenate([pixels, np.repeat(pixels[:1], 5, axis=0)])
    data = checked(from_arrays(pixels, np.append(labels, ["copies"] * 5)))[0]
    with pytest.raises(
        DataError, match=r"class 'copies' .* only copies of one image, .* \(5 images\), expected"
    ):
        refuse_copies_only(data)
    refuse_copies_only(checked(digits.subset(np.arange(100)))[0])
    refuse_copies_only(digits)
