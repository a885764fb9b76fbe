"""Records of the teaching page: an example, a prediction, and the state of a lesson."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.copies import Parts
from headstart.evaluation.records import Score
from headstart.records import Array

__all__ = ["Example", "Lesson", "LessonPrediction", "has", "listed"]


@dataclass(frozen=True, eq=False)
class Example:
    """One image of a class.

    ``number`` never changes; ``content`` is the image file; ``address`` its thumbnail; ``rows`` are the
    features of the image and its augmented copies, (1 + n_copies, n_features).
    """

    number: int
    label: str
    content: bytes
    digest: bytes
    prepared: NDArray[np.uint8]
    thumb: NDArray[np.uint8]
    tiny: bool
    parts: Parts | None
    address: str
    rows: Array


@dataclass(frozen=True)
class Lesson:
    """What has been learned: ``accuracy`` is None until two classes have two examples each.

    ``wrong`` are the numbers of the examples that are classified wrongly when left out.
    """

    accuracy: Score | None
    wrong: tuple[int, ...]
    remarks: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class LessonPrediction:
    """The predicted class, with the probability of each class, 0 - 1, in the order taught.

    ``novelty`` above 1 means none of these; None that there are too few examples to tell. ``similarity`` to
    the nearest example is a cosine.
    """

    predicted: str
    probabilities: tuple[tuple[str, float], ...]
    novelty: float | None
    nearest: Example
    similarity: float


def listed(names: Sequence[str]) -> str:
    """Names as in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def has(names: Sequence[str]) -> str:
    """The verb after them."""
    return "has" if len(names) == 1 else "have"
