"""Predict files, folders and globs: which pictures are meant, what is in each.

In: a model and words from the command line. Out: answers and faults in the order asked, batch by batch.
Reads every file once. Called by predict_batch and the command line.
"""

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
from headstart.data.images.prepare import decode, fit
from headstart.errors import MissingDataError
from headstart.models.model import Model, open_model
from headstart.records import Answered, Images, InputSpec
from headstart.report.columns import aligned

__all__ = [
    "BATCH",
    "Answer",
    "Answers",
    "Unread",
    "answer_images",
    "count_images",
    "find_images",
    "predict_files",
    "to_table",
]

T = TypeVar("T")

BATCH = 64
"""Pictures answered together, those that cannot be read among them: so that the pictures alone, and not
what was read of them, say which share a batch."""
_AHEAD = 3 * BATCH  # pictures being decoded or waiting, small by then
_SHARE = 8  # pictures a thread takes at a time
# one batch a call left one of two cores idle: 868 against 480 ms a batch of MobileNet, 2026-11-21
_TOGETHER_S = 5.0

Ready = tuple[str, NDArray[np.uint8] | str]
"""A path, and its picture at the model's size or why there is none."""


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture.

    Attributes
    ----------
    path : str
        The picture.
    name : str
        The answer: the likeliest class, or ``none of these``.
    classes : tuple of str
        The likeliest first, whatever the answer is.
    probabilities : tuple of float
        One for each of ``classes``.
    novelty : float or None
        How unlike all it learnt from the picture is, above 1 for ``none of these``; None for a model that
        never says so.
    """

    path: str
    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    novelty: float | None = None


@dataclass(frozen=True)
class Unread:
    """A picture that could not be read, and one sentence why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Answers:
    """All answers, and one sentence for every picture that could not be read."""

    model: str
    answers: tuple[Answer, ...]
    faults: tuple[str, ...]


def predict_files(
    model: str, words: Sequence[str], *, top: int = 3, runtime_name: str = "openvino"
) -> Answers:
    """Name what is in every picture that the words mean.

    Parameters
    ----------
    model : str
        A model folder.
    words : sequence of str
        As for `find_images`.
    top : int, default=3
        Classes per picture.
    runtime_name : {'openvino', 'onnxruntime'}, default='openvino'
        What executes the graph.

    Returns
    -------
    Answers
        In the order asked. A picture that cannot be read is a fault and stops no other.

    Raises
    ------
    ModelError
        If the model cannot be opened.
    MissingDataError
        If a word means no picture.
    """
    stream = answer_images(open_model(model), find_images(words), top=top, runtime_name=runtime_name)
    found = [one for batch in stream for one in batch]
    return Answers(
        model,
        tuple(one for one in found if isinstance(one, Answer)),
        tuple(one.reason for one in found if isinstance(one, Unread)),
    )


def answer_images(
    model: Model, paths: Iterable[str], *, top: int = 3, runtime_name: str = "openvino"
) -> Iterator[list[Answer | Unread]]:
    """Answer a stream of pictures batch by batch; memory stays flat.

    Parameters
    ----------
    model : Model
        What answers.
    paths : iterable of str
        Files, asked for a few batches ahead.
    top : int, default=3
        Classes per picture.
    runtime_name : {'openvino', 'onnxruntime'}, default='openvino'
        What executes the graph.

    Yields
    ------
    list of Answer and Unread
        `BATCH` of them in order, fewer in the last; several lists come together, every few seconds. What
        is said of a picture depends on those of its batch in the last digits, and on no other.

    Raises
    ------
    SettingError
        If the runtime is unknown.
    """
    model.load_runtime(runtime_name)  # before the threads of _prepared start
    batches = _batched(_prepared(paths, model.manifest.input), BATCH)
    for first in batches:  # several in one call keep every core busy; few enough to tell of them soon
        said: list[list[Unread | str]] = []
        asked = model.answer_prepared(_read(_for_a_while(first, batches), said), runtime_name=runtime_name)
        answers = _answers(asked, model.classes, top)
        for batch in said:
            yield [one if isinstance(one, Unread) else Answer(one, *next(answers)) for one in batch]


def _for_a_while(first: list[Ready], others: Iterator[list[Ready]]) -> Iterator[list[Ready]]:
    """Batches until some seconds are over, so that an interruption loses no more."""
    until, n_most = perf_counter() + _TOGETHER_S, max(16, 4 * (os.cpu_count() or 1))
    yield first
    for _ in range(n_most - 1):
        if perf_counter() > until or (batch := next(others, None)) is None:
            return
        yield batch


def _read(batches: Iterable[list[Ready]], said: list[list[Unread | str]]) -> Iterator[Images]:
    """The images of each batch; which pictures they are goes to ``said``."""
    for batch in batches:
        said.append([Unread(path, ready) if isinstance(ready, str) else path for path, ready in batch])
        good = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
        if good:
            yield np.stack(good)


