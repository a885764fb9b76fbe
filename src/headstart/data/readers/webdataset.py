"""WebDataset: tar shards of samples, which are files of one name with different endings, one after another.

``cat/001.jpg`` and ``cat/001.cls`` are a sample; the label is in ``.cls``, or in ``.json`` under one of the names of
a label column.
"""

from __future__ import annotations

import json
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby, islice
from typing import Any

from headstart.data.contents.addresses import file_system, is_remote, read_part, size_of
from headstart.data.contents.tar import Member, TarMembers, tar_members
from headstart.data.images.decode import EXTENSIONS
from headstart.data.names import shown, split_name
from headstart.data.readers.columns import column_roles
from headstart.data.readers.files import Labels, Listing, Skipped, is_system
from headstart.data.readers.shards import Shard
from headstart.errors import BrokenDataError, DataError

__all__ = ["CLASS_FILES", "is_label", "is_webdataset", "webdataset_listing"]

_SAMPLE = re.compile(r"((?:.*/)?[^/.]*[^/]*?)\.([^/]*)", re.DOTALL)
_LABELS = ("cls", "class", "label", "json")
CLASS_FILES = ("classes.txt", "classnames.txt", "class_names.txt")
"""Names of files next to shards, with the name of a class in each line."""
_FIRST = 1000  # members by which an archive is recognised
_LIMIT_BYTES = 2**20  # of a label
_NUMBER = re.compile(r"\d+")


def is_webdataset(address: str) -> bool:
    """Whether an archive has an image with a label file of the same name among its first members."""
    members: list[Member] = []
    with suppress(BrokenDataError):  # to be reported by whoever reads it
        members.extend(one for one in islice(tar_members(address), _FIRST) if one.name and not one.reason)
    return any(
        _Sample.of(key, group).images and any(_is_label(address, one) for one in group)
        for key, group in _grouped(members)
    )


def _is_label(address: str, member: Member) -> bool:
    ending = _ending(member.name)
    if ending != "json":
        return ending in _LABELS
    try:
        return "label" in _roles(tuple(_object(address, member)))
    except DataError:
        return False


def webdataset_listing(name: str, shards: Sequence[Shard], label: str | None = None) -> Listing:
    """The images of tar shards in order, found while they are read; with ``label``, that is the label of all.

    A file with the names of classes next to the shards (``classes.txt``, one per line) names whole numbers. While
    they are read, BrokenDataError if a shard is cut or damaged.
    """
    reader = _Reader(shards, label)
    return Listing(name, reader.contents, reader.rows(), reader.n_images, reader.skipped, reader.remarks)


@dataclass
class _Sample:
    """The members of one name: images and labels by their endings."""

    key: str
    images: list[tuple[str, Member]] = field(default_factory=list)
    others: dict[str, Member] = field(default_factory=dict)

    @classmethod
    def of(cls, key: str, members: Sequence[Member]) -> _Sample:
        sample = cls(key)
        for one in members:
            ending = one.name[len(key) + 1 :]
            if f".{ending.rpartition('.')[2].lower()}" in EXTENSIONS:
                sample.images.append((ending, one))
            else:
                sample.others[ending.lower()] = one
        sample.images.sort(key=lambda one: "." in one[0])  # .jpg before .seg.png
        return sample

    def label_of(self, ending: str) -> Member | None:
        """The member with the label of an image: of the same name in full, such as ``1.v2.jpg`` and ``1.v2.cls``."""
        stem = ending.rpartition(".")[0].lower()
        stems = [f"{stem}.", ""] if stem else [""]
        return next(
            (self.others[one + kind] for one in stems for kind in _LABELS if one + kind in self.others), None
        )


def _grouped(members: Iterator[Member] | Sequence[Member]) -> Iterator[tuple[str, list[Member]]]:
    """Consecutive members whose names are equal up to the first dot."""
    return ((key, list(group)) for key, group in groupby(members, key=lambda one: _key(one.name)))


def _key(name: str) -> str:
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0])


def is_label(name: str) -> bool:
    """Whether a member has the name of a file of labels, next to an image of the same name.

    >>> is_label("cat/001.cls"), is_label("cat/001.jpg")
    (True, False)
    """
    return _ending(name) in _LABELS


def _ending(name: str) -> str:
    return posixpath.basename(name).rpartition(".")[2].lower()


