"""Features of augmented copies, where some copies are those of another augmentation.

Apart from `sources.features`, which computes what it is told to: here it is decided what need not be computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation, augment, same_copies
from headstart.data.images.prepare import prepare
from headstart.data.stores import ArrayImages
from headstart.records import Array, InputSpec, Source
from headstart.sources.features import AugmentedCopy, Extraction, Place, extract_all
from headstart.system.cache import NullCache

__all__ = ["COPIES_BYTES", "already_prepared", "copy_rows", "n_bytes"]

COPIES_BYTES = 256 * 2**20
"""Of augmented copies held in memory at once, at most."""


def copy_rows(
    dataset: Dataset,
    source: Source,
    places: Sequence[Place],
    copy: AugmentedCopy | None,
    options: Extraction,
    like: Augmentation | None = None,
) -> list[Array]:
    """As `extract_all`; ``like`` is another augmentation, whose features of the same copy are in the cache.

    Images of which both make the same copy are not computed again: half of them where one flips every second.
    """
    uncached = options.cache is None or isinstance(options.cache, NullCache)
    if copy is None or like is None or uncached or n_bytes(len(dataset), source.input) > COPIES_BYTES:
        return extract_all(dataset, source, places, copy=copy, options=options)
    everyone = np.arange(len(dataset))
    same = same_copies(copy.augmentation, like, seed=copy.seed, indices=everyone, copy=copy.number)
    if not same.any():
        return extract_all(dataset, source, places, copy=copy, options=options)
    known = extract_all(dataset, source, places, copy=replace(copy, augmentation=like), options=options)
    if same.all():
        return known
    others, rows = np.flatnonzero(~same), [np.array(one) for one in known]
    some = dataset.subset(others)
    pixels = augment(
        prepare(some, source.input), copy.augmentation, seed=copy.seed, indices=others, copy=copy.number
    )
    copies = replace(some, name=f"copies of {dataset.name}", images=ArrayImages(pixels))
    found = extract_all(copies, already_prepared(source), places, options=options)
    for one, values in zip(rows, found, strict=True):
        one[others] = values
    return rows


def already_prepared(source: Source) -> Source:
    """The source for images that have its input size: they are taken as they are."""
    return replace(source, input=replace(source.input, policy="squish"))


def n_bytes(n_images: int, spec: InputSpec) -> int:
    """Size of prepared images."""
    return n_images * spec.height_px * spec.width_px * spec.channels
