"""Which tap, pooling, head and strength: tried by cross-validation on features that are there already.

In: features by place, and classes. Out: every trial, the best first, and by how much it won.
Must not import a runtime, a graph or a training framework. Called by strategies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from headstart._threads import threads_for
from headstart.data.splits import folds, holdout
from headstart.errors import SettingError, nearest
from headstart.evaluation.compare import paired_difference
from headstart.evaluation.intervals import wilson
from headstart.heads.base import one_hot
from headstart.heads.crossval import HELD_OUT
from headstart.records import Array, Codes, Difference, Score

__all__ = ["MOST_IMAGES", "Choice", "Trial", "alike", "choose", "deciding_images"]

MOST_IMAGES = 1_500  # decompositions grow with the cube of this; more would decide the same
_FEW = 16  # images by which two places are found to be one
_LEAST = 3  # images of a class that folds need, of few as of many


@dataclass(frozen=True)
class Trial:
    """One way to read and fit, with its best strength, and how it did on images left out.

    ``error`` is the mean squared error of its scores, which parts trials of equal accuracy.
    """

    tap: str
    pooling: str
    head: str
    strength: float
    accuracy: Score
    error: float

    @property
    def title(self) -> str:
        """For tables and sentences."""
        return f"{self.head} on {self.tap}, {self.pooling}"


@dataclass(frozen=True)
class Choice:
    """All trials, the best first; how the best compares with the best of another tap, image by image.

    The winner's own accuracy flatters a little: it was picked for it.
    """

    trials: tuple[Trial, ...]
    n_tried: int
    n_images: int
    n_folds: int
    runner_up: Trial | None
    lead: Difference | None
    seconds: float

    @property
    def best(self) -> Trial:
        """The one to take."""
        return self.trials[0]

    @property
    def sentence(self) -> str:
        """Who won, by how much, against whom."""
        won = self.best.accuracy
        said = (
            f"Chosen by {self.n_folds}-fold cross-validation on {self.n_images:,} training images among "
            f"{self.n_tried} ways: {self.best.title} (strength {self.best.strength:g}), "
            f"{won.value:.2%} [{won.low:.2%}, {won.high:.2%}]"
        )
        if self.runner_up is None or self.lead is None:
            return f"{said}."
        lead = self.lead
        return (
            f"{said}, {100 * lead.value:+.2f} points [{100 * lead.low:+.2f}, {100 * lead.high:+.2f}] "
            f"from the best of another place ({self.runner_up.title})."
        )


def choose(
    features: Mapping[tuple[str, str], Array],
    codes: Codes,
    *,
    heads: Sequence[str] = tuple(HELD_OUT),
    n_folds: int = 10,
    seed: int = 0,
) -> Choice:
    """Try every head at every strength on the features of every place.

    Parameters
    ----------
    features : mapping of (tap, pooling) to ndarray of shape (n_images, n_features), float32
        Rows of the same training images.
    codes : ndarray of shape (n_images,), int64
        Their classes; each must have two images.
    heads : sequence of str, default=('ridge', 'kernel', 'neighbours')
        Those whose left-out answers have a closed form.
    n_folds : int, default=10
        At most the images of the smallest class.
    seed : int, default=0
        Decides the folds; of more than 1,500 images, also which are used.

    Returns
    -------
    Choice
        Ranked by accuracy on images left out, then by squared error.

    Raises
    ------
    SettingError
        If there is nothing to try, or a head cannot be judged so.
    DataError
        If a class has one image.

    Notes
    -----
    Exact: a fit without a fold is solved, not approximated; one decomposition for each place and
    kind of head serves all folds and strengths. No randomness but the folds.
    """
    begun = perf_counter()
    for head in heads:
        if head not in HELD_OUT:
            raise SettingError(
                f"head is {head!r}, need one of {', '.join(HELD_OUT)}; {nearest(head, HELD_OUT)}"
            )
    if not features or not heads:
        raise SettingError("there is nothing to choose from, need features and heads; name some")
    used = deciding_images(codes, seed)
    codes = codes[used]
    smallest = int(np.unique(codes, return_counts=True)[1].min())
    parts = folds(codes, max(2, min(n_folds, smallest)), seed)
    numbers = np.empty(len(codes), np.intp)
    for number, (_, held) in enumerate(parts):
        numbers[held] = number
    trials: list[Trial] = []
    right: dict[Trial, NDArray[np.bool_]] = {}
    seen: list[Array] = []
    for (tap, pooling), rows in features.items():
        if any(alike(rows[:_FEW], other) for other in seen):
            continue  # an embedding may be a stage averaged
        seen.append(rows[:_FEW])
        known = np.ascontiguousarray(rows[used], np.float32)
        for head in heads:
            with threads_for(known.size):
                found, hits = _tried(known, codes, numbers, head)
            trials.append(Trial(tap, pooling, head, *found))
            right[trials[-1]] = hits
    trials.sort(key=lambda trial: (-trial.accuracy.value, trial.error))
    best = trials[0]
    elsewhere = [trial for trial in trials if (trial.tap, trial.pooling) != (best.tap, best.pooling)]
    return Choice(
        tuple(trials),
        sum(len(HELD_OUT[trial.head][1]) for trial in trials),
        len(codes),
        len(parts),
        elsewhere[0] if elsewhere else None,
        paired_difference(right[best][None], right[elsewhere[0]][None]) if elsewhere else None,
        perf_counter() - begun,
    )


def deciding_images(codes: Codes, seed: int, most: int = MOST_IMAGES) -> NDArray[np.intp]:
    """The images that a choice is made on: all, or of many a stratified part with 3 of each class.

    Parameters
    ----------
    codes : ndarray of shape (n_images,), int64
        Classes.
    seed : int
        Decides which.
    most : int, default=1500
        How many, a few more where classes are scarce.

    Returns
    -------
    ndarray of int
        Sorted.
    """
    n_classes = int(codes.max()) + 1
    if len(codes) <= most + _LEAST * n_classes:
        return np.arange(len(codes))
    rest, held = holdout(codes, most / len(codes), seed)
    lacking = _LEAST - np.bincount(codes[held], minlength=n_classes)
    more = [rest[codes[rest] == code][: max(lack, 0)] for code, lack in enumerate(lacking)]
    return np.sort(np.concatenate([held, *more]))


def alike(rows: Array, others: Array) -> bool:
    """Whether two places give the same features, up to the rounding of bf16.

    Parameters
    ----------
    rows, others : ndarray of shape (n_images, n_features), float32
        Of the same images: an embedding may be a stage averaged.

    Returns
    -------
    bool
        False where the shapes differ.
    """
    return rows.shape == others.shape and bool(
        np.linalg.norm(rows - others) <= 0.02 * np.linalg.norm(rows - rows.mean(axis=0))
    )


def _tried(
    rows: Array, codes: Codes, numbers: NDArray[np.intp], head: str
) -> tuple[tuple[float, Score, float], NDArray[np.bool_]]:
    """The best strength of a head with its accuracy and error, and which images it got right."""
    scores_of, strengths = HELD_OUT[head]
    scores = scores_of(rows, codes, numbers, strengths)
    right = scores.argmax(axis=2) == codes
    errors = ((scores - one_hot(codes, scores.shape[2])) ** 2).sum(axis=2).mean(axis=1)
    first = int(np.lexsort((errors, -right.mean(axis=1)))[0])
    score = wilson(int(right[first].sum()), len(codes))
    return (strengths[first], score, float(errors[first])), right[first]
