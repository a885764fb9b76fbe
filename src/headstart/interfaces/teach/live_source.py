"""A source ready to read a few images at a time, with the augmentation that suits it."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.augment import Augmentation, augment, parse_augmentation
from headstart.data.images.decode import decode_bytes
from headstart.data.images.fit import fit_again, fit_image
from headstart.data.images.reduced import Read
from headstart.data.images.thumbnails import png_address
from headstart.data.images.turns import turn
from headstart.errors import DataError
from headstart.graph import run as runtime
from headstart.records import Array, Images, InputSpec, Source
from headstart.sources.drawings.kind import DRAWINGS
from headstart.sources.features import Place, feature_graph
from headstart.sources.fitting import fitting_kind
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe, places_of

__all__ = [
    "HEAD",
    "SEED",
    "FittingSource",
    "LiveSource",
    "example_augmentation",
    "live_source",
    "pixels_address",
    "thumbnail_address",
]


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

    def prepared(self, read: Read, content: bytes, file_name: str) -> NDArray[np.uint8]:
        """An image file that was decoded at full size as the source takes it; `DataError` for a blank image."""
        prepared = fit_again(read, content, file_name, self.source.input)
        if not np.ptp(read.pixels) or not prepared.any():
            raise DataError(
                f"{file_name} is blank, expected an image with content; draw or choose an image first"
            )
        return prepared

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


class FittingSource:
    """The source for drawings or the one for photos, opened when the first image of its kind comes; thread-safe."""

    def __init__(self) -> None:
        self._opened: dict[str, LiveSource] = {DRAWINGS.prefix: live_source(open_source(DRAWINGS.prefix))}
        self._lock = Lock()

    def __call__(self, pixels: NDArray[np.uint8]) -> LiveSource:
        """The source that fits an image; MissingExtraError where that for photos is not installed."""
        kind = fitting_kind(pixels)
        with self._lock:
            if kind not in self._opened:
                self._opened[kind] = live_source(open_source(kind))
            return self._opened[kind]


def live_source(source: Source) -> LiveSource:
    """A source ready for examples; drawings of any size are prepared by ``ink`` for one of small grey images."""
    if source.input.channels == 1 and source.input.policy == "squish":
        source = replace(source, input=replace(source.input, policy="ink"))
    return LiveSource(source, example_augmentation(source))


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
