"""Exact and near copies among images: re-encoded, resized, brightened, slightly cropped."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.alignment import LUMA, THUMB_PX, aligned_similarity, band, unit
from headstart.records import Array, Images
from headstart.system.threads import reading_threads

__all__ = [
    "CROWD_RANK",
    "THUMB_PX",
    "Scored",
    "backgrounds",
    "detail_similarity",
    "detail_vectors",
    "exact_pairs",
    "joined_pairs",
    "near_pairs",
    "stands_out",
    "thumbnails",
]

# Measured 2026-11-21. Of 397 photos (hymenoptera), copies in JPEG 30 - 95 or PNG, half as large, 1.2 times as
# bright or 3 % cropped score at least 0.85 in layout and 0.93 in detail, distinct ones at most 0.80 in both.
_LAYOUT, _DETAIL = 0.8, 0.9
# Images on an even background are more similar: distinct letters in colour reach 0.93, cropped photos of insects
# on white start at 0.986. Distinct grey drawings (Omniglot) reach 0.998 when fitted by a shift and 0.974 when not,
# copies start at 0.991; distinct digits of 28 px reach 0.998 unmoved, copies in JPEG 75 start at 0.999.
_DETAIL_EVEN, _DETAIL_DRAWN, _DETAIL_TINY = 0.98, 0.985, 0.998
# Measured 2026-11-30: photos of 32 px have 0.92 or more with their originals, distinct photos at most 0.67.
_DETAIL_TINY_COLOUR = 0.95
_LAYOUT_RIGID = 0.97
# Measured 2026-11-30 on the 397 photos: copies that are cropped by 8 % have at least 0.64 in layout and 0.976 when
# they are aligned, distinct photos at most 0.85.
_LAYOUT_CROPPED, _ALIGNED, _ALIGNED_MIXED = 0.6, 0.92, 0.95
CROWD_RANK = 6
"""The nearest neighbour that is taken to be a distinct image, no copy."""
_PAPER_RANGE = 24  # of 255, around the median of the border
_BLOCK, _CHUNK = 2048, 256
_FLOATS = 2**24  # float32 values at a time, 64 MB

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]
Scored = tuple[int, int, float]
"""Positions of two images, the first one smaller, and their similarity."""
# mirrored and rotated by right angles, as augmented copies in folders are
_TURNS: tuple[Callable[[Images], Images], ...] = (
    lambda images: images[:, :, ::-1],
    lambda images: images[:, ::-1],
    lambda images: images[:, ::-1, ::-1],
    lambda images: images.swapaxes(1, 2),
    lambda images: images.swapaxes(1, 2)[:, :, ::-1],
    lambda images: images.swapaxes(1, 2)[:, ::-1],
    lambda images: images.swapaxes(1, 2)[:, ::-1, ::-1],
)


def exact_pairs(digests: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Pair every image with the first one that has the same digest.

    >>> exact_pairs(["a", "b", "a", "a"])
    [(0, 2), (0, 3)]
    """
    first: dict[Hashable, int] = {}
    origins = [first.setdefault(digest, place) for place, digest in enumerate(digests)]
    return [(origin, place) for place, origin in enumerate(origins) if origin != place]


def near_pairs(
    thumbs: Images, tiny: NDArray[np.bool_], n_compared: int | None = None
) -> list[tuple[int, int, float]]:
    """Find copies that differ in size, brightness, crop and compression; returns two positions and a similarity.

    Photos are also found if mirrored, rotated by right angles or without colour. Drawings and ``tiny`` images
    are not, since a mirrored letter is another letter; they must be more similar, and may not be cropped. Of
    n copies of one image, n - 1 pairs are returned, those with the first of them if similar enough.

    ``thumbs`` are (n_images, THUMB_PX, THUMB_PX, 3); those from ``n_compared`` on are compared with the ones before
    only, not with each other. Images whose layouts correlate are compared in detail:
    one is fitted to the other by brightness and a shift and stretch of about a pixel of the thumbnail, and
    the correlation with the fit is the similarity. Time O(n_images ** 2), in matrix products; memory
    O(n_images).

    >>> photos = np.random.default_rng(0).integers(0, 200, (3, 32, 32, 3)).astype(np.uint8)
    >>> brighter = np.concatenate([photos, photos[1:2] + 20])
    >>> [(first, second) for first, second, _ in near_pairs(brighter, np.zeros(4, bool))]
    [(1, 3)]
    """
    limits = _limits(thumbs, tiny)
    n_compared = len(thumbs) if n_compared is None else n_compared
    found = _similar_pairs(thumbs, thumbs, limits)
    photos = np.flatnonzero(limits < _DETAIL_DRAWN)
    for turn in _TURNS if len(photos) > 1 else ():
        pairs = _similar_pairs(thumbs[photos], np.ascontiguousarray(turn(thumbs[photos])), limits[photos])
        found += [(int(photos[first]), int(photos[second]), score) for first, second, score in pairs]
    return joined_pairs([pair for pair in found if pair[0] < n_compared], len(thumbs))


