"""Predict image files, folders and globs, batch by batch in the given order; every file is read once."""

from __future__ import annotations

import glob
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.decode import EXTENSIONS
from headstart.data.images.prepare import decode, fit_image
from headstart.data.images.turns import turn
from headstart.errors import MissingDataError
from headstart.models.model import Model, open_model
from headstart.records import Images, InputSpec, Prediction
from headstart.report.columns import aligned

__all__ = [
    "BATCH",
    "FilePredictions",
    "ImagePrediction",
    "UnreadableImage",
    "count_images",
    "find_images",
    "predict_files",
    "predict_images",
    "to_table",
]

T = TypeVar("T")

BATCH = 64
"""Images predicted together. Unreadable ones count, so that only the list of files decides which share a batch."""
_AHEAD = 3 * BATCH  # images being decoded or waiting, already resized
_SHARE = 8  # images a thread takes at a time
# one batch per call left one of two cores idle: 868 instead of 480 ms a batch of MobileNet, 2026-11-21
_TOGETHER_S = 5.0

Ready = tuple[str, NDArray[np.uint8] | str]
"""A path, and its image at the model's input size or the reason why there is none."""


@dataclass(frozen=True)
class ImagePrediction:
    """The prediction for one image file.

    ``classes`` and ``probabilities`` are in descending order of probability. ``name`` is the first class, or
    ``none of these``. ``novelty`` is above 1 for ``none of these``, and None for a model without novelty detection.
    """

    path: str
    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    novelty: float | None = None


@dataclass(frozen=True)
class UnreadableImage:
    """An image file that could not be read, and the reason in one sentence."""

    path: str
    reason: str


@dataclass(frozen=True)
class FilePredictions:
    """Predictions for all files that could be read, and one sentence for each of the others."""

    model: str
    answers: tuple[ImagePrediction, ...]
    faults: tuple[str, ...]


def predict_files(
    model: str, patterns: Sequence[str], *, top: int = 3, runtime_name: str = "openvino"
) -> FilePredictions:
    """Predict every image that the paths name.

    Parameters
    ----------
    model : str
        A model folder.
    patterns : sequence of str
        Files, folders, globs, or ``-`` for a list of paths on stdin.
    top : int, default=3
        Classes per image.
    runtime_name : {'openvino', 'onnxruntime'}, default='openvino'
        What executes the graph.

    Returns
    -------
    FilePredictions
        In the given order. An image that cannot be read is reported in ``faults``; the others are predicted.

    Raises
    ------
    ModelError
        If the model cannot be opened.
    MissingDataError
        If a folder or glob contains no image.
    """
    stream = predict_images(open_model(model), find_images(patterns), top=top, runtime_name=runtime_name)
    found = [one for batch in stream for one in batch]
    return FilePredictions(
        model,
        tuple(one for one in found if isinstance(one, ImagePrediction)),
        tuple(one.reason for one in found if isinstance(one, UnreadableImage)),
    )


def predict_images(
    model: Model, paths: Iterable[str], *, top: int = 3, runtime_name: str = "openvino"
) -> Iterator[list[ImagePrediction | UnreadableImage]]:
    """Predict a stream of image files in lists of `BATCH`, in flat memory; several lists come every few seconds.

    The other images of a batch change an image's probabilities in the last digits; no other image does.
    """
    model.load_runtime(runtime_name)  # before the threads of _prepared start
    batches = _batched(_prepared(paths, model.manifest.input), BATCH)
    for first in batches:  # several per call keep every core busy
        entries: list[list[UnreadableImage | str]] = []
        images = _readable(_batches_in_time(first, batches), entries)
        prediction = model.predict_prepared(images, runtime_name=runtime_name)
        ranked = _ranked(prediction, model.classes, top)
        for batch in entries:
            yield [
                one if isinstance(one, UnreadableImage) else ImagePrediction(one, *next(ranked))
                for one in batch
            ]


def _batches_in_time(first: list[Ready], others: Iterator[list[Ready]]) -> Iterator[list[Ready]]:
    """Batches until `_TOGETHER_S` is over, so that an interruption loses no more than that."""
    until, n_most = perf_counter() + _TOGETHER_S, max(16, 4 * (os.cpu_count() or 1))
    yield first
    for _ in range(n_most - 1):
        if perf_counter() > until or (batch := next(others, None)) is None:
            return
        yield batch


def _readable(batches: Iterable[list[Ready]], entries: list[list[UnreadableImage | str]]) -> Iterator[Images]:
    """The readable images of each batch; the paths of all of them go to ``entries``."""
    for batch in batches:
        entries.append(
            [UnreadableImage(path, ready) if isinstance(ready, str) else path for path, ready in batch]
        )
        good = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
        if good:
            yield np.stack(good)


def _ranked(
    prediction: Prediction, classes: Sequence[str], top: int
) -> Iterator[tuple[str, tuple[str, ...], tuple[float, ...], float | None]]:
    """Name, classes, probabilities and novelty of each image."""
    if not len(prediction.probabilities):
        return
    orders = np.argsort(-prediction.probabilities, axis=1, kind="stable")[:, :top]
    for index, name in enumerate(prediction.names(classes)):
        order, row = orders[index], prediction.probabilities[index]
        novelty = None if prediction.novelty is None else float(prediction.novelty[index])
        yield str(name), tuple(classes[code] for code in order), tuple(map(float, row[order])), novelty


