"""Datasets in shards: which files a name means, and the split and short name of each.

A name is a file, a folder, or a pattern (``train-{0000..0012}.tar``, ``*.parquet``), here or in a bucket.
"""

from __future__ import annotations

import glob
import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from headstart.data.contents.addresses import canonical, forget, is_remote, remote_files
from headstart.data.images.decode import EXTENSIONS
from headstart.data.names import natural_order, shown, split_name, splits_in
from headstart.data.readers.files import is_system
from headstart.errors import DataError, MissingDataError

__all__ = ["SHARDS", "Shard", "described", "expanded", "is_pattern", "listed", "shards_in"]

SHARDS = (".tar", ".parquet", ".arrow")
"""Endings of the names of shards."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_OF = re.compile(r"[-_](\d+)-of-(\d+)")
_PARTIAL = "partial-"  # the hub converts the first 5 GB of a split only
_DEPTH = 3  # folders above shards, such as a configuration and a split
_MOST_NAMES = 1_000_000


@dataclass(frozen=True)
class Shard:
    """One file of a dataset: its path or address, its name in messages, and its split if names say it."""

    address: str
    shown: str
    split: str | None = None


def is_pattern(text: str) -> bool:
    """Whether a name stands for several: it has braces or the signs of a glob.

    >>> is_pattern("train-{0..9}.tar"), is_pattern("*.parquet"), is_pattern("photos:ants,bees")
    (True, True, False)
    """
    return glob.has_magic(text) or _BRACES.search(text) is not None


def expanded(text: str) -> list[str]:
    """The names that braces mean.

    >>> expanded("train-{08..10}.tar")
    ['train-08.tar', 'train-09.tar', 'train-10.tar']
    >>> expanded("{train,val}.tar")
    ['train.tar', 'val.tar']
    """
    match = next((one for one in _BRACES.finditer(text) if _RANGE.fullmatch(one[1]) or "," in one[1]), None)
    if match is None:
        return [text]
    numbers = _RANGE.fullmatch(match[1])
    if numbers is None:
        middles = match[1].split(",")
    else:
        first, last = int(numbers[1]), int(numbers[2])
        if not 0 <= last - first < _MOST_NAMES:
            raise DataError(
                f"range {match[0]!r} of {text!r} has {max(last - first + 1, 0):,} names, expected 1 to "
                f"{_MOST_NAMES:,}, from the smaller number to the larger one; correct it"
            )
        middles = [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]
    ends = expanded(text[match.end() :])
    return [text[: match.start()] + middle + end for middle in middles for end in ends]


def listed(text: str) -> list[str]:
    """The files that a pattern, or an address in a bucket, stands for; MissingDataError if one is missing."""
    forget()
    found: list[str] = []
    missing: list[str] = []
    folders: dict[str, dict[str, int]] = {}
    names = expanded(text)
    for one in names:
        if glob.has_magic(one) and not os.path.isfile(one):
            matches = (
                glob.glob(os.path.expanduser(one), recursive=True)
                if not is_remote(one)
                else remote_files(one)
            )
            found += [path for path in _in_order(matches) if is_remote(path) or os.path.isfile(path)]
        elif is_remote(one):
            folder = posixpath.dirname(one) if len(names) > 1 else one  # one listing for all
            if folder not in folders:
                folders[folder] = remote_files(folder, deep=False)
            (found if canonical(one) in folders[folder] else missing).append(one)
        else:
            path = os.path.expanduser(one)
            (found if os.path.isfile(path) else missing).append(path)
    if missing or not found:
        others = f", and {len(missing) - 1} others are missing" if len(missing) > 1 else ""
        raise MissingDataError(
            f"{(missing or [text])[0]!r} does not exist{others}, expected files of these names; correct the name"
        )
    return list(dict.fromkeys(found))


def _in_order(paths: Iterable[str]) -> tuple[str, ...]:
    return natural_order(paths)


def shards_in(folder: Path) -> tuple[list[str], list[str]]:
    """The shards of a local folder, in natural order, and all other files; no shards if it has images.

    Of a folder that `datasets` has saved, only the files that belong to it are shards.
    """
    found: list[Path] = []
    others: list[Path] = []
    for path in _files_below(folder, _DEPTH):
        ending = path.suffix.lower()
        if ending in EXTENSIONS:
            return [], []
        (found if ending in SHARDS and _is_saved(path) else others).append(path)
    kinds = {path.suffix.lower() for path in found}
    if len(kinds) > 1:
        raise DataError(
            f"folder {str(folder)!r} has {shown(sorted(kinds))}, expected shards of one kind; give a pattern, "
            f"such as {str(folder / ('*' + sorted(kinds)[0]))!r}"
        )
    return list(_in_order(map(str, found))), list(map(str, others))


def _files_below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            here = sorted(entry.name for entry in entries if not is_system(entry.name))
    except OSError:
        return
    folders = []
    for name in here:
        path = folder / name
        if path.is_dir():
            folders.append(path)
        else:
            yield path
    for inner in folders if depth else ():
        yield from _files_below(inner, depth - 1)


def _is_saved(path: Path) -> bool:
    """Whether `datasets` lists this Arrow file as part of its folder; a cache next to it is not listed."""
    state = path.parent / "state.json"
    if path.suffix.lower() != ".arrow" or not state.is_file():
        return True
    try:
        names = {one["filename"] for one in json.loads(state.read_text(encoding="utf-8"))["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return path.name in names


def described(text: str, addresses: Sequence[str]) -> tuple[list[Shard], list[str]]:
    """The shards with short names and splits, and remarks on shards that seem to be missing.

    There are splits if all names say one, and not all the same. DataError if only some do.
    """
    names = _short(addresses)
    found = [_split_of(name) for name in names]
    kinds = {split for split in found if split}
    if len(kinds) > 1 and None in found:
        raise DataError(
            f"{text!r} has {names[found.index(None)]!r}, whose name says no split, next to shards of "
            f"{shown(sorted(kinds))}, expected a split in all names; give a pattern for those to read"
        )
    splits = found if len(kinds) > 1 else [None] * len(names)
    shards = [Shard(*one) for one in zip(addresses, names, splits, strict=True)]
    return shards, _missing_shards(names)


def _short(addresses: Sequence[str]) -> list[str]:
    """Names below the folder that all have in common."""
    folders = [posixpath.dirname(one).split("/") for one in addresses]
    n_common = len(posixpath.commonprefix(folders))
    return ["/".join(one.split("/")[n_common:]) for one in addresses]


def _split_of(name: str) -> str | None:
    path = PurePosixPath(name)
    for part in reversed(path.parent.parts):
        if split := split_name(part.removeprefix(_PARTIAL)):
            return split
    mentioned = splits_in(_OF.sub("", path.stem))
    return mentioned.pop() if len(mentioned) == 1 else None


def _missing_shards(names: Sequence[str]) -> list[str]:
    counts: dict[tuple[str, int], set[int]] = {}
    for name in names:
        match = _OF.search(PurePosixPath(name).name)
        if match:
            stem = name[: len(name) - len(PurePosixPath(name).name) + match.start()]
            counts.setdefault((stem, int(match[2])), set()).add(int(match[1]))
    remarks = [
        f"{stem} has {len(numbers)} of {total} shards: the others are missing"
        for (stem, total), numbers in counts.items()
        if len(numbers) < total
    ]
    partial = sorted(
        {part for name in names for part in PurePosixPath(name).parts if part.startswith(_PARTIAL)}
    )
    return [*remarks, *(f"{part} holds the first part of its split only" for part in partial)]
