"""A labelled set of images: the checked, frozen Dataset. Nothing is decoded here."""

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
        The name in reports, with the subset (``mnist:odd``).
    images : ImageStore
        An ArrayImages or a FileImages; a uint8 array is wrapped.
    labels : ndarray of shape (n_images,), str
        Name of each image's class; for integer codes see `codes`.
    classes : tuple of str
        All classes in order. A class may have no images, so that a subset of a dataset
        keeps the codes of the whole.
    groups : ndarray of shape (n_images,), str, or None
        Who or what an image comes from; a group must not be split.
    splits : ndarray of shape (n_images,), str, or None
        ``train``, ``val`` or ``test``; ``valid`` and ``validation`` become ``val``.
    skipped : tuple of (str, str)
        Path and reason of each file that was found and left out.
    clusters : ndarray of shape (n_images,), int, or None
        Images with the same number must stay on one side of every split: copies of one image, images
        of one group. None if copies have not been searched for; see `data.clusters.with_clusters`.
    holdout : Holdout or None
        How the ``test`` split was drawn, if it is not the dataset's own.
    remarks : tuple of str
        What a reader of files decided that its user should know.

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
    remarks: tuple[str, ...] = ()

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
        return len(self.images)

    def __repr__(self) -> str:
        here = "" if self.splits is None else "".join(f", {one}" for one in SPLITS if one in self.splits)
        return f"Dataset({self.name!r}, n_images={len(self)}, n_classes={len(self.classes)}{here})"

    @property
    def cluster_codes(self) -> NDArray[np.intp] | None:
        """Number of the cluster of each image, else of its group; None if every image is independent."""
        if self.clusters is not None or self.groups is None:
            return self.clusters
        return np.unique(self.groups, return_inverse=True)[1]

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of images, labels, classes, groups and splits; neither name nor paths count.

        What was computed from a dataset holds for every dataset with the same fingerprint.
        """
        columns = [self.labels, self.groups, self.splits]
        text = json.dumps(
            [self.classes, *(None if column is None else column.tolist() for column in columns)]
        )
        return hashlib.sha256(f"{self.images.fingerprint} {text}".encode()).hexdigest()

    def codes(self, classes: Sequence[str] | None = None) -> Codes:
        """Encode the labels as positions among the classes.

        Parameters
        ----------
        classes : sequence of str, optional
            The order to number by, such as a model's. Default: this dataset's own.

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
        unknown = np.unique(self.labels[names[codes] != self.labels])
        if len(unknown):
            raise DataError(
                f"dataset {self.name!r} has {listed(unknown)}, expected only {shown(names)}; "
                "leave the others out with a subset"
            )
        return codes

    def counts(self) -> dict[str, int]:
        """Count the images of every class, in the order of ``classes``, 0 included."""
        numbers = np.bincount(self.codes(), minlength=len(self.classes))
        return {name: int(number) for name, number in zip(self.classes, numbers, strict=True)}

    def subset(self, indices: ArrayLike) -> Dataset:
        """Select some of the images; the classes, and so the codes, stay the same.

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
            If ``indices`` is neither, or is out of range.
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
        """Select the images of one split.

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
            If the dataset has no splits, or lacks this one; the message names those it has.

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
                f"dataset {self.name!r} has no splits, expected a split {name!r}; "
                "hold one out with headstart.data.splits.holdout"
            )
        here = [known for known in SPLITS if known in self.splits]
        wanted = split_name(name) or name
        if wanted not in here:
            raise DataError(
                f"split {name!r} is not in dataset {self.name!r}, expected one of {', '.join(here)}; "
                "choose one of these"
            )
        return self.subset(self.splits == wanted)


def require_classes(dataset: Dataset, at_least: int = 2) -> None:
    """DataError if fewer than ``at_least`` classes have images."""
    here = [name for name, count in dataset.counts().items() if count]
    if len(here) < at_least:
        raise DataError(
            f"dataset {_title(dataset)!r} has {listed(here)} only, expected at least {at_least} with images; "
            "add images of another class, or choose another subset"
        )


def check_same_classes(train: Dataset, test: Dataset) -> None:
    """DataError if the test set has a class without training images; it may lack some."""
    known = {name for name, count in train.counts().items() if count}
    tested = {name for name, count in test.counts().items() if count}
    if tested - known:
        raise DataError(
            f"dataset {_title(test)!r} has the extra {listed(natural_order(tested - known))}, expected only "
            f"classes of {_title(train)!r}; choose the same subset of both"
        )


def _title(dataset: Dataset) -> str:
    """The name, with the split if all images are of one."""
    here = set() if dataset.splits is None else set(np.unique(dataset.splits).tolist())
    return f"{dataset.name}[{here.pop()}]" if len(here) == 1 else dataset.name


def _whole_numbers(indices: NDArray[Any], n_images: int) -> NDArray[np.intp]:
    """Indices as integers; ShapeError unless they are integers in range or a mask."""
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
