"""The images that features were computed from, where they are still there and as they were."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.looks import content_digest
from headstart.data.depth import SharedDepth
from headstart.data.embedded.images import DescribedImages
from headstart.data.embedded.parts import Rows
from headstart.data.embedded.record import FeatureRecord
from headstart.data.files import read_bytes
from headstart.data.readers.catalog import KNOWN
from headstart.data.stores import ArrayImages, FileImages, ImageStore
from headstart.errors import HeadstartError

__all__ = ["found_images"]


def found_images(record: FeatureRecord, rows: Rows, home: Path) -> ImageStore:
    """The files that the rows name, or the images of a named dataset; else a store without pixels.

    Relative paths are looked for in the working directory, then next to the features. Every file is read once, to
    compare its digest.
    """
    shape, bits = record.data.image_shape, record.data.depth_bits
    if shape is None:
        found = _files(rows, home, bits)
    else:
        found = _in_memory(record, rows)
    if not isinstance(found, str):
        return found
    sides = None if shape is None else (shape[0], shape[1], shape[2])
    return DescribedImages(rows.names, rows.digests, found, sides, bits)


def _files(rows: Rows, home: Path, bits: int | None) -> ImageStore | str:
    """The files, or why they cannot be used."""
    names = rows.names.tolist()
    paths = [_place(name, home) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    there = [path for path in paths if path is not None]
    if missing:
        return _reason(len(missing), len(paths), "not there", missing[0])
    digests = [row.tobytes() for row in rows.digests]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        same = pool.map(_is_same, there, digests)
        changed = [path for path, is_same in zip(there, same, strict=True) if not is_same]
    if changed:
        return _reason(len(changed), len(paths), "not as they were", str(changed[0]))
    return FileImages(there, digests, SharedDepth.known(bits))


def _reason(number: int, total: int, what: str, example: str) -> str:
    return f"{number:,} of {total:,} image files are {what}, such as {example!r}"


def _place(name: str, home: Path) -> Path | None:
    for path in (Path(os.path.expanduser(name)), home / name):
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):  # a name that no file can have
            return None
    return None


def _is_same(path: Path, digest: bytes) -> bool:
    try:
        return hashlib.sha256(read_bytes(path)).digest() == digest
    except HeadstartError:
        return False


def _in_memory(record: FeatureRecord, rows: Rows) -> ImageStore | str:
    """The images of a named dataset that is on this machine, or why there are none."""
    name = record.data.name.partition(":")[0]
    if name not in KNOWN:
        return "they were in memory, not in files"
    try:
        pixels = KNOWN[name].read(name, ("train", "test"), False).images.pixels
    except HeadstartError as error:
        return f"dataset {name} cannot be read: {error}"
    if pixels is None:
        return f"dataset {name} has no images in memory"
    places = _places([content_digest(image) for image in pixels], rows.digests)
    if places is None:
        return f"dataset {name} has other images"
    return ArrayImages(pixels[places])


def _places(known: Sequence[bytes], wanted: NDArray[np.uint8]) -> NDArray[np.intp] | None:
    """Where each digest is among the known ones; None if one is not."""
    index = {digest: place for place, digest in enumerate(known)}
    found = [index.get(row.tobytes(), -1) for row in wanted]
    return None if -1 in found else np.array(found, np.intp)
