"""What an answer rests on: cover a part of the picture, see how far the answer falls, show it.

In: prepared pictures, and something that gives probabilities for them. Out: a coarse map for each,
and the picture with its map laid over. Must not import a runtime or a training framework: whatever
answers can be asked. Called by gallery.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError
from headstart.records import Array, Codes, Images

__all__ = ["Ask", "occlusion", "overlay"]

Ask = Callable[[Images], Array]
"""Prepared images (n, height, width, channels), uint8, to probabilities (n, n_classes)."""

_LIMIT_BYTES = 64 * 2**20  # covered pictures asked about at a time
_UNIFORM = 12  # grey levels within which a border is paper
_FAINT = 0.1  # a fall of probability that is shown in full strength, unless the greatest is more
_STRONGEST = 0.75  # opacity where the fall is greatest: the picture must still be seen
# From dark to light in even steps, so that it is in order for colour-blind eyes and in print too
_COLOURS = np.array(
    [(60, 20, 130), (150, 25, 130), (222, 60, 80), (250, 140, 40), (255, 225, 90)], np.float64
)


def occlusion(ask: Ask, images: Images, codes: Codes, *, n_cells: int = 7) -> Array:
    """How far the probability of a class falls when a part of the picture is covered.

    Parameters
    ----------
    ask : callable
        Gives probabilities (n, n_classes) for prepared images.
    images : ndarray of shape (n_images, height, width, channels), uint8
        At the size that ``ask`` takes.
    codes : ndarray of shape (n_images,), int
        The class looked at in each image: its place among the probabilities.
    n_cells : int, default=7
        Cells along a side, from 2 to the sides in pixels. A patch covers 2 x 2 of them.

    Returns
    -------
    ndarray of shape (n_images, n_cells, n_cells), float32
        In -1 to 1: the mean fall over the patches that cover a cell. Below 0 where covering helps.

    Raises
    ------
    ShapeError
        If ``images`` are not 4-D uint8, or ``codes`` do not match them.
    SettingError
        If ``n_cells`` is out of range.

    Notes
    -----
    Asks about ``1 + (n_cells - 1) ** 2`` pictures for every image (37 for seven cells), as many
    images at a time as fit 64 MiB. Patches have the colour of the paper where there is one (the
    border's median in grey pictures, and wherever nearly all of the border has one colour), else
    the picture's mean colour. No randomness.

    References
    ----------
    Zeiler, Fergus. Visualizing and Understanding Convolutional Networks. ECCV 2014, arXiv:1311.2901.

    Examples
    --------
    >>> def ask(images):  # ink in the upper left corner makes it class 1
    ...     ink = images[:, :2, :2].mean(axis=(1, 2, 3)) / 255
    ...     return np.stack([1 - ink, ink], axis=1).astype(np.float32)
    >>> image = np.zeros((1, 8, 8, 1), np.uint8)
    >>> image[:, :2, :2] = 255
    >>> occlusion(ask, image, np.array([1]), n_cells=4)[0].round(2).tolist()
    [[1.0, 0.5, 0.0, 0.0], [0.5, 0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    _check(images, codes, n_cells)
    patches = _patches(images.shape[1], images.shape[2], n_cells)
    at_a_time = max(1, _LIMIT_BYTES // (images[0].nbytes * (len(patches) + 1))) if len(images) else 1
    maps = [
        _falls(ask, images[start : start + at_a_time], codes[start : start + at_a_time], patches)
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


def _falls(ask: Ask, images: Images, codes: Codes, patches: list[tuple[slice, slice]]) -> Array:
    """Probability of each image's class less that with each patch covered, (n_images, n_patches)."""
    pictures = np.repeat(images[:, None], len(patches) + 1, axis=1)  # (n, 1 + n_patches, h, w, c)
    colours = _cover_colours(images)[:, None, None, :]
    for place, (rows, columns) in enumerate(patches, start=1):
        pictures[:, place, rows, columns] = colours
    probs = ask(pictures.reshape(-1, *images.shape[1:]))
    known = probs.reshape(len(images), len(patches) + 1, -1)[np.arange(len(images)), :, codes]
    falls: Array = known[:, :1] - known[:, 1:]
    return falls


def _cover_colours(images: Images) -> NDArray[np.uint8]:
    """The paper's colour where a picture has one, else its mean colour, (n_images, channels)."""
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    paper = np.median(border, axis=1)  # (n, c)
    off = np.abs(border - paper[:, None]).max(axis=2)  # (n, border)
    on_paper = (np.quantile(off, 0.9, axis=1) <= _UNIFORM) | (images.shape[3] == 1)
    colours: NDArray[np.uint8] = (
        np.where(on_paper[:, None], paper, images.mean(axis=(1, 2))).round().astype(np.uint8)
    )
    return colours


def overlay(image: NDArray[np.uint8], heat: Array) -> NDArray[np.uint8]:
    """The picture in grey, with what its answer rests on laid over it.

    Parameters
    ----------
    image : ndarray of shape (height, width, channels), uint8
        One or three channels, of any size.
    heat : ndarray of shape (n_cells, n_cells), float
        One map of `occlusion`; what is below 0 is not shown.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        Violet where covering costs a little, over red and orange to yellow where it costs most. The
        colours are the picture's own: the brightest is its greatest fall. A map whose greatest
        fall is under a tenth stays faint, for nothing in particular was looked at.

    Examples
    --------
    >>> picture = np.full((4, 4, 1), 128, np.uint8)
    >>> heat = np.zeros((2, 2), np.float32)
    >>> heat[0, 0] = 0.9
    >>> laid = overlay(picture, heat)
    >>> laid[0, 0].tolist(), laid[-1, -1].tolist()
    ([223, 201, 100], [128, 128, 128])
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
    """Cells of the first axis to pixels, linearly between the cells' middles."""
    middles = (np.arange(len(rows)) + 0.5) * n_pixels / len(rows)
    pixels = np.arange(n_pixels) + 0.5
    return np.stack([np.interp(pixels, middles, column) for column in rows.T], axis=1)
