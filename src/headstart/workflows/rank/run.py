"""Ranks sources: nested cross-validation on the same folds, and the cost of each on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import strftime

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.refuse import checked
from headstart.data.checks.seen import seen_remark
from headstart.data.dataset import Dataset
from headstart.errors import DataError, SettingError
from headstart.evaluation.clusters import accuracy_score, repeated
from headstart.evaluation.compare import verdict
from headstart.evaluation.records import Difference, Score
from headstart.records import InputSpec, Source
from headstart.report.records import Figure, PlainTable, Report
from headstart.report.trade_off import Point, trade_off
from headstart.sources.features import PLAIN, Extraction
from headstart.sources.precision import INT8, check_saved, int8_obstacle, precise
from headstart.strategies.fits import Chooser, Reader, chosen_probe
from headstart.strategies.places import CHOSEN, Probe, Reading
from headstart.strategies.provenance import made_with
from headstart.workflows.comparison.present import short_name
from headstart.workflows.comparison.protocol import Protocol, TrainTest, crossed_protocol, rounds_of
from headstart.workflows.comparison.table import difference_of
from headstart.workflows.source_cost import measured_cost

__all__ = ["DEFAULT_SOURCES", "Ranked", "Ranking", "run_ranking"]

DEFAULT_SOURCES = ("photos", "photos-large", "drawings", "hog", "pixels")
"""What is ranked where nothing is named: all that need neither a hub nor PyTorch."""

_BEST, _WORSE, _TIE = "most accurate", "less accurate", "not significantly less accurate"
_SIGNIFICANT = {_BEST: "-", _WORSE: "yes", _TIE: "not significantly"}
_FOLDS, _ALPHA = 10, 0.05


@dataclass(frozen=True)
class Ranked:
    """A source: its accuracy, its difference from the most accurate one, and its cost.

    ``difference`` and ``p_adjusted`` (Bonferroni's, over all others) are None for the most accurate source. ``ms`` is
    the median time of one image through the graph, with the fastest batch, in its ``precision``, all cores;
    ``megabytes`` what a model would take. ``at`` says where features are read. ``on_front``: no other source is both
    faster and more accurate.
    """

    source: str
    accuracy: Score
    difference: Difference | None
    p_adjusted: float | None
    verdict: str
    at: str
    ms: float
    megabytes: float
    licence: str
    on_front: bool
    precision: str = "fp32"


@dataclass(frozen=True)
class Ranking:
    """All sources, the most accurate first, and the report."""

    ranked: tuple[Ranked, ...]
    result: Report


def run_ranking(
    sources: Sequence[Source],
    dataset: Dataset,
    probe: Probe = CHOSEN,
    *,
    seed: int = 0,
    options: Extraction = PLAIN,
    allow_leaks: bool = False,
    command: str = "",
    remarks: Sequence[str] = (),
) -> Ranking:
    """Compare sources on the images of a dataset that are not its test split.

    In each of 10 folds, layer, pooling and head are selected again on the other nine, as `run_transfer` does, so
    the accuracies are about images that nothing was selected on. With the precision int8 in ``options``, networks of
    convolutions are computed in it, calibrated on at most 100 of the images, without labels. DataError if a class has
    images of one cluster only; SettingError if fewer than two sources are given, or one of them twice.
    """
    _check_sources(sources)
    dataset, found = checked(dataset, allow_leaks=allow_leaks)
    pool = _without_test(dataset)
    sources, exact = _precise(sources, pool, options)
    protocol = _protocol(pool, seed)
    rounds = rounds_of(pool, len(pool), (), protocol)[None]
    codes, right, places = pool.codes(), [], []
    for number, source in enumerate(sources):
        options.progress.step(f"rank {short_name(source.name)}", number, len(sources))
        reader = Reader(source, pool, pool, replace(options, precision="fp32"))  # as a saved model computes
        chooser = Chooser(reader, probe)
        strategy, hits = chosen_probe(reader, probe, chooser), np.zeros((1, len(pool)), np.bool_)
        for part in rounds[0]:
            hits[0, part.test] = strategy(part.train, part.test, seed).argmax(axis=1) == codes[part.test]
        right.append(hits)
        places.append(chooser(np.arange(len(pool)), seed))
    groups = pool.cluster_codes if repeated(pool.cluster_codes) else None
    scores = [accuracy_score(one, groups, crossed=True) for one in right]
    best = max(range(len(sources)), key=lambda i: scores[i].value)
    others = [i for i in range(len(sources)) if i != best]
    level = 1 - _ALPHA / len(others)  # the intervals of all differences hold together
    differences = {
        i: difference_of(right[i], right[best], rounds, protocol, groups, level=level) for i in others
    }
    adjusted = {i: min(1.0, differences[i].p_value * len(others)) for i in others}
    costs = [
        measured_cost(source, [one.place for one in found], runtime_name=options.runtime)
        for source, found in zip(sources, places, strict=True)
    ]
    front = _front([score.value for score in scores], [one.ms for one in costs])
    ranked = [
        Ranked(
            source.name,
            scores[i],
            differences.get(i),
            adjusted.get(i),
            _BEST if i == best else _word(verdict(differences[i])),
            _at(places[i]),
            costs[i].ms,
            costs[i].megabytes,
            str(source.notes.get("licence", "none needed")),
            front[i],
            source.precision,
        )
        for i, source in enumerate(sources)
    ]
    ranked.sort(key=lambda one: -one.accuracy.value)
    texts = (*remarks, *exact, *_seen(sources, pool), *found.remarks)
    return Ranking(tuple(ranked), _report(ranked, pool, texts, command, rounds, groups))


def _precise(
    sources: Sequence[Source], pool: Dataset, options: Extraction
) -> tuple[list[Source], tuple[str, ...]]:
    """The sources in the precision of the options, and a remark on those that stay in fp32."""
    check_saved(options.precision)
    if options.precision != INT8:
        return [precise(source, lambda: pool, options).source for source in sources], ()
    obstacles = {source.name: int8_obstacle(source) for source in sources if source.precision != INT8}
    stay = {name: why for name, why in obstacles.items() if why is not None}
    ready = [one if one.name in stay else precise(one, lambda: pool, options).source for one in sources]
    remarks = (
        f"Computed in fp32, not in int8: {short_name(name)}, which {why}." for name, why in stay.items()
    )
    return ready, tuple(remarks)


def _seen(sources: Sequence[Source], pool: Dataset) -> Iterable[str]:
    """Remarks on images that a source has seen."""
    known = (seen_remark(short_name(source.name), pool.images, source.seen) for source in sources)
    return filter(None, known)


def _check_sources(sources: Sequence[Source]) -> None:
    if len(sources) < 2:
        raise SettingError(
            f"sources to rank are {len(sources) or 'none'}, expected two or more; name others, such as pixels and hog"
        )
    first: dict[tuple[str, InputSpec], str] = {}
    for source in sources:
        key = source.fingerprint, source.input
        if key in first:
            said = "is named twice" if first[key] == source.name else f"is the same network as {first[key]!r}"
            raise SettingError(f"source {source.name!r} {said}, expected each once; leave one out")
        first[key] = source.name


def _without_test(dataset: Dataset) -> Dataset:
    """All images but those of the test split."""
    if dataset.splits is None:
        return dataset
    return replace(dataset.subset(np.flatnonzero(dataset.splits != "test")), splits=None)


def _protocol(pool: Dataset, seed: int) -> Protocol:
    """The folds that all sources share."""
    found = crossed_protocol(pool, _FOLDS, seed)
    if found is None:
        raise DataError(
            f"dataset {pool.name!r} has a class with one image, or images of one group only, expected two to hold "
            "one out; add images"
        )
    return found


def _front(accuracies: Sequence[float], ms: Sequence[float]) -> list[bool]:
    """Whether no other source is at least as accurate and as fast, and better in one of them."""
    pairs = list(zip(accuracies, ms, strict=True))
    return [
        not any(a >= accuracy and t <= time and (a, t) != (accuracy, time) for a, t in pairs)
        for accuracy, time in pairs
    ]


def _at(readings: Sequence[Reading]) -> str:
    """Head, layer and pooling as text; of several the first, and how many more are averaged."""
    (layer, pooling), head = readings[0]
    place = layer if pooling == "flat" else f"{layer} {pooling}"
    more = f", mean with {len(readings) - 1} more" if len(readings) > 1 else ""
    return f"{head}, {place}{more}"


def _titles(sources: Iterable[str]) -> dict[str, str]:
    """Names without prefix and folders, and those of timm without tag; as much longer as tells them apart."""
    names = tuple(sources)
    bare = {name: short_name(name).removeprefix("timm:") for name in names}
    short = {name: one.partition(".")[0] if name.startswith("timm:") else one for name, one in bare.items()}
    above = {name: "/".join(name.split("/")[-2:]) for name in names}
    numbered = {name: f"{bare[name]} ({number})" for number, name in enumerate(names, 1)}
    for longer in (bare, above, numbered):
        counts = Counter(short.values())
        short = {name: one if counts[one] == 1 else longer[name] for name, one in short.items()}
    return short


def _word(found: str) -> str:
    return _WORSE if found == "hurts" else _TIE


def _report(
    ranked: Sequence[Ranked],
    pool: Dataset,
    remarks: Sequence[str],
    command: str,
    rounds: Sequence[Sequence[TrainTest]],
    groups: NDArray[np.intp] | None,
) -> Report:
    """The table, the picture and the sentence."""
    protocol = (
        f"Nested cross-validation: {len(rounds[0])} folds of the {len(pool):,} images, copies and groups in one "
        "fold, the same for all sources; layer, pooling and head were selected again in every fold. The most "
        "accurate source was found on the same images, so its own accuracy is slightly optimistic. Differences are "
        "paired, and their intervals hold together."
        + (
            " Intervals count clusters."
            if groups is not None
            else " Intervals account for shared training images."
        )
    )
    titles = _titles(one.source for one in ranked)
    points = tuple(Point(titles[one.source], one.ms, one.accuracy, one.on_front) for one in ranked)
    caption = (
        "Up and left is better. The line joins the sources to which no other is superior in both; bars are 95 % "
        "intervals."
    )
    return Report(
        kind="ranking",
        title=f"Sources for {pool.name}",
        summary=f"{len(ranked)} sources, frozen, each with a new head, on the same {len(pool):,} images.",
        verdict=_verdict(ranked, titles),
        remarks=tuple(remarks),
        rows=(),
        comparisons=(),
        evaluations=(),
        curves=(),
        facts={
            "command": command,
            "data": f"{pool.name}, fingerprint {pool.fingerprint}",
            **made_with(),
            "date": strftime("%Y-%m-%d"),
        },
        sizes={"images": len(pool), "classes": len(pool.classes)},
        tables=(_table(ranked, titles, len(pool)),),
        figures=(Figure("Accuracy against time", caption, trade_off(points)),),
        judged_on="cross-validated",
        protocol=protocol,
    )


def _table(ranked: Sequence[Ranked], titles: Mapping[str, str], n_images: int) -> PlainTable:
    lines = tuple(
        (
            titles[one.source],
            _interval(one.accuracy),
            "-" if one.difference is None else _signed(one.difference),
            _SIGNIFICANT[one.verdict],
            f"{one.ms:.2g}",
            f"{one.megabytes:.1f}",
            one.licence.lower(),
            one.at,
        )
        for one in ranked
    )
    return PlainTable(
        "Sources",
        f"Accuracy in % [95 % interval] on the same {n_images:,} cross-validated images, the difference from the "
        "most accurate in points, and ms per image through the network on this machine "
        f"({' or '.join(sorted({one.precision for one in ranked}))}, all cores, without decoding).",
        ("source", "accuracy", "difference", "worse", "ms", "MB", "licence", "head, layer"),
        lines,
    )


def _verdict(ranked: Sequence[Ranked], titles: Mapping[str, str]) -> str:
    best = ranked[0]
    score = f"{_interval(best.accuracy)} % of {best.accuracy.n:,} images"
    text = f"{titles[best.source]} is the most accurate: {score}."
    ties = [one for one in ranked[1:] if one.verdict == _TIE]
    if not ties:
        return f"{text} All others are significantly less accurate."
    fastest = min((best, *ties), key=lambda one: one.ms)
    names = ", ".join(titles[one.source] for one in ties)
    text += f" {'These are' if len(ties) > 1 else 'This is'} not significantly less accurate: {names}."
    if fastest is not best:
        text += (
            f" Of them {titles[fastest.source]} is the fastest, {fastest.ms:.2g} ms against {best.ms:.2g} ms."
        )
    return text


def _interval(score: Score) -> str:
    return f"{100 * score.value:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def _signed(found: Difference) -> str:
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
