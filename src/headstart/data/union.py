"""Two datasets seen as the two splits of one, so that what they share can be found.

In: datasets. Out: a Dataset, or None where their images are stored too differently to compare. Imports
data modules only. Called by studies.
"""

from __future__ import annotations

import numpy as np

from headstart.data.dataset import Dataset

__all__ = ["joined"]


def joined(train: Dataset, test: Dataset) -> Dataset | None:
    """Two datasets as the splits ``train`` and ``test`` of one.

    Parameters
    ----------
    train, test : Dataset
        Their own splits and groups are left out.

    Returns
    -------
    Dataset or None
        None if one is in memory and the other in files, or if images in memory differ in shape.

    Examples
    --------
    >>> from headstart.data.stores import ArrayImages
    >>> one = Dataset("a", ArrayImages(np.zeros((2, 8, 8), np.uint8)), np.array(["x", "y"]), ("x", "y"))
    >>> both = joined(one, one)
    >>> both.splits.tolist(), len(both)
    (['train', 'train', 'test', 'test'], 4)
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
