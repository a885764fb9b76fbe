"""Predict files, folders and globs: which pictures are meant, what is in each.

In: a model folder and words from the command line. Out: answers in the order asked, and faults.
Called by the command line.
"""

from __future__ import annotations

import csv
import glob
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.pixels import EXTENSIONS, fault_in
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError, MissingDataError
from headstart.model import Model, open_model
from headstart.tables import aligned

__all__ = ["Answer", "Answers", "predict_files", "to_csv", "to_table"]


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture: classes and probabilities, the likeliest first."""

    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


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
        Files, folders (all pictures below), globs, or ``-`` for a list on stdin, one path a line.
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
    opened = open_model(model)
    good: list[Path] = []
    faults = []
    for path in dict.fromkeys(_meant(words)):
        fault = _fault(path)
        if fault is None:
            good.append(path)
        else:
            faults.append(fault)
    return Answers(model, tuple(_answers(opened, good, top, runtime_name)), tuple(faults))


def _answers(model: Model, paths: Sequence[Path], top: int, runtime_name: str) -> Iterable[Answer]:
    if not paths:
        return
    # labels are not known here, and not looked at
    dataset = Dataset("pictures", FileImages(paths), np.full(len(paths), model.classes[0]), model.classes)
    probs = model.probabilities(dataset, runtime_name=runtime_name)
    for path, row in zip(paths, probs, strict=True):
        order = np.argsort(-row, kind="stable")[:top]
        yield Answer(
            str(path), tuple(model.classes[code] for code in order), tuple(float(row[code]) for code in order)
        )


def _meant(words: Sequence[str]) -> Iterable[Path]:
    for word in words:
        if word == "-":
            yield from (Path(line.strip()) for line in sys.stdin if line.strip())
        elif Path(word).is_dir():
            yield from _some(sorted(path for path in Path(word).rglob("*") if _is_picture(path, word)), word)
        elif glob.has_magic(word) and not Path(word).exists():
            yield from _some(
                [Path(found) for found in sorted(glob.glob(word, recursive=True)) if Path(found).is_file()],
                word,
            )
        else:
            yield Path(word)


def _is_picture(path: Path, home: str) -> bool:
    """A picture file that is not hidden: what macOS and indexers leave beside one is no picture."""
    hidden = any(part.startswith(".") for part in path.relative_to(home).parts)
    return not hidden and path.suffix.lower() in EXTENSIONS and path.is_file()


def _some(paths: list[Path], word: str) -> list[Path]:
    if not paths:
        raise MissingDataError(
            f"{word!r} means no picture, need a file, a folder or a glob with some; check the path"
        )
    return paths


def _fault(path: Path) -> str | None:
    """One sentence, or None if the picture can be read."""
    try:
        reason = fault_in(FileImages([path]).read(0))
    except (MissingDataError, BrokenDataError) as error:
        return str(error)
    return (
        None
        if reason is None
        else f"picture {str(path)!r} cannot be read ({reason}), need a whole picture file; "
        "check it or leave it out"
    )


def to_table(found: Answers) -> str:
    """A line per picture: the class, its probability, the runners-up."""
    if not found.answers:
        return ""
    rows = [["picture", "class", "probability", "runners-up"]]
    rows += [
        [
            one.path,
            one.classes[0],
            f"{one.probabilities[0]:.4f}",
            ", ".join(
                f"{name} {value:.4f}"
                for name, value in zip(one.classes[1:], one.probabilities[1:], strict=True)
            ),
        ]
        for one in found.answers
    ]
    return aligned(rows, left=4) + "\n"


def to_csv(found: Answers) -> str:
    """The same as comma-separated lines with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    width = max((len(one.classes) for one in found.answers), default=1)
    writer.writerow(
        ["path", *(f"{what}_{rank}" for rank in range(1, width + 1) for what in ("class", "probability"))]
    )
    for one in found.answers:
        writer.writerow(
            [one.path, *(cell for pair in zip(one.classes, one.probabilities, strict=True) for cell in pair)]
        )
    return text.getvalue()
