"""A source ready to read a few images at a time, with the augmentation that suits it."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.augment import Augmentation, augment, parse_augmentation
from headstart.data.images.decode import decode_bytes
from headstart.data.images.prepare import fit_image
from headstart.data.images.thumbnails import png_address
from headstart.data.images.turns import turn
from headstart.graph import run as runtime
from headstart.records import Array, Images, InputSpec, Source
from headstart.sources.features import Place, feature_graph
from headstart.strategies.places import Probe, places_of

__all__ = ["HEAD", "SEED", "LiveSource", "example_augmentation", "pixels_address", "thumbnail_address"]


_COPIES = 8


HEAD = "ridge"
SEED = 0
_SHOWN_PX = 72


class LiveSource:
    """A compiled source for a few images at a time; many classrooms share one."""

    def __init__(self, source: Source, augmentation: Augmentation | None) -> None:
        self.source, self.augmentation = source, augmentation
        self.place: Place = places_of(source, Probe(layer=source.default_layer, head=HEAD))[2][0]
        self._batch = 1 + (0 if augmentation is None else augmentation.n_copies)
        self._graph = runtime.compile_graph(
            feature_graph(source, [self.place]), precision="fp32", batch_size=self._batch
        )
        self.rows(np.zeros(source.input.shape, np.uint8), 0)  # the first run loads libraries

    def read(self, images: Images) -> Array:
        """Features of prepared images, (n_images, n_features)."""
        return self._graph.run(runtime.split_batches(images, self._batch), len(images))

    def rows(self, prepared: NDArray[np.uint8], place: int) -> Array:
        """Features of an image and its augmented copies, drawn as for this position in a dataset."""
        whole = prepared[None]
        copies: list[Images] = []
        if self.augmentation is not None:
            numbers = range(self.augmentation.n_copies)
            copies = [augment(whole, self.augmentation, seed=SEED, indices=[place], copy=n) for n in numbers]
        return self.read(np.concatenate([whole, *copies]))


def example_augmentation(source: Source) -> Augmentation | None:
    """The augmentation of examples that suits a source; None without torch and kornia."""
    if find_spec("torch") is None or find_spec("kornia") is None:
        return None
    kind = "handwriting" if source.input.policy == "ink" or source.input.channels == 1 else "photo,flip=0"
    return parse_augmentation(kind, _COPIES)


def thumbnail_address(content: bytes, file_name: str = "the image") -> str:
    """A thumbnail of an image file as a ``data:`` address; `BrokenDataError` if it is not an image."""
    with turn():
        return pixels_address(decode_bytes(content, file_name))


def pixels_address(pixels: NDArray[np.uint8]) -> str:
    """A thumbnail of pixels as a ``data:`` address."""
    return png_address(fit_image(pixels, InputSpec(_SHOWN_PX, _SHOWN_PX, 3, policy="letterbox")))
