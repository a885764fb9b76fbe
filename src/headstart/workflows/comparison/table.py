"""The result table: every strategy at every budget on the same splits, compared with the controls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.errors import DataError
from headstart.evaluation.clusters import accuracy_score, cluster_remark, clustered_difference, repeated
from headstart.evaluation.compare import mean_difference, paired_difference, verdict
from headstart.evaluation.power import images_for_spread, images_to_settle
from headstart.evaluation.records import Difference
from headstart.evaluation.resampled import fold_draws_difference, folds_difference
from headstart.evaluation.spread import Spread, of_draws, of_fold_draws, of_folds, with_networks
from headstart.records import Array
from headstart.report.records import Comparison, Row
from headstart.strategies.fits import Strategy
from headstart.system.progress import SILENT, Progress
from headstart.system.runners import LOCAL, ProcessRunner, Runner
from headstart.workflows.comparison.protocol import (
    Protocol,
    TrainTest,
    rounds_of,
    shared_labels,
    smallest_class,
)
from headstart.workflows.comparison.rounds import Round, Rounds, done, jobs_of
from headstart.workflows.comparison.verdict import PROBE, headlines, labels_text, sentences

__all__ = ["Table", "difference_of", "run_table"]


_ALPHA = 0.05


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
    runner: Runner = LOCAL,
    here: Collection[str] = (),
) -> Table:
    """Run every strategy at every budget on the same splits, and compare the probe with each control.

    ``strategies`` must contain ``probe`` (else `DataError`). ``pool`` and ``test`` are one dataset when
    cross-validated. Budgets larger than the smallest class are left out with a remark. Strategies named in
    ``in_processes`` run in other processes, one core each: for small networks on few images. On a cluster all do,
    but for those named in ``here``, which record something in this process. The comparisons of the headline budgets
    are the claims of the study: their intervals hold together, at 95 %.
    """
    if PROBE not in strategies:
        raise DataError(f"strategies are {', '.join(strategies) or 'none'}, expected one called {PROBE!r}")
    possible, remarks = _possible(pool, protocol)
    if not possible and not protocol.with_all:
        raise _too_many_labels(pool, protocol)
    codes = test.codes(pool.classes)
    controls = [name for name in strategies if name not in (PROBE, *protocol.shown)]
    rounds_by_budget = rounds_of(pool, len(test), possible, protocol)
    jobs = jobs_of(strategies, rounds_by_budget, protocol)
    if runner.remote:
        away = [job for job in jobs if job.name not in here]
    else:
        away, runner = [job for job in jobs if job.name in in_processes], ProcessRunner(n_ahead=len(jobs))
    cells: dict[tuple[str, int | None], _Cell] = {}
    for cell, found in done(jobs, away, Rounds(strategies, codes), runner, progress).items():
        cells[cell] = _cell([one for _, one in found], [job.splits_of_round for job, _ in found])
    cells = {(name, budget): cells[name, budget] for budget in rounds_by_budget for name in strategies}
    groups = test.cluster_codes if repeated(test.cluster_codes) else None
    rows = tuple(_row(name, budget, cell, groups, protocol) for (name, budget), cell in cells.items())
    budgets: list[int | None] = [*possible, *([None] if protocol.with_all else [])]
    pairs = [(PROBE, control) for control in controls]
    pairs += [pair for pair in protocol.pairs if set(pair) <= set(strategies)]
    comparisons = _compare(cells, pairs, budgets, protocol, groups) if pairs else ()
    n_groups = 0 if test.groups is None else len(np.unique(test.groups))
    lines = sentences(rows, comparisons, len(pool), protocol.margin, n_groups)
    remark = None if groups is None else cluster_remark(groups, test.labels)
    remarks = (*lines[1:], *remarks, *([remark] if remark else ()))
    predictions = {name: cells[name, budgets[-1]].first for name in strategies}
    return Table(rows, comparisons, lines[0], remarks, predictions)


def _possible(pool: Dataset, protocol: Protocol) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Budgets that every split can fill, and a remark on each of the others."""
    smallest = smallest_class(pool, protocol)
    # without folds, the size of the smallest class is excluded: it is nearly the budget of all labels
    fits = [size for size in protocol.labels_per_class if size < smallest + protocol.crossed]
    left = tuple(_left_out(size, smallest) for size in protocol.labels_per_class if size not in fits)
    return tuple(fits), left


