"""Which images a model has seen: recorded in training, recognised in evaluation.

Files are recognised by their bytes, images by their pixels, and copies (re-encoded, resized, brightened,
slightly cropped) by their descriptors (`appearance`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.appearance import LENGTH, LIMITS, Descriptors, Matcher, describe
from headstart.data.checks.duplicates import THUMB_PX, thumbnails
from headstart.data.checks.looks import CONTENT_BYTES, TINY_PX, content_of
from headstart.data.images.turns import turn
from headstart.data.readable import has_pixels
from headstart.data.stores import ImageStore
from headstart.errors import BrokenDataError, MissingDataError, ModelError
from headstart.records import ROLES, Images, Seen

__all__ = [
    "Recognised",
    "from_tensors",
    "inherited",
    "recognise",
    "record",
    "recorded",
    "seen_remark",
    "to_tensors",
]

_MOST_DESCRIBED = 20_000  # 5 MB; twice that with the images of a source
_CHUNK = 1_024
_LEARNED, _SOURCE, _VALIDATION = (ROLES.index(name) for name in ("learned", "source", "validation"))

_PRECEDENCE = ("learned", "source", "validation", "judged", "test", "new")

OnImage = Callable[[int, int], None]


@dataclass(frozen=True)
class Recognised:
    """The role of each image for a model: ``roles`` are positions in `ROLES`, (n_images,).

    ``near`` marks those recognised by their looks, not by bytes or pixels. ``places`` are the positions in
    the model's record, the same for copies of one image, -1 where an image is new.
    """

    roles: NDArray[np.uint8]
    near: NDArray[np.bool_]
    places: NDArray[np.intp]

    def subset(self, mask: NDArray[np.bool_]) -> Recognised:
        """The same for some of the images."""
        return Recognised(self.roles[mask], self.near[mask], self.places[mask])

    def of(self, *names: str) -> NDArray[np.bool_]:
        """Which images had one of these roles, (n_images,)."""
        return np.isin(self.roles, [ROLES.index(name) for name in names])


@dataclass(frozen=True, eq=False)
class _Preview:
    """Some images: digests of their pixels, thumbnails, and whether they are tiny."""

    contents: NDArray[np.uint8]
    thumbs: Images
    tiny: NDArray[np.bool_]


def record(parts: Sequence[tuple[str, ImageStore]], before: Seen | None = None) -> Seen:
    """Record images by role, after what the source has seen (``before``, see `inherited`).

    All images get digests; 20,000 at most, evenly spread, get descriptors. Files whose looks were not kept are
    decoded once more, JPEG at a reduced scale, in threads; one that is missing or has changed since is recorded by
    its digest alone.
    """
    found = _joined([_recorded(ROLES.index(name), images, _share(parts, images)) for name, images in parts])
    if before is None:
        return found
    keep = ~np.isin(_keys(before.digests), _keys(found.digests[found.roles == _LEARNED]))
    return _joined([found, _kept(before, keep)])


def inherited(seen: Seen | None) -> Seen | None:
    """The record of a source for the models that use it: ``learned`` becomes ``source``, test images are left out."""
    if seen is None:
        return None
    kept = _kept(seen, np.isin(seen.roles, (_LEARNED, _SOURCE, _VALIDATION)))
    roles = np.where(kept.roles == _LEARNED, _SOURCE, kept.roles).astype(np.uint8)
    return Seen(kept.digests, roles, kept.places, kept.contents, kept.looks, kept.kinds)


def recognise(images: ImageStore, seen: Seen, on_image: OnImage | None = None) -> Recognised:
    """Find the role that each image had for a model.

    Files whose bytes were seen are not opened, nor are images without pixels. The others are decoded, compared
    by their pixels, and then by `appearance.Matcher`: time O(n_images * n_described) in matrix products,
    constant memory. ``on_image`` gets the numbers of images done and of all that are decoded.
    """
    index = _Index(seen)
    known = index.places(_digests(images))
    near = np.zeros(len(images), np.bool_)
    rest = np.flatnonzero(known < 0) if has_pixels(images) else np.zeros(0, np.intp)
    described = index.places(seen.digests)[seen.places]
    matcher, done = Matcher(Descriptors(seen.looks, seen.kinds)), 0
    for places, preview in _previews(images, rest):
        by_content = index.places(preview.contents)
        origin = matcher.copies(preview.thumbs, preview.tiny)
        similar = (by_content < 0) & (origin >= 0)
        known[places] = by_content
        known[places[similar]] = described[origin[similar]]
        near[places] = similar
        done += len(places)
        if on_image is not None:
            on_image(done, len(rest))
    return Recognised(np.append(seen.roles, np.uint8(0))[known], near, known)


def seen_remark(source: str, images: ImageStore, seen: Seen | None) -> str | None:
    """A sentence if a source learned from images that it is judged on, or was validated on them; else None."""
    if seen is None:
        return None
    n_seen = int(recognise(images, seen).of("learned", "source", "validation").sum())
    if not n_seen:
        return None
    return (
        f"{source} saw {n_seen:,} of these {len(images):,} images in its own training, so it may be less accurate on "
        "new images than is stated here"
    )


def recorded(seen: Seen, role: str) -> NDArray[np.intp]:
    """Positions of the distinct images that had a role, as in `Recognised.places`."""
    places = np.unique(_Index(seen).places(seen.digests))
    found: NDArray[np.intp] = places[seen.roles[places] == ROLES.index(role)]
    return found


def to_tensors(seen: Seen) -> dict[str, NDArray[Any]]:
    """A record as named arrays, for a safetensors file."""
    return {name: np.ascontiguousarray(getattr(seen, name)) for name in _SHAPES}


_SHAPES: Mapping[str, tuple[type, tuple[int, ...]]] = {
    "digests": (np.uint8, (CONTENT_BYTES,)),
    "roles": (np.uint8, ()),
    "places": (np.int64, ()),
    "contents": (np.uint8, (CONTENT_BYTES,)),
    "looks": (np.int8, (LENGTH,)),
    "kinds": (np.uint8, ()),
}


def from_tensors(tensors: Mapping[str, NDArray[Any]], place: str) -> Seen:
    """A record from arrays that may come from anywhere; ``place`` is the model folder.

    ModelError if an array is missing, has another shape or dtype, or refers to positions out of range.
    """
    wrong = [
        name
        for name, (dtype, shape) in _SHAPES.items()
        if name not in tensors or tensors[name].dtype != dtype or tensors[name].shape[1:] != shape
    ]
    if not wrong:
        seen = Seen(**{name: tensors[name] for name in _SHAPES})
        n_images, n_described = len(seen.digests), len(seen.places)
        sizes = [len(seen.contents), len(seen.looks), len(seen.kinds)]
        inside = (
            seen.roles.max(initial=0) < len(ROLES)
            and seen.kinds.max(initial=0) < len(LIMITS)
            and seen.places.min(initial=0) >= 0
            and seen.places.max(initial=-1) < n_images
        )
        if len(seen.roles) == n_images and sizes == [n_described] * 3 and inside:
            return seen
    raise ModelError(
        f"record of learned images of model {place!r} has malformed {', '.join(wrong) or 'sizes'}, expected "
        "the arrays that headstart writes; copy the folder again"
    )


def _share(parts: Sequence[tuple[str, ImageStore]], images: ImageStore) -> int:
    """How many of these images get descriptors, so that all parts together keep to the limit."""
    if not has_pixels(images):
        return 0
    total = sum(len(one) for _, one in parts)
    return len(images) if total <= _MOST_DESCRIBED else len(images) * _MOST_DESCRIBED // total


def _recorded(role: int, images: ImageStore, n_described: int) -> Seen:
    places = np.linspace(0, len(images) - 1, n_described).round().astype(np.intp)
    seen = [
        (preview.contents, describe(preview.thumbs, preview.tiny)) for _, preview in _previews(images, places)
    ]
    return Seen(
        _digests(images),
        np.full(len(images), role, np.uint8),
        places.astype(np.int64),
        np.concatenate([contents for contents, _ in seen] or [np.empty((0, CONTENT_BYTES), np.uint8)]),
        np.concatenate([looks.values for _, looks in seen] or [np.empty((0, LENGTH), np.int8)]),
        np.concatenate([looks.kinds for _, looks in seen] or [np.empty(0, np.uint8)]),
    )


def _joined(parts: Sequence[Seen]) -> Seen:
    """Several records as one."""
    starts = np.cumsum([0, *(len(part.digests) for part in parts)])
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _SHAPES}
    columns["places"] = np.concatenate(
        [part.places + start for part, start in zip(parts, starts[:-1], strict=True)]
    ).astype(np.int64)
    return Seen(**columns)


def _kept(seen: Seen, keep: NDArray[np.bool_]) -> Seen:
    """The record of some of the images."""
    described = keep[seen.places]
    new_places = np.cumsum(keep) - 1
    return Seen(
        seen.digests[keep],
        seen.roles[keep],
        new_places[seen.places[described]].astype(np.int64),
        seen.contents[described],
        seen.looks[described],
        seen.kinds[described],
    )


def _digests(images: ImageStore) -> NDArray[np.uint8]:
    """Digests of files' bytes, or of the pixels of images in memory, (n_images, 16)."""
    if images.pixels is None:
        found = [digest[:CONTENT_BYTES] for digest in images.digests]
    else:
        found = [content_of(image) for image in images.pixels]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, CONTENT_BYTES)


