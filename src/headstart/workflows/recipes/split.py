"""The test split of a recipe on a dataset that has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.splits import holdout

__all__ = ["with_test_split"]

_TEST_SHARE = 0.3


def with_test_split(dataset: Dataset, seed: int) -> Dataset:
    """The dataset with a test split: its own, or a stratified 30 % held out by the seed, clusters kept together."""
    if dataset.splits is not None and "test" in set(dataset.splits.tolist()):
        return dataset
    train = np.arange(len(dataset)) if dataset.splits is None else np.flatnonzero(dataset.splits == "train")
    clusters = None if dataset.cluster_codes is None else dataset.cluster_codes[train]
    _, held = holdout(dataset.labels[train], _TEST_SHARE, seed, clusters)
    splits = (
        np.full(len(dataset), "train", dtype="<U5")
        if dataset.splits is None
        else dataset.splits.astype("<U5")
    )
    splits[train[held]] = "test"
    return replace(dataset, splits=splits)