def _prepared(paths: Iterable[str], spec: InputSpec) -> Iterator[Ready]:
    """Read, decode and resize in threads, in order; full-size images exist only inside a thread."""

    def ready(some: list[str]) -> list[Ready]:
        return [(path, _pixels(path, spec)) for path in some]

    waiting: deque[Future[list[Ready]]] = deque()
    shares = _batched(paths, _SHARE)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        while True:
            waiting.extend(pool.submit(ready, one) for one in islice(shares, _AHEAD // _SHARE - len(waiting)))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _pixels(path: str, spec: InputSpec) -> NDArray[np.uint8] | str:
    with turn():
        try:
            image = decode(path)
        except ValueError as error:  # our errors are ValueErrors, and so is that of a null byte in a name
            return " ".join(str(error).split())
        return fit_image(image, spec)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


def find_images(patterns: Sequence[str]) -> Iterator[str]:
    """Stream the image files that paths name: files, folders, globs, or ``-`` for paths on stdin, one a line.

    In the given order, a folder's in the order of names, each file once. A folder that cannot be listed is
    yielded itself, to be reported as unreadable. MissingDataError if a folder or glob contains no image. A single
    folder is listed in flat memory; several paths, a glob or a list cost about 100 bytes an image.
    """
    stream = (path for pattern in patterns for path in _matches(pattern))
    return stream if len(patterns) == 1 and Path(patterns[0]).is_dir() else _unique(stream)


def count_images(patterns: Sequence[str]) -> int:
    """How many images `find_images` will find, at most; those listed on stdin are not counted."""
    return sum(1 for pattern in patterns if pattern != "-" for _ in _matches(pattern))


def _unique(paths: Iterable[str]) -> Iterator[str]:
    seen = set()
    for path in paths:
        key = blake2b(os.fsencode(path), digest_size=16).digest()
        if key not in seen:
            seen.add(key)
            yield path


def _matches(pattern: str) -> Iterator[str]:
    if pattern == "-":
        yield from (str(Path(line)) for line in _listed() if line)
    elif Path(pattern).is_dir():
        yield from _at_least_one(_images_below(str(Path(pattern))), pattern)
    elif glob.has_magic(pattern) and not Path(pattern).exists():
        matches = sorted(glob.glob(pattern, recursive=True))
        yield from _at_least_one((str(Path(found)) for found in matches if Path(found).is_file()), pattern)
    else:
        yield str(Path(pattern))


def _listed() -> Iterator[str]:
    """Lines of stdin; as bytes where possible, because a file name may be in no encoding."""
    lines = getattr(sys.stdin, "buffer", sys.stdin)
    for line in lines:
        yield (os.fsdecode(line) if isinstance(line, bytes) else line).strip()


def _images_below(folder: str) -> Iterator[str]:
    """Images below a folder in sorted order; links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            kept = {
                entry.name: entry.is_dir(follow_symlinks=False) for entry in entries if _is_candidate(entry)
            }
    except OSError:
        yield folder  # reading it as an image reports the reason
        return
    folders = {name for name, is_folder in kept.items() if is_folder}
    names = sorted(kept, reverse=True)
    del kept
    while names:  # from the end, so that memory shrinks while a large folder is read
        name = names.pop()
        path = name if folder == os.curdir else os.path.join(folder, name)
        if name in folders:
            yield from _images_below(path)
        else:
            yield path


def _is_candidate(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or an image, and not hidden: macOS and indexers write hidden files."""
    if entry.name.startswith("."):
        return False
    if entry.is_dir(follow_symlinks=False):
        return True
    return os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file()


def _at_least_one(paths: Iterator[str], pattern: str) -> Iterator[str]:
    first = next(paths, None)
    if first is None:
        raise MissingDataError(
            f"{pattern!r} contains no image, expected an image file, or a folder or glob with images; check the path"
        )
    yield first
    yield from paths


def to_table(found: FilePredictions) -> str:
    """One line per image: the class, its probability, the runners-up, and the novelty where the model has it.

    For ``none of these`` there is no probability, and all classes asked for follow.
    """
    if not found.answers:
        return ""
    has_novelty = any(one.novelty is not None for one in found.answers)
    rows = [["image", "class", "probability", *(["novelty"] if has_novelty else []), "runners-up"]]
    for one in found.answers:
        ranked = [f"{name} {value:.4f}" for name, value in zip(one.classes, one.probabilities, strict=True)]
        is_known = one.name == one.classes[0]
        rows.append(
            [
                _printable(one.path),
                one.name,
                f"{one.probabilities[0]:.4f}" if is_known else "",
                *([f"{one.novelty:.2f}"] if one.novelty is not None else [""] if has_novelty else []),
                ", ".join(ranked[1:] if is_known else ranked),
            ]
        )
    return aligned(rows, left=len(rows[0])) + "\n"


def _printable(path: str) -> str:
    """A name on one line of a terminal: characters that cannot be printed are escaped."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in path)
