"""What is wrong with a dataset: leaks, duplicates, label names, broken files, imbalance, mixed polarity."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.duplicates import THUMB_PX, exact_pairs, near_pairs, thumbnails
from headstart.data.dataset import Dataset
from headstart.data.images.decode import Header, squished
from headstart.data.images.turns import turn
from headstart.data.names import SPLITS, shown
from headstart.data.stores import ImageStore
from headstart.errors import nearest
from headstart.records import Images

__all__ = ["Checkup", "Pair", "Sizes", "examine"]

_TINY_PX = 64
_CHUNK = 256
_FEW, _TOO_FEW = 10, 2
_IMBALANCE = 3.0
_MINORITY = 0.01  # of the drawings; a smaller share of the other polarity may be a misclassification
DARK, LIGHT, UNCLEAR = "dark on light", "light on dark", "unclear"

OnImage = Callable[[int, int], None]


@dataclass(frozen=True)
class Pair:
    """Two images that are the same, ``exact``, or nearly, ``near``; similarity at most 1.

    ``first`` and ``second`` are paths, or ``image 17`` for position 17 of an array; ``places`` are their
    positions in the dataset.
    """

    first: str
    second: str
    kind: str
    splits: tuple[str, str] | None
    labels: tuple[str, str]
    similarity: float
    places: tuple[int, int]

    @property
    def leak(self) -> bool:
        """Whether they are in different splits."""
        return self.splits is not None and self.splits[0] != self.splits[1]


@dataclass(frozen=True)
class Sizes:
    """Width and height of the images with the fewest, median and most pixels; number of distinct sizes."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    n_distinct: int


@dataclass(frozen=True)
class Checkup:
    """The result of `examine`.

    ``counts`` are by split, or ``all``, then by class. ``sizes_px`` is None, and ``modes`` and ``formats``
    are empty, if files were not opened. ``imbalance`` is the number of images of the largest class over that
    of the smallest non-empty one, in the training split if there is one. ``polarity`` counts the grey images
    examined. ``remarks`` are sentences, the most serious first.
    """

    dataset: str
    n_images: int
    counts: Mapping[str, Mapping[str, int]]
    sizes_px: Sizes | None
    modes: Mapping[str, int]
    formats: Mapping[str, int]
    unreadable: tuple[tuple[str, str], ...]
    pairs: tuple[Pair, ...]
    imbalance: float
    polarity: Mapping[str, int]
    label_problems: tuple[str, ...]
    remarks: tuple[str, ...]


def examine(dataset: Dataset, *, near: bool = True, on_image: OnImage | None = None) -> Checkup:
    """Find what is wrong with a dataset, all splits at once.

    With ``near``, every image is decoded (in threads, JPEG at a reduced scale), for near duplicates, sizes,
    modes and polarity: O(n_images ** 2) in matrix products; MissingDataError or BrokenDataError if a file
    cannot be read. Without it no file is opened. ``on_image`` gets the numbers of images done and of all.

    >>> pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8)
    >>> pixels[12] = pixels[3]
    >>> labels = np.repeat(["cat", "dog"], 10)
    >>> examine(Dataset("pets", pixels, labels, ("cat", "dog"))).remarks[0]
    "the same image is labelled differently in 1 pair, such as 'image 3' (cat) and 'image 12' (dog)"
    """
    exact = exact_pairs(dataset.images.digests)
    near_copies: list[tuple[int, int, float]] = []
    facts = _ImageFacts(dataset, near=near, on_image=on_image)
    if near:
        copies = {second for _, second in exact}
        kept = np.array([place for place in range(len(dataset)) if place not in copies], np.intp)
        found = near_pairs(facts.thumbs[kept], facts.tiny[kept])
        near_copies = [(int(kept[first]), int(kept[second]), score) for first, second, score in found]
    pairs = tuple(
        [_pair(dataset, first, second, "exact", 1.0) for first, second in exact]
        + [_pair(dataset, first, second, "near", round(score, 4)) for first, second, score in near_copies]
    )
    counts = _counts(dataset)
    problems = _label_problems(dataset, counts)
    split, training = _training_counts(counts)
    sizes = [number for number in training.values() if number]
    return Checkup(
        dataset.name,
        len(dataset),
        counts,
        facts.sizes(),
        facts.modes,
        facts.formats,
        dataset.skipped,
        pairs,
        max(sizes) / min(sizes),
        facts.polarity,
        problems,
        (
            *_pair_remarks(pairs, problems),
            *_file_remarks(dataset.skipped),
            *_balance_remarks(training, split),
            *_image_remarks(facts.polarity, facts.modes, len(dataset)),
            *_few_remarks(training, split),
        ),
    )


