"""The result table: every strategy at every budget on the same splits, compared with the controls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.errors import DataError
from headstart.evaluation.clusters import accuracy_score, cluster_remark, clustered_difference, repeated
from headstart.evaluation.compare import holm, paired_difference, redrawn_difference, verdict
from headstart.evaluation.power import images_to_settle
from headstart.evaluation.records import Difference
from headstart.evaluation.resampled import resampled_difference
from headstart.records import Array
from headstart.report.records import Comparison, Row
from headstart.strategies.fits import Strategy
from headstart.system.processes import run_in_process
from headstart.system.progress import SILENT, Progress
from headstart.workflows.comparison.protocol import Protocol, TrainTest, rounds_of, smallest_class
from headstart.workflows.comparison.verdict import PROBE, labels_text, sentences

__all__ = ["Table", "difference_of", "run_table"]


@dataclass(frozen=True)
class Table:
    """Rows, comparisons and sentences.

    ``predictions`` are the probabilities of each strategy, (n_test, n_classes), at the largest budget in the first
    round.
    """

    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    verdict: str
    remarks: tuple[str, ...]
    predictions: Mapping[str, Array] = field(default_factory=dict)

    @property
    def probabilities(self) -> Array | None:
        """The predictions of the probe."""
        return self.predictions.get(PROBE)


@dataclass(frozen=True)
class _Cell:
    """One strategy at one budget: which predictions are right, (n_rounds, n_test), and the splits."""

    right: NDArray[np.bool_]
    seconds: float
    rounds: Sequence[Sequence[TrainTest]]
    first: Array


def run_table(
    strategies: Mapping[str, Strategy],
    pool: Dataset,
    test: Dataset,
    protocol: Protocol,
    *,
    progress: Progress = SILENT,
    in_processes: Collection[str] = (),
) -> Table:
    """Run every strategy at every budget on the same splits, and compare the probe with each control.

    ``strategies`` must contain ``probe`` (else `DataError`). ``pool`` and ``test`` are one dataset when
    cross-validated. Budgets larger than the smallest class are left out with a remark. Strategies named in
    ``in_processes`` run in other processes, one core each: for small networks on few images. Intervals are
    Wilson's at 95 %, clustered where images have groups; p-values are corrected by Holm over all comparisons.
    """
    if PROBE not in strategies:
        raise DataError(f"strategies are {', '.join(strategies) or 'none'}, expected one called {PROBE!r}")
    possible, remarks = _possible(pool, protocol)
    codes, cells = test.codes(pool.classes), {}
    controls = [name for name in strategies if name not in (PROBE, *protocol.shown)]
    rounds_by_budget = rounds_of(pool, len(test), possible, protocol)
    background = {
        (name, budget): [
            run_in_process(_round, strategies[name], splits_of_round, codes, protocol.seed + number)
            for number, splits_of_round in enumerate(rounds)
        ]
        for budget, rounds in reversed(rounds_by_budget.items())  # the longest first
        for name in strategies
        if name in in_processes and name not in protocol.redrawn
    }
    for budget, rounds in rounds_by_budget.items():
        for name, strategy in strategies.items():
            if (name, budget) not in background:
                progress.step(f"{name}, {labels_text(budget)}", 0, len(rounds))
                again = protocol.networks if name in protocol.redrawn and len(rounds) == 1 else 1
                seeds = range(protocol.seed, protocol.seed + len(rounds) * again)
                tried = [
                    _round(strategy, splits_of_round, codes, seed)
                    for seed, splits_of_round in zip(seeds, list(rounds) * again, strict=True)
                ]
                cells[name, budget] = _cell(tried, list(rounds) * again)
    for (name, budget), waits in background.items():
        progress.step(f"{name}, {labels_text(budget)}", 0, len(waits))
        cells[name, budget] = _cell([wait() for wait in waits], rounds_by_budget[budget])
    cells = {(name, budget): cells[name, budget] for budget in rounds_by_budget for name in strategies}
    groups = test.cluster_codes if repeated(test.cluster_codes) else None
    rows = tuple(
        _row(name, budget, cell, groups, crossed=protocol.crossed) for (name, budget), cell in cells.items()
    )
    budgets = [*possible, *([None] if protocol.with_all else [])]
    pairs = [(PROBE, control) for control in controls]
    pairs += [pair for pair in protocol.pairs if set(pair) <= set(strategies)]
    comparisons = _compare(cells, pairs, budgets, protocol, groups) if pairs else ()
    lines = sentences(rows, comparisons, len(pool))
    remark = None if groups is None else cluster_remark(groups, test.labels)
    remarks = (*lines[1:], *remarks, *([remark] if remark else ()))
    predictions = {name: cells[name, budgets[-1]].first for name in strategies}
    return Table(rows, comparisons, lines[0], remarks, predictions)


def _possible(pool: Dataset, protocol: Protocol) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Budgets that every split can fill, and a remark on each of the others."""
    smallest = smallest_class(pool, protocol)
    # without folds, the size of the smallest class is excluded: it is nearly the budget of all labels
    fits = [size for size in protocol.labels_per_class if size < smallest + protocol.crossed]
    left = tuple(
        f"{size} labels per class were requested; the smallest class has {smallest} images, "
        "so this number of labels is left out."
        for size in protocol.labels_per_class
        if size not in fits
    )
    return tuple(fits), left