def joined_pairs(pairs: Iterable[Scored], n_images: int) -> list[Scored]:
    """Keep the pairs that join separate groups of images: n - 1 for n copies, those with the first if there are."""
    return _forest(sorted(pairs), n_images)


def stands_out(
    scores: Array, vectors: Array, first: NDArray[np.intp], second: NDArray[np.intp], rank: int
) -> NDArray[np.bool_]:
    """Whether pairs differ at most half as much as either image from its ``rank``-th nearest neighbour.

    Images that share a form, a frame or a letterbox are similar without being copies.
    """
    places, inverse = np.unique(np.concatenate([first, second]), return_inverse=True)
    nth = min(rank, len(vectors) - 1)
    crowds = np.empty(len(places), np.float32)
    for start in range(0, len(places), _CHUNK):
        similarity = vectors[places[start : start + _CHUNK]] @ vectors.T
        crowds[start : start + _CHUNK] = -np.partition(-similarity, nth, axis=1)[:, nth]
    crowd = np.maximum(*crowds[inverse].reshape(2, -1))
    return np.asarray(1 - scores <= (1 - crowd) / 2)


def detail_vectors(thumbs: Images) -> Array:
    """The luminance of each thumbnail without its coarsest and finest part, as vectors of length 1."""
    vectors = []
    for start in range(0, len(thumbs), _BLOCK):
        grey = thumbs[start : start + _BLOCK].astype(np.float32) @ LUMA
        vectors.append(unit(band(grey[..., None], 1.0, 4.0).reshape(len(grey), -1)))
    return np.concatenate(vectors)


def _similar_pairs(
    thumbs: Images, others: Images, limits: NDArray[np.float64]
) -> list[tuple[int, int, float]]:
    """Pairs of a thumbnail and a later one of the others that show the same."""
    found: list[tuple[int, int, float]] = []
    layouts = _layouts(thumbs)
    turned = layouts if others is thumbs else _layouts(others)
    with ThreadPoolExecutor(reading_threads()) as pool:
        for first, second in _candidates(layouts, turned, _least_layouts(limits)):
            parts = [slice(start, start + _CHUNK) for start in range(0, len(first), _CHUNK)]
            confirmed = partial(_confirmed, thumbs, others, limits)
            for one in pool.map(confirmed, [first[part] for part in parts], [second[part] for part in parts]):
                found += one
    return found


