"""Novelty detection: how different an image's features are from those of all training images.

The mean of the detectors' scores, in units of a threshold that left-out images set.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError
from headstart.evaluation.conformal import left_out_quantiles
from headstart.heads.base import Builder
from headstart.heads.detectors import METHODS, Detector
from headstart.records import Array, Codes
from headstart.system.mapped import LARGE_VALUES, taken
from headstart.system.threads import blas_threads, threads_for

__all__ = ["RATE", "Novelty", "fit_novelty"]

RATE = 0.05
"""Share of known images that may be rejected."""

_WORK = 5e9  # products that the folds may cost: about a second of a slow core
_LEAST_FOLDS = 5
_LEAST = 8  # images
_MOST = 1_000  # rows fitted on: a decomposition of more takes seconds
_AT_ONCE = 2**25  # values that folds may fit on at the same time: some copies of 256 MB in float64
_SAMPLE_VALUES = 2**25  # 128 MiB of features, of 512 features 65,536 images
_SAME = 1e-4  # differences of scores that rounding may cause
_QUANTILES = 199  # of the left-out scores, stored for other rates


@dataclass(frozen=True)
class Novelty:
    """The mean of several scores, each brought to one scale, in units of the threshold.

    A detector's score counts as ``scale * score + shift``, and the sum of all is the novelty. ``false_rejection`` is
    the intended share of rejected images of the known classes; ``left_out`` are quantiles of the novelty of the
    ``n_held`` held-out images, which set the threshold.
    """

    detectors: tuple[Detector, ...]
    scales: NDArray[np.float64]
    shifts: NDArray[np.float64]
    false_rejection: float
    n_held: int
    left_out: tuple[float, ...]

    def scores(self, features: Array) -> Array:
        """Scores, (n_rows,) float32: above 1, a row is none of the classes."""
        raw = np.stack([one.scores(features) for one in self.detectors])
        found: Array = (raw * self.scales[:, None] + self.shifts[:, None]).sum(axis=0).astype(np.float32)
        return found

    def append(self, builder: Builder, features: str, name: str) -> str:
        """The same as graph operations; a tensor of shape (n,) with this name."""
        found = []
        for number, one in enumerate(self.detectors):
            scale, shift = (
                builder.constant(f"novelty.{word}{number}", np.array([value], np.float32))
                for word, value in (("scale", self.scales[number]), ("shift", self.shifts[number]))
            )
            found.append(builder.add("Add", builder.add("Mul", one.append(builder, features), scale), shift))
        return builder.add("Sum", *found, name=name)

    def note(self) -> dict[str, Any]:
        """Entry in the model's manifest."""
        return {
            "methods": [one.name for one in self.detectors],
            "rule": "mean",
            "false_rejection": self.false_rejection,
            "n_held": self.n_held,
            "left_out": list(self.left_out),
        }


def fit_novelty(
    features: Array,
    codes: Codes,
    images: NDArray[np.integer[Any]] | None = None,
    *,
    held: Array | None = None,
    groups: NDArray[np.generic] | None = None,
    rate: float = RATE,
    seed: int = 0,
) -> Novelty | None:
    """Fit the detectors and the threshold; None with fewer than 8 images.

    ``features`` are (n_rows, n_features), with augmentation several rows per image, its own first; ``images``
    (n_rows,) says which image each row shows; ``held`` (n_held, n_features) are held-out images (default: each of
    several folds of the images in turn); images of one of ``groups`` are held out together; ``rate`` in (0, 1)
    is the share of known images that may be rejected. Few images are left out one by one, so that the threshold does
    not hang on the seed of the folds.

    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(40, 5)).astype(np.float32) + np.repeat([[0.0], [6.0]], 20, axis=0)
    >>> novelty = fit_novelty(rows.astype(np.float32), np.repeat([0, 1], 20))
    >>> (novelty.scores(np.array([[3.0, -9, 3, -9, 3]], np.float32)) > 1).tolist()
    [True]
    """
    if not 0 < rate < 1:
        raise SettingError(f"rate is {rate!r}, expected a share in (0, 1), such as 0.05")
    shown = np.arange(len(codes)) if images is None else np.asarray(images, np.intp)
    n_images = len(np.unique(shown))
    if n_images < _LEAST:
        return None
    if features.size > LARGE_VALUES:
        features, codes, shown, groups = _some_images(features, codes, shown, groups, seed)
    own = np.unique(shown, return_index=True)[1]
    detectors = _fitted(features, codes, own, np.ones(len(codes), np.bool_), seed)
    if held is not None:
        raw = _raw(detectors, held)
    else:
        numbers = _fold_numbers(codes[own], groups, seed, _n_folds(features.shape))
        raw = _left_out(features, codes, shown, own, numbers, seed)
    usual, high = np.median(raw, axis=1), np.quantile(raw, 0.95, axis=1)
    least = np.array([_SAME * one.usual(features.shape[1]) for one in detectors])
    spread = np.maximum(high - usual, least)
    # the mean: the maximum of the scores hangs on the worst detector (measured in docs/decisions/0021)
    mean = ((raw - usual[:, None]) / spread[:, None]).mean(axis=0)
    centre = float(np.median(mean))
    joint = np.maximum(mean - centre, (least / spread).mean())  # differences that rounding may cause are none
    # the threshold is the conformal quantile, the ceil((n + 1) (1 - rate))-th of n scores (Vovk, Gammerman,
    # Shafer. Algorithmic Learning in a Random World. 2005): an image drawn like the held-out ones is rejected
    # with a probability of at most the rate; with fewer than 19 images the largest score, which rejects 1 in
    # n + 1
    place = min(int(np.ceil((len(joint) + 1) * (1 - rate) - 1e-9)), len(joint)) - 1
    threshold = float(np.sort(joint)[place])
    scales = 1 / (spread * threshold * len(detectors))
    shifts = -usual * scales - centre / (threshold * len(detectors))
    left_out = left_out_quantiles(joint / threshold, most=_QUANTILES)
    return Novelty(detectors, scales, shifts, rate, raw.shape[1], left_out)


