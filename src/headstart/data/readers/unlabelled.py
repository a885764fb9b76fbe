"""Images without labels: a folder in any layout, or whatever `load` reads, whose labels are not used."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.given import decoded_store
from headstart.data.readers.files import ImageFile, read_files, read_images
from headstart.data.readers.image_files import find_images
from headstart.data.readers.load import load
from headstart.data.readers.sharded import (
    is_sharded,
    named_listing,
    shard_listing,
    without_file_protocol,
    without_subset,
)
from headstart.data.readers.shards import shards_in
from headstart.errors import DataError

__all__ = ["UNLABELLED", "load_unlabelled"]

UNLABELLED = "unlabelled"
"""The label of all of them, which stands for none."""


def load_unlabelled(given: Any, *, strict: bool = False) -> Dataset:
    """Load images without labels, as a dataset of the one class `UNLABELLED`.

    ``given`` is a folder (all images in it and below), shards or a folder in a bucket, anything else that `load`
    takes, whose labels are left aside, or an array or list of images. MissingDataError if a folder has no image;
    files that cannot be decoded are in ``skipped``, or an error if ``strict``.
    """
    if isinstance(given, str | os.PathLike):
        text = without_file_protocol(os.fspath(given))
        folder = Path(os.path.expanduser(text))
        if folder.is_dir():
            shards, others = shards_in(folder)
            if shards:
                listing = shard_listing(
                    str(folder), shards, UNLABELLED, name=folder.resolve().name, others=others
                )
                return read_images(listing, strict=strict)
            files = [ImageFile(Path(path), UNLABELLED) for path in find_images([str(folder)])]
            return read_files(folder.resolve().name, files, [UNLABELLED], (), strict=strict)
        if is_sharded(text) and not folder.exists() and not without_subset(text)[1]:
            return read_images(named_listing(text, UNLABELLED), strict=strict)
        return _without_labels(load(given, strict=strict))
    if isinstance(given, Dataset):
        return _without_labels(given)
    if not isinstance(given, Iterable) and not hasattr(given, "__array__"):
        raise DataError(
            f"unlabelled images are of type {type(given).__name__}, expected a folder, a dataset, or an array or "
            "list of images; pass one of these"
        )
    store = decoded_store(given)
    return Dataset(UNLABELLED, store, np.full(len(store), UNLABELLED), (UNLABELLED,))


def _without_labels(dataset: Dataset) -> Dataset:
    labels = np.full(len(dataset), UNLABELLED)
    return replace(dataset, labels=labels, classes=(UNLABELLED,), groups=None, splits=None, holdout=None)
