"""The linear head: softmax regression with an L2 penalty selected by cross-validation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError
from headstart.heads.base import AffineHead, Watch, log_loss
from headstart.heads.row_blocks import RowBlocks, TrainingBlocks, check_counts, is_large
from headstart.heads.scaling import Standardiser
from headstart.heads.softmax_regression import BlockProblem, RowProblem, Tracker, solve
from headstart.heads.statistics import Survey
from headstart.heads.training import Training
from headstart.records import Array
from headstart.system.mapped import taken

__all__ = ["LinearHead"]

Parts = list[tuple[NDArray[np.intp], NDArray[np.intp]]]

_STRENGTHS = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4)
_FALLBACK = 0.1  # where a class has one image, and nothing can be held out
_MANY = 5_000  # images from which one held-out tenth is as informative as folds
_ENOUGH = 10_000  # images that decide the strength, which is a prior's precision: more do not change it
_SEARCH, _FINAL = 1e-3, 1e-5  # where a solve stops: the largest gradient, in whitened coordinates
_START = 1e-4  # the same for a sample, from whose solution many rows are started
_NOISE = 0.2  # of the standard error of the gradient, 1 / sqrt(n_rows) in whitened coordinates
_SAMPLE_VALUES = 2**24  # 64 MiB: of 512 features 32,768 rows


class LinearHead(AffineHead):
    """Softmax regression: summed cross-entropy plus ``strength / 2`` times the squared weights.

    ``strengths`` are for standardised features of squared length near 1; a single one is used without a
    search. They are tried from strong to weak, each started from the last solution, until the held-out loss
    has risen twice. From 5,000 images on, one stratified tenth is held out instead of ``n_folds`` folds, and
    of more than 10,000 images a stratified 10,000 decide. With fewer images than features the problem is
    solved in the span of the images, with the same solution (the penalty keeps weights in that span) and
    n_images unknowns. From 512 MiB of features on, rows are read block by block for every evaluation.

    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(40, 3)).astype(np.float32) + np.repeat([[0.0], [4.0]], 20, axis=0)
    >>> head = LinearHead().fit(features, np.repeat(["ant", "bee"], 20))
    >>> head.predict(features[[0, 39]]).tolist()
    ['ant', 'bee']
    """

    name = "linear"

    def __init__(self, strengths: tuple[float, ...] = _STRENGTHS, n_folds: int = 5) -> None:
        if not strengths or min(strengths) <= 0:
            raise SettingError(f"strengths are {strengths!r}, expected at least one and all above 0")
        self.strengths, self.n_folds = tuple(sorted(strengths, reverse=True)), n_folds

    def _fit(self, training: Training, watch: Watch | None) -> None:
        if is_large(*training.features.shape):
            few, parts = _decisive(training, self._parts(training))
            self._learn(TrainingBlocks(training), few, parts, watch)
            return
        standardise = Standardiser.of(training.features)
        standard = standardise(training.features)
        span = _Span.of(standard)
        training = replace(training, features=span.inside(standard))
        strength, near = self._choose(training, self._parts(training))
        tracker = None
        if watch is not None:
            held, held_codes = self._watched(watch)
            tracker = Tracker(span.inside(standardise(held)), held_codes)
        zero = np.zeros_like(near)  # so that the curve starts at zero weights
        solution = solve(RowProblem.of(training, strength), zero, _FINAL, pivot=near, tracker=tracker)
        self.chosen_ = {"strength": strength}
        self.curve_ = tracker.curve() if tracker else None
        self.weight_, self.bias_ = standardise.fold(span.outside(solution[:-1]), solution[-1])

    def _fit_blocks(self, blocks: RowBlocks, watch: Watch | None) -> None:
        self._learn(blocks, None, [], watch)

    def _learn(self, blocks: RowBlocks, few: Training | None, parts: Parts, watch: Watch | None) -> None:
        """From blocks of rows, of which ``few`` decide the strength; without these, a sample does.

        The first pass finds the scales and a sample, which is solved in memory: the first part of the curve. From
        there on every evaluation is a pass. It ends where the gradient is a fifth of its standard error or less.
        """
        survey = Survey.collected(blocks, blocks.n_classes, _SAMPLE_VALUES)
        check_counts(survey.counts, self.classes_)
        standardise = Standardiser.of_moments(survey.mean, survey.variance, survey.n_rows)
        if few is None:
            few = survey.sample.training(blocks.seed)
            parts = self._parts(few)
        strength, near = self._choose(replace(few, features=standardise(few.features)), parts)
        if near.shape[1] != blocks.n_classes:  # the sample lacks a class
            near = np.zeros((len(near), blocks.n_classes))
        sample = survey.sample.standardised(standardise)
        weights = sample.represented.astype(np.float32) if blocks.weighted else None
        penalty = strength / survey.n_rows
        tracker = None
        if watch is not None:
            held, held_codes = self._watched(watch)
            tracker = Tracker(standardise(held), held_codes)
        small = RowProblem(sample.rows, sample.codes, weights, penalty)
        start = solve(small, np.zeros_like(near), _START, pivot=near, tracker=tracker)
        tolerance = max(_FINAL, _NOISE / np.sqrt(survey.n_rows))
        problem = BlockProblem(blocks, standardise, penalty, sample.rows)
        solution = solve(problem, start, tolerance, tracker=tracker)
        self.chosen_ = {"strength": strength}
        self.curve_ = tracker.curve() if tracker else None
        self.weight_, self.bias_ = standardise.fold(solution[:-1], solution[-1])

    def _choose(self, training: Training, parts: Parts) -> tuple[float, NDArray[np.float64]]:
        """The strength with the least held-out loss, and a point near its solution."""
        zero = np.zeros((training.features.shape[1] + 1, training.n_classes))
        if not parts:
            return min(self.strengths, key=lambda value: abs(np.log(value / _FALLBACK))), zero
        starts = [zero] * len(parts)
        best, rises = (np.inf, self.strengths[0], zero), 0
        for strength in self.strengths:
            loss = 0.0
            for fold, (learn, held) in enumerate(parts):
                starts[fold] = solve(RowProblem.of(training, strength, learn), starts[fold], _SEARCH)
                logits = training.features[held] @ starts[fold][:-1] + starts[fold][-1]
                loss += log_loss(logits, training.codes[held], training.weights[held]) / len(parts)
            rises = rises + 1 if loss > best[0] else 0
            if loss < best[0]:
                best = loss, strength, starts[0]
            if rises == 2:
                break
        return best[1], best[2]

    def _parts(self, training: Training) -> Parts:
        """Pairs of rows to learn from and originals to evaluate on; none where nothing is selected or held out."""
        if len(self.strengths) == 1 or training.smallest_class < 2:
            return []
        n_images = len(training.originals)
        if n_images < _MANY:
            return training.folded(min(self.n_folds, training.smallest_class))
        learn, held = training.split(max(0.1, 1 - _ENOUGH / n_images))
        if n_images > _ENOUGH:  # evenly: rows may be sorted by class
            held = held[np.linspace(0, len(held) - 1, min(len(held), _ENOUGH // 9)).astype(np.intp)]
        return [(learn, held)]


def _decisive(training: Training, parts: Parts) -> tuple[Training, Parts]:
    """Only the rows that decide the strength, and the same parts of them."""
    rows = (
        np.unique(np.concatenate([one for pair in parts for one in pair]))
        if parts
        else training.originals[:1]
    )
    few = Training(
        taken(training.features, rows),
        training.codes[rows],
        training.weights[rows],
        training.images[rows],
        training.seed,
        None if training.clusters is None else training.clusters[rows],
    )
    inner = [(np.searchsorted(rows, learn), np.searchsorted(rows, held)) for learn, held in parts]
    return few, inner


@dataclass(frozen=True)
class _Span:
    """An orthonormal basis (n_features, rank) of the span of the rows; None is the whole space."""

    basis: NDArray[np.float64] | None

    @classmethod
    def of(cls, rows: Array) -> _Span:
        if len(rows) >= rows.shape[1]:
            return cls(None)
        exact = rows.astype(np.float64)
        values, vectors = np.linalg.eigh(exact @ exact.T)  # (n, n)
        kept = values > values[-1] * 1e-10
        if not kept.any():  # constant features span nothing
            return cls(None)
        return cls(exact.T @ (vectors[:, kept] / np.sqrt(values[kept])))

    def inside(self, rows: Array) -> Array:
        return rows if self.basis is None else (rows @ self.basis).astype(np.float32)

    def outside(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return weight if self.basis is None else self.basis @ weight
