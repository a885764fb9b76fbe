"""Fits a probe repeatedly on subsets of a pool, as studies and cross-validation need it.

Features are computed once per place and kept; each fit selects its layer and head again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation, augment
from headstart.data.images.prepare import prepare
from headstart.data.splits import fewest_per_class
from headstart.data.stores import ArrayImages
from headstart.heads.base import Head
from headstart.heads.registry import CLOSED_FORM, make_head
from headstart.records import Array, Images, InputSpec, Source
from headstart.sources.features import PLAIN, AugmentedCopy, Extraction, Place, extract_all
from headstart.strategies.copies import COPIES_BYTES, already_prepared, n_bytes
from headstart.strategies.mixture import mixed
from headstart.strategies.places import CHOSEN, Probe, Reading, places_of, selected_by
from headstart.strategies.prepared import prepared_once
from headstart.strategies.select import choose, deciding_images
from headstart.system.mapped import joined, taken

__all__ = [
    "DECIDING",
    "Chooser",
    "Indices",
    "Reader",
    "Strategy",
    "averaged",
    "chosen_probe",
    "clusters_of",
    "fitted",
    "redrawn_probe",
]

DECIDING = 250
"""Images that the selection within each fit uses."""


_FEW_SHARE = 0.5  # of a pool, up to which drawn images are read without the others
_LEFT_OUT = 3  # left-out images up to which a split counts as leave-one-out
Indices = NDArray[np.intp]
Strategy = Callable[[Indices, Indices, int], Array]
"""From indices into the pool, indices into the test images and a seed to probabilities of the latter."""


@dataclass(frozen=True)
class Reader:
    """Features of a pool and of the images to predict, computed once per place and kept.

    ``augmentation`` adds copies of the pool's images, never of the test images; ``seed`` draws them.
    """

    source: Source
    pool: Dataset
    test: Dataset
    options: Extraction = PLAIN
    augmentation: Augmentation | None = None
    seed: int = 0
    _kept: dict[tuple[Place, int], Array] = field(default_factory=dict, repr=False)
    _copies: dict[InputSpec, Dataset] = field(default_factory=dict, repr=False)  # shared by replace()

    def __getstate__(self) -> dict[str, Any]:
        # a memory-mapped array would be copied element by element
        kept = {key: np.asarray(rows) for key, rows in self._kept.items()}
        return {**vars(self), "_kept": kept, "_copies": {}}

    def read(self, places: Sequence[Place]) -> None:
        """Compute the features of several places in one pass over the images, unless they are kept."""
        self.read_pool(places)
        self.read_test(places)

    def read_pool(self, places: Sequence[Place]) -> None:
        """As `read`, of the pool alone."""
        self._read(places, 0, self.pool)

    def read_test(self, places: Sequence[Place]) -> None:
        """As `read`, of the images to predict alone."""
        if self.test is self.pool:
            self.read_pool(places)
            self._kept.update({(place, -1): self._kept[place, 0] for place in places})
        else:
            self._read(places, -1, self.test)

    def _read(self, places: Sequence[Place], number: int, images: Dataset) -> None:
        wanted = [place for place in dict.fromkeys(places) if (place, number) not in self._kept]
        if wanted:
            rows = extract_all(images, self.source, wanted, options=self.options)
            self._kept.update({(place, number): one for place, one in zip(wanted, rows, strict=True)})

    def kept_test(self) -> dict[tuple[Place, int], Array]:
        """What is kept of the images to predict, for a reader of another pool."""
        return {key: rows for key, rows in self._kept.items() if key[1] == -1}

    def rows(self, place: Place) -> Array:
        """Features of the pool's images, (n_pool, n_features)."""
        self.read_pool([place])
        return self._kept[place, 0]

    def test_rows(self, place: Place) -> Array:
        """Features of the images to predict, (n_test, n_features)."""
        self.read_test([place])
        return self._kept[place, -1]

    def training(self, place: Place, train: Indices) -> tuple[Array, NDArray[np.str_], Indices]:
        """Training features with augmented copies appended, their labels, and the image index of each row."""
        n_copies = 0 if self.augmentation is None else self.augmentation.n_copies
        self.read_copies([place])
        parts = [taken(self.rows(place), train)]
        parts += [taken(self._kept[place, 1 + one], train) for one in range(n_copies)]
        images = np.tile(np.arange(len(train)), len(parts))
        return joined(parts), self.pool.labels[train][images], images

    def read_copies(self, places: Sequence[Place]) -> None:
        """Compute the features of every augmented copy at several places in one pass, unless they are kept.

        Few images in memory are read with all copies at once, others one copy at a time.
        """
        n_copies = 0 if self.augmentation is None else self.augmentation.n_copies
        wanted = [place for place in dict.fromkeys(places) if (place, n_copies) not in self._kept]
        if self.augmentation is None or not wanted:
            return
        spec, options = self.source.input, self.options
        if self.pool.images.pixels is None or n_copies * n_bytes(len(self.pool), spec) > COPIES_BYTES:
            for number in range(n_copies):
                copy = AugmentedCopy(self.augmentation, self.seed, number)
                rows = extract_all(self.pool, self.source, wanted, copy=copy, options=options)
                self._kept.update({(place, number + 1): one for place, one in zip(wanted, rows, strict=True)})
            return
        if spec not in self._copies:
            self._copies[spec] = self._all_copies(prepare(self.pool, spec))
        rows = extract_all(self._copies[spec], already_prepared(self.source), wanted, options=options)
        for place, one in zip(wanted, rows, strict=True):
            for number, part in enumerate(np.split(one, n_copies)):
                self._kept[place, number + 1] = part

    def _all_copies(self, images: Images) -> Dataset:
        """Every augmented copy of prepared images, one copy after the other."""
        assert self.augmentation is not None, "only an augmentation has copies"
        n_copies, everyone = self.augmentation.n_copies, np.arange(len(images))
        copies = [
            augment(images, self.augmentation, seed=self.seed, indices=everyone, copy=number)
            for number in range(n_copies)
        ]
        return Dataset(
            f"copies of {self.pool.name}",
            ArrayImages(np.concatenate(copies)),
            np.tile(self.pool.labels, n_copies),
            self.pool.classes,
        )