def _left_out(size: int, smallest: int) -> str:
    """Why a number of labels is not in the table."""
    if size == smallest:
        return f"{labels_text(size)} are left out: the smallest class has no more, so these are nearly all labels."
    images = f"{smallest:,} training image{'s' if smallest != 1 else ''}"
    return f"{labels_text(size)} are left out: the smallest class has {images}."


def _too_many_labels(pool: Dataset, protocol: Protocol) -> DataError:
    """No number of labels fits, and all labels were not asked for."""
    smallest = smallest_class(pool, protocol)
    most = smallest - 1 + protocol.crossed
    return DataError(
        f"labels per class are {', '.join(map(str, protocol.labels_per_class)) or 'none'}, expected "
        f"{f'at most {most}' if most else 'all'}, since the smallest class has {smallest} training images; name a "
        "smaller number, or all"
    )


def _cell(tried: Sequence[Round], rounds: Sequence[Sequence[TrainTest]]) -> _Cell:
    right, seconds, probabilities = zip(*tried, strict=True)
    return _Cell(np.stack(right), float(np.median(seconds)), rounds, probabilities[0])


def _row(
    name: str, budget: int | None, cell: _Cell, groups: NDArray[np.intp] | None, protocol: Protocol
) -> Row:
    per_round = cell.right.mean(axis=1)
    spread = float(per_round.std(ddof=1)) if len(per_round) > 1 else 0.0
    drawn = _drawn_in_folds(protocol, budget)
    folds = _fold_codes(cell.rounds[0], cell.right.shape[1]) if drawn else None
    crossed, overlap = protocol.crossed and not drawn, 0.0 if budget is None else shared_labels(cell.rounds)
    score = accuracy_score(cell.right, groups, crossed=crossed, folds=folds, overlap=overlap)
    return Row(name, budget, score, len(per_round), spread, cell.seconds)


def _compare(
    cells: Mapping[tuple[str, int | None], _Cell],
    named: Sequence[tuple[str, str]],
    budgets: Sequence[int | None],
    protocol: Protocol,
    groups: NDArray[np.intp] | None,
) -> tuple[Comparison, ...]:
    claimed, n_controls = headlines(budgets), max(1, sum(strategy == PROBE for strategy, _ in named))
    found = []
    for budget in budgets:
        for strategy, control in named:
            claim, pair = budget in claimed, (cells[strategy, budget], cells[control, budget])
            n_claims = len(claimed) if claim else 1
            # "helps" needs all controls beaten, so no correction over them; "hurts" is any of them
            n_rivals = n_controls if claim and strategy == PROBE else 1
            low, high = _difference_at(
                pair, protocol, groups, (n_claims, n_claims * n_rivals), control=control, budget=budget
            )
            number = n_claims if low.value > 0 else n_claims * n_rivals
            difference = replace(low, high=high.high)
            p = min(1.0, low.p_value * number)
            word = verdict(difference, protocol.margin)
            settles = _settling(*pair, difference, protocol, groups, budget=budget, alpha=_ALPHA / number)
            found.append(Comparison(strategy, control, budget, difference, p, word, settles, claim))
    return tuple(found)


def _difference_at(
    pair: tuple[_Cell, _Cell],
    protocol: Protocol,
    groups: NDArray[np.intp] | None,
    numbers: tuple[int, int],
    *,
    control: str,
    budget: int | None,
) -> tuple[Difference, Difference]:
    """The difference at the levels for these numbers of claims; computed once where they are equal."""
    found = {
        number: _difference(
            *pair, protocol, groups, control=control, budget=budget, level=1 - _ALPHA / number
        )
        for number in sorted(set(numbers))
    }
    return found[numbers[0]], found[numbers[1]]


