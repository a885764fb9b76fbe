"""Splits a dataset into training images and held-out images, in the same way for every strategy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.refuse import refuse_small_classes
from headstart.data.dataset import Dataset, require_classes
from headstart.data.splits import fewest_per_class, holdout
from headstart.errors import UnknownClassError

__all__ = ["VALIDATION_LEAST", "TrainingParts", "training_parts"]


@dataclass(frozen=True)
class TrainingParts:
    """The training images of a dataset, and the images held out for validation.

    ``places`` are the indices of both in the dataset, if some are held out.
    """

    fit: Dataset
    held: Dataset | None
    places: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None


_VALIDATION_SHARE = 0.1
_VALIDATION_MOST = 3_000
VALIDATION_LEAST = 50  # held-out images below which none are held out


def training_parts(dataset: Dataset, seed: int, share: float | None = None) -> TrainingParts:
    """Split a dataset into training and validation images; the ``test`` split is in neither.

    The validation images are the dataset's own ``val`` split, or a stratified tenth of the training images,
    at most 3,000, and none if that were fewer than 50; ``share`` replaces this rule. Clusters are not
    split. DataError if there is no training image of two classes, or of each class.
    """
    train = dataset if dataset.splits is None else dataset.split("train")
    require_classes(train)
    refuse_small_classes(train.counts(), 1, "for training", dataset=dataset.name, error=UnknownClassError)
    own = np.arange(len(dataset)) if dataset.splits is None else np.flatnonzero(dataset.splits == "train")
    if dataset.splits is not None and "val" in set(dataset.splits.tolist()):
        return TrainingParts(train, dataset.split("val"), (own, np.flatnonzero(dataset.splits == "val")))
    few = share is None and _VALIDATION_SHARE * len(train) < VALIDATION_LEAST
    share = min(share or _VALIDATION_SHARE, _VALIDATION_MOST / len(train))
    if few or fewest_per_class(train.labels, train.cluster_codes) < 2:
        return TrainingParts(train, None)
    rest, held = holdout(train.labels, share, seed, train.cluster_codes)
    return TrainingParts(train.subset(rest), train.subset(held), (own[rest], own[held]))
