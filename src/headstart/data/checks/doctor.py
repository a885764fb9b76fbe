"""What is wrong with a dataset: leaks, duplicates, label names, broken files, imbalance, mixed polarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from headstart.data.checks.copies import near_copies
from headstart.data.checks.duplicates import exact_pairs
from headstart.data.checks.facts import DARK, LIGHT, ImageFacts, OnImage, Sizes
from headstart.data.dataset import Dataset
from headstart.data.names import SPLITS, shown
from headstart.data.readable import why_no_pixels
from headstart.errors import nearest

__all__ = ["Checkup", "Pair", "Sizes", "examine"]

_FEW, _TOO_FEW = 10, 2
_IMBALANCE = 3.0
_SMALL = 20  # images; fewer say nothing about a classifier
_MINORITY = 0.01  # of the drawings; a smaller share of the other polarity may be a misclassification
_FLAT_RANGE, _NEARLY_FLAT_RANGE = 2, 15  # of 255


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
    cannot be read. Without it, or where images have no pixels, no file is opened. ``on_image`` gets the
    numbers of images done and of all.

    >>> pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8)
    >>> pixels[12] = pixels[3]
    >>> labels = np.repeat(["cat", "dog"], 10)
    >>> examine(Dataset("pets", pixels, labels, ("cat", "dog"))).remarks[0]
    "the same image is labelled differently in 1 pair, such as 'image 3' (cat) and 'image 12' (dog)"
    """
    exact = exact_pairs(dataset.images.digests)
    no_pixels = why_no_pixels(dataset.images)
    near = near and no_pixels is None
    near_found: list[tuple[int, int, float]] = []
    facts = ImageFacts(dataset, near=near, on_image=on_image)
    if near:
        copies = {second for _, second in exact}
        kept = np.array([place for place in range(len(dataset)) if place not in copies], np.intp)
        parts = {i: facts.parts[place] for i, place in enumerate(kept.tolist()) if place in facts.parts}
        found = near_copies(facts.thumbs[kept], facts.tiny[kept], parts)
        near_found = [(int(kept[first]), int(kept[second]), score) for first, second, score in found]
    pairs = tuple(
        [_pair(dataset, first, second, "exact", 1.0) for first, second in exact]
        + [_pair(dataset, first, second, "near", round(score, 4)) for first, second, score in near_found]
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
            *dataset.remarks,
            *_features_remarks(no_pixels),
            *_class_remarks(dataset, counts),
            *_pair_remarks(pairs, problems),
            *_split_remarks(counts, problems),
            *_file_remarks(dataset.skipped),
            *_flat_remarks(dataset, facts),
            *_balance_remarks(training, split),
            *_group_remarks(dataset),
            *_image_remarks(facts.polarity, facts.modes, len(dataset)),
            *_storage_remarks(dataset, facts),
            *_few_remarks(training, split),
        ),
    )


def _features_remarks(no_pixels: str | None) -> list[str]:
    """That only features are there."""
    if no_pixels is None:
        return []
    return [
        f"the images are known by their features and digests only ({no_pixels}): near copies were not searched for, "
        "only exact ones"
    ]


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
    """Classes that nothing can be learned of, or that are probably one under two names."""
    problems = []
    others = [split for split in counts if split not in ("train", "all")]
    strange = [
        name
        for name in dataset.classes
        if not counts.get("train", {}).get(name) and any(counts[split][name] for split in others)
    ]
    for name in sorted(dataset.classes, key=lambda name: name not in strange):
        here = [split for split in counts if counts[split][name]]
        if len(counts) > 1 and len(here) == 1 and (strange or here[0] != "train"):
            known = [other for other in dataset.classes if other != name]
            near = f", {nearest(name, known)}" if known else ""
            problems.append(f"class {name!r} is in {here[0]} only{near}")
    for one, other in _same_words(dataset.classes):
        if any(bool(here[one]) != bool(here[other]) for here in counts.values()):
            problems.append(f"classes {one!r} and {other!r} have nearly the same name")
    return tuple(problems)