def _difference(
    ours: _Cell,
    theirs: _Cell,
    protocol: Protocol,
    groups: NDArray[np.intp] | None,
    *,
    control: str,
    budget: int | None,
    level: float,
) -> Difference:
    """Against a control with several random networks, each network's difference counts as one draw."""
    a, b = _paired(ours.right, theirs.right)
    rounds = ours.rounds if len(ours.rounds) >= len(theirs.rounds) else theirs.rounds
    plain = difference_of(a, b, rounds, protocol, groups, few=budget is not None, level=level)
    if control not in protocol.redrawn or len(theirs.right) < 2:
        return plain
    gain = a.astype(np.float64) - b
    spread = _spread(gain, rounds, protocol, groups, budget)
    spread = with_networks(spread, gain.mean(axis=1).tolist())
    wide = mean_difference(gain, spread, level)
    low, high = min(plain.low, wide.low), max(plain.high, wide.high)
    return replace(wide, low=low, high=high, p_value=max(plain.p_value, wide.p_value))


def difference_of(
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    rounds: Sequence[Sequence[TrainTest]],
    protocol: Protocol,
    groups: NDArray[np.intp] | None,
    *,
    few: bool = False,
    level: float = 1 - _ALPHA,
) -> Difference:
    """The test that fits the splits; ``few`` where every round or fold has few labels of its own."""
    overlap = shared_labels(rounds) if few else 0.0
    if not protocol.crossed:
        if groups is not None:
            return clustered_difference(a, b, groups, level, overlap=overlap)
        return paired_difference(a, b, level, overlap)
    gain = a.astype(np.float64) - b
    if few:
        return fold_draws_difference(gain.mean(axis=0), _fold_codes(rounds[0], gain.shape[1]), level, overlap)
    if groups is not None:
        return clustered_difference(a, b, groups, level, crossed=True)
    return folds_difference(gain, level)


def _spread(
    gain: NDArray[np.float64],
    rounds: Sequence[Sequence[TrainTest]],
    protocol: Protocol,
    groups: NDArray[np.intp] | None,
    budget: int | None,
) -> Spread:
    """How far the mean of gains may be from the truth."""
    overlap = 0.0 if budget is None else shared_labels(rounds)
    if not protocol.crossed:
        return of_draws(gain, groups, overlap)
    if _drawn_in_folds(protocol, budget):
        return of_fold_draws(gain.mean(axis=0), _fold_codes(rounds[0], gain.shape[1]), overlap)
    return of_folds(gain, groups)


def _settling(
    ours: _Cell,
    theirs: _Cell,
    difference: Difference,
    protocol: Protocol,
    groups: NDArray[np.intp] | None,
    *,
    budget: int | None,
    alpha: float,
) -> int | None:
    """Test images, of as many per group, with which a difference of this size would be found in 80 % of studies."""
    a, b = _paired(ours.right, theirs.right)
    if len(a) == 1 and groups is None and not protocol.crossed:
        return images_to_settle(int((a & ~b).sum()), int((b & ~a).sum()), a.shape[1], alpha=alpha)
    gain = a.astype(np.float64) - b
    rounds = ours.rounds if len(ours.rounds) >= len(theirs.rounds) else theirs.rounds
    spread = _spread(gain, rounds, protocol, groups, budget)
    # the interval is wider where few images or groups disagree, and where networks are drawn, too
    arm = difference.value - difference.low if difference.value > 0 else difference.high - difference.value
    wider = max(1.0, arm / max(spread.half_width(1 - alpha), 1e-9)) ** 2
    spread = replace(spread, variance=spread.variance * wider, fixed=spread.fixed * wider)
    return images_for_spread(spread, difference.value, gain.shape[1], alpha=alpha)


def _drawn_in_folds(protocol: Protocol, budget: int | None) -> bool:
    """Whether every fold of a cross-validation had few labels of its own."""
    return protocol.crossed and budget is not None


def _fold_codes(splits: Sequence[TrainTest], n_images: int) -> NDArray[np.intp]:
    """The fold of each image, (n_images,)."""
    codes = np.zeros(n_images, np.intp)
    for number, part in enumerate(splits):
        codes[part.test] = number
    return codes


def _paired(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """Both with as many rounds: a single round is compared with every draw, of others the rounds that both have."""
    if len(ours) == 1:
        return np.broadcast_to(ours, theirs.shape), theirs
    if len(theirs) == 1:
        return ours, np.broadcast_to(theirs, ours.shape)
    n_rounds = min(len(ours), len(theirs))
    return ours[:n_rounds], theirs[:n_rounds]
