"""Inputs of the scikit-learn estimator: images, paths, labels and parameters, checked and converted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from headstart.data.dataset import Dataset
from headstart.data.given import GivenImages, decoded_store
from headstart.data.images.decode import EXTENSIONS
from headstart.data.images.inputs import is_file_object, is_pillow, local_path
from headstart.data.readers.image_files import find_images
from headstart.data.readers.load import load
from headstart.data.stores import ArrayImages, FileImages, ImageStore
from headstart.errors import (
    DataError,
    SettingError,
    ShapeError,
)
from headstart.records import Source

__all__ = [
    "NO_LABELS",
    "ON_DISK",
    "as_given",
    "check_row_parameters",
    "checked_seed",
    "image_rows",
    "images_at",
    "json_value",
    "label_type",
    "labelled",
    "labels_from",
    "listed",
    "n_dimensions",
    "parameters_of",
    "store_of",
]


ON_DISK = {"layer": "tap"}  # parameters that a manifest keeps under their older names


_NUMBERS = {np.dtype(kind).name: np.dtype(kind) for kind in "bhilqBHILQefd"}


NO_LABELS = "no_validation"  # the value that validate_data expects


def labelled(X: Any, y: Any) -> Dataset:
    """The dataset, with its classes sorted as scikit-learn's metrics expect."""
    if y is not None:
        raise DataError(
            f"y is given with {X.name if isinstance(X, Dataset) else X!r}, expected None: it has "
            "labels of its own; leave y out"
        )
    dataset = X if isinstance(X, Dataset) else load(X)
    return replace(dataset, classes=tuple(sorted(dataset.classes)))


def n_dimensions(X: Any) -> int:
    """Number of dimensions of an array-like."""
    return int(X.ndim) if hasattr(X, "ndim") else np.asarray(X).ndim


def listed(X: Any) -> list[Any] | None:
    """The items of a list or column of paths, Pillow images, bytes, or images as arrays; None for numbers."""
    if isinstance(X, list | tuple):
        items = list(X)
    elif getattr(X, "ndim", 0) == 1 or (getattr(X, "ndim", 0) == 2 and X.shape[1] == 1):
        items = np.asarray(X, object).ravel().tolist()
    else:
        return None
    first = items[0] if items else 0.0
    if isinstance(first, str | os.PathLike | bytes | bytearray) or is_pillow(first) or is_file_object(first):
        return items
    return items if len(getattr(first, "shape", ())) >= 2 else None


def store_of(items: Sequence[Any], *, fitting: bool) -> ImageStore:
    """Listed images; to fit on, they are decoded now."""
    if all(isinstance(one, str | os.PathLike) for one in items):
        return FileImages([local_path(one, f"image {place}") for place, one in enumerate(items)])
    return decoded_store(items) if fitting else GivenImages(items)


def images_at(place: str | os.PathLike[str]) -> ImageStore:
    """The images of an image file, of a folder without class folders, or of a dataset by name or path."""
    path = Path(os.path.expanduser(place))
    if path.is_file() and path.suffix.lower() in EXTENSIONS:
        return FileImages([path])
    if path.is_dir() and not any(one.is_dir() and not one.name.startswith(".") for one in path.iterdir()):
        return FileImages(list(find_images([str(path)])))
    return load(place).images


def labels_from(y: Any, n_images: int) -> NDArray[Any]:
    """Labels of the images; their number is checked."""
    if y is None:
        raise DataError(
            f"y is None, expected the class of each of {n_images} images; pass labels, or as X a folder of "
            "class folders"
        )
    labels: NDArray[Any] = column_or_1d(y, warn=True)
    check_classification_targets(labels)
    check_consistent_length(range(n_images), labels)
    return labels


def image_rows(table: NDArray[Any], image_shape: Sequence[int] | None) -> ArrayImages:
    """Rows of pixels as images; integers 0 - 255 of any type are pixels."""
    shape = tuple(int(side) for side in image_shape or ())
    if len(shape) not in (2, 3) or int(np.prod(shape)) != table.shape[1]:
        raise ShapeError(
            f"image_shape is {image_shape!r}, expected (height, width) or (height, width, channels) of "
            f"{table.shape[1]} values, as X has; correct it, or leave it out for rows of features"
        )
    if table.dtype != np.uint8:
        if table.min() < 0 or table.max() > 255 or (table != np.rint(table)).any():
            raise ShapeError(
                f"X has values {table.min():g} to {table.max():g}, expected whole numbers in 0 - 255 where "
                "image_shape says that they are pixels; scale them, or leave image_shape out"
            )
        table = table.astype(np.uint8)
    return ArrayImages(table.reshape(-1, *shape))


def check_row_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise `SettingError` for parameters that only images can use."""
    only_images = ("layer", "pooling", "augment", "policy", "size_px", "precision")
    unfit = ["source"] if parameters["source"] != "pixels" else []
    unfit += [name for name in only_images if parameters[name] is not None]
    if unfit:
        listed = ", ".join(f"{name}={parameters[name]!r}" for name in unfit)
        raise SettingError(
            f"X has rows of numbers, expected images for {listed}; give their image_shape, or leave these out"
        )


def checked_seed(seed: Any) -> int:
    """The seed as an int, if it is a whole number of at least 0."""
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise SettingError(f"seed is {seed!r}, expected a whole number of at least 0; 0 is the default")
    return int(seed)


def json_value(value: Any) -> Any:
    """A parameter as a JSON value."""
    if isinstance(value, Source):
        return value.name
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, tuple | list):
        return [json_value(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def parameters_of(noted: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """Parameters from JSON; unknown names are ignored."""
    names = {ON_DISK.get(name, name): name for name in known}
    return {
        names[name]: tuple(value) if isinstance(value, list) else value
        for name, value in noted.items()
        if name in names
    }


def label_type(classes: NDArray[Any]) -> str:
    """The name of the labels' type, as `as_given` reads it."""
    if classes.dtype.kind in "UT":
        return "str"
    if classes.dtype.name in ("bool", *_NUMBERS):
        return classes.dtype.name
    if classes.dtype.kind == "O" and all(isinstance(one, str) for one in classes):
        return "object"
    raise SettingError(
        f"labels are of type {type(classes.tolist()[0]).__name__}, expected numbers, "
        "booleans or text in a model folder; fit with names instead"
    )


def as_given(names: Sequence[str], kind: str) -> NDArray[Any]:
    """Class names converted back to the labels they were made of."""
    if kind == "bool":
        return np.array([{"False": False, "True": True}[name] for name in names])
    if kind == "object":
        return np.array(names, object)
    return np.array(names) if kind == "str" else np.array(names).astype(_NUMBERS[kind])
