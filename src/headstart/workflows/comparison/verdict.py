"""The sentences that summarise a result table: the verdict first, then a line for every number of labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import inf

from headstart.evaluation.records import Score
from headstart.report.entries import is_rival
from headstart.report.records import Comparison, Row

__all__ = ["COLLAPSE", "FINETUNE", "FLOAT", "PROBE", "UNLABELLED", "headlines", "labels_text", "sentences"]


PROBE = "probe"
"""The strategy that the others are controls of."""


FINETUNE = "finetune"
"""The strategy that unfreezes the network where that beats the probe on held-out images."""


UNLABELLED = "probe, unlabelled"
"""The probe that also learns from unlabelled images."""


FLOAT = "probe, fp32"
"""The probe on the same network in fp32, next to a probe in int8."""


COLLAPSE = "collapse"

_BESIDE = {
    FINETUNE: "Fine-tuning against the probe",
    UNLABELLED: "Unlabelled images against the probe",
    FLOAT: "fp32 instead of int8",
}
"""Strategies that are compared with the probe, and how their sentences begin."""


def headlines(budgets: Sequence[int | None]) -> tuple[int | None, ...]:
    """The numbers of labels that the verdict is about: 5, else the fewest, and all."""
    few = [budget for budget in budgets if budget is not None]
    found: list[int | None] = [5 if 5 in few else few[0]] if few else []
    return (*found, *([None] if None in budgets else []))


def sentences(
    rows: Sequence[Row], comparisons: Sequence[Comparison], n_labels: int, margin: float
) -> tuple[str, ...]:
    """The verdict at few labels and at all ``n_labels`` first, then a line for every other budget."""
    beside = [one for one in comparisons if one.strategy in _BESIDE and one.control == PROBE]
    comparisons = [one for one in comparisons if one.strategy == PROBE]
    if not comparisons:
        best = [row for row in rows if row.strategy == PROBE][-1].accuracy
        return (
            f"The probe gets {best.value:.2%} right [{best.low:.2%}, {best.high:.2%}]; no control was run, "
            "so the benefit of transfer is unknown.",
            *_compared(beside, n_labels),
        )
    lines = {}
    for budget in dict.fromkeys(one.labels_per_class for one in comparisons):
        here = {row.strategy: row.accuracy.value for row in rows if row.labels_per_class == budget}
        rivals = [one for one in comparisons if one.labels_per_class == budget]
        lines[budget] = _line(rivals, here, budget, n_labels, margin)
    claimed = headlines(list(lines))
    first = " ".join([*(lines[budget] for budget in claimed)])
    above = [one for one in beside if one.labels_per_class in claimed]
    first = " ".join([first, *_compared(above, n_labels)])
    later = _compared([one for one in beside if one not in above], n_labels)
    worth = _worth(rows, comparisons, next((one for one in claimed if one is not None), None))
    others = tuple(f"For exploration: {line}" for budget, line in lines.items() if budget not in claimed)
    return (first, *later, *worth, *others)


def _compared(beside: Sequence[Comparison], n_labels: int) -> tuple[str, ...]:
    """Fine-tuning and unlabelled images, each compared with the probe, budget by budget."""
    found = []
    for name, begin in _BESIDE.items():
        parts = _parts([one for one in beside if one.strategy == name], n_labels)
        found += [f"{begin}: {'; '.join(parts)}."] if parts else []
    return tuple(found)


def _parts(comparisons: Sequence[Comparison], n_labels: int) -> list[str]:
    """A strategy against the probe, a text for each budget."""
    parts = []
    for one in comparisons:
        found, budget = one.difference, one.labels_per_class
        labels = f"all {n_labels:,} labels" if budget is None else labels_text(budget)
        word = {"helps": "better", "hurts": "worse"}.get(one.verdict, "not significantly different")
        parts.append(
            f"with {labels} {word}, {100 * found.value:+.2f} points "
            f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
        )
    return parts


def _line(
    rivals: Sequence[Comparison],
    accuracies: Mapping[str, float],
    budget: int | None,
    n_labels: int,
    margin: float,
) -> str:
    """The probe against its strongest control; collapse uses the source too and gets its own sentence."""
    without = [one for one in rivals if one.control != COLLAPSE] or rivals
    best = max(without, key=lambda one: accuracies[one.control])
    sentence = _against_best(best, budget, n_labels, margin)
    unbeaten = [one.control for one in without if one.verdict != "helps"]
    if best.verdict == "helps" and unbeaten:
        sentence = f"{sentence[:-1]}, but not significantly over {', '.join(unbeaten)}."
    apart = [one for one in rivals if one.control == COLLAPSE and one.verdict == "hurts"]
    if not apart or len(without) == len(rivals):
        return sentence
    found = apart[0].difference
    better, span = -100 * found.value, f"[{-100 * found.high:+.2f}, {-100 * found.low:+.2f}]"
    return (
        f"{sentence} But no new head is needed: collapse, which derives the class from the source's own classes, "
        f"does better by {better:.2f} points {span}."
    )


def _worth(rows: Sequence[Row], comparisons: Sequence[Comparison], budget: int | None) -> tuple[str, ...]:
    """How many labels a control takes to do as well as the probe with few, read off its learning curve.

    The range is where the ends of the control's intervals reach the probe's accuracy.
    """
    curves: dict[str, list[tuple[int, Score]]] = {}
    for row in rows:
        if row.labels_per_class is not None:
            curves.setdefault(row.strategy, []).append((row.labels_per_class, row.accuracy))
    ours = dict(curves.get(PROBE, [])).get(budget or 0)
    if ours is None or budget is None or len(curves[PROBE]) < 2:
        return ()
    equivalents = []
    for control in dict.fromkeys(one.control for one in comparisons):
        if not is_rival(control) or control not in curves:
            continue
        curve = sorted(curves[control], key=lambda point: point[0])
        number, fewest, most = (
            _labels_to_reach([(labels, getattr(score, end)) for labels, score in curve], ours.value)
            for end in ("value", "high", "low")
        )
        beyond = f"more than {curve[-1][0]:,}"
        if number == inf:
            equivalents.append(f"{control} with {beyond}")
        elif number > budget:
            span = f"{fewest:,.0f} to {f'{most:,.0f}' if most < inf else beyond}"
            equivalents.append(f"{control} with {number:,.0f} ({span})")
    if not equivalents:
        return ()
    return (f"Transfer with {labels_text(budget)} does as well as " + ", ".join(equivalents) + ".",)


def _labels_to_reach(curve: Sequence[tuple[int, float]], target: float) -> float:
    """First number of labels at which a curve, straight over their logarithm, reaches an accuracy."""
    if curve[0][1] >= target:
        return curve[0][0]
    for (few, low), (many, high) in itertools.pairwise(curve):
        if high >= target:
            return float(few * (many / few) ** ((target - low) / (high - low)))
    return inf


def _against_best(comparison: Comparison, budget: int | None, n_labels: int, margin: float) -> str:
    """One sentence: the probe against the strongest control at a budget."""
    with_labels = f"With all {n_labels:,} labels" if budget is None else f"With {labels_text(budget)}"
    found, rival = comparison.difference, comparison.control
    span = f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    points = f"{abs(100 * found.value):.2f} points"
    if comparison.verdict == "helps":
        return f"{with_labels}, transfer helps by {points} {span} over its strongest control ({rival})."
    if comparison.verdict == "hurts":
        return f"{with_labels}, transfer hurts by {points} {span}: {rival} does better."
    if comparison.verdict == "practically equal":
        return (
            f"{with_labels}, transfer and its strongest control ({rival}) are practically equal: they differ by "
            f"{100 * found.value:+.2f} points {span}, less than {100 * margin:g}."
        )
    return (
        f"{with_labels}, transfer and its strongest control ({rival}) do not differ significantly: "
        f"{100 * found.value:+.2f} points {span}{_settled_by(comparison)}."
    )


def _settled_by(comparison: Comparison) -> str:
    """How large a test set would show the difference, if it is as large as it looks."""
    number, here = comparison.n_to_settle, comparison.difference.n
    if number is None:
        return "; more test images alone would not show a difference of this size"
    return (
        f"; a test set of about {number:,} images could show a difference of this size"
        if number > here
        else ""
    )


def labels_text(budget: int | None) -> str:
    """A budget in words."""
    if budget is None:
        return "all labels"
    return f"{budget} label{'s' if budget > 1 else ''} per class"