def _round(
    strategy: Strategy, splits_of_round: Sequence[TrainTest], codes: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.bool_], float, Array]:
    """Which predictions are right in one round, (n_test,); seconds; probabilities."""
    begun, right = perf_counter(), np.zeros(len(codes), np.bool_)
    probabilities: Array | None = None
    for part in splits_of_round:
        probs = strategy(part.train, part.test, seed)
        right[part.test] = probs.argmax(axis=1) == codes[part.test]
        probabilities = (
            np.zeros((len(codes), probs.shape[1]), np.float32) if probabilities is None else probabilities
        )
        probabilities[part.test] = probs
    assert probabilities is not None, "a round probabilities every image"
    return right, perf_counter() - begun, probabilities


def _cell(
    tried: Sequence[tuple[NDArray[np.bool_], float, Array]], rounds: Sequence[Sequence[TrainTest]]
) -> _Cell:
    right, seconds, probabilities = zip(*tried, strict=True)
    return _Cell(np.stack(right), float(np.median(seconds)), rounds, probabilities[0])


def _row(
    name: str, budget: int | None, cell: _Cell, groups: NDArray[np.intp] | None, *, crossed: bool
) -> Row:
    per_round = cell.right.mean(axis=1)
    spread = float(per_round.std(ddof=1)) if len(per_round) > 1 else 0.0
    score = accuracy_score(cell.right, groups, crossed=crossed)
    return Row(name, budget, score, len(per_round), spread, cell.seconds)


def _compare(
    cells: Mapping[tuple[str, int | None], _Cell],
    named: Sequence[tuple[str, str]],
    budgets: Sequence[int | None],
    protocol: Protocol,
    groups: NDArray[np.intp] | None,
) -> tuple[Comparison, ...]:
    pairs = [(strategy, control, budget) for budget in budgets for strategy, control in named]
    differences = [
        _difference(cells[strategy, budget], cells[control, budget], protocol, groups, control)
        for strategy, control, budget in pairs
    ]
    adjusted = holm([one.p_value for one in differences])
    found = []
    for (strategy, control, budget), difference, p in zip(pairs, differences, adjusted, strict=True):
        ours, theirs = _paired(cells[strategy, budget].right, cells[control, budget].right)
        n_images = ours.shape[1]
        shares = float((ours & ~theirs).mean()) * n_images, float((theirs & ~ours).mean()) * n_images
        settles = images_to_settle(*shares, n_images, alpha=0.05 / len(pairs))
        if settles is not None and groups is not None:  # grouped images carry less information
            plain = paired_difference(ours, theirs)
            settles = (
                None
                if len(np.unique(groups)) == 1
                else round(settles * max(1.0, _width(difference) / max(_width(plain), 1e-9)) ** 2)
            )
        word = verdict(difference, p)
        found.append(Comparison(strategy, control, budget, difference, p, word, settles))
    return tuple(found)


def _difference(
    ours: _Cell, theirs: _Cell, protocol: Protocol, groups: NDArray[np.intp] | None, control: str
) -> Difference:
    """Against a control with several random networks, each network's difference counts as one draw."""
    if control not in protocol.redrawn:
        return difference_of(ours.right, theirs.right, ours.rounds, protocol, groups)
    a, b = _paired(ours.right, theirs.right)
    rounds = theirs.rounds
    each = [
        difference_of(a[i : i + 1], b[i : i + 1], rounds[i : i + 1], protocol, groups) for i in range(len(b))
    ]
    return redrawn_difference(each, difference_of(a, b, rounds, protocol, groups))


def difference_of(
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    rounds: Sequence[Sequence[TrainTest]],
    protocol: Protocol,
    groups: NDArray[np.intp] | None,
) -> Difference:
    """The test that fits the splits: clustered, corrected resampled for folds, or paired over draws."""
    if groups is not None:
        return clustered_difference(a, b, groups)
    if protocol.kind in ("folds", "leave-one-out"):  # models that share most of their training images
        gain = a.astype(np.float64) - b
        by_fold = [gain[i, part.test].mean() for i, one in enumerate(rounds) for part in one]
        sizes = [len(part.test) for one in rounds for part in one]
        n_test = len(rounds[0][0].test)  # of a fold, whatever the budget: folds overlap as in the whole pool
        return resampled_difference(np.array(by_fold), a.shape[1] - n_test, n_test, a.shape[1], sizes)
    return paired_difference(a, b)


def _width(difference: Difference) -> float:
    return difference.high - difference.low


def _paired(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """Both with as many rounds: a single round is compared with every draw of the other."""
    return np.broadcast_to(ours, theirs.shape) if len(ours) == 1 else ours, theirs
