"""The checks before every training: data on which no score could be valid is refused. The doctor only reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from headstart.data.checks.doctor import Checkup, examine
from headstart.data.clusters import with_clusters
from headstart.data.dataset import Dataset
from headstart.data.union import joined
from headstart.errors import DataError
from headstart.records import NONE_OF_THESE

__all__ = ["NEAR_MOST", "check_up", "checked", "refuse_copies_only", "refuse_shared", "refuse_small_classes"]

NEAR_MOST = 10_000
"""Images among which near copies are looked for: the time grows with the square of their number."""


def checked(dataset: Dataset, *, allow_leaks: bool = False) -> tuple[Dataset, Checkup]:
    """Examine a dataset, refuse it as `check_up` does, and form clusters of copies and groups.

    Near copies are searched for among up to 10,000 images. The remarks of the Checkup belong in the report.
    """
    near = len(dataset) <= NEAR_MOST
    found = check_up(dataset, allow_leaks=allow_leaks, near=near)
    if not near:
        unseen = f"near copies were not searched for among {len(dataset):,} images, only exact ones"
        found = replace(found, remarks=(*found.remarks, unseen))
    return with_clusters(dataset, [pair.places for pair in found.pairs]), found


def check_up(dataset: Dataset, *, allow_leaks: bool = False, near: bool = False) -> Checkup:
    """Examine a dataset; DataError if no score on it could be valid.

    That is: a class is named ``none of these`` or has fewer than two training images, splits have different
    classes, or, unless ``allow_leaks``, an image or a group is in two splits. ``near`` also searches for near
    copies, which decodes every image.
    """
    _refuse_reserved(dataset)
    found = examine(dataset, near=near)
    counts = dataset.counts() if dataset.splits is None else dataset.split("train").counts()
    if found.label_problems:
        raise DataError(
            f"dataset {dataset.name!r}: {found.label_problems[0]}, expected the same names in every split; "
            "rename the folders, or add training images"
        )
    refuse_small_classes(
        counts, 2, "for training and evaluation", dataset=dataset.name, skipped=dataset.skipped
    )
    leaks = [pair for pair in found.pairs if pair.leak]
    if leaks and not allow_leaks:
        raise DataError(
            f"dataset {dataset.name!r} has {len(leaks)} image(s) in two splits, such as {leaks[0].first!r} "
            f"and {leaks[0].second!r}, expected splits that share none; remove them (headstart inspect lists "
            "all), or continue with --allow-leaks"
        )
    shared = _shared_groups(dataset)
    if shared and not allow_leaks:
        raise DataError(
            f"dataset {dataset.name!r} has {len(shared)} group(s) in two splits, such as {shared[0]!r}, "
            "expected every group in one split; move its images, or continue with --allow-leaks"
        )
    return found


def _refuse_reserved(dataset: Dataset) -> None:
    """DataError if a class has the name that models predict for images unlike all their training images."""
    for name in dataset.classes:
        if " ".join(name.split()).casefold() == NONE_OF_THESE:
            raise DataError(
                f"class {name!r} of dataset {dataset.name!r} has the name that models predict for images unlike "
                "all training images, expected another name; rename the class, for instance to 'other'"
            )


def refuse_shared(
    dataset: Dataset, external: Dataset, found: Checkup, *, allow_leaks: bool = False
) -> Checkup:
    """DataError if an external test set shares images, exactly or nearly, with the training images.

    With ``allow_leaks`` the checkup of the training images gets a remark instead.
    """
    both = joined(dataset, external)
    if both is None:
        return found
    leaks = [pair for pair in examine(both, near=len(both) <= NEAR_MOST).pairs if pair.leak]
    if leaks and not allow_leaks:
        raise DataError(
            f"dataset {external.name!r} has {len(leaks)} image(s) of {dataset.name!r} in it, such as "
            f"{leaks[0].second!r} ({leaks[0].kind} copy of {leaks[0].first!r}), expected a test set that shares "
            "none; remove them, or continue with --allow-leaks"
        )
    if not leaks:
        return found
    remark = f"{len(leaks)} images of {external.name} are also training images: the metrics are too high."
    return replace(found, remarks=(remark, *found.remarks))


def _shared_groups(dataset: Dataset) -> list[str]:
    """Groups with images in more than one split."""
    if dataset.groups is None or dataset.splits is None:
        return []
    pairs = np.unique(np.stack([dataset.groups.astype(str), dataset.splits.astype(str)]), axis=1)
    names, counts = np.unique(pairs[0], return_counts=True)
    return [str(name) for name in names[counts > 1]]


def refuse_copies_only(dataset: Dataset) -> None:
    """DataError if a class has nothing but copies of one image, or images of one group: none can be held out."""
    codes = dataset.cluster_codes
    if codes is None:
        return
    for name, count in dataset.counts().items():
        if count and len(np.unique(codes[dataset.labels == name])) < 2:
            raise DataError(
                f"class {name!r} of dataset {dataset.name!r} has only copies of one image, or images of one group "
                f"({count} images), expected at least 2 that are independent, to train on one and test on the "
                "other; add images, or leave the class out"
            )


def refuse_small_classes(
    counts: Mapping[str, int],
    least: int,
    purpose: str,
    *,
    dataset: str | None = None,
    unit: str = "training image",
    error: type[DataError] = DataError,
    skipped: Sequence[tuple[str, str]] = (),
) -> None:
    """Raise ``error`` for the first class with fewer than ``least`` images, or other units.

    ``skipped`` are files that are not used and why: the first one in a folder of that class is named.
    """
    for name, count in counts.items():
        if count < least:
            owner = "" if dataset is None else f" of dataset {dataset!r}"
            of_class = (one for one in skipped if name in Path(one[0]).parts)
            why = next((f" ({path!r} is not used: {reason})" for path, reason in of_class), "")
            raise error(
                f"class {name!r}{owner} has {count} {unit}{'' if count == 1 else 's'}{why}, expected at least "
                f"{least} {purpose}; add images, or leave the class out"
            )
