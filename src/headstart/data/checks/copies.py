"""Near copies among images by all that is compared: whole images, what is inside a border, foregrounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.borders import inside
from headstart.data.checks.duplicates import THUMB_PX, Scored, joined_pairs, near_pairs
from headstart.data.checks.foregrounds import CutOut, cut_out, foreground_pairs
from headstart.data.images.decode import squished
from headstart.records import Images

__all__ = ["Parts", "near_copies", "parts_of"]


@dataclass(frozen=True)
class Parts:
    """What an image is compared by beside its thumbnail: the thumbnail inside its border, and its foreground."""

    inner: NDArray[np.uint8] | None
    foreground: CutOut | None


def parts_of(pixels: NDArray[np.uint8], thumb: NDArray[np.uint8]) -> Parts | None:
    """The parts of an image (height, width, 1 or 3) with a thumbnail; None if it has neither."""
    within = inside(pixels)
    if within is not None:
        inner = squished(within, THUMB_PX)
        return Parts(inner, cut_out(within, inner))
    foreground = cut_out(pixels, thumb)
    return None if foreground is None else Parts(None, foreground)


def near_copies(thumbs: Images, tiny: NDArray[np.bool_], parts: Mapping[int, Parts]) -> list[Scored]:
    """Pairs of images, by position, that are nearly the same, as `duplicates.near_pairs` returns them.

    ``parts`` are by position, of the images that have some. An image with a border is compared by its inside;
    as a whole only with images without one, since equal borders make distinct images alike.
    """
    inner = {place: one.inner for place, one in parts.items() if one.inner is not None}
    bordered, main = list(inner), thumbs.copy()
    for place, thumb in inner.items():
        main[place] = thumb
    places = np.concatenate([np.arange(len(thumbs)), np.array(bordered, np.intp)])
    every = np.concatenate([main, thumbs[bordered]])
    found = foreground_pairs(
        {place: one.foreground for place, one in parts.items() if one.foreground is not None}
    )
    for first, second, score in near_pairs(every, tiny[places], len(thumbs)):
        one, other = sorted((int(places[first]), int(places[second])))
        if one != other:
            found.append((one, other, score))
    return joined_pairs(found, len(thumbs))
