"""Images prepared once for several networks with the same input: the random networks of a control.

Features are kept under the fingerprints of network and images, so nothing is prepared when all of them are kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property

from headstart.data.dataset import Dataset
from headstart.data.images.prepare import prepare
from headstart.data.stores import ArrayImages
from headstart.records import Images, InputSpec
from headstart.strategies.copies import COPIES_BYTES, n_bytes

__all__ = ["PreparedImages", "prepared_once"]

Kept = dict[tuple[str, InputSpec], Dataset]


class PreparedImages(ArrayImages):
    """Images of a dataset as a network takes them, prepared when the first of them is read.

    Their fingerprint is that of what they are made from, so that it is known before.
    """

    def __init__(self, images: Dataset, spec: InputSpec) -> None:
        self._from, self._spec, self._mapping = images, spec, None

    def __len__(self) -> int:
        return len(self._from)

    @cached_property
    def pixels(self) -> Images:  # type: ignore[override]
        """All images, (n_images, *spec.shape) uint8, read-only."""
        made = prepare(self._from, self._spec)
        made.flags.writeable = False
        return made

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return self._spec.shape

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the fingerprint of the images and the preparation."""
        return hashlib.sha256(f"prepared {self._spec} {self._from.images.fingerprint}".encode()).hexdigest()


def prepared_once(dataset: Dataset, spec: InputSpec, kept: Kept) -> Dataset | None:
    """The dataset with prepared images, from ``kept`` if they are there; None where they would take much memory."""
    if n_bytes(len(dataset), spec) > COPIES_BYTES:
        return None
    key = dataset.images.fingerprint, spec
    if key not in kept:
        images: ArrayImages = PreparedImages(dataset, spec)
        kept[key] = replace(dataset, images=images)
    return kept[key]
