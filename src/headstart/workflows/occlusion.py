"""Occlusion maps: cover a part of an image and see how far the predicted probability falls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError
from headstart.records import Array, Codes, Images

__all__ = ["PredictFunction", "occlusion", "overlay"]

PredictFunction = Callable[[Images], Array]
"""From prepared images (n, height, width, channels), uint8, to probabilities (n, n_classes)."""

_LIMIT_BYTES = 64 * 2**20  # covered images predicted at a time
_UNIFORM = 12  # grey levels within which a border counts as paper
_FAINT = 0.1  # falls are scaled by the greatest one, but by at least this
_STRONGEST = 0.75  # opacity where the fall is greatest: the image must still be visible
# from dark to light in even steps: in order for colour-blind readers and in print too
_COLOURS = np.array(
    [(60, 20, 130), (150, 25, 130), (222, 60, 80), (250, 140, 40), (255, 225, 90)], np.float64
)


def occlusion(predict: PredictFunction, images: Images, codes: Codes, *, n_cells: int = 7) -> Array:
    """Fall of each image's class probability when a part is covered, (n_images, n_cells, n_cells).

    Values are -1 to 1: the mean fall over the patches of 2 x 2 cells that cover a cell, below 0 where
    covering helps. ``predict`` sees ``1 + (n_cells - 1) ** 2`` images for each (37 for seven cells), up to 64
    MiB at a time. Patches have the paper's colour where there is one (the border's median in grey images, and
    wherever nearly all of the border has one colour), else the image's mean colour.

    Zeiler, Fergus. Visualizing and Understanding Convolutional Networks. ECCV 2014, arXiv:1311.2901.

    >>> def predict(images):  # ink in the upper left corner makes it class 1
    ...     ink = images[:, :2, :2].mean(axis=(1, 2, 3)) / 255
    ...     return np.stack([1 - ink, ink], axis=1).astype(np.float32)
    >>> image = np.zeros((1, 8, 8, 1), np.uint8)
    >>> image[:, :2, :2] = 255
    >>> occlusion(predict, image, np.array([1]), n_cells=4)[0].round(2).tolist()
    [[1.0, 0.5, 0.0, 0.0], [0.5, 0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    _check(images, codes, n_cells)
    patches = _patches(images.shape[1], images.shape[2], n_cells)
    at_a_time = max(1, _LIMIT_BYTES // (images[0].nbytes * (len(patches) + 1))) if len(images) else 1
    maps = [
        _falls(predict, images[start : start + at_a_time], codes[start : start + at_a_time], patches)
        for start in range(0, len(images), at_a_time)
    ]
    falls = np.concatenate([np.empty((0, len(patches)), np.float32), *maps])
    side = n_cells - 1
    total = np.zeros((len(images), n_cells, n_cells), np.float32)
    number = np.zeros((n_cells, n_cells), np.float32)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):  # the four cells of a patch
        total[:, down : down + side, right : right + side] += falls.reshape(-1, side, side)
        number[down : down + side, right : right + side] += 1
    mean: Array = total / number
    return mean


def _check(images: Images, codes: Codes, n_cells: int) -> None:
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ShapeError(
            f"images have shape {images.shape} and dtype {images.dtype}, expected (n_images, height, width, "
            "channels) of uint8; bring them to the network's size with headstart.data.images.prepare"
        )
    if codes.shape != images.shape[:1]:
        raise ShapeError(
            f"codes have shape {codes.shape}, expected ({len(images)},) to match images; pass one for each"
        )
    most = min(images.shape[1:3])
    if not 2 <= n_cells <= most:
        raise SettingError(
            f"n_cells is {n_cells!r}, expected 2 to {most}, the pixels of a side; 7 suits most"
        )


def _patches(height: int, width: int, n_cells: int) -> list[tuple[slice, slice]]:
    """Every square of 2 x 2 cells, row by row; neighbours overlap by half."""
    down, right = (np.linspace(0, side, n_cells + 1).round().astype(int) for side in (height, width))
    return [
        (slice(down[i], down[i + 2]), slice(right[j], right[j + 2]))
        for i in range(n_cells - 1)
        for j in range(n_cells - 1)
    ]


def _falls(
    predict: PredictFunction, images: Images, codes: Codes, patches: list[tuple[slice, slice]]
) -> Array:
    """Probability of each image's class minus that with each patch covered, (n_images, n_patches)."""
    covered = np.repeat(images[:, None], len(patches) + 1, axis=1)  # (n, 1 + n_patches, h, w, c)
    colours = _cover_colours(images)[:, None, None, :]
    for place, (rows, columns) in enumerate(patches, start=1):
        covered[:, place, rows, columns] = colours
    probs = predict(covered.reshape(-1, *images.shape[1:]))
    known = probs.reshape(len(images), len(patches) + 1, -1)[np.arange(len(images)), :, codes]
    falls: Array = known[:, :1] - known[:, 1:]
    return falls


def _cover_colours(images: Images) -> NDArray[np.uint8]:
    """The paper's colour where an image has one, else its mean colour, (n_images, channels)."""
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    paper = np.median(border, axis=1)  # (n, c)
    off = np.abs(border - paper[:, None]).max(axis=2)  # (n, border)
    on_paper = (np.quantile(off, 0.9, axis=1) <= _UNIFORM) | (images.shape[3] == 1)
    colours: NDArray[np.uint8] = (
        np.where(on_paper[:, None], paper, images.mean(axis=(1, 2))).round().astype(np.uint8)
    )
    return colours


def overlay(image: NDArray[np.uint8], heat: Array) -> NDArray[np.uint8]:
    """The image in grey with an occlusion map over it, (height, width, 3), uint8.

    Violet where covering costs a little, over red and orange to yellow where it costs most, relative to the
    image's own greatest fall; falls below 0 are not shown. A map whose greatest fall is under 0.1 stays
    faint, because no part was decisive.
    """
    height, width = image.shape[:2]
    grey = image.astype(np.float64) @ ((1.0,) if image.shape[2] == 1 else (0.299, 0.587, 0.114))
    fine = _smoothly(_smoothly(np.maximum(heat, 0.0), height).T, width).T
    strength = fine / max(float(heat.max(initial=0.0)), _FAINT)
    steps = np.linspace(0.0, 1.0, len(_COLOURS))
    colour = np.stack([np.interp(strength, steps, channel) for channel in _COLOURS.T], axis=-1)
    opacity = _STRONGEST * strength[..., None] ** 0.75
    laid: NDArray[np.uint8] = (grey[..., None] * (1 - opacity) + colour * opacity).round().astype(np.uint8)
    return laid


def _smoothly(rows: NDArray[np.floating], n_pixels: int) -> NDArray[np.float64]:
    """Cells of the first axis to pixels, linearly between the cells' centres."""
    middles = (np.arange(len(rows)) + 0.5) * n_pixels / len(rows)
    pixels = np.arange(n_pixels) + 0.5
    return np.stack([np.interp(pixels, middles, column) for column in rows.T], axis=1)
