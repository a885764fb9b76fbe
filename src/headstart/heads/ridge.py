"""Ridge regression: least squares on class indicators, the strength selected by exact held-out scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Self

from headstart.errors import SettingError, ShapeError
from headstart.heads.base import AffineHead, Watch
from headstart.heads.folded_least_squares import FoldedLeastSquares
from headstart.heads.held_out import HeldOut
from headstart.heads.least_squares import LeastSquares
from headstart.heads.moments import Moments
from headstart.heads.row_blocks import RowBlocks, TrainingBlocks, check_counts, is_large
from headstart.heads.scaling import Standardiser
from headstart.heads.statistics import RowStatistics
from headstart.heads.strengths import STRENGTHS, chosen_of_folds, chosen_setting, held_out_at
from headstart.heads.training import Training, one_hot
from headstart.system.threads import threads_for

__all__ = ["RidgeHead"]


class RidgeHead(AffineHead):
    """Ridge regression on one-hot targets; probabilities by a temperature on its scores.

    ``strengths``, penalties per image on standardised features, are compared by leave-one-out squared error:
    one eigendecomposition of the smaller Gram matrix gives the residuals (y - f) / (1 - h) at every strength,
    exactly. The temperature is fitted to the leave-one-out scores. Where rows come in clusters, folds of
    whole clusters are left out instead, also exactly. From 512 MiB of features on, folds are left out, from
    statistics of rows that are read block by block.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(40, 3)).astype(np.float32) + np.repeat([[0.0], [4.0]], 20, axis=0)
    >>> head = RidgeHead().fit(features, np.repeat(["ant", "bee"], 20))
    >>> head.predict(features[[0, 39]]).tolist()
    ['ant', 'bee']
    """

    name = "ridge"

    def __init__(self, strengths: tuple[float, ...] = STRENGTHS) -> None:
        if not strengths or min(strengths) <= 0:
            raise SettingError(f"strengths are {strengths!r}, expected at least one and all above 0")
        self.strengths = tuple(strengths)

    def _fit(self, training: Training, watch: Watch | None) -> None:
        if is_large(*training.features.shape):
            self._fit_blocks(TrainingBlocks(training), watch)
            return
        standardise, problem = self._problem(training)
        setting, temperature = chosen_setting(self.held_out(training, problem), training)
        weight, bias = problem.solution(setting["strength"])
        self.chosen_ = {**setting, "temperature": temperature}
        self.weight_, self.bias_ = standardise.fold(weight * temperature, bias * temperature)

    def _fit_blocks(self, blocks: RowBlocks, watch: Watch | None) -> None:
        statistics = RowStatistics.collected(blocks, blocks.n_classes)
        check_counts(statistics.counts, self.classes_)
        self._learn(statistics)

    def fit_statistics(self, statistics: RowStatistics, classes: Sequence[str]) -> Self:
        """Learn from statistics of rows, which several processes may have made and added up.

        Parameters
        ----------
        statistics : RowStatistics
            As `heads.statistics.row_statistics` makes them.
        classes : sequence of str
            Names of the classes, in the order in which the statistics were made.

        Returns
        -------
        RidgeHead
            Itself; as if fitted on the rows themselves.

        Raises
        ------
        ShapeError
            If the statistics have another number of classes.
        UnknownClassError
            If a class has no row.
        """
        if len(classes) != len(statistics.counts):
            raise ShapeError(
                f"classes are {len(classes)}, expected {len(statistics.counts)} as in the statistics; pass the "
                "classes that they were made with"
            )
        check_counts(statistics.counts, classes)
        self.classes_, self.chosen_, self.curve_ = tuple(classes), {}, None
        with threads_for(statistics.sample.rows.size):
            self._learn(statistics)
        return self

    def _learn(self, statistics: RowStatistics) -> None:
        """From folds instead of one image left out at a time: of many images the errors are the same."""
        whole = statistics.whole()
        standardise = Standardiser.of_moments(whole.plain_mean, whole.variance, whole.n_rows)
        del whole  # 200 MiB of 5,120 features
        scaled = partial(Moments.scaled, mean=standardise.mean, scale=standardise.scale)
        problem = FoldedLeastSquares(statistics, scaled)
        rows = standardise(statistics.sample.rows)
        setting, temperature = chosen_of_folds(problem, statistics.sample, rows, self.strengths)
        weight, bias = problem.solution(setting["strength"])
        self.chosen_ = {**setting, "temperature": temperature}
        self.weight_, self.bias_ = standardise.fold(weight * temperature, bias * temperature)

    def _problem(self, training: Training) -> tuple[Standardiser, LeastSquares]:
        standardise = Standardiser.of(training.features)
        targets = one_hot(training.codes, training.n_classes)
        return standardise, LeastSquares(standardise(training.features), targets, training.weights)

    def held_out(self, training: Training, problem: LeastSquares | None = None) -> HeldOut | None:
        """Scores at every strength, exactly: see `LeastSquares.left_out`."""
        if training.smallest_class < 2:
            return None
        return held_out_at(problem or self._problem(training)[1], training, self.strengths)
