"""Properties of the images of a dataset themselves: sizes, thumbnails, polarity, range of values."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.copies import Parts, parts_of
from headstart.data.checks.duplicates import THUMB_PX, thumbnails
from headstart.data.checks.looks import TINY_PX, Look, value_ranges
from headstart.data.dataset import Dataset
from headstart.data.images.turns import turn
from headstart.data.stores import ImageStore
from headstart.records import Images

__all__ = ["DARK", "LIGHT", "UNCLEAR", "ImageFacts", "OnImage", "Sizes"]

_CHUNK = 256
DARK = "dark on light"
LIGHT = "light on dark"
UNCLEAR = "unclear"

OnImage = Callable[[int, int], None]


@dataclass(frozen=True)
class Sizes:
    """Width and height of the images with the fewest, median and most pixels; number of distinct sizes."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    n_distinct: int


class ImageFacts:
    """Properties of the images themselves: headers, thumbnails, polarity."""

    def __init__(self, dataset: Dataset, *, near: bool, on_image: OnImage | None) -> None:
        self.sizes_px: NDArray[np.int64] = np.zeros((0, 2), np.int64)
        self.modes: dict[str, int] = {}
        self.formats: dict[str, int] = {}
        self.polarity: dict[str, int] = {}
        self.thumbs: Images = np.zeros((0, THUMB_PX, THUMB_PX, 3), np.uint8)
        self.ranges: NDArray[np.int64] = np.zeros(0, np.int64)  # largest difference of values in one channel
        self.parts: dict[int, Parts] = {}  # by place, of the images that have some
        self.frames: NDArray[np.bool_] = np.zeros(0, np.bool_)  # whether a file holds more than one
        if dataset.images.pixels is not None:
            self._read_array(dataset.images.pixels, near=near, on_image=on_image)
        elif near:
            self._read_files(dataset.images, on_image)

    @property
    def tiny(self) -> NDArray[np.bool_]:
        """Images so small that distinct ones look alike."""
        longest: NDArray[np.int64] = self.sizes_px.max(axis=1)
        return longest <= TINY_PX

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
        thumbs, ranges, polarity = [], [], Counter[str]()
        for start in range(0, n_images, _CHUNK):
            chunk = pixels[start : start + _CHUNK]
            polarity.update(_polarity(chunk))
            ranges.append(value_ranges(chunk))
            if near:
                thumbs.append(thumbnails(chunk))
            if on_image is not None:
                on_image(start + len(chunk), n_images)
        self.polarity, self.ranges = dict(polarity), np.concatenate(ranges)
        if near:
            self.thumbs = np.concatenate(thumbs)
            for place in range(n_images) if max(height, width) > TINY_PX else ():
                self._note(place, parts_of(pixels[place], self.thumbs[place]))

    def _note(self, place: int, found: Parts | None) -> None:
        if found is not None:
            self.parts[place] = found

    def _read_files(self, files: ImageStore, on_image: OnImage | None) -> None:
        headers, thumbs = [], np.empty((len(files), THUMB_PX, THUMB_PX, 3), np.uint8)
        self.ranges = np.empty(len(files), np.int64)
        for place, one in enumerate(_looks(files)):
            headers.append(one.header)
            thumbs[place], self.ranges[place] = one.thumb, one.value_range
            self._note(place, one.parts)
            if on_image is not None:
                on_image(place + 1, len(files))
        self.thumbs = thumbs
        self.sizes_px = np.array([(header.width_px, header.height_px) for header in headers])
        self.frames = np.array([header.frames for header in headers], np.bool_)
        self.modes = dict(Counter(header.mode for header in headers))
        self.formats = dict(Counter(header.format for header in headers))
        self.polarity = dict(Counter(_polarity(thumbs)))


def _looks(files: ImageStore) -> Iterator[Look]:
    """The looks of all files, in order; those that are not known are read in threads."""

    def look(place: int) -> Look:
        with turn():
            return files.look(place)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(look, range(len(files)))


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
