"""Datasets in NumPy archives (.npz), named as Keras (``x_train, y_train``) or MedMNIST (``train_images``) do."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.names import SPLITS, natural_order, shown, split_name
from headstart.data.readers.pixels import shaped
from headstart.data.stores import ArrayImages
from headstart.errors import BrokenDataError, DataError

__all__ = ["read_npz"]

_IMAGES, _LABELS = (
    ("images", "image", "imgs", "img", "x", "data", "features", "pixels", "arr_0"),
    ("labels", "label", "lbls", "y", "targets", "target", "t", "classes", "class", "arr_1"),
)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")  # trainX
_NAMES = ("class_names", "label_names", "target_names", "classes", "names")


def read_npz(path: Path) -> Dataset:
    """Images (uint8) and labels of an .npz, in splits if names carry them; never unpickled."""
    try:
        with np.load(path, allow_pickle=False) as box:
            arrays = {name: box[name] for name in box.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BrokenDataError(
            f"file {str(path)!r} cannot be read ({str(error).splitlines()[0]}), expected an .npz of images and "
            "labels without Python objects; write it with numpy.savez"
        ) from error
    parts = {split: _part(arrays, split) for split in (*SPLITS, None)}
    found = {split: part for split, part in parts.items() if part is not None}
    if not found:
        raise DataError(
            f"file {str(path)!r} holds {shown(arrays)}, expected images and labels, or x_train, y_train and the "
            "like; rename the arrays"
        )
    if None in found and len(found) > 1:
        found.pop(None)
    if not any(len(part[1]) for part in found.values() if part[1].ndim):
        raise DataError(f"file {str(path)!r} has no images, expected at least one; write it again")
    used = {name for part in found.values() for name in (part[0], part[2])}
    unused = [name for name, values in arrays.items() if name not in used and values.ndim > 2]
    images = [_pixels(path, *part[:2]) for part in found.values()]
    labels = [_label_names(path, *part[2:], len(part[1])) for part in found.values()]
    if len({one.shape[1:] for one in images}) > 1:
        raise DataError(
            f"file {str(path)!r} has images of {shown(str(one.shape[1:]) for one in images)} in its splits, expected "
            "one shape; resize them"
        )
    names = _named(arrays, np.concatenate(labels))
    return Dataset(
        path.stem,
        ArrayImages(np.concatenate(images)),
        names,
        natural_order(np.unique(names).tolist()),
        splits=None
        if None in found
        else np.repeat([str(one) for one in found], [len(one) for one in images]),
        remarks=(f"{path.name!r} has arrays without labels, which are not used: {shown(unused)}",)
        if unused
        else (),
    )


def _part(
    arrays: dict[str, NDArray[Any]], split: str | None
) -> tuple[str, NDArray[Any], str, NDArray[Any]] | None:
    """Images and labels of a split with their names; of no split for None."""
    here: dict[str, str] = {}
    for name in arrays:
        words = _HUMP.sub("_", name).lower().split("_")
        kept = [word for word in words if split_name(word) is None]
        of = next((split_name(word) for word in words if split_name(word)), None)
        if of == split:
            here.setdefault("_".join(kept), name)
    images = next((here[one] for one in _IMAGES if one in here), None)
    labels = next((here[one] for one in _LABELS if one in here), None)
    return None if images is None or labels is None else (images, arrays[images], labels, arrays[labels])


def _named(arrays: dict[str, NDArray[Any]], labels: NDArray[np.str_]) -> NDArray[np.str_]:
    """Labels by the names of the classes, if the file lists them and the labels are their numbers."""
    for key in _NAMES:
        names = arrays.get(key)
        if names is None or names.ndim != 1 or names.dtype.kind != "U":
            continue
        if set(np.unique(labels).tolist()) <= {str(code) for code in range(len(names))}:
            return names[labels.astype(np.int64)]
    return labels


def _pixels(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype != np.uint8:
        whole = values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= 255
        if not whole:
            raise DataError(
                f"array {name!r} of {str(path)!r} has dtype {values.dtype}, expected uint8 from 0 to 255; scale it "
                "and convert it with .astype('uint8')"
            )
        values = values.astype(np.uint8)
    return shaped(values, f"array {name!r} of {str(path)!r}") if values.ndim == 2 else values


def _label_names(path: Path, name: str, values: NDArray[Any], n_images: int) -> NDArray[np.str_]:
    one_hot = values.ndim == 2 and values.shape[1] > 1
    if one_hot and bool((values.sum(axis=1) == 1).all()) and set(np.unique(values).tolist()) <= {0, 1}:
        values = values.argmax(axis=1)
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values % 1 == 0).all():
        values = values.astype(np.int64)
    flat = values.reshape(len(values), -1) if values.size else values.reshape(0, 0)
    if flat.shape != (n_images, 1) or values.dtype.kind not in "iuUSb":
        raise DataError(
            f"array {name!r} of {str(path)!r} has shape {values.shape} and dtype {values.dtype}, expected one label "
            f"for each of {n_images} images, names or whole numbers; correct it"
        )
    column = flat[:, 0]
    return np.array(
        [one.decode() if isinstance(one, bytes) else str(one) for one in column.tolist()], np.str_
    )