def fitted(reader: Reader, place: Place, head: str, train: Indices, seed: int, *, balance: bool) -> Head:
    """A head fitted on some images of a pool; ``balance`` weights classes equally."""
    rows, labels, images = reader.training(place, train)
    classes, shares = reader.pool.classes, None
    if reader.test is reader.pool and 0 < len(reader.pool) - len(train) <= _left_out_most(reader.pool):
        # the class of a left-out image is rarer among the rest, which would bias heads that use frequencies
        shares = np.bincount(reader.pool.codes(), minlength=len(classes)).tolist()
    clusters = clusters_of(reader.pool, train)
    return make_head(head).fit(
        rows,
        labels,
        classes=classes,
        images=images,
        clusters=None if clusters is None else clusters[images],
        seed=seed,
        balance=balance,
        shares=shares,
    )


def _left_out_most(pool: Dataset) -> int:
    """The most left-out images that count as one fold of a cross-validation with all labels."""
    largest = (
        1
        if pool.cluster_codes is None
        else int(np.bincount(np.unique(pool.cluster_codes, return_inverse=True)[1]).max())
    )
    return max(_LEFT_OUT * largest, len(pool) // 5 + largest)


def clusters_of(pool: Dataset, some: Indices) -> Indices | None:
    """Clusters of some images of a pool; None if each image is its own."""
    return None if pool.cluster_codes is None else pool.cluster_codes[some]


class Chooser:
    """Selects a place and a head on the training images of each fit, once for each set of images.

    What ``wanted`` gives is not selected; its augmentation is the reader's. At most ``most`` images decide. With
    ``readings`` everything is selected already.
    """

    def __init__(
        self,
        reader: Reader,
        wanted: Probe = CHOSEN,
        most: int = DECIDING,
        readings: tuple[Reading, ...] | None = None,
    ) -> None:
        self.wanted, self._reader, self._most, self._readings = wanted, reader, most, readings
        self.places, self._heads, self._given = places_of(reader.source, wanted)
        if readings is not None:
            self.places = [one.place for one in readings]
        self._kept: dict[bytes, tuple[Reading, ...]] = {}

    def __call__(self, train: Indices, seed: int) -> tuple[Reading, ...]:
        """Places and heads for these images of the pool, the best first; as given where nothing can be selected."""
        if self._readings is not None:
            return self._readings
        key = train.tobytes()
        if key not in self._kept:
            self._kept[key] = self._chosen(train, seed)
        return self._kept[key]

    def _chosen(self, train: Indices, seed: int) -> tuple[Reading, ...]:
        pool = self._reader.pool
        codes = pool.codes()[train]
        complete = len(np.unique(codes)) == len(pool.classes)
        if not self._heads or not complete or fewest_per_class(codes, clusters_of(pool, train)) < 2:
            return (self._given,)
        some = train[deciding_images(codes, seed, self._most)]
        rows = {place: self._reader.rows(place)[some] for place in self.places}
        chosen = choose(
            rows,
            pool.codes()[some],
            heads=self._heads,
            default=self._given[0],
            clusters=clusters_of(pool, some),
            balance=self.wanted.balance,
            averaged=self.wanted.head in (None, *CLOSED_FORM),
            seed=seed,
        )
        return selected_by(chosen, self.wanted)


def chosen_probe(reader: Reader, wanted: Probe = CHOSEN, chooser: Chooser | None = None) -> Strategy:
    """The probe, with everything that is not given selected again on the training images of each fit.

    Another reader's ``chooser`` lets a control read where the probe does. The selection sees training
    images only, so accuracy on the others is unbiased by it.
    """
    choice = chooser or Chooser(reader, wanted)
    reader.read(choice.places)

    def strategy(train: Indices, test: Indices, seed: int) -> Array:
        return averaged(reader, choice(train, seed), train, test, seed, balance=wanted.balance)

    return strategy


def averaged(
    reader: Reader,
    readings: Sequence[Reading],
    train: Indices,
    test: Indices,
    seed: int,
    *,
    balance: bool,
    in_pool: bool = False,
) -> Array:
    """The mean of the probabilities of heads that are fitted on some images of a pool.

    For some test images, or with ``in_pool`` for images of the pool.
    """
    found = []
    places = [place for place, _ in readings]
    reader.read_pool(places)
    reader.read_copies(places)
    for place, head in readings:
        rows = reader.rows(place) if in_pool else reader.test_rows(place)
        made = fitted(reader, place, head, train, seed, balance=balance)
        found.append(made.probabilities(rows[test]))
    return mixed(found)


def redrawn_probe(
    readers: Callable[[int], Reader], wanted: Probe = CHOSEN, chooser: Chooser | None = None
) -> Strategy:
    """The probe on untrained networks, another one for every seed; list it in the protocol's ``redrawn``.

    Images are prepared once for all of them. Where another reader's ``chooser`` selects, a network that few images
    of a pool are drawn for reads those and the test images, not the pool.
    """
    kept: dict[int, Reader] = {}
    whole: dict[int, Strategy] = {}
    images: dict[tuple[str, InputSpec], Dataset] = {}

    def strategy(train: Indices, test: Indices, seed: int) -> Array:
        if seed not in kept:
            kept[seed] = _with_prepared(readers(seed), images)
        reader, pool = kept[seed], kept[seed].pool
        if (
            chooser is None
            or reader.augmentation is not None  # random for each image by its place in the pool
            or reader.test is pool
            or len(train) > _FEW_SHARE * len(pool)
        ):
            if seed not in whole:
                whole[seed] = chosen_probe(reader, wanted, chooser)
            return whole[seed](train, test, seed)
        reader.read_test(chooser.places)
        some = replace(reader, pool=pool.subset(train), _kept=reader.kept_test())
        everyone = np.arange(len(train))
        return averaged(some, chooser(train, seed), everyone, test, seed, balance=wanted.balance)

    return strategy


def _with_prepared(reader: Reader, kept: dict[tuple[str, InputSpec], Dataset]) -> Reader:
    """The reader with images that are prepared once for all networks of one input, if they fit into memory."""
    spec = reader.source.input
    pool = prepared_once(reader.pool, spec, kept)
    test = pool if reader.test is reader.pool else prepared_once(reader.test, spec, kept)
    if pool is None or test is None:
        return reader
    return replace(reader, source=already_prepared(reader.source), pool=pool, test=test, _kept={})
