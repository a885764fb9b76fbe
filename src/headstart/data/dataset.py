"""A labelled set of images: what it holds, what may be asked of it, what it must not be.

In: a store of images, label names, groups, a split column. Out: a checked, frozen Dataset.
Imports NumPy and our errors only: nothing is decoded here. Called by every reader and every
later stage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.data.faults import Fault, column_faults, label_faults, plain_splits, raise_faults, split_faults
from headstart.data.names import SPLITS, listed, natural_order, shown, split_name
from headstart.data.stores import ArrayImages, ImageStore
from headstart.errors import DataError, ShapeError
from headstart.records import Codes, Holdout

__all__ = ["Dataset", "check_same_classes", "require_classes"]

Names = NDArray[np.str_]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with label names, optionally groups and a split column.

    Attributes
    ----------
    name : str
        What it is called in reports, subsets included (``mnist:odd``).
    images : ImageStore
        An ArrayImages or a FileImages; a uint8 array is wrapped.
    labels : ndarray of shape (n_images,), str
        Name of each image's class. Integer codes do not travel: see `codes`.
    classes : tuple of str
        Every class in order; one without images is allowed here, so that a part
        of a dataset keeps the codes of the whole.
    groups : ndarray of shape (n_images,), str, or None
        Who or what an image comes from; a group must not be split.
    splits : ndarray of shape (n_images,), str, or None
        ``train``, ``val`` or ``test``; ``valid`` and ``validation`` become ``val``.
    skipped : tuple of (str, str)
        Path and reason of each file that was found and left out.
    clusters : ndarray of shape (n_images,), int, or None
        Images with the same number must stay on one side of every split: copies of one image, images
        of one group. None where nobody looked for copies; see `data.clusters.with_clusters`.
    holdout : Holdout or None
        How the ``test`` split was drawn, where it is not the dataset's own.

    Raises
    ------
    ShapeError
        If lengths differ, an array is not 1-D, or images are not uint8 images.
    DataError
        If there are no images, a label is empty or not among ``classes``, or a
        split has another name. All faults are reported together.

    Examples
    --------
    >>> images = ArrayImages(np.zeros((3, 8, 8), np.uint8))
    >>> pets = Dataset("pets", images, np.array(["dog", "cat", "dog"]), ("cat", "dog"))
    >>> pets.codes().tolist(), pets.counts()
    ([1, 0, 1], {'cat': 1, 'dog': 2})
    """

    name: str
    images: ImageStore
    labels: Names
    classes: tuple[str, ...]
    groups: Names | None = None
    splits: Names | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    clusters: NDArray[np.intp] | None = None
    holdout: Holdout | None = None

    def __post_init__(self) -> None:
        if isinstance(self.images, np.ndarray):
            object.__setattr__(self, "images", ArrayImages(self.images))
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        object.__setattr__(self, "labels", np.asarray(self.labels))
        if self.groups is not None:
            object.__setattr__(self, "groups", np.asarray(self.groups))
        if self.splits is not None:
            object.__setattr__(self, "splits", plain_splits(np.asarray(self.splits)))
        raise_faults(self._faults())

    def _faults(self) -> list[Fault]:
        n_images = len(self.images)
        faults: list[Fault] = []
        if n_images == 0:
            faults.append(
                (
                    DataError,
                    f"dataset {self.name!r} has no images, expected at least 1; check what was selected",
                )
            )
        for name, column in (("labels", self.labels), ("groups", self.groups), ("splits", self.splits)):
            faults += [] if column is None else column_faults(name, column, n_images)
        faults += label_faults(self.labels, self.classes)
        return faults + ([] if self.splits is None else split_faults(self.splits))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __repr__(self) -> str:
        """Name, sizes and splits in one line; never the columns themselves."""
        here = "" if self.splits is None else "".join(f", {one}" for one in SPLITS if one in self.splits)
        return f"Dataset({self.name!r}, n_images={len(self)}, n_classes={len(self.classes)}{here})"

    @property
    def together(self) -> NDArray[np.intp] | None:
        """Which images must stay on one side of every split: clusters, else groups; None: each alone."""
        if self.clusters is not None or self.groups is None:
            return self.clusters
        return np.unique(self.groups, return_inverse=True)[1]

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over images, labels, classes, groups and splits; not name nor place.

        Equal fingerprints mean that everything computed from one holds for the other.
        """
        columns = [self.labels, self.groups, self.splits]
        text = json.dumps(
            [self.classes, *(None if column is None else column.tolist() for column in columns)]
        )
        return hashlib.sha256(f"{self.images.fingerprint} {text}".encode()).hexdigest()

    def codes(self, classes: Sequence[str] | None = None) -> Codes:
        """Give each label its number, which is its place among the classes.

        Parameters
        ----------
        classes : sequence of str, optional
            The order to number by, such as a model's; this dataset's own otherwise.

        Returns
        -------
        ndarray of shape (n_images,), int64

        Raises
        ------
        DataError
            If an image has a label that is not among ``classes``.

        Examples
        --------
        >>> images = ArrayImages(np.zeros((2, 8, 8), np.uint8))
        >>> Dataset("pets", images, np.array(["dog", "cat"]), ("cat", "dog")).codes(["dog", "cat"]).tolist()
        [0, 1]
        """
        names = np.asarray(self.classes if classes is None else list(classes), dtype=np.str_)
        order = np.argsort(names)
        place = np.searchsorted(names, self.labels, sorter=order).clip(max=len(names) - 1)
        codes: Codes = order[place].astype(np.int64)
        strange = np.unique(self.labels[names[codes] != self.labels])
        if len(strange):
            raise DataError(
                f"dataset {self.name!r} has {listed(strange)}, expected only {shown(names)}; "
                "leave the others out with a subset"
            )
        return codes

    def counts(self) -> dict[str, int]:
        """Count the images of every class, in the order of ``classes``; 0 where there are none."""
        numbers = np.bincount(self.codes(), minlength=len(self.classes))
        return {name: int(number) for name, number in zip(self.classes, numbers, strict=True)}

    def subset(self, indices: ArrayLike) -> Dataset:
        """Take some of the images; the classes, and so the codes, stay as they are.

        Parameters
        ----------
        indices : array_like of int, or of bool with one entry per image
            Which images, in which order.

        Returns
        -------
        Dataset

        Raises
        ------
        ShapeError
            If ``indices`` is neither, or names an image that is not there.
        DataError
            If nothing is left.

        Examples
        --------
        >>> images = ArrayImages(np.zeros((2, 8, 8), np.uint8))
        >>> Dataset("pets", images, np.array(["dog", "cat"]), ("cat", "dog")).subset([1]).labels.tolist()
        ['cat']
        """
        chosen = _whole_numbers(np.asarray(indices), len(self))
        return replace(
            self,
            images=self.images.subset(chosen),
            labels=self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            splits=None if self.splits is None else self.splits[chosen],
            clusters=None if self.clusters is None else self.clusters[chosen],
        )

    def split(self, name: str) -> Dataset:
        """Take the images of one split.

        Parameters
        ----------
        name : str
            ``train``, ``val`` (or ``valid``, ``validation``) or ``test``.

        Returns
        -------
        Dataset

        Raises
        ------
        DataError
            If the dataset has no splits, or not this one; the message names those it has.

        Examples
        --------
        >>> images = ArrayImages(np.zeros((2, 8, 8), np.uint8))
        >>> splits = np.array(["train", "test"])
        >>> pets = Dataset("pets", images, np.array(["dog", "cat"]), ("cat", "dog"), splits=splits)
        >>> pets.split("test").labels.tolist()
        ['cat']
        """
        if self.splits is None:
            raise DataError(
                f"dataset {self.name!r} has no splits, expected a split to take {name!r} from it; "
                "hold some out instead: headstart.data.splits.holdout"
            )
        here = [known for known in SPLITS if known in self.splits]
        wanted = split_name(name) or name
        if wanted not in here:
            raise DataError(
                f"split {name!r} is not in dataset {self.name!r}, expected one of {', '.join(here)}; "
                "ask for one of these"
            )
        return self.subset(self.splits == wanted)


def require_classes(dataset: Dataset, at_least: int = 2) -> None:
    """Make sure that there is something to tell apart.

    Parameters
    ----------
    dataset : Dataset
        What is to be learnt from.
    at_least : int, default=2
        Classes that must have an image.

    Raises
    ------
    DataError
        If fewer classes have an image.

    Examples
    --------
    >>> images = ArrayImages(np.zeros((2, 8, 8), np.uint8))
    >>> require_classes(Dataset("pets", images, np.array(["dog", "cat"]), ("cat", "dog")))
    """
    here = [name for name, count in dataset.counts().items() if count]
    if len(here) < at_least:
        raise DataError(
            f"dataset {_title(dataset)!r} has {listed(here)} only, expected at least {at_least} with images; "
            "add images of another class, or choose another subset"
        )


def check_same_classes(train: Dataset, test: Dataset) -> None:
    """Make sure that a test set has images of no other classes than there are to learn.

    Parameters
    ----------
    train, test : Dataset
        What is learnt from, and what it is judged on.

    Raises
    ------
    DataError
        If the test set has a class that cannot be learned. One that it lacks is no fault: it is judged by
        the classes that it has.

    Examples
    --------
    >>> images = ArrayImages(np.zeros((2, 8, 8), np.uint8))
    >>> pets = Dataset("pets", images, np.array(["dog", "cat"]), ("cat", "dog"))
    >>> check_same_classes(pets, pets)
    """
    known = {name for name, count in train.counts().items() if count}
    asked = {name for name, count in test.counts().items() if count}
    if asked - known:
        raise DataError(
            f"dataset {_title(test)!r} has the extra {listed(natural_order(asked - known))}, expected only "
            f"classes of {_title(train)!r}; choose the same subset of both"
        )


def _title(dataset: Dataset) -> str:
    """Give the name, with the split where all images are of one."""
    here = set() if dataset.splits is None else set(np.unique(dataset.splits).tolist())
    return f"{dataset.name}[{here.pop()}]" if len(here) == 1 else dataset.name


def _whole_numbers(indices: NDArray[Any], n_images: int) -> NDArray[np.intp]:
    """Turn indices into integers, or say what they are instead."""
    if indices.dtype == np.bool_ and indices.shape == (n_images,):
        return np.flatnonzero(indices)
    if indices.ndim == 1 and indices.size == 0:
        return np.zeros(0, np.intp)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ShapeError(
            f"indices has shape {indices.shape} and dtype {indices.dtype}, expected 1-D whole numbers or "
            f"{n_images} booleans; pass numpy.flatnonzero of a mask"
        )
    if indices.min() < 0 or indices.max() >= n_images:
        raise ShapeError(
            f"indices has values {indices.min()} to {indices.max()}, expected 0 to {n_images - 1}; "
            "use indices of this dataset"
        )
    return indices.astype(np.intp)
