"""The search over features on one set of images: every setting evaluated on held-out images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.refuse import refuse_small_classes
from headstart.data.splits import fewest_per_class, folds
from headstart.errors import DataError, SettingError, nearest
from headstart.evaluation.clusters import accuracy_score
from headstart.heads.base import calibrated_loss
from headstart.heads.held_out import best_setting
from headstart.heads.registry import CLOSED_FORM, make_head
from headstart.heads.training import Training
from headstart.records import Array, Codes
from headstart.strategies.select import PRIOR_NATS, n_independent
from headstart.system.threads import threads_for
from headstart.workflows.tune.records import NO_AUGMENTATION, FeatureTrial, Way, Where

__all__ = ["TO_TUNE", "FeatureSearch", "Fit", "Found", "Hits", "Indices", "Outer", "outer_folds", "ranked"]
TO_TUNE = "for training, selection and evaluation"
"""What each class needs three images for."""

_OUTER = 5

_FEW = 50
"""Up to so many images there are ten outer folds, or as many as the smallest class has images."""

_REPEATS, _REPEATED = 3, 300
"""Up to so many independent images, the outer folds are repeated: a single split of 300 images with random
labels gave 51.7 to 57.0 % over five seeds (2026-11-29)."""

Indices = NDArray[np.intp]
Hits = NDArray[np.bool_]
Outer = list[list[tuple[Indices, Indices]]]
"""By repeat and fold: images to search and train on, and images to evaluate on."""


Found = dict[FeatureTrial, Hits]


class Fit(NamedTuple):
    """A combination tried on some images, leaving out each; or fitted to them and evaluated on others."""

    way: Way
    part: Indices
    held: Indices | None = None

    @property
    def key(self) -> tuple[Way, str]:
        """What tells it from other fits."""
        held = b"" if self.held is None else self.held.tobytes()
        return self.way, hashlib.sha256(self.part.tobytes() + b"|" + held).hexdigest()


@dataclass
class FeatureSearch:
    """Features of all images and of their augmented copies, shared by all folds of a search.

    ``ahead`` are fits that are done already, each until it is taken.
    """

    features: Mapping[Where, Array]
    labels: NDArray[np.str_]
    groups: NDArray[np.generic] | None
    heads: tuple[str, ...]
    seed: int
    copies: dict[str, Mapping[Where, Sequence[Array]]] = field(default_factory=dict)
    ahead: dict[tuple[Way, str], Any] = field(default_factory=dict)
    codes: Codes = field(init=False)

    def __post_init__(self) -> None:
        self.codes = np.unique(self.labels, return_inverse=True)[1].astype(np.int64)
        for head in self.heads:
            if head not in CLOSED_FORM:
                raise SettingError(
                    f"head is {head!r}, expected one of {', '.join(CLOSED_FORM)}; {nearest(head, CLOSED_FORM)}"
                )
        if not self.features or not self.heads:
            raise SettingError("there is nothing to choose from, expected features and heads; name some")
        _check_three(self.labels, self.codes, self.groups)

    @property
    def default(self) -> Where:
        """Where features are read without a search."""
        return next(iter(self.features))

    def rows(self, where: Where, augment: str, part: Indices) -> tuple[Array, Indices]:
        """Features of images and of their augmented copies, and the image index of each row."""
        plain = np.asarray(self.features[where][part], np.float32)
        if augment == NO_AUGMENTATION:
            return plain, np.arange(len(part))
        copies = [np.asarray(one[part], np.float32) for one in self.copies[augment][where]]
        return np.concatenate([plain, *copies]), np.tile(np.arange(len(part)), 1 + len(copies))

    def cluster_codes(self, part: Indices) -> NDArray[np.intp] | None:
        """Clusters of some images; None if a class would have one group only."""
        if self.groups is None:
            return None
        units = np.unique(self.groups[part], return_inverse=True)[1]
        return units if fewest_per_class(self.codes[part], units) > 1 else None

    def fitted(self, fit: Fit) -> Found | Hits:
        """One fit."""
        if fit.held is None:
            return self.tried_once(fit.part, fit.way)
        return self.evaluated(fit.way, fit.part, fit.held)

    def _taken(self, fit: Fit) -> Any:
        return self.ahead.pop(fit.key, None) if self.ahead else None

    def tried(self, part: Indices, ways: Iterable[Way]) -> Found:
        """Every setting of every combination on some images: which were predicted correctly when left out."""
        found: Found = {}
        for way in ways:
            found |= self.tried_once(part, way)
        return found

    def tried_once(self, part: Indices, way: Way) -> Found:
        """Every setting of one combination."""
        if (known := self._taken(Fit(way, part))) is not None:
            return Found(known)
        (where, head, augment), found = way, Found()
        codes, clusters = self.codes[part], self.cluster_codes(part)
        groups = None if self.groups is None else self.groups[part]
        rows, images = self.rows(where, augment, part)
        clusters = None if clusters is None else clusters[images]
        ones = np.ones(len(rows), np.float32)
        with threads_for(rows.size):
            held = make_head(head).held_out(Training(rows, codes[images], ones, images, self.seed, clusters))
        assert held is not None, "three images of each class leave two without an outer fold"
        settled = best_setting(held)
        handicap = 0.0 if where == self.default else PRIOR_NATS / n_independent(len(part), groups)
        for number, setting in enumerate(held.settings):
            hits = held.scores[number].argmax(axis=1) == codes
            score, loss = accuracy_score(hits, groups), calibrated_loss(held.logits[number], codes)
            strength, error = next(iter(setting.values())), float(held.errors[number])
            trial = FeatureTrial(
                where, head, strength, augment, score, error, loss, number == settled, handicap
            )
            found[trial] = hits
        return found

    def evaluated(self, way: Way, train: Indices, held: Indices) -> Hits:
        """Fit as the command line would, and evaluate on images that the search did not use."""
        if (known := self._taken(Fit(way, train, held))) is not None:
            return np.asarray(known)
        where, head, augment = way
        rows, images = self.rows(where, augment, train)
        clusters = self.cluster_codes(train)
        fitted = make_head(head).fit(
            rows,
            self.labels[train][images],
            images=images,
            clusters=None if clusters is None else clusters[images],
            seed=self.seed,
        )
        return np.asarray(fitted.predict(self.features[where][held]) == self.labels[held])


def outer_folds(search: FeatureSearch) -> Outer:
    """Folds of which nothing is known while the search runs; several times over where images are few."""
    n_units = len(search.labels) if search.groups is None else len(np.unique(search.groups))
    few = len(search.labels) <= _FEW
    k = _n_folds(search.codes, search.groups, 2 * _OUTER if few else _OUTER)
    return [
        folds(search.labels, k, np.random.default_rng([search.seed, 5, number]), search.groups)
        for number in range(_REPEATS if n_units <= _REPEATED else 1)
    ]


def ranked(found: Found) -> tuple[FeatureTrial, ...]:
    """Trials, the best first."""
    return tuple(sorted(found, key=lambda one: one.rank))


def _n_folds(codes: Codes, groups: NDArray[np.generic] | None, most: int) -> int:
    """At most as many folds as the smallest class has images, or groups."""
    return max(2, min(most, *_units(codes, groups)))


def _units(codes: Codes, groups: NDArray[np.generic] | None) -> list[int]:
    """How many images, or groups, each class has."""
    counts = np.bincount(codes)
    if groups is None:
        return [int(count) for count in counts[counts > 0]]
    return [len(np.unique(groups[codes == code])) for code in np.flatnonzero(counts)]


def _check_three(labels: NDArray[np.str_], codes: Codes, groups: NDArray[np.generic] | None) -> None:
    """One to evaluate the search on, one to evaluate its trials on, one to train on."""
    units, unit = _units(codes, groups), "image" if groups is None else "group"
    least = int(np.argmin(units))
    if len(units) < 2:
        raise DataError(f"labels has 1 class, {str(labels[0])!r}, expected at least 2; add images of another")
    refuse_small_classes({str(np.unique(labels)[least]): units[least]}, 3, TO_TUNE, unit=unit)
