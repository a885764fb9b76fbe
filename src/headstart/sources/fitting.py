"""What fits a dataset by the look of its images, without its labels: a bundled source, and a preparation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.duplicates import THUMB_PX, backgrounds
from headstart.data.dataset import Dataset
from headstart.data.images.fit import fit_image
from headstart.data.images.prepare import prepare
from headstart.records import Images, InputSpec, Source
from headstart.sources.drawings.kind import DRAWINGS
from headstart.sources.photos.kind import PHOTOS, photos_input
from headstart.sources.registry import kind_named, kind_of, open_source

__all__ = [
    "Fitting",
    "fitting_kind",
    "fitting_policy",
    "fitting_source",
    "inputs_ahead",
    "opened_ahead",
    "with_fitting_policy",
]

_MOST = 64  # images that are looked at
_SMALL_PX = 64
# Measured 2026-11-30, median over 100 images: 0.82 to 0.94 of the variance of drawings, digits and photographed
# letters is between ink and paper, of photos of insects 0.71.
_TWO_TONES = 0.8
_LOOK = InputSpec(2 * THUMB_PX, 2 * THUMB_PX, 3, (0.0,) * 3, (1.0,) * 3)
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Fitting:
    """The name of a source, and how many images of those looked at are drawings."""

    name: str
    n_drawings: int
    n_images: int

    @property
    def sentence(self) -> str:
        """What was taken, and why."""
        return (
            f"source {self.name}, since {self.n_drawings} of {self.n_images} images looked at are drawings; name "
            "another before the data to take that"
        )


def fitting_source(dataset: Dataset) -> Fitting:
    """``drawings`` if at least half of the images are drawings or small grey images, else ``photos``."""
    drawn, grey = _looks(dataset)
    shape = dataset.images.image_shape
    if shape is not None and max(shape[:2]) <= _SMALL_PX:
        drawn |= grey
    n_drawings = int(drawn.sum())
    kind = DRAWINGS if 2 * n_drawings >= len(drawn) else PHOTOS
    return Fitting(kind.prefix, n_drawings, len(drawn))


def fitting_kind(pixels: NDArray[np.uint8]) -> str:
    """``drawings`` or ``photos``, whichever one image (height, width, 1 or 3) is."""
    drawn, _ = _looked_at(fit_image(pixels, _LOOK)[None])
    return DRAWINGS.prefix if drawn[0] else PHOTOS.prefix


def opened_ahead(
    name: str | None, seed: int = 0, size_px: int | None = None, policy: str | None = None
) -> Source | None:
    """A source that is the same for all datasets of files, before one is read; else None."""
    if name is None or not kind_named(name).fixed:
        return None
    return open_source(name, None, seed, size_px, policy)


def inputs_ahead(
    ahead: Source | None, name: str | None, size_px: int | None = None, policy: str | None = None
) -> tuple[InputSpec, ...]:
    """The inputs that the files of a dataset will probably be prepared for, so that each is read once.

    That of the source (of ``photos`` where none is named), and the small one of controls and of a look at the images.
    """
    if ahead is not None:
        return (ahead.input, _LOOK)
    if name is not None:
        return (_LOOK,)
    spec = photos_input(size_px)
    return (spec if policy is None else replace(spec, policy=policy), _LOOK)


def fitting_policy(source: Source, dataset: Dataset) -> str | None:
    """``ink`` for drawings of another size than a source takes that learned from small grey images; else None.

    So drawings reach the network as the digits of MNIST are: bright ink, one size, centred. Measured 2026-11-30: of
    photographed Greek letters by other people a network of MNIST then classifies 95.6 % correctly, else 49 %.
    """
    spec = source.input
    if spec.policy != "squish" or spec.channels != 1 or not kind_of(source).pretrained:
        return None
    if max(spec.height_px, spec.width_px) > _SMALL_PX or dataset.images.image_shape == spec.shape:
        return None
    drawn, _ = _looks(dataset)
    return "ink" if 2 * int(drawn.sum()) >= len(drawn) else None


def with_fitting_policy(source: Source, dataset: Dataset) -> Source:
    """The source with the policy of `fitting_policy`; the same object where its own stays."""
    policy = fitting_policy(source, dataset)
    return source if policy is None else replace(source, input=replace(source.input, policy=policy))


def _looks(dataset: Dataset) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of at most 64 images are drawings, and which are grey."""
    some = np.unique(np.linspace(0, len(dataset) - 1, min(_MOST, len(dataset))).astype(np.intp))
    return _looked_at(prepare(dataset.subset(some), _LOOK))


def _looked_at(images: Images) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of some images of 64 x 64 px are drawings, and which are grey."""
    even, grey = backgrounds(images[:, ::2, ::2])
    return even & (_two_tones(images) >= _TWO_TONES), grey


def _two_tones(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of each image's variance that lies between its two groups of values (Otsu 1979), 0 - 1."""
    grey = (images @ _LUMA).astype(np.uint8).reshape(len(images), -1)
    values, found = np.arange(256), np.zeros(len(images))
    for number, row in enumerate(grey):
        share = np.bincount(row, minlength=256) / len(row)
        below, sums = np.cumsum(share), np.cumsum(share * values)
        mean, spread = sums[-1], below * (1 - below)
        between = np.divide((mean * below - sums) ** 2, spread, out=np.zeros(256), where=spread > 1e-9)
        found[number] = between.max() / max(float(share @ (values - mean) ** 2), 1e-9)
    return found