def thumbnails(pixels: Images) -> Images:
    """Resize images (n_images, height, width, 1 or 3) to (n_images, THUMB_PX, THUMB_PX, 3) with a triangle filter.

    As `decode.squished` does with files. They become float32, so large images are resized a few at a time.
    """
    n_together = max(1, _FLOATS // max(1, pixels[:1].size))
    if len(pixels) > n_together:
        pieces = range(0, len(pixels), n_together)
        return np.concatenate([thumbnails(pixels[start : start + n_together]) for start in pieces])
    rows, columns = _squish(pixels.shape[1]), _squish(pixels.shape[2])
    small = rows @ np.moveaxis(pixels, 3, 1).astype(np.float32) @ columns.T  # (n, c, THUMB_PX, THUMB_PX)
    colour = np.broadcast_to(small.round().astype(np.uint8), (len(pixels), 3, THUMB_PX, THUMB_PX))
    return np.moveaxis(colour, 1, 3)


def _squish(length_px: int) -> Array:
    """The matrix that resamples this many pixels to THUMB_PX."""
    scale = length_px / THUMB_PX
    centres = (np.arange(THUMB_PX) + 0.5) * scale - 0.5
    weights = (1 - abs(centres[:, None] - np.arange(length_px)) / max(scale, 1.0)).clip(0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def backgrounds(thumbs: Images) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which images have an even background, such as paper, and which are grey.

    Even: most of the border and half of the image have one colour.
    """
    border = np.pad(np.zeros((THUMB_PX - 4, THUMB_PX - 4), np.bool_), 2, constant_values=True)
    even, grey = np.zeros(len(thumbs), np.bool_), np.zeros(len(thumbs), np.bool_)
    for start in range(0, len(thumbs), _CHUNK):
        here = slice(start, start + _CHUNK)
        chunk = thumbs[here].astype(np.int16)
        paper = np.median(chunk[:, border], axis=1)[:, None, None]
        ground = (abs(chunk - paper) <= _PAPER_RANGE).all(axis=3)
        even[here] = (ground[:, border].mean(axis=1) >= 0.75) & (ground.mean(axis=(1, 2)) >= 0.5)
        grey[here] = _without_colour(thumbs[here])
    return even, grey


def _limits(thumbs: Images, tiny: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The similarity that a copy of each image must have: higher on an even background, still higher if grey."""
    even, grey = backgrounds(thumbs)
    limits = np.where(even, np.where(grey, _DETAIL_DRAWN, _DETAIL_EVEN), _DETAIL)
    return np.where(tiny, np.where(grey | even, _DETAIL_TINY, _DETAIL_TINY_COLOUR), limits)


def _least_layouts(limits: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much the layout of a copy must correlate: less for photos, which are aligned, most for drawings."""
    movable = np.where(limits == _DETAIL, _LAYOUT_CROPPED, _LAYOUT)
    return np.where(limits >= _DETAIL_DRAWN, _LAYOUT_RIGID, movable)


def _candidates(layouts: Array, others: Array, least: NDArray[np.float64]) -> Iterator[Pairs]:
    """Pairs whose layouts correlate, block by block."""
    for row in range(0, len(layouts), _BLOCK):
        for column in range(row, len(layouts), _BLOCK):
            correlation = layouts[row : row + _BLOCK] @ others[column : column + _BLOCK].T
            places = np.flatnonzero(correlation >= least.min())
            first, second = places // correlation.shape[1] + row, places % correlation.shape[1] + column
            needed = np.maximum(least[first], least[second])
            needed = np.where(
                np.minimum(least[first], least[second]) == _LAYOUT_CROPPED, _LAYOUT_CROPPED, needed
            )
            kept = (first < second) & (correlation.ravel()[places] >= needed)
            yield first[kept], second[kept]


def _confirmed(
    thumbs: Images,
    others: Images,
    limits: NDArray[np.float64],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
) -> list[tuple[int, int, float]]:
    limit = np.maximum(limits[first], limits[second])
    both_tiny = (limits[first] == _DETAIL_TINY_COLOUR) & (limits[second] == _DETAIL_TINY_COLOUR)
    limit[both_tiny] = _DETAIL_TINY  # only a thumbnail of a larger photo is compared like a photo
    one_tiny = (limits[first] == _DETAIL_TINY) ^ (limits[second] == _DETAIL_TINY)
    limit[one_tiny] = _DETAIL_DRAWN  # a small copy of a drawing: no handwriting that fills as small a square
    scores = detail_similarity(thumbs[first], others[second], limit >= _DETAIL_DRAWN)
    similar = scores >= limit
    # photos, perhaps cropped or recoloured: a pale or grey copy may look like a drawing
    tried = np.flatnonzero(
        ~similar & (np.minimum(limits[first], limits[second]) == _DETAIL) & (limit < _DETAIL_TINY)
    )
    if len(tried):
        aligned = aligned_similarity(thumbs[first[tried]], others[second[tried]])
        similar[tried] = aligned >= np.where(limit[tried] == _DETAIL, _ALIGNED, _ALIGNED_MIXED)
        scores[tried] = np.maximum(scores[tried], aligned)
    return list(zip(first[similar].tolist(), second[similar].tolist(), scores[similar].tolist(), strict=True))


def _forest(pairs: Iterable[tuple[int, int, float]], n_images: int) -> list[tuple[int, int, float]]:
    """Keep the pairs that join separate components: n - 1 for n similar images."""
    parent = list(range(n_images))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    kept = []
    for first, second, score in pairs:
        one, other = sorted((root(first), root(second)))
        if one != other:
            parent[other] = one
            kept.append((first, second, score))
    return kept


def _layouts(thumbs: Images) -> Array:
    """The grey layout of each image as a vector of length 1."""
    vectors = []
    for start in range(0, len(thumbs), _BLOCK):
        grey = (thumbs[start : start + _BLOCK].astype(np.float32) @ LUMA)[..., None]
        layout = band(grey, 1.2, 6.0)[:, 0, ::2, ::2]  # so smooth that every other pixel is enough
        vectors.append(unit(layout.reshape(len(layout), -1)))
    return np.concatenate(vectors)


def _without_colour(images: Images) -> NDArray[np.bool_]:
    """Which images are grey, but for rounding errors and the noise of JPEG."""
    # by channels: ten times as fast as over the last axis
    red, green, blue = (images[..., channel] for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return np.asarray((spread <= _PAPER_RANGE).all(axis=(1, 2)))


def _as_grey(images: Images, which: NDArray[np.bool_]) -> Array:
    """Float images, some of them made grey: colour is no evidence if the other image has none."""
    found = images.astype(np.float32)
    found[which] = (found[which] @ LUMA)[..., None]
    return found


def detail_similarity(first: Images, second: Images, rigid: NDArray[np.bool_]) -> Array:
    """Correlate the second images with the first ones fitted to them.

    To first order a shift or stretch adds to an image its gradient, or its gradient times the position: the
    best fit is a linear regression on these, with all channels together.
    """
    without = _without_colour(first) | _without_colour(second)
    one, other = (band(_as_grey(images, without), 1.0, 4.0) for images in (first, second))
    place = np.linspace(-1, 1, THUMB_PX, dtype=np.float32)
    down, across = np.gradient(one, axis=2), np.gradient(one, axis=3)
    moves = np.stack([down, down * place[:, None], across, across * place], axis=1)
    moves[rigid] = 0
    terms = unit(np.concatenate([one[:, None], moves], axis=1).reshape(len(one), 5, -1))
    target = unit(other.reshape(len(other), -1))[..., None]
    ridge = 1e-4 * np.eye(5, dtype=np.float32)  # a term may be 0
    shares = terms @ target  # (n, 5, 1)
    weights = np.linalg.solve(terms @ terms.transpose(0, 2, 1) + ridge, shares)
    explained = (weights * shares).sum(axis=(1, 2)).clip(0, 1)
    return np.asarray(np.sqrt(explained), np.float32)