def _answers(
    asked: Answered, classes: Sequence[str], top: int
) -> Iterator[tuple[str, tuple[str, ...], tuple[float, ...], float | None]]:
    """Name, classes, probabilities and novelty of each image."""
    if not len(asked.probabilities):
        return
    orders = np.argsort(-asked.probabilities, axis=1, kind="stable")[:, :top]
    for index, name in enumerate(asked.names(classes)):
        order, row = orders[index], asked.probabilities[index]
        novelty = None if asked.novelty is None else float(asked.novelty[index])
        yield str(name), tuple(classes[code] for code in order), tuple(map(float, row[order])), novelty


def _prepared(paths: Iterable[str], spec: InputSpec) -> Iterator[Ready]:
    """Read, decode and fit in threads, in order; whole pictures live only inside a thread."""

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
    try:
        image = decode(path)
    except ValueError as error:  # ours are ValueErrors too, and a name may hold what no file's name can
        return " ".join(str(error).split())
    return fit(image, spec)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


def find_images(words: Sequence[str]) -> Iterator[str]:
    """Find the pictures that words mean, as a stream.

    Parameters
    ----------
    words : sequence of str
        Files, folders (all pictures below that are not hidden), globs, or ``-`` for a list on stdin, one
        path a line.

    Yields
    ------
    str
        Paths in the order asked, a folder's in the order of their names; each once. A folder that cannot
        be listed comes in the place of its pictures, and is a picture that cannot be read.

    Raises
    ------
    MissingDataError
        If a folder or a glob means no picture.

    Notes
    -----
    Of a folder only the names in it and in those above it are held. Several words, a glob or a list cost
    about 100 bytes a picture more, to know it again.
    """
    stream = (path for word in words for path in _meant(word))
    return stream if len(words) == 1 and Path(words[0]).is_dir() else _once(stream)


def count_images(words: Sequence[str]) -> int:
    """How many pictures `find_images` will find, at most; those listed on stdin are not counted.

    Parameters
    ----------
    words : sequence of str
        As for `find_images`, with its errors.
    """
    return sum(1 for word in words if word != "-" for _ in _meant(word))


def _once(paths: Iterable[str]) -> Iterator[str]:
    seen = set()
    for path in paths:
        key = blake2b(os.fsencode(path), digest_size=16).digest()
        if key not in seen:
            seen.add(key)
            yield path


def _meant(word: str) -> Iterator[str]:
    if word == "-":
        yield from (str(Path(line)) for line in _listed() if line)
    elif Path(word).is_dir():
        yield from _some(_below(str(Path(word))), word)
    elif glob.has_magic(word) and not Path(word).exists():
        matches = sorted(glob.glob(word, recursive=True))
        yield from _some((str(Path(found)) for found in matches if Path(found).is_file()), word)
    else:
        yield str(Path(word))


def _listed() -> Iterator[str]:
    """Lines of stdin; as bytes where it has them, for a name may be in no encoding."""
    lines = getattr(sys.stdin, "buffer", sys.stdin)
    for line in lines:
        yield (os.fsdecode(line) if isinstance(line, bytes) else line).strip()


def _below(folder: str) -> Iterator[str]:
    """Pictures below a folder in the order of a sorted list of all; links to folders stay shut."""
    try:
        with os.scandir(folder) as entries:
            kept = {
                entry.name: entry.is_dir(follow_symlinks=False) for entry in entries if _may_matter(entry)
            }
    except OSError:
        yield folder  # reading it as a picture will say what is wrong with it
        return
    folders = {name for name, is_folder in kept.items() if is_folder}
    names = sorted(kept, reverse=True)
    del kept
    while names:  # taken from the end, so that a large folder shrinks while it is worked off
        name = names.pop()
        path = name if folder == os.curdir else os.path.join(folder, name)
        if name in folders:
            yield from _below(path)
        else:
            yield path


def _may_matter(entry: os.DirEntry[str]) -> bool:
    """A folder or a picture that is not hidden: what macOS and indexers leave beside one is no picture."""
    if entry.name.startswith("."):
        return False
    if entry.is_dir(follow_symlinks=False):
        return True
    return os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file()


def _some(paths: Iterator[str], word: str) -> Iterator[str]:
    first = next(paths, None)
    if first is None:
        raise MissingDataError(
            f"{word!r} means no picture, expected a file, a folder or a glob with some; check the path"
        )
    yield first
    yield from paths


def to_table(found: Answers) -> str:
    """A line per picture: the answer, its probability, the runners-up.

    Where the answer is ``none of these`` it has no probability, and all classes asked for follow. A column
    tells of novelty where the model does.
    """
    if not found.answers:
        return ""
    tells = any(one.novelty is not None for one in found.answers)
    rows = [["picture", "class", "probability", *(["novelty"] if tells else []), "runners-up"]]
    for one in found.answers:
        ranked = [f"{name} {value:.4f}" for name, value in zip(one.classes, one.probabilities, strict=True)]
        is_known = one.name == one.classes[0]
        rows.append(
            [
                _shown(one.path),
                one.name,
                f"{one.probabilities[0]:.4f}" if is_known else "",
                *([f"{one.novelty:.2f}"] if one.novelty is not None else [""] if tells else []),
                ", ".join(ranked[1:] if is_known else ranked),
            ]
        )
    return aligned(rows, left=len(rows[0])) + "\n"


def _shown(path: str) -> str:
    """A name on one line of a terminal: what cannot be printed as its escape."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in path)
