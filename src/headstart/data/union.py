"""Two datasets as the splits of one, to find the images that they share."""

from __future__ import annotations

import numpy as np

from headstart.data.dataset import Dataset

__all__ = ["joined"]


def joined(train: Dataset, test: Dataset) -> Dataset | None:
    """Two datasets as the splits ``train`` and ``test`` of one, without their own splits and groups.

    None if one is in memory and the other in files, or if images in memory differ in shape.
    """
    images = train.images.joined(test.images)
    if images is None:
        return None
    classes = (*train.classes, *(name for name in test.classes if name not in train.classes))
    return Dataset(
        f"{train.name} and {test.name}",
        images,
        np.concatenate([train.labels, test.labels]),
        classes,
        splits=np.repeat(["train", "test"], [len(train), len(test)]),
    )