def _previews(images: ImageStore, places: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], _Preview]]:
    """Decode some of the images, chunk by chunk."""
    for start in range(0, len(places), _CHUNK):
        some = places[start : start + _CHUNK]
        yield some, _files(images, some) if images.pixels is None else _array(images.pixels[some])


def _array(pixels: Images) -> _Preview:
    thumbs = np.concatenate([thumbnails(pixels[start : start + 256]) for start in range(0, len(pixels), 256)])
    contents = np.frombuffer(b"".join(content_of(one) for one in pixels), np.uint8).reshape(-1, CONTENT_BYTES)
    return _Preview(contents, thumbs, np.full(len(pixels), max(pixels.shape[1:3]) <= TINY_PX))


def _files(images: ImageStore, places: NDArray[np.intp]) -> _Preview:
    def read(place: int) -> tuple[bytes, Images, bool]:
        with turn():
            try:
                look = images.look(place)
            except (MissingDataError, BrokenDataError):  # training must not fail here
                return (
                    images.digests[place][:CONTENT_BYTES],
                    np.zeros((THUMB_PX, THUMB_PX, 3), np.uint8),
                    False,
                )
            return look.content, look.thumb, look.tiny

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents, thumbs, tiny = zip(*pool.map(read, places.tolist()), strict=True)
    return _Preview(
        np.frombuffer(b"".join(contents), np.uint8).reshape(-1, CONTENT_BYTES),
        np.stack(thumbs),
        np.array(tiny, np.bool_),
    )


class _Index:
    """Finds digests; one that occurs twice in a record has the role that comes first in `_PRECEDENCE`."""

    def __init__(self, seen: Seen) -> None:
        digests = np.concatenate([seen.digests, seen.contents])
        roles = np.concatenate([seen.roles, seen.roles[seen.places]])
        order = np.array([_PRECEDENCE.index(name) for name in ROLES])[roles].argsort(kind="stable")
        self._names, first = np.unique(_keys(digests[order]), return_index=True)
        self._places = np.concatenate([np.arange(len(seen.digests)), seen.places])[order][first]

    def places(self, digests: NDArray[np.uint8]) -> NDArray[np.intp]:
        """Position in the record of each digest, -1 if it is not there."""
        wanted = _keys(digests)
        if not len(self._names):
            return np.full(len(wanted), -1, np.intp)
        place = np.searchsorted(self._names, wanted).clip(max=len(self._names) - 1)
        return np.where(self._names[place] == wanted, self._places[place], -1).astype(np.intp)


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    return np.ascontiguousarray(digests).reshape(-1, CONTENT_BYTES).view(f"S{CONTENT_BYTES}").ravel()
