"""A compact descriptor of how an image looks, by which copies of it are recognised.

It is apart from `duplicates`, which compares two images: a descriptor (256 bytes) can be stored in a model
folder, without the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.alignment import LUMA, THUMB_PX, moved
from headstart.data.checks.duplicates import backgrounds
from headstart.records import Array, Images

__all__ = ["LENGTH", "LIMITS", "Descriptors", "Matcher", "describe", "effective_terms"]

_SIDE = 16
LENGTH = _SIDE * _SIDE
"""Entries of a descriptor."""

PHOTO, PLAIN, SIMPLE, DRAWING, TINY = range(5)
_MOVABLE = (PHOTO, PLAIN)
LIMITS = np.array([0.9, 0.96, 0.96, 0.98, 0.995], np.float32)
"""Least similarity of a copy: photo, image on an even background, photo of little detail, grey drawing, image of at
most 64 px.

Measured 2026-11-29 (docs/decisions/0013): distinct photos reach 0.78, JPEG 30, half size and brightness
copies have 0.96 or more; distinct drawings reach 0.944, copies have 0.998; distinct digits of 28 px reach
0.9914, copies in JPEG 75 have 0.998."""

_LEAST_ENERGY = 60.0  # an image below it is nearly featureless: its descriptor would be noise
_LEAST_TERMS = 18.0  # a photo with fewer effective coefficients is as simple as a drawing
_CROP_SIMILARITY = 0.55  # similarity from which a crop is tried
_N_TRIED = 5  # known photos that are tried for each image
_STEPS, _FARTHEST_PX = 2, 1.3  # 3 % of a thumbnail is 1 px
_CROWD_RANK = 6  # nearest neighbour taken to be a distinct image, no copy
_ROWS = 512


@dataclass(frozen=True, eq=False)
class Descriptors:
    """Descriptors of images: ``values`` int8 (n_images, 256), all 0 for a featureless image.

    ``kinds`` uint8 (n_images,) are positions in `LIMITS`.
    """

    values: NDArray[np.int8]
    kinds: NDArray[np.uint8]


def describe(thumbs: Images, tiny: NDArray[np.bool_]) -> Descriptors:
    """Describe thumbnails (n_images, THUMB_PX, THUMB_PX, 3); ``tiny`` marks images of at most 64 px a side.

    The 16 x 16 lowest coefficients of the cosine transform of the luminance, each times its spatial
    frequency (the spectrum of natural images falls as its inverse, so all coefficients get similar weights),
    scaled to unit length and quantised. Brightness and contrast cancel; the mean is left out.
    """
    parts = [_describe(thumbs[i : i + _ROWS], tiny[i : i + _ROWS]) for i in range(0, len(thumbs), _ROWS)]
    return Descriptors(
        np.concatenate([one.values for one in parts] or [np.empty((0, LENGTH), np.int8)]),
        np.concatenate([one.kinds for one in parts] or [np.empty(0, np.uint8)]),
    )


def _describe(thumbs: Images, tiny: NDArray[np.bool_]) -> Descriptors:
    vectors, energy = _described(_luminance(thumbs))
    vectors[energy < _LEAST_ENERGY] = 0
    kinds = np.full(len(thumbs), TINY, np.uint8)
    large = np.flatnonzero(~tiny)
    even, grey = backgrounds(thumbs[large])
    kinds[large] = np.where(even, np.where(grey, DRAWING, PLAIN), PHOTO)
    kinds[(kinds < SIMPLE) & (_terms(vectors) < _LEAST_TERMS)] = SIMPLE
    largest = abs(vectors).max(axis=1, keepdims=True)
    scaled = np.divide(127 * vectors, largest, out=np.zeros_like(vectors), where=largest > 0)
    return Descriptors(np.rint(scaled).astype(np.int8), kinds)


class Matcher:
    """Finds of which known image an image is a copy.

    The similarity of a copy is at least the larger of the two `LIMITS`. Images that share a frame, a
    letterbox or a form are similar without being copies, so 1 - similarity must also be at most half of what
    it is between the original and its sixth nearest neighbour among the known images. Photos may be slightly
    cropped: the image is shifted and stretched by about a pixel of the thumbnail to fit the five most similar
    ones. Time O(n_images * n_known); memory O(n_known).
    """

    def __init__(self, known: Descriptors) -> None:
        self._vectors = _unit(known.values.astype(np.float32))
        self._kinds = known.kinds
        self._crowds = np.full(len(self._kinds), np.nan, np.float32)

    def copies(self, thumbs: Images, tiny: NDArray[np.bool_]) -> NDArray[np.intp]:
        """For each image, given as for `describe`, the position of its original, -1 if there is none."""
        found = np.full(len(thumbs), -1, np.intp)
        if not len(self._kinds):
            return found
        for start in range(0, len(thumbs), _ROWS):
            here = slice(start, start + _ROWS)
            found[here] = self._block(thumbs[here], tiny[here])
        return found

    def _block(self, thumbs: Images, tiny: NDArray[np.bool_]) -> NDArray[np.intp]:
        described = describe(thumbs, tiny)
        similarity = _unit(described.values.astype(np.float32)) @ self._vectors.T  # (n_images, n_known)
        rows, columns = np.nonzero(similarity >= LIMITS[described.kinds][:, None])
        found = self._best(described.kinds, rows, columns, similarity[rows, columns])
        movable = (found < 0) & np.isin(described.kinds, _MOVABLE) & described.values.any(axis=1)
        known = np.flatnonzero(np.isin(self._kinds, _MOVABLE))
        if movable.any() and len(known):
            rows, columns = _likely(similarity, np.flatnonzero(movable), known)
            scores = _fitted(_luminance(thumbs)[rows], self._vectors[columns])
            cropped = self._best(described.kinds, rows, columns, scores)
            found = np.where(found < 0, cropped, found)
        return found

    def _best(
        self, kinds: NDArray[np.uint8], rows: NDArray[np.intp], columns: NDArray[np.intp], scores: Array
    ) -> NDArray[np.intp]:
        """The most similar column of each row, among the pairs that are similar enough for a copy."""
        needed = np.maximum(LIMITS[kinds[rows]], LIMITS[self._kinds[columns]])
        close = np.flatnonzero(scores >= needed)
        close = close[scores[close] >= self._needed_in_crowd(columns[close])]
        close = close[np.argsort(scores[close], kind="stable")]
        best = np.full(len(kinds), -1, np.intp)
        best[rows[close]] = columns[close]  # of several columns the last one written stays, the most similar
        return best

    def _needed_in_crowd(self, columns: NDArray[np.intp]) -> Array:
        """Half-way from the similarity of distinct images here to 1."""
        unknown = np.unique(columns[np.isnan(self._crowds[columns])])
        rank = min(_CROWD_RANK, len(self._kinds) - 1)
        for start in range(0, len(unknown), _ROWS):
            some = unknown[start : start + _ROWS]
            similarity = self._vectors[some] @ self._vectors.T
            self._crowds[some] = -np.partition(-similarity, rank, axis=1)[:, rank] if rank else 0.0
        return np.asarray((1 + self._crowds[columns]) / 2, np.float32)


def _likely(
    similarity: Array, images: NDArray[np.intp], known: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each of these images the few known ones of which it may be a crop."""
    some = similarity[np.ix_(images, known)]
    n_tried = min(_N_TRIED, len(known))
    nearest = np.argpartition(-some, n_tried - 1, axis=1)[:, :n_tried]
    likely = np.take_along_axis(some, nearest, axis=1) >= _CROP_SIMILARITY
    return images[np.nonzero(likely)[0]], known[nearest[likely]]


