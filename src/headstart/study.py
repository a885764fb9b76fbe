"""The honest comparison: a strategy and its controls, on the same labels and the same test images.

In: a source, the target's training parts and test images, a protocol. Out: rows, comparisons, verdict.
Must not import an engine at the top. Called by recipes and the public face.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.splits import nested_subsets
from headstart.data.views import view_map
from headstart.errors import DataError
from headstart.evaluation.compare import holm, paired_difference, verdict
from headstart.evaluation.intervals import wilson
from headstart.features import PLAIN, Extraction, extract
from headstart.heads.registry import make_head
from headstart.imaging.prepare import prepare
from headstart.networks.architectures import with_classes
from headstart.networks.registry import make_network
from headstart.networks.training import fit
from headstart.progress import SILENT, Progress
from headstart.records import Array, Comparison, NetworkSpec, Row, Source, TrainSettings
from headstart.sources import open_source, random_source

__all__ = [
    "FeatureOptions",
    "Protocol",
    "Strategy",
    "Table",
    "collapse",
    "draws_of",
    "frozen_controls",
    "majority",
    "network_from_scratch",
    "probe",
    "run_table",
    "sentences",
]

Strategy = Callable[[NDArray[np.intp], int], Array]
"""Learns from these training images with this seed; probabilities of the test images."""

PROBE = "probe"


@dataclass(frozen=True)
class Protocol:
    """Which budgets of labels are tried, how many draws of each, and from which seed.

    ``with_all`` adds a last budget, all labels, in one draw. ``shown`` names strategies that stand in
    the table and are not compared with the probe.
    """

    labels_per_class: tuple[int, ...] = (1, 5, 10, 50)
    draws: int = 5
    seed: int = 0
    with_all: bool = True
    shown: tuple[str, ...] = ("textbook probe",)


@dataclass(frozen=True)
class Table:
    """Rows and comparisons, and the sentences they amount to."""

    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    verdict: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Cell:
    """What one strategy got right at one budget: (n_draws, n_test)."""

    right: NDArray[np.bool_]
    seconds: float


@dataclass(frozen=True)
class FeatureOptions:
    """Where features are read and what is fitted on them; the same for the probe and its controls."""

    tap: str | None = None
    pooling: str = "flat"
    head: str = "linear"
    extraction: Extraction = PLAIN


def probe(source: Source, train: Dataset, test: Dataset, options: FeatureOptions) -> Strategy:
    """A head on a frozen source: the strategy itself, or a control with another source.

    Parameters
    ----------
    source : Source
        Runs once over both sets.
    train, test : Dataset
        Images to draw labels from, and images to answer.
    options : FeatureOptions
        Tap, head, cache and runtime.

    Returns
    -------
    callable
        A Strategy.
    """
    rows, asked = (
        extract(part, source, tap=options.tap, pooling=options.pooling, options=options.extraction)
        for part in (train, test)
    )

    def strategy(indices: NDArray[np.intp], seed: int) -> Array:
        fitted = make_head(options.head)
        fitted.fit(rows[indices], train.labels[indices], classes=train.classes, seed=seed)
        return fitted.probabilities(asked)

    return strategy


def frozen_controls(
    spec: NetworkSpec, train: Dataset, test: Dataset, options: FeatureOptions, seed: int
) -> dict[str, Strategy]:
    """What any head on a trained source has to beat: random frozen layers, and raw pixels.

    Parameters
    ----------
    spec : NetworkSpec
        The source's network.
    train, test : Dataset
        Images to draw labels from, and images to answer.
    options : FeatureOptions
        As the probe's.
    seed : int
        Draws the random layers.

    Returns
    -------
    dict of str to Strategy
        By the names that tables show. Raw pixels get kernel ridge, the strongest plain classifier
        on them.
    """
    raw = replace(options, tap=None, pooling="flat", head="kernel")
    return {
        "random frozen": probe(random_source(spec, seed), train, test, options),
        "raw pixels": probe(open_source("pixels", train), train, test, raw),
    }


def network_from_scratch(
    spec: NetworkSpec,
    engine: str,
    settings: tuple[TrainSettings, TrainSettings],
    train: Dataset,
    test: Dataset,
) -> Strategy:
    """The same network learning the target from nothing.

    Parameters
    ----------
    spec : NetworkSpec
        The source's layers; the last is replaced.
    engine : str
        What trains it.
    settings : pair of TrainSettings
        With all labels, as the source was trained but for early stopping; and with fewer.
    train, test : Dataset
        Images to draw labels from, and images to answer.

    Returns
    -------
    callable
        A Strategy.
    """
    spec = with_classes(spec, len(train.classes))
    images, asked, codes = prepare(train, spec.input), prepare(test, spec.input), train.codes()

    def strategy(indices: NDArray[np.intp], seed: int) -> Array:
        network = make_network(spec, engine, seed)
        chosen = replace(settings[0] if len(indices) == len(train) else settings[1], seed=seed, patience=0)
        fit(network, images[indices], codes[indices], chosen)
        return network.logits(asked)

    return strategy


def majority(train: Dataset, test: Dataset) -> Strategy:
    """Always the commonest class of the labels drawn.

    Parameters
    ----------
    train, test : Dataset
        Images to draw labels from, and images to answer.

    Returns
    -------
    callable
        A Strategy.
    """
    codes, n_classes = train.codes(), len(train.classes)

    def strategy(indices: NDArray[np.intp], seed: int) -> Array:
        shares = np.bincount(codes[indices], minlength=n_classes) / len(indices)
        return np.tile(shares.astype(np.float32), (len(test), 1))

    return strategy


def collapse(probs: Array, source_classes: Sequence[str], view: str, classes: Sequence[str]) -> Strategy:
    """Read a coarser answer off the source's own: no label of the target is used.

    Parameters
    ----------
    probs : ndarray of shape (n_test, n_source_classes), float32
        The source's answers on the test images.
    source_classes : sequence of str
        What they are about.
    view : str
        Says which target class each source class belongs to.
    classes : sequence of str
        Target classes in order.

    Returns
    -------
    callable
        A Strategy that learns nothing.
    """
    mapping = view_map(source_classes, view)
    summed = np.stack(
        [probs[:, [mapping[name] == wanted for name in source_classes]].sum(axis=1) for wanted in classes],
        axis=1,
    )
    return lambda indices, seed: summed


def run_table(
    strategies: Mapping[str, Strategy],
    train: Dataset,
    test: Dataset,
    protocol: Protocol,
    *,
    progress: Progress = SILENT,
) -> Table:
    """Try every strategy at every budget on the same draws, and compare the probe with each control.

    Parameters
    ----------
    strategies : mapping of str to Strategy
        One is ``probe``; the others are its controls, but for those that the protocol only shows.
    train, test : Dataset
        Images to draw labels from, and the images that every figure is about.
    protocol : Protocol
        Budgets, draws, seed. Budgets larger than the smallest class are left out, with a remark.
    progress : Progress, optional
        Told which cell is being computed.

    Returns
    -------
    Table
        Intervals are Wilson's at 95 % on the test images; comparisons are paired, their p-values
        Holm's over all of them.

    Raises
    ------
    DataError
        If there is no strategy called ``probe``.
    """
    if PROBE not in strategies:
        raise DataError(f"strategies are {', '.join(strategies) or 'none'}, need one called {PROBE!r}")
    smallest = min(train.counts().values())
    possible = tuple(size for size in protocol.labels_per_class if size < smallest)
    remarks = tuple(
        f"{size} labels per class were asked for; the smallest class has {smallest}, "
        "so this budget is left out."
        for size in protocol.labels_per_class
        if size not in possible
    )
    codes, cells = test.codes(train.classes), {}
    controls = [name for name in strategies if name not in (PROBE, *protocol.shown)]
    for budget, draws in draws_of(train, possible, protocol).items():
        for name, strategy in strategies.items():
            progress.step(f"{name}, {_labels(budget)}", 0, len(draws))
            cells[name, budget] = _cell(strategy, draws, codes, protocol.seed)
    rows = tuple(_row(name, budget, cell) for (name, budget), cell in cells.items())
    budgets = [*possible, *([None] if protocol.with_all else [])]
    comparisons = _compare(cells, controls, budgets) if controls else ()
    said = sentences(rows, comparisons, len(train))
    return Table(rows, comparisons, said[0], (*said[1:], *remarks))


def draws_of(
    train: Dataset, budgets: Sequence[int], protocol: Protocol
) -> dict[int | None, list[NDArray[np.intp]]]:
    """Indices of every draw at every budget; the smaller draws lie within the larger.

    Parameters
    ----------
    train : Dataset
        Images to draw from.
    budgets : sequence of int
        Labels per class.
    protocol : Protocol
        How many draws, from which seed, and whether all labels are a budget too.

    Returns
    -------
    dict of (int or None) to list of ndarray of int
        None is all labels.
    """
    chosen: dict[int | None, list[NDArray[np.intp]]] = {budget: [] for budget in budgets}
    for draw in range(protocol.draws if budgets else 0):
        subsets = nested_subsets(train.labels, budgets, seed=np.random.default_rng([protocol.seed, 6, draw]))
        for budget in budgets:
            chosen[budget].append(subsets[budget])
    return {**chosen, None: [np.arange(len(train))]} if protocol.with_all else chosen


def _cell(
    strategy: Strategy, draws: Sequence[NDArray[np.intp]], codes: NDArray[np.int64], seed: int
) -> _Cell:
    right, seconds = [], []
    for number, indices in enumerate(draws):
        begun = perf_counter()
        right.append(strategy(indices, seed + number).argmax(axis=1) == codes)
        seconds.append(perf_counter() - begun)
    return _Cell(np.stack(right), float(np.median(seconds)))


def _row(name: str, budget: int | None, cell: _Cell) -> Row:
    per_draw, n_test = cell.right.mean(axis=1), cell.right.shape[1]
    spread = float(per_draw.std(ddof=1)) if len(per_draw) > 1 else 0.0
    return Row(
        name, budget, wilson(float(per_draw.mean()) * n_test, n_test), len(per_draw), spread, cell.seconds
    )


def _compare(
    cells: Mapping[tuple[str, int | None], _Cell], controls: Sequence[str], budgets: Sequence[int | None]
) -> tuple[Comparison, ...]:
    pairs = [(control, budget) for budget in budgets for control in controls]
    differences = [
        paired_difference(cells[PROBE, budget].right, cells[control, budget].right)
        for control, budget in pairs
    ]
    adjusted = holm([one.p_value for one in differences])
    return tuple(
        Comparison(PROBE, control, budget, difference, p, verdict(difference, p))
        for (control, budget), difference, p in zip(pairs, differences, adjusted, strict=True)
    )


def sentences(rows: Sequence[Row], comparisons: Sequence[Comparison], n_labels: int) -> tuple[str, ...]:
    """Say what the table amounts to: the verdict at few labels and at all, then a line for every budget.

    Parameters
    ----------
    rows : sequence of Row
        Every strategy at every budget.
    comparisons : sequence of Comparison
        The probe against every control.
    n_labels : int
        Training images when all are used.

    Returns
    -------
    tuple of str
        The verdict first.
    """
    if not comparisons:
        best = rows[-1].accuracy
        return (
            f"The probe gets {best.value:.2%} right [{best.low:.2%}, {best.high:.2%}]; no control was run, "
            "so whether transfer was worth it is open.",
        )
    lines = {}
    for budget in dict.fromkeys(one.labels_per_class for one in comparisons):
        here = {row.strategy: row.accuracy.value for row in rows if row.labels_per_class == budget}
        rivals = [one for one in comparisons if one.labels_per_class == budget]
        lines[budget] = _against_best(max(rivals, key=lambda one: here[one.control]), budget, n_labels)
    few = [budget for budget in lines if budget is not None]
    headline = 5 if 5 in few else (few[0] if few else None)
    alone = headline == list(lines)[-1] or None not in lines
    first = lines[headline] if alone else f"{lines[headline]} {lines[None]}"
    return (first, *(line for budget, line in lines.items() if budget not in (headline, None)))


def _against_best(comparison: Comparison, budget: int | None, n_labels: int) -> str:
    """One sentence: the probe against the strongest control at a budget."""
    with_labels = f"With all {n_labels:,} labels" if budget is None else f"With {_labels(budget)}"
    found, rival = comparison.difference, comparison.control
    span = f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    if comparison.verdict == "cannot tell apart":
        alone = found.low > 0 or found.high < 0
        caveat = ", which chance among so many comparisons can explain (Holm)" if alone else ""
        return (
            f"{with_labels}, transfer and its strongest control ({rival}) cannot be told apart: "
            f"{100 * found.value:+.2f} points {span}{caveat}."
        )
    points = f"{abs(100 * found.value):.2f} points"
    if comparison.verdict == "helps":
        return f"{with_labels}, transfer helps by {points} {span} over its strongest control ({rival})."
    return f"{with_labels}, transfer hurts by {points} {span}: {rival} does better."


def _labels(budget: int | None) -> str:
    if budget is None:
        return "all labels"
    return f"{budget} label{'s' if budget > 1 else ''} per class"