class _ImageFacts:
    """Properties of the images themselves: headers, thumbnails, polarity."""

    def __init__(self, dataset: Dataset, *, near: bool, on_image: OnImage | None) -> None:
        self.sizes_px: NDArray[np.int64] = np.zeros((0, 2), np.int64)
        self.modes: dict[str, int] = {}
        self.formats: dict[str, int] = {}
        self.polarity: dict[str, int] = {}
        self.thumbs: Images = np.zeros((0, THUMB_PX, THUMB_PX, 3), np.uint8)
        if dataset.images.pixels is not None:
            self._read_array(dataset.images.pixels, near=near, on_image=on_image)
        elif near:
            self._read_files(dataset.images, on_image)

    @property
    def tiny(self) -> NDArray[np.bool_]:
        """Images so small that distinct ones look alike."""
        longest: NDArray[np.int64] = self.sizes_px.max(axis=1)
        return longest <= _TINY_PX

    def sizes(self) -> Sizes | None:
        """Summary of the sizes; None if no image was decoded."""
        if not len(self.sizes_px):
            return None
        ordered = self.sizes_px[np.argsort(self.sizes_px.prod(axis=1), kind="stable")]
        least, middle, most = ((int(w), int(h)) for w, h in ordered[[0, (len(ordered) - 1) // 2, -1]])
        return Sizes(least, middle, most, len(np.unique(ordered, axis=0)))

    def _read_array(self, pixels: Images, *, near: bool, on_image: OnImage | None) -> None:
        n_images, height, width, channels = pixels.shape
        self.sizes_px = np.tile(np.array([[width, height]]), (n_images, 1))
        self.modes = {"L" if channels == 1 else "RGB": n_images}
        thumbs, polarity = [], Counter[str]()
        for start in range(0, n_images, _CHUNK):
            chunk = pixels[start : start + _CHUNK]
            polarity.update(_polarity(chunk))
            if near:
                thumbs.append(thumbnails(chunk))
            if on_image is not None:
                on_image(start + len(chunk), n_images)
        self.polarity = dict(polarity)
        self.thumbs = np.concatenate(thumbs) if near else self.thumbs

    def _read_files(self, files: ImageStore, on_image: OnImage | None) -> None:
        headers, thumbs = [], np.empty((len(files), THUMB_PX, THUMB_PX, 3), np.uint8)
        for place, (header, thumb) in enumerate(_previews(files)):
            headers.append(header)
            thumbs[place] = thumb
            if on_image is not None:
                on_image(place + 1, len(files))
        self.thumbs = thumbs
        self.sizes_px = np.array([(header.width_px, header.height_px) for header in headers])
        self.modes = dict(Counter(header.mode for header in headers))
        self.formats = dict(Counter(header.format for header in headers))
        self.polarity = dict(Counter(_polarity(thumbs)))


def _previews(files: ImageStore) -> Iterator[tuple[Header, Images]]:
    """Read all files in threads, in order."""

    def read(place: int) -> tuple[Header, Images]:
        with turn():
            header, pixels = files.preview(place, THUMB_PX)
            return header, squished(pixels, THUMB_PX)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(read, range(len(files)))


def _polarity(pixels: Images) -> list[str]:
    """Classify the grey images: the inside is darker or lighter than a uniform border."""
    grey = pixels[(np.ptp(pixels, axis=3) <= 8).all(axis=(1, 2))][..., 0].astype(np.float32)
    if not len(grey):
        return []
    edge = max(1, min(grey.shape[1:]) // 16)
    border = np.ones(grey.shape[1:], np.bool_)
    border[edge:-edge, edge:-edge] = False
    ring = grey[:, border]
    paper = np.median(ring, axis=1)
    even = (abs(ring - paper[:, None]) <= 24).mean(axis=1) >= 0.75
    ink = grey[:, ~border].mean(axis=1) - paper
    polarities = np.where(even & (abs(ink) >= 2), np.where(ink > 0, LIGHT, DARK), UNCLEAR)
    return [str(polarity) for polarity in polarities]


def _pair(dataset: Dataset, first: int, second: int, kind: str, similarity: float) -> Pair:
    names = [dataset.images.image_name(place) for place in (first, second)]
    splits = None if dataset.splits is None else (str(dataset.splits[first]), str(dataset.splits[second]))
    labels = (str(dataset.labels[first]), str(dataset.labels[second]))
    return Pair(names[0], names[1], kind, splits, labels, similarity, (first, second))


def _counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    if dataset.splits is None:
        return {"all": dataset.counts()}
    return {name: dataset.split(name).counts() for name in SPLITS if name in dataset.splits}


def _label_problems(dataset: Dataset, counts: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    problems = []
    for name in dataset.classes:
        here = [split for split in counts if counts[split][name]]
        if len(counts) > 1 and len(here) == 1:
            others = [other for other in dataset.classes if other != name]
            near = f", {nearest(name, others)}" if others else ""
            problems.append(f"class {name!r} is in {here[0]} only{near}")
    problems += [
        f"classes {one!r} and {other!r} have nearly the same name"
        for one, other in _same_words(dataset.classes)
    ]
    return tuple(problems)


def _same_words(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ in case, spaces, hyphens or plural only; single letters never match."""
    known: dict[str, list[str]] = {}
    for name in names:
        bare = "".join(letter for letter in name.casefold() if letter not in " -_")
        if len(bare) > 1:
            known.setdefault(bare, []).append(name)
    same = [pair for spellings in known.values() for pair in combinations(spellings, 2)]
    for bare, spellings in known.items():
        plurals = [bare + "s", bare + "es", *([bare[:-1] + "ies"] if bare.endswith("y") else [])]
        same += [(spellings[0], known[plural][0]) for plural in plurals if plural in known]
    return same


def _pair_remarks(pairs: Sequence[Pair], problems: Sequence[str]) -> list[str]:
    leaks = [pair for pair in pairs if pair.leak]
    conflicting = [pair for pair in pairs if pair.labels[0] != pair.labels[1]]
    remarks = []
    if leaks:
        one, other = leaks[0].splits or ("", "")
        remarks.append(
            f"an image of {one} is also in {other}: {_numbered(leaks)}; metrics on the copies are too high"
        )
    remarks += problems
    if conflicting:
        one, other = conflicting[0].labels
        first, second = conflicting[0].first, conflicting[0].second
        remarks.append(
            f"the same image is labelled differently in {_pairs(len(conflicting))}, "
            f"such as {first!r} ({one}) and {second!r} ({other})"
        )
    if pairs:
        remarks.append(f"the same image occurs more than once: {_numbered(pairs)}")
    return remarks


def _numbered(pairs: Sequence[Pair]) -> str:
    near = sum(pair.kind == "near" for pair in pairs)
    kinds = "exact" if not near else "near" if near == len(pairs) else f"{near} of them near"
    return f"{_pairs(len(pairs))} ({kinds}), such as {pairs[0].first!r} and {pairs[0].second!r}"


def _pairs(number: int) -> str:
    return f"{number} pair{'s' if number > 1 else ''}"


def _file_remarks(unreadable: Sequence[tuple[str, str]]) -> list[str]:
    if not unreadable:
        return []
    path, reason = unreadable[0]
    files = "1 file was" if len(unreadable) == 1 else f"{len(unreadable)} files were"
    return [f"{files} left out, such as {path!r}: {reason}"]


def _training_counts(counts: Mapping[str, Mapping[str, int]]) -> tuple[str, Mapping[str, int]]:
    """The training split and its counts: ``train`` if there is one, else the first."""
    split = "train" if "train" in counts else next(iter(counts))
    return split, counts[split]


def _in_split(split: str) -> str:
    return "" if split == "all" else f" in {split}"


def _balance_remarks(training: Mapping[str, int], split: str) -> list[str]:
    here = {name: number for name, number in training.items() if number}
    most, least = max(here, key=here.__getitem__), min(here, key=here.__getitem__)
    ratio = here[most] / here[least]
    if ratio <= _IMBALANCE:
        return []
    sizes = f"class {most!r} has {here[most]} images and {least!r} {here[least]}"
    return [f"{sizes}{_in_split(split)}, {ratio:.1f} times as many"]


def _image_remarks(polarity: Mapping[str, int], modes: Mapping[str, int], n_images: int) -> list[str]:
    remarks = []
    dark, light = polarity.get(DARK, 0), polarity.get(LIGHT, 0)
    if 2 * (dark + light) > n_images and min(dark, light) > _MINORITY * (dark + light):
        remarks.append(f"{dark} drawings are dark on light and {light} light on dark")
    if len(modes) > 1:
        listed = ", ".join(f"{mode} {number}" for mode, number in sorted(modes.items()))
        remarks.append(f"images are stored in {len(modes)} modes: {listed}")
    return remarks


def _few_remarks(training: Mapping[str, int], split: str) -> list[str]:
    too_few = [name for name, number in training.items() if number < _TOO_FEW]
    few = [name for name, number in training.items() if _TOO_FEW <= number < _FEW]
    shortages = [(too_few, f"fewer than {_TOO_FEW} images"), (few, f"fewer than {_FEW} images")]
    where = _in_split(split)
    return [
        f"{len(names)} class{'es have' if len(names) > 1 else ' has'} {what}{where}: {shown(names)}"
        for names, what in shortages
        if names
    ]