def _split_remarks(counts: Mapping[str, Mapping[str, int]], problems: Sequence[str]) -> list[str]:
    """Which classes a split to evaluate on lacks, where that is no mistake in a name."""
    found = []
    for split in [] if problems else [name for name in counts if name not in ("train", "all")]:
        lacking = [name for name, number in counts[split].items() if not number]
        if lacking:
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            names = ", ".join(map(repr, lacking[:3]))
            found.append(
                f"the split {split} has no image of {names}{more}: figures on it say nothing of "
                f"{'this class' if len(lacking) == 1 else 'these classes'}"
            )
    return found


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


def _group_remarks(dataset: Dataset) -> list[str]:
    """That all images are of one hand or camera, if that is known."""
    groups = [] if dataset.groups is None else np.unique(dataset.groups).tolist()
    if len(groups) != 1:
        return []
    return [
        f"all images are of one group ({groups[0]}), such as one hand or camera: how accurate a model is on images "
        "of others, and how many of them it refuses as none of these, cannot be measured; add images of other groups"
    ]


def _balance_remarks(training: Mapping[str, int], split: str) -> list[str]:
    here = {name: number for name, number in training.items() if number}
    most, least = max(here, key=here.__getitem__), min(here, key=here.__getitem__)
    ratio = here[most] / here[least]
    if ratio <= _IMBALANCE:
        return []
    sizes = f"class {most!r} has {here[most]} images and {least!r} {here[least]}"
    return [f"{sizes}{_in_split(split)}, {ratio:.1f} times as many"]


def _class_remarks(dataset: Dataset, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Whether there is anything to classify: empty classes, one class only, hardly any images."""
    remarks = []
    total = {name: sum(split[name] for split in counts.values()) for name in dataset.classes}
    empty, filled = [name for name in total if not total[name]], [name for name in total if total[name]]
    if len(filled) == 1:
        remarks.append(
            f"all images are of one class, {filled[0]!r}; a classifier learns from at least two classes"
        )
    if empty:
        have = "class has" if len(empty) == 1 else "classes have"
        remarks.append(f"{len(empty)} {have} no images: {shown(empty)}")
    if len(dataset) < _SMALL:
        images = "1 image" if len(dataset) == 1 else f"{len(dataset)} images"
        advice = f"{_FEW} or more per class are better"
        remarks.append(f"the dataset has {images} only, too few to measure an accuracy; {advice}")
    return remarks


def _flat_remarks(dataset: Dataset, facts: ImageFacts) -> list[str]:
    """Images without any content, or with hardly any contrast."""
    flat = np.flatnonzero(facts.ranges <= _FLAT_RANGE)
    pale = np.flatnonzero((facts.ranges > _FLAT_RANGE) & (facts.ranges <= _NEARLY_FLAT_RANGE))
    remarks = []
    if len(flat):
        have = "1 image has" if len(flat) == 1 else f"{len(flat)} images have"
        remarks.append(f"{have} one flat colour, such as {dataset.images.image_name(int(flat[0]))!r}")
    if len(pale):
        are = "1 image is" if len(pale) == 1 else f"{len(pale)} images are"
        remarks.append(
            f"{are} nearly flat (values differ by at most {_NEARLY_FLAT_RANGE} of 255), "
            f"such as {dataset.images.image_name(int(pale[0]))!r}"
        )
    return remarks


def _storage_remarks(dataset: Dataset, facts: ImageFacts) -> list[str]:
    """How files with more than one frame and files of 16 bits are read."""
    remarks = []
    several, bits = np.flatnonzero(facts.frames), dataset.images.depth_bits
    if len(several):
        hold = "1 file holds" if len(several) == 1 else f"{len(several)} files hold"
        name = dataset.images.image_name(int(several[0]))
        remarks.append(f"{hold} more than one frame, such as {name!r}; the first that is not blank is used")
    if bits is not None and bits < 16:
        most = (1 << bits) - 1
        remarks.append(f"16-bit files use {bits} bits only: values are scaled from 0 - {most} to 0 - 255")
    return remarks


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
    too_few = [name for name, number in training.items() if 0 < number < _TOO_FEW]
    few = [name for name, number in training.items() if _TOO_FEW <= number < _FEW]
    shortages = [(too_few, f"fewer than {_TOO_FEW} images"), (few, f"fewer than {_FEW} images")]
    where = _in_split(split)
    return [
        f"{len(names)} class{'es have' if len(names) > 1 else ' has'} {what}{where}: {shown(names)}"
        for names, what in shortages
        if names
    ]
