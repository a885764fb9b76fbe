"""Unlabelled images that may be learned from: none that is a copy of a labelled one, and not too many."""

from __future__ import annotations

import numpy as np

from headstart.data.checks.seen import recognise, record
from headstart.data.dataset import Dataset
from headstart.errors import DataError

__all__ = ["MOST_UNLABELLED", "usable"]

MOST_UNLABELLED = 5_000
"""Unlabelled images that are used: the model keeps their features, and comparing all pairs takes quadratic time."""


def usable(unlabelled: Dataset, dataset: Dataset, seed: int) -> tuple[Dataset, tuple[str, ...]]:
    """The unlabelled images without copies of a dataset's images, at most 5,000, and remarks on the others.

    Copies are left out because an image that a model is evaluated on must not be learned from, in whatever way.
    DataError if none is left.
    """
    remarks = []
    seen = record([("learned", dataset.images)])
    new = np.flatnonzero(recognise(unlabelled.images, seen).roles == 0)
    n_copies = len(unlabelled) - len(new)
    if not len(new):
        raise DataError(
            f"all {len(unlabelled):,} unlabelled images of {unlabelled.name!r} are images of {dataset.name!r} or "
            "copies of them, expected others; give images that are not in the dataset"
        )
    if n_copies:
        remarks.append(
            f"{n_copies:,} of {len(unlabelled):,} unlabelled images are copies of images of {dataset.name} and were "
            "left out."
        )
    if len(new) > MOST_UNLABELLED:
        remarks.append(
            f"{MOST_UNLABELLED:,} of {len(new):,} unlabelled images were used, drawn at random: more take much "
            "longer and make the model larger."
        )
        new = np.sort(np.random.default_rng([seed, 15]).permutation(new)[:MOST_UNLABELLED])
    return unlabelled.subset(new), tuple(remarks)
