"""Thumbnails fitted to each other: by how much one is shifted and stretched to look like the other.

It is apart from `duplicates`, which says what is similar enough, and from `appearance`, which stores descriptors.
"""

from __future__ import annotations

import numpy as np

from headstart.records import Array, Images

__all__ = ["LUMA", "THUMB_PX", "aligned_similarity", "band", "moved", "unit"]

THUMB_PX = 32
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as image libraries convert colour to grey
_FLAT = 1e-3  # a smaller norm is rounding error, for pixel values of 0 - 255
_PLACE = np.linspace(-1, 1, THUMB_PX, dtype=np.float32)
_STEPS, _STEP_PX, _FARTHEST_PX = 3, 1.5, 3.0  # 8 % of a thumbnail are 2.6 px


def aligned_similarity(first: Images, second: Images) -> Array:
    """Correlate the luminance of the first images, shifted and stretched to fit, with the second ones.

    Gauss-Newton steps on the band that keeps neither the coarsest nor the finest part; brightness, contrast and
    colour do not count.
    """
    grey = first.astype(np.float32) @ LUMA
    target = unit(_banded(second.astype(np.float32) @ LUMA).reshape(len(second), -1))
    moves = np.zeros((len(grey), 4), np.float32)
    best = np.zeros(len(grey), np.float32)
    for step in range(_STEPS + 1):
        here = _banded(moved(grey, moves))
        best = np.maximum(best, (unit(here.reshape(len(here), -1)) * target).sum(axis=1))
        if step < _STEPS:
            moves = (moves + _step(here, target)).clip(-_FARTHEST_PX, _FARTHEST_PX)
    return best


def _step(images: Array, targets: Array) -> Array:
    """The vertical shift and stretch, and the horizontal shift and stretch, in px, to first order."""
    down, across = np.gradient(images, axis=1), np.gradient(images, axis=2)
    terms = np.stack([images, down, down * _PLACE[:, None], across, across * _PLACE], axis=1)
    terms = terms.reshape(len(images), 5, -1)
    length = np.linalg.norm(terms, axis=2).clip(1e-6)
    terms = terms / length[..., None]
    ridge = 1e-3 * np.eye(5, dtype=np.float32)  # a term may be 0
    shares = (
        np.linalg.solve(terms @ terms.transpose(0, 2, 1) + ridge, terms @ targets[..., None])[..., 0] / length
    )
    image = np.where(abs(shares[:, :1]) < 1e-9, 1e-9, shares[:, :1])
    return np.asarray((shares[:, 1:] / image).clip(-_STEP_PX, _STEP_PX), np.float32)


def moved(grey: Array, moves: Array) -> Array:
    """Images sampled at moved positions, bilinear, with the border repeated outside.

    ``moves`` are (n_images, 4): vertical shift and stretch, horizontal shift and stretch, in pixels at the border.
    """
    base = np.arange(THUMB_PX, dtype=np.float32)
    down = _sampling(base + moves[:, :1] + moves[:, 1:2] * _PLACE)
    across = _sampling(base + moves[:, 2:3] + moves[:, 3:] * _PLACE)
    return np.asarray(down @ grey @ across.transpose(0, 2, 1), np.float32)


def _sampling(places: Array) -> Array:
    """Matrices that read pixels at fractional positions, (n, THUMB_PX, THUMB_PX)."""
    places = places.clip(0, THUMB_PX - 1)
    weights = (1 - abs(places[..., None] - np.arange(THUMB_PX))).clip(0)
    return np.asarray(weights, np.float32)


def band(images: Array, fine_px: float, wide_px: float) -> Array:
    """Band-pass filter: keep what is coarser than one scale and finer than another, in each channel.

    From (n, height, width, channels) to (n, channels, height, width).
    """
    channels = np.moveaxis(images, 3, 1)
    fine, wide = _blur(fine_px), _blur(wide_px)
    return np.asarray(fine @ channels @ fine.T - wide @ channels @ wide.T, np.float32)


def unit(vectors: Array) -> Array:
    """Subtract the mean over the last axis and scale to length 1; constant vectors become 0."""
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    scaled: Array = np.divide(centred, length, out=np.zeros_like(centred), where=length > _FLAT)
    return scaled


def _banded(grey: Array) -> Array:
    return band(grey[..., None], 1.0, 4.0)[:, 0]


def _blur(sigma_px: float) -> Array:
    """The matrix that blurs the rows of a thumbnail."""
    place = np.arange(THUMB_PX)
    weights = np.exp(-((place[:, None] - place) ** 2) / (2 * sigma_px**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
