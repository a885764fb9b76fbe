"""Predict image files, batch by batch in the given order; every file is read once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.data.contents.protocol import Unread
from headstart.data.files import read_bytes
from headstart.data.images.fit import fit_bytes
from headstart.data.images.turns import turn
from headstart.data.readers.image_files import OtherFiles, find_images
from headstart.errors import FetchError
from headstart.models.answer_sets import AnswerSets, answer_sets
from headstart.models.model import Model, open_model
from headstart.models.novelty_rate import NoveltyRate
from headstart.records import Images, InputSpec, Prediction
from headstart.report.columns import aligned
from headstart.system.threads import reading_threads

__all__ = [
    "BATCH",
    "FilePredictions",
    "ImagePrediction",
    "UnreadableImage",
    "predict_files",
    "predict_images",
    "predict_inputs",
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
Input = tuple[str, Callable[[], bytes]]
"""The name of an image, and a function that reads its bytes."""


@dataclass(frozen=True)
class ImagePrediction:
    """The prediction for one image file.

    ``classes`` and ``probabilities`` are in descending order of probability. ``name`` is the first class, or
    ``none of these``. ``novelty`` is above 1 for ``none of these``, and None for a model without novelty detection.
    ``answer_set`` are the classes that the image may have at the level of answer sets that was given, if any.
    """

    path: str
    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    novelty: float | None = None
    answer_set: tuple[str, ...] | None = None


@dataclass(frozen=True)
class UnreadableImage:
    """An image file that could not be read, and the reason in one sentence."""

    path: str
    reason: str


@dataclass(frozen=True)
class FilePredictions:
    """Predictions for all files that could be read, and one sentence for each of the others.

    ``others`` are files in folders that are not images; ``remark`` says why all answer sets hold all classes.
    """

    model: str
    answers: tuple[ImagePrediction, ...]
    faults: tuple[str, ...]
    others: OtherFiles = field(default_factory=OtherFiles)
    remark: str | None = None


def predict_files(
    model: str | os.PathLike[str] | Model,
    patterns: Sequence[str],
    *,
    top: int = 3,
    runtime_name: str = "openvino",
    novelty_rate: NoveltyRate = None,
    sets: float | None = None,
) -> FilePredictions:
    """Predict every image that the paths name.

    Parameters
    ----------
    model : str, path or Model
        A model folder, or a model.
    patterns : str, path or sequence of str
        Files, folders, globs, or ``-`` for a list of paths on stdin.
    top : int, default=3
        Classes per image.
    runtime_name : {'openvino', 'onnxruntime'}, default='openvino'
        What executes the graph.
    novelty_rate : float or 'off', optional
        As for `Model.with_novelty_rate`.
    sets : float, optional
        Level of answer sets, such as 0.95: also give the classes that each image may have, as `Model.answer_sets`.

    Returns
    -------
    FilePredictions
        In the given order. An image that cannot be read is reported in ``faults``; the others are predicted.

    Raises
    ------
    ModelError
        If the model cannot be opened, or stores nothing to set another rate or sets from.
    MissingDataError
        If a folder or glob contains no image.
    """
    some = [patterns] if isinstance(patterns, str | os.PathLike) else patterns
    opened = model if isinstance(model, Model) else open_model(model)
    opened = opened.with_novelty_rate(novelty_rate)
    rule = None if sets is None else answer_sets(opened.manifest, sets)
    others = OtherFiles()
    paths = find_images([os.fspath(one) for one in some], others)
    stream = predict_images(opened, paths, top=top, runtime_name=runtime_name, rule=rule)
    found = [one for batch in stream for one in batch]
    return FilePredictions(
        opened.manifest.name if isinstance(model, Model) else os.fspath(model),
        tuple(one for one in found if isinstance(one, ImagePrediction)),
        tuple(one.reason for one in found if isinstance(one, UnreadableImage)),
        others,
        None if rule is None else rule.remark,
    )


def predict_images(
    model: Model,
    paths: Iterable[str],
    *,
    top: int = 3,
    runtime_name: str = "openvino",
    rule: AnswerSets | None = None,
) -> Iterator[list[ImagePrediction | UnreadableImage]]:
    """Predict a stream of image files in lists of `BATCH`, in flat memory; several lists come every few seconds.

    The other images of a batch change an image's probabilities in the last digits; no other image does.
    """
    inputs = ((path, partial(read_bytes, Path(path))) for path in paths)
    return predict_inputs(model, inputs, top=top, runtime_name=runtime_name, rule=rule)


def predict_inputs(
    model: Model,
    inputs: Iterable[Input],
    *,
    top: int = 3,
    runtime_name: str = "openvino",
    rule: AnswerSets | None = None,
) -> Iterator[list[ImagePrediction | UnreadableImage]]:
    """As `predict_images`, of images by their names and how they are read."""
    model.load_runtime(runtime_name)  # before the threads of _prepared start
    batches = _batched(_prepared(inputs, model.manifest.input), BATCH)
    for first in batches:  # several per call keep every core busy
        entries: list[list[UnreadableImage | str]] = []
        images = _readable(_batches_in_time(first, batches), entries)
        prediction = model.predict_prepared(images, runtime_name=runtime_name)
        ranked = _ranked(prediction, model.classes, top, rule)
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
    prediction: Prediction, classes: Sequence[str], top: int, rule: AnswerSets | None
) -> Iterator[tuple[str, tuple[str, ...], tuple[float, ...], float | None, tuple[str, ...] | None]]:
    """Name, classes, probabilities, novelty and answer set of each image."""
    if not len(prediction.probabilities):
        return
    orders = np.argsort(-prediction.probabilities, axis=1, kind="stable")[:, :top]
    sets = None if rule is None else rule.names(prediction.probabilities, classes)
    for index, name in enumerate(prediction.names(classes)):
        order, row = orders[index], prediction.probabilities[index]
        novelty = None if prediction.novelty is None else float(prediction.novelty[index])
        yield (
            str(name),
            tuple(classes[code] for code in order),
            tuple(map(float, row[order])),
            novelty,
            None if sets is None else sets[index],
        )


def _prepared(inputs: Iterable[Input], spec: InputSpec) -> Iterator[Ready]:
    """Read, decode and resize in threads, in order; full-size images exist only inside a thread."""

    def ready(some: list[Input]) -> list[Ready]:
        return [(name, _pixels(name, read, spec)) for name, read in some]

    waiting: deque[Future[list[Ready]]] = deque()
    shares = _batched(inputs, _SHARE)
    pool = ThreadPoolExecutor(reading_threads())
    try:
        while True:
            waiting.extend(pool.submit(ready, one) for one in islice(shares, _AHEAD // _SHARE - len(waiting)))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _pixels(name: str, read: Callable[[], bytes], spec: InputSpec) -> NDArray[np.uint8] | str:
    """The image; the reason where it cannot be read, but for a network that fails: that is no fault of the image."""
    with turn():
        try:
            return fit_bytes(read(), name, spec, spec.depth_bits)
        except FetchError:
            raise
        except Unread as error:
            return (
                f"image {name!r} cannot be read ({error.reason}), expected a readable image; {error.advice}"
            )
        except ValueError as error:  # our errors are ValueErrors, and so is that of a null byte in a name
            return " ".join(str(error).split())


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


def to_table(found: FilePredictions) -> str:
    """One line per image: the class, its probability, answer set and novelty where there is one, the runners-up.

    For ``none of these`` there is no probability, and the most probable classes follow.
    """
    if not found.answers:
        return ""
    has_novelty = any(one.novelty is not None for one in found.answers)
    has_sets = any(one.answer_set is not None for one in found.answers)
    extra = [*(["answer set"] if has_sets else []), *(["novelty"] if has_novelty else [])]
    rows = [["image", "class", "probability", *extra, "runners-up"]]
    for one in found.answers:
        ranked = [f"{name} {value:.4f}" for name, value in zip(one.classes, one.probabilities, strict=True)]
        is_known = one.name == one.classes[0]
        rows.append(
            [
                one.path,
                one.name,
                f"{one.probabilities[0]:.4f}" if is_known else "",
                *([" or ".join(one.answer_set or ())] if has_sets else []),
                *([f"{one.novelty:.2f}"] if one.novelty is not None else [""] if has_novelty else []),
                ", ".join(ranked[1:] if is_known else ranked),
            ]
        )
    return aligned(rows, left=len(rows[0])) + "\n"
