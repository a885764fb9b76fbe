"""Load a dataset by name, by path or from arrays: ``mnist``, ``mnist:odd``, ``photos/``, ``photos.csv:ants,bees``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.data.dataset import Dataset
from headstart.data.embedded.reader import is_features, read_features
from headstart.data.faults import raise_faults
from headstart.data.files import foreign_reason
from headstart.data.names import natural_order, near_paths, split_name
from headstart.data.readers.archives import ARCHIVES, is_address, stem_of, unpacked, unpacked_from
from headstart.data.readers.arrays import read_npz
from headstart.data.readers.catalog import KNOWN
from headstart.data.readers.files import Skipped, is_system, read_images, refuse_skipped
from headstart.data.readers.folders import read_folder
from headstart.data.readers.frames import read_objects
from headstart.data.readers.sharded import (
    has_image_cells,
    is_sharded,
    named_listing,
    shard_listing,
    without_file_protocol,
    without_subset,
)
from headstart.data.readers.shards import shards_in
from headstart.data.readers.tables import TABLES, read_table
from headstart.data.readers.webdataset import is_webdataset
from headstart.data.stores import ArrayImages
from headstart.data.subsets import apply_subset
from headstart.errors import DataError, HeadstartError, MissingDataError, UnknownDatasetError, nearest
from headstart.records import Images

__all__ = ["catalog", "from_arrays", "load"]

_BOTH = ("train", "test")
_OTHER_TABLES = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), "it is a spreadsheet; save it as CSV"),
    ".txt": "it is a text file; if it is a table, rename it to .csv",
    ".npy": "it is one NumPy array without labels; write images and labels with numpy.savez",
}


def load(name: Any, *, split: str | None = None, strict: bool = False, download: bool = True) -> Dataset:
    """Load a dataset by name, from disk, or from a data frame or a list.

    Parameters
    ----------
    name : str, path, data frame or iterable of (image, label)
        A name in `catalog`; a folder of class folders (directly, or under train, val
        and test, by any of their usual names), or of images with a table next to them;
        a table (CSV, TSV, JSON, JSON lines, Parquet) with the columns path and label, and
        optionally split and group; features that `headstart.embed` wrote; arrays (.npz); an
        archive (.zip, .tar, .tar.gz); the address of an archive
        (``https://...zip#sha256=...``, fetched once). Shards of WebDataset (.tar), Parquet
        or Arrow: a file, a folder, or a pattern such as
        ``train-{0000..0012}.tar``; these, class folders and tables also by an address in a
        bucket (``s3://...``), and ``hf:OWNER/NAME`` for a dataset of the hub. A subset may
        follow a colon: ``mnist:odd``. A name in the catalog takes precedence over a folder
        of that name: write ``./mnist``.
        Or a data frame, such as of pandas, with the same columns; or pairs of an image and its label. Paths
        there are relative to the working directory; images may also be whatever `Model.predict` takes as one.
    split : str, optional
        Load this split only.
    strict : bool, default=False
        Raise for files that cannot be decoded rather than list them in ``skipped``.
    download : bool, default=True
        Whether a dataset that is not on this machine may be downloaded.

    Returns
    -------
    Dataset

    Raises
    ------
    UnknownDatasetError
        If the name is not in the catalog and no such path exists.
    UnknownSubsetError, UnknownClassError
        If the part after the colon is no subset, or names a class that does not exist.
    MissingDataError
        If a path, or a file named in a table, does not exist.
    BrokenDataError
        If a file is truncated or altered, or, with ``strict``, not used.
    FetchError
        If a download fails, a bucket cannot be reached or read, or a file has another hash
        than the one given.
    MissingExtraError
        If a package that an address or a table depends on is not installed.
    DataError
        If the folder or table cannot be used, or lacks the split.

    Notes
    -----
    Looks for named datasets under ``$HEADSTART_DATA``, then in the user's cache
    (``$HEADSTART_CACHE``), then on the network. Shards are read once from end to end, and
    their images again whenever pixels are wanted. No randomness.

    Examples
    --------
    >>> digits = load("digits:parity")
    >>> digits.name, len(digits), digits.classes
    ('digits:parity', 1797, ('even', 'odd'))
    """
    if not isinstance(name, str | os.PathLike):
        return read_objects(name, split=split, strict=strict)
    text = without_file_protocol(os.fspath(name))
    if is_address(text):
        whole = _from_archive(text, *unpacked_from(text), strict=strict)
        return whole if split is None else whole.split(split)
    base, subset = without_subset(text)
    if subset and not Path(os.path.expanduser(text)).exists():
        return apply_subset(load(base, split=split, strict=strict, download=download), subset)
    if text in KNOWN:
        wanted = split_name(split) if split is not None else None
        whole = KNOWN[text].read(text, (wanted,) if wanted in _BOTH else _BOTH, download)
    else:
        whole = _from_path(text, strict=strict)
    return whole if split is None else whole.split(split)


def catalog() -> Mapping[str, str]:
    """List the named datasets.

    Returns
    -------
    mapping of str to str
        One line about each.

    Examples
    --------
    >>> list(catalog())
    ['digits', 'emnist-letters', 'fashion-mnist', 'greek', 'greek-photos', 'kmnist', 'mnist', \
    'omniglot-greek', 'omniglot-small', 'usps']
    """
    return {name: known.title for name, known in KNOWN.items()}


def from_arrays(
    images: Images,
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    splits: ArrayLike | None = None,
    name: str = "arrays",
) -> Dataset:
    """Make a dataset from arrays.

    Parameters
    ----------
    images : ndarray of shape (n_images, height, width) or (n_images, height, width, 1 or 3), uint8
        Values 0 - 255. Not copied: do not change it afterwards.
    labels : array_like of shape (n_images,)
        Names, or whole numbers that become names.
    groups : array_like of shape (n_images,), optional
        Names or whole numbers: who or what an image comes from.
    splits : array_like of shape (n_images,), optional
        ``train``, ``val`` or ``test``.
    name : str, default="arrays"
        The name in reports.

    Returns
    -------
    Dataset
        Its classes are the labels in natural order.

    Raises
    ------
    ShapeError
        If images are not uint8 images, or lengths differ.
    DataError
        If labels are neither names nor whole numbers, or a split is unknown.

    Examples
    --------
    >>> from_arrays(np.zeros((3, 8, 8), np.uint8), [9, 10, 9]).classes
    ('9', '10')
    """
    names = _names("labels", labels)
    return Dataset(
        name,
        ArrayImages(images),
        names,
        natural_order(np.unique(names).tolist()),
        None if groups is None else _names("groups", groups),
        None if splits is None else _names("splits", splits),
    )


def _names(what: str, values: ArrayLike) -> NDArray[Any]:
    """Names from names or whole numbers; DataError for anything else."""
    column = np.asarray(values)
    if column.dtype.kind == "O" and all(isinstance(value, str | int | np.integer) for value in column.flat):
        return column.astype(np.str_)
    if column.dtype.kind not in "UTiub":
        advice = "convert them, for instance with .astype(int)"
        raise_faults(
            [
                (
                    DataError,
                    f"{what} has dtype {column.dtype}, expected names or whole numbers, none missing; {advice}",
                )
            ]
        )
    if column.ndim == 1 and column.dtype.kind in "iub":  # astype would use 21 characters for each
        codes, places = np.unique(column, return_inverse=True)
        return np.array([str(code) for code in codes.tolist()], np.str_)[places]
    return column.astype(np.str_)


def _from_file(path: Path, *, strict: bool) -> Dataset:
    if path.suffix.lower() == ".arrow" or (path.suffix.lower() == ".parquet" and has_image_cells(str(path))):
        return read_images(shard_listing(str(path), [str(path)]), strict=strict)
    if path.suffix.lower() in TABLES:
        return read_table(path, strict=strict)
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    if path.suffix.lower() == ".tar" and is_webdataset(str(path)):
        return read_images(shard_listing(str(path), [str(path)]), strict=strict)
    if path.name.lower().endswith(tuple(ARCHIVES)):
        return _from_archive(str(path), *unpacked(path), strict=strict)
    reason = _OTHER_TABLES.get(path.suffix.lower()) or foreign_reason(path) or ""
    is_known = path.suffix.lower() in _OTHER_TABLES or "archive" in reason
    advice = reason.replace("; ", ": ") if is_known else "give the folder that contains it"
    raise DataError(
        f"file {str(path)!r} is no table, expected a folder of class folders, a table ({', '.join(TABLES)}), arrays "
        f"(.npz) or an archive ({', '.join(ARCHIVES)}); {advice}"
    )


def _from_archive(given: str, folder: Path, skipped: Sequence[Skipped], *, strict: bool) -> Dataset:
    """The dataset in an unpacked archive: a folder, or the only table, file of arrays or archive in it."""
    inside = [path for path in folder.iterdir() if not is_system(path.name)]
    try:
        if len(inside) == 1 and inside[0].is_file():
            data = _from_file(inside[0], strict=strict)
        else:
            data = read_folder(folder, strict=strict)
    except HeadstartError as error:  # a user knows the archive, not where it was unpacked
        raise type(error)(str(error).replace(str(folder), given)) from error
    if strict:
        refuse_skipped(skipped, len(data) + len(skipped))
    remarks = tuple(remark.replace(str(folder), given) for remark in data.remarks)
    return replace(data, name=stem_of(given), skipped=(*data.skipped, *skipped), remarks=remarks)


def _from_path(text: str, *, strict: bool) -> Dataset:
    path = Path(os.path.expanduser(text))
    if is_features(path):
        return read_features(path)
    if path.is_dir():
        shards, others = shards_in(path)
        if shards and (not shards[0].lower().endswith(".parquet") or has_image_cells(shards[0])):
            name = path.resolve().name
            return read_images(shard_listing(str(path), shards, name=name, others=others), strict=strict)
        return read_folder(path, strict=strict)
    if path.is_file():
        return _from_file(path, strict=strict)
    if is_sharded(text):
        return read_images(named_listing(text), strict=strict)
    near = near_paths(text, (*TABLES, *ARCHIVES, ".npz"))
    if os.sep in text or path.name.lower().endswith((*TABLES, *ARCHIVES, ".npz")):
        hint = f", nearest are {', '.join(near)}" if near else ""
        raise MissingDataError(
            f"path {text!r} does not exist, expected a folder or a table{hint}; correct the path"
        )
    raise UnknownDatasetError(
        f"dataset {text!r} is unknown, expected a name in the catalog, {nearest(text, KNOWN, before=near)}, "
        "or an existing path; choose one of these"
    )
