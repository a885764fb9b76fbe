"""What stands on an even background, cut out: two screenshots of one letter share it, not the paper around it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.appearance import effective_terms
from headstart.data.checks.duplicates import (
    CROWD_RANK,
    THUMB_PX,
    Scored,
    backgrounds,
    detail_similarity,
    detail_vectors,
    stands_out,
)
from headstart.records import Array, Images

__all__ = ["CutOut", "cut_out", "foreground_pairs"]

_MARGIN = 0.08  # of the longer side, around the foreground
_LEAST_PEAK = 24  # of 255; a weaker foreground is noise of the paper
_LEAST_PX = 16  # a smaller foreground has too little detail
# Simple forms are the same when they are cut out: circles have 18 to 36 effective coefficients, squares, crosses
# and strokes fewer, three quarters of the letters of Omniglot and 95 % of handwritten Greek letters more.
_LEAST_TERMS = 36.0
_MOST_ASPECT = 4.0
_ASPECT_TOLERANCE = 0.06
# Measured 2026-11-30: distinct letters of Omniglot (5,840) reach 0.974, screenshots of one letter in other windows
# and sizes start at 0.98, their copies in JPEG 20 at 0.99.
_SIMILAR = 0.98
_BLOCK = 2048


CutOut = tuple[NDArray[np.uint8], float]
"""The thumbnail of a foreground, (THUMB_PX, THUMB_PX, 3), and its width over its height."""


def cut_out(pixels: NDArray[np.uint8], thumb: NDArray[np.uint8]) -> CutOut | None:
    """The thumbnail of an image's foreground and its width over its height; None without an even background.

    ``pixels`` are (height, width, 1 or 3), ``thumb`` is the thumbnail of the whole. The edges of the
    foreground are where it has half its contrast, to a fraction of a pixel, so that they stay in place when
    an image is resized or encoded again.
    """
    from PIL import Image

    if not backgrounds(thumb[None])[0][0]:
        return None
    paper = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)
    # channel by channel, which is faster than along an axis of three
    channels = [abs(pixels[..., place] - value) for place, value in enumerate(paper.astype(np.float32))]
    contrast: NDArray[np.float32] = np.maximum.reduce(channels)
    n_peak = max(3, contrast.size // 2000)
    peak = float(np.partition(contrast.ravel(), -n_peak)[-n_peak:].mean()) if contrast.size > n_peak else 0.0
    if peak < _LEAST_PEAK:
        return None
    left, right = _edges(contrast.max(axis=0), peak / 2)
    top, bottom = _edges(contrast.max(axis=1), peak / 2)
    width, height = right - left, bottom - top
    if max(width, height) < _LEAST_PX or not 1 / _MOST_ASPECT <= width / max(height, 1e-6) <= _MOST_ASPECT:
        return None
    margin = _MARGIN * max(width, height)
    pad = int(np.ceil(margin)) + 2
    colour = paper.round().astype(np.uint8)
    room = np.empty((pixels.shape[0] + 2 * pad, pixels.shape[1] + 2 * pad, pixels.shape[2]), np.uint8)
    room[:] = colour
    room[pad:-pad, pad:-pad] = pixels
    box = (left + pad - margin, top + pad - margin, right + pad + margin, bottom + pad + margin)
    image = Image.fromarray(room[..., 0] if room.shape[2] == 1 else room).convert("RGB")
    small = image.resize((THUMB_PX, THUMB_PX), Image.Resampling.BILINEAR, box=box)
    return np.asarray(small), width / height


def foreground_pairs(foregrounds: Mapping[int, CutOut]) -> list[Scored]:
    """Images, by position, whose foregrounds are the same in another size or another place.

    Simple forms, strokes and images that look like many others are left out: one circle is like another.
    """
    if len(foregrounds) < 2:
        return []
    places = np.array(sorted(foregrounds), np.intp)
    thumbs = np.stack([foregrounds[place][0] for place in places.tolist()])
    is_complex = effective_terms(thumbs) >= _LEAST_TERMS
    places, thumbs = places[is_complex], thumbs[is_complex]
    if len(places) < 2:
        return []
    aspects = np.array([foregrounds[place][1] for place in places.tolist()])
    vectors = detail_vectors(thumbs)
    found: list[Scored] = []
    for start in range(0, len(places), _BLOCK):
        similarity = vectors[start : start + _BLOCK] @ vectors.T
        first, second = np.nonzero(similarity >= _SIMILAR)
        first += start
        kept = (first < second) & _same_aspect(aspects, first, second)
        found += _confirmed(thumbs, vectors, first[kept], second[kept])
    return [(int(places[first]), int(places[second]), score) for first, second, score in found]


def _confirmed(
    thumbs: Images, vectors: Array, first: NDArray[np.intp], second: NDArray[np.intp]
) -> list[Scored]:
    if not len(first):
        return []
    rigid = np.ones(len(first), np.bool_)
    scores = detail_similarity(thumbs[first], thumbs[second], rigid)
    kept = (scores >= _SIMILAR) & stands_out(scores, vectors, first, second, CROWD_RANK)
    return list(zip(first[kept].tolist(), second[kept].tolist(), scores[kept].tolist(), strict=True))


def _same_aspect(
    aspects: NDArray[np.float64], first: NDArray[np.intp], second: NDArray[np.intp]
) -> NDArray[np.bool_]:
    return np.asarray(abs(np.log(aspects[first] / aspects[second])) <= _ASPECT_TOLERANCE)


def _edges(profile: Array, half: float) -> tuple[float, float]:
    """Where a profile first and last crosses a value, between the pixels."""
    inside = np.flatnonzero(profile >= half)
    first, last = int(inside[0]), int(inside[-1])
    before = _crossing(profile[first], profile[first - 1], half) if first else 0.0
    after = _crossing(profile[last], profile[last + 1], half) if last + 1 < len(profile) else 0.0
    return first + 0.5 - before, last + 0.5 + after


def _crossing(inner: float, outer: float, half: float) -> float:
    return float((inner - half) / (inner - outer)) if inner > outer else 0.0
