"""Datasets: load, check, select and split them, and prepare their images."""

from __future__ import annotations

from headstart.data.dataset import Dataset, check_same_classes, require_classes
from headstart.data.names import natural_order
from headstart.data.readers.load import catalog, from_arrays, load
from headstart.data.splits import folds, holdout, nested_subsets
from headstart.data.stores import ArrayImages, FileImages, ImageStore
from headstart.data.subsets import apply_subset, subset_map

__all__ = [
    "ArrayImages",
    "Dataset",
    "FileImages",
    "ImageStore",
    "apply_subset",
    "catalog",
    "check_same_classes",
    "folds",
    "from_arrays",
    "holdout",
    "load",
    "natural_order",
    "nested_subsets",
    "require_classes",
    "subset_map",
]