def _luminance(thumbs: Images) -> Array:
    return thumbs.astype(np.float32) @ LUMA


def _cosines() -> Array:
    """The lowest rows of the orthonormal cosine transform (DCT-II), (16, THUMB_PX)."""
    order, place = np.arange(_SIDE)[:, None], np.arange(THUMB_PX)
    rows = np.sqrt(2 / THUMB_PX) * np.cos(np.pi * (2 * place + 1) * order / (2 * THUMB_PX))
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, np.float32)


_COSINES = _cosines()
_FREQUENCY = np.asarray(np.hypot(*np.mgrid[:_SIDE, :_SIDE]), np.float32)
_PLACE = np.linspace(-1, 1, THUMB_PX, dtype=np.float32)


def _coefficients(grey: Array) -> Array:
    """Weighted coefficients of images, (..., 256)."""
    weighted = (_COSINES @ grey @ _COSINES.T) * _FREQUENCY
    return np.asarray(weighted.reshape(*grey.shape[:-2], LENGTH), np.float32)


def _described(grey: Array) -> tuple[Array, Array]:
    """Unit vectors, and the root mean square of the coefficients before scaling."""
    vectors = _coefficients(grey)
    return _unit(vectors), np.asarray(np.sqrt((vectors**2).mean(axis=1)), np.float32)


def _unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0), np.float32)


def effective_terms(thumbs: Images) -> Array:
    """Effective number of coefficients of thumbnails, a measure of how complex they are, (n_images,)."""
    return _terms(_described(_luminance(thumbs))[0])


def _terms(vectors: Array) -> Array:
    """Effective number of coefficients: the participation ratio of unit vectors; 0 for a vector of zeros."""
    fourth = np.square(np.square(vectors)).sum(axis=1)
    return np.asarray(np.divide(1, fourth, out=np.zeros_like(fourth), where=fourth > 0), np.float32)


def _fitted(grey: Array, targets: Array) -> Array:
    """Similarity of images to descriptors after the best shift and stretch, by Gauss-Newton steps."""
    moves = np.zeros((len(grey), 4), np.float32)
    best = (_described(grey)[0] * targets).sum(axis=1)
    for _ in range(_STEPS):
        moves = (moves + _step(moved(grey, moves), targets)).clip(-_FARTHEST_PX, _FARTHEST_PX)
        best = np.maximum(best, (_described(moved(grey, moves))[0] * targets).sum(axis=1))
    return np.asarray(best, np.float32)


def _step(grey: Array, targets: Array) -> Array:
    """The best vertical shift and stretch, and horizontal shift and stretch, in px, to first order."""
    down, across = np.gradient(grey, axis=1), np.gradient(grey, axis=2)
    terms = np.stack([grey, down, down * _PLACE[:, None], across, across * _PLACE], axis=1)
    rows = _coefficients(terms.astype(np.float32))  # (n, 5, 256)
    length = np.linalg.norm(rows, axis=2).clip(1e-6)
    rows = rows / length[..., None]
    ridge = 1e-3 * np.eye(5, dtype=np.float32)
    shares = (
        np.linalg.solve(rows @ rows.transpose(0, 2, 1) + ridge, rows @ targets[..., None])[..., 0] / length
    )
    image = np.where(abs(shares[:, :1]) < 1e-9, 1e-9, shares[:, :1])
    return np.asarray((shares[:, 1:] / image).clip(-1.5, 1.5), np.float32)