def _some_images(
    features: Array,
    codes: Codes,
    shown: NDArray[np.intp],
    groups: NDArray[np.generic] | None,
    seed: int,
) -> tuple[Array, Codes, NDArray[np.intp], NDArray[np.generic] | None]:
    """Rows of images drawn at random: a threshold hangs on few of their scores, and detectors fit 1,000 rows."""
    images, numbers = np.unique(shown, return_inverse=True)
    most = max(_MOST, _SAMPLE_VALUES // features.shape[1])
    kept = np.zeros(len(images), np.bool_)
    kept[np.random.default_rng([seed, 13]).permutation(len(images))[:most]] = True
    rows = np.flatnonzero(kept[numbers])
    again = np.unique(numbers[rows], return_inverse=True)[1]
    return taken(features, rows), codes[rows], again, None if groups is None else groups[kept]


def _left_out(
    features: Array,
    codes: Codes,
    shown: NDArray[np.intp],
    own: NDArray[np.intp],
    numbers: NDArray[np.intp],
    seed: int,
) -> NDArray[np.float64]:
    """Scores of every image by detectors that were fitted without its fold, (n_detectors, n_kept).

    An image whose class is in no other fold is left out of them, unless all are: it would count as known while its
    class is not.
    """
    known = codes[own]

    def judged(fold: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        out = numbers == fold
        detectors = _fitted(features, codes, own, ~out[shown], seed)
        return _raw(detectors, features[own[out]]), np.isin(known[out], known[~out])

    n_folds = int(numbers.max()) + 1
    n_rows = min(len(features), _MOST) + len(own) // n_folds  # that a fold fits on and scores
    n_threads = min(blas_threads(), max(1, _AT_ONCE // (n_rows * features.shape[1])))
    # where features are so wide that folds are fitted in turn, each has all of BLAS's threads
    limit = nullcontext() if n_threads == 1 else threads_for(0)
    with limit, ThreadPoolExecutor(n_threads) as pool:
        found, like_others = zip(*pool.map(judged, range(n_folds)), strict=True)
    kept = np.concatenate(like_others)
    scores = np.concatenate(found, axis=1)
    return scores[:, kept] if kept.any() else scores


def _fitted(
    features: Array, codes: Codes, own: NDArray[np.intp], wanted: NDArray[np.bool_], seed: int
) -> tuple[Detector, ...]:
    """Every detector on at most 1,000 of the wanted rows, images before their augmented copies."""
    rng = np.random.default_rng([seed, 3])
    first = np.isin(np.arange(len(codes)), own)
    order = np.concatenate([rng.permutation(np.flatnonzero(wanted & each)) for each in (first, ~first)])
    rows = np.sort(order[:_MOST])
    return tuple(one.fit(features[rows], codes[rows]) for one in METHODS)


def _raw(detectors: tuple[Detector, ...], rows: Array) -> NDArray[np.float64]:
    return np.stack([one.scores(rows) for one in detectors]).astype(np.float64)


def _n_folds(shape: tuple[int, ...]) -> int:
    """As many folds as `_WORK` pays for, at least five."""
    n_rows, width = min(shape[0], _MOST), shape[1]
    small, large = sorted((n_rows, width))
    return max(_LEAST_FOLDS, int(_WORK / (small**2 * large + 10 * small**3)))


def _fold_numbers(
    codes: Codes, groups: NDArray[np.generic] | None, seed: int, n_folds: int
) -> NDArray[np.intp]:
    """Fold of every image: stratified by class, or whole groups together."""
    rng = np.random.default_rng([seed, 4])
    if groups is not None and len(np.unique(groups)) > 1:
        _, numbers = np.unique(groups, return_inverse=True)
        n_groups = int(numbers.max()) + 1
        folded: NDArray[np.intp] = rng.permutation(np.arange(n_groups) % min(n_folds, n_groups))[numbers]
        return folded
    order = np.lexsort((rng.random(len(codes)), codes))
    folded = np.empty(len(codes), np.intp)
    folded[order] = np.arange(len(codes)) % min(n_folds, len(codes))
    return folded