class _Reader:
    """Goes through the shards once, and finds members and labels on the way."""

    def __init__(self, shards: Sequence[Shard], label: str | None) -> None:
        self._shards, self._label = shards, label
        self.remarks: list[str] = []
        self.contents = TarMembers([one.address for one in shards], [one.shown for one in shards])
        self.skipped: list[Skipped] = []
        self._classes, self._class_file = ([], "") if label else _class_names(shards[0].address)
        self._unused: Counter[str] = Counter()
        self._is_first = True
        self._sizes = [size_of(one.address) for one in shards]
        self._done = 0

    def n_images(self, n_found: int) -> int:
        """How many images there are, by the share of the bytes that was read so far."""
        return max(n_found, n_found * sum(self._sizes) // max(self._done, 1))

    def rows(self) -> Iterator[Labels]:
        before = 0
        for number, shard in enumerate(self._shards):
            for key, members in _grouped(self._files(shard)):
                self._done = before + members[-1].offset + members[-1].size_bytes
                yield from self._sample(number, shard, _Sample.of(key, members))
            before = self._done = before + self._sizes[number]
        self.remarks += [
            f"{n:,} members {ending!r} of samples are not used" for ending, n in self._unused.most_common(5)
        ]
        if self._class_file:
            self.remarks.append(f"names of classes are those of {self._class_file!r}")

    def _files(self, shard: Shard) -> Iterator[Member]:
        for one in tar_members(shard.address):
            if not one.name:
                self.remarks.append(f"shard {shard.shown!r} has no end mark: it may be cut")
            elif one.reason:
                self.skipped.append((f"{shard.shown}:{one.name}", one.reason))
            elif not any(is_system(part) for part in one.name.split("/") if part not in (".", "")):
                yield one

    def _sample(self, number: int, shard: Shard, sample: _Sample) -> Iterator[Labels]:
        labels = {ending: sample.label_of(ending) for ending, _ in sample.images}
        used = {member.name for member in labels.values() if member}
        first: set[str] = set()
        for ending, image in sample.images:
            if self._label is not None:
                self.contents.add(number, image)
                yield Labels(self._label)
                continue
            where, member = f"{shard.shown}:{image.name}", labels[ending]
            if member is None:
                others = f", and its sample has {shown(sample.others)}" if sample.others else ""
                self.skipped.append((where, f"it has no label{others}: expected .cls, or .json with a label"))
            elif member.name in first:
                self._unused[f".{ending}"] += 1
            else:
                first.add(member.name)
                row = self._labels(shard, where, member)
                if row is not None:
                    self.contents.add(number, image)
                    yield row
        for ending, member in sample.others.items():
            if member.name not in used and self._label is None:
                self._unused[f".{ending}"] += 1

    def _labels(self, shard: Shard, where: str, member: Member) -> Labels | None:
        """What a label file says; None, and a reason in ``skipped``, if it says no label."""
        try:
            if _ending(member.name) == "json":
                found = self._from_json(shard, member)
            else:
                found = Labels(_text(shard.address, member).strip(), shard.split)
        except DataError as error:
            self.skipped.append((where, str(error)))
            return None
        if not found.label:
            self.skipped.append((where, f"its label in {member.name!r} is empty; write one"))
            return None
        return found._replace(label=unicodedata.normalize("NFC", self._named(found.label, member)))

    def _from_json(self, shard: Shard, member: Member) -> Labels:
        known = _object(shard.address, member)
        roles = _roles(tuple(known))
        if "label" not in roles:
            raise DataError(
                f"its {member.name!r} has {shown(known) or 'nothing'}, expected a label among them; add it"
            )
        cells = {role: known[column] for role, column in roles.items() if role != "path"}
        if not isinstance(cells["label"], str | int):
            raise DataError(
                f"its label in {member.name!r} is {cells['label']!r:.40}, expected a name or a whole number"
            )
        split = split_name(str(cells["split"])) if "split" in cells else None
        group = str(cells["group"]) if cells.get("group") is not None else None
        return Labels(str(cells["label"]).strip(), shard.split or split, group)

    def _named(self, label: str, member: Member) -> str:
        if self._is_first and not _NUMBER.fullmatch(label):  # names need no names
            self._classes, self._class_file = [], ""
        self._is_first = False
        if not self._classes:
            return label
        if not _NUMBER.fullmatch(label) or int(label) >= len(self._classes):
            raise DataError(
                f"label {label!r} of {member.name!r} is not in {self._class_file!r}, expected a whole number below "
                f"{len(self._classes)}; correct that file, or rename it to leave it out"
            )
        return self._classes[int(label)]


def _text(address: str, member: Member) -> str:
    if member.size_bytes > _LIMIT_BYTES:
        raise DataError(
            f"its label {member.name!r} has {member.size_bytes:,} bytes, expected a name or a number"
        )
    try:
        return read_part(address, member.offset, member.size_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"its label {member.name!r} is no text, expected UTF-8; write it again") from error


def _object(address: str, member: Member) -> Mapping[str, Any]:
    try:
        found = json.loads(_text(address, member))
    except (ValueError, RecursionError) as error:
        raise DataError(f"its {member.name!r} is no JSON; write it again") from error
    if not isinstance(found, dict):
        raise DataError(f"its {member.name!r} is no JSON object, expected one with a label; write it again")
    return {str(key).strip().lower(): cell for key, cell in found.items()}


@lru_cache(maxsize=256)
def _roles(columns: tuple[str, ...]) -> Mapping[str, str]:
    return column_roles("sample", columns)


def _class_names(address: str) -> tuple[list[str], str]:
    """Names of the classes from a file next to the shards, and the file; nothing if there is none."""
    folder = posixpath.dirname(address)
    for name in CLASS_FILES:
        path = posixpath.join(folder, name)
        if not _exists(path):
            continue
        text = read_part(path, 0, min(size_of(path), _LIMIT_BYTES)).decode("utf-8-sig", "replace")
        classes = [line.strip() for line in text.splitlines() if line.strip()]
        if len(set(classes)) < len(classes) or not classes:
            raise DataError(
                f"file {path!r} repeats a class or is empty, expected one name per line; correct it"
            )
        return classes, path
    return [], ""


def _exists(path: str) -> bool:
    import os

    if not is_remote(path):
        return os.path.isfile(path)
    system, inner = file_system(path)
    return bool(system.isfile(inner))
