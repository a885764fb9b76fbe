"""The sentences that summarise a result table: the verdict first, then a line for every number of labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import ceil, inf

from headstart.evaluation.records import Difference, Score
from headstart.report.entries import is_rival
from headstart.report.numbers import about
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

_AGAINST_PROBE = {
    "helps": "better",
    "hurts": "worse",
    "practically equal": "practically equal",
    "cannot tell apart": "not significantly different",
}


def headlines(budgets: Sequence[int | None]) -> tuple[int | None, ...]:
    """The numbers of labels that the verdict is about: 5, else the fewest, and all."""
    few = [budget for budget in budgets if budget is not None]
    found: list[int | None] = [5 if 5 in few else few[0]] if few else []
    return (*found, *([None] if None in budgets else []))


def sentences(
    rows: Sequence[Row],
    comparisons: Sequence[Comparison],
    n_labels: int,
    margin: float,
    n_groups: int = 0,
) -> tuple[str, ...]:
    """The verdict at few labels and at all ``n_labels`` first, then a line for every other budget.

    ``n_groups`` is the number of groups of the test images, where they have groups.
    """
    beside = [one for one in comparisons if one.strategy in _BESIDE and one.control == PROBE]
    comparisons = [one for one in comparisons if one.strategy == PROBE]
    if not comparisons:
        best = [row for row in rows if row.strategy == PROBE][-1].accuracy
        return (
            f"The probe gets {best.value:.1%} right [{100 * best.low:.1f}, {100 * best.high:.1f}]; no control was "
            "run, so the benefit of transfer is unknown.",
            *_compared(beside, n_labels),
        )
    lines = {}
    for budget in dict.fromkeys(one.labels_per_class for one in comparisons):
        here = {row.strategy: row.accuracy.value for row in rows if row.labels_per_class == budget}
        rivals = [one for one in comparisons if one.labels_per_class == budget]
        lines[budget] = _line(rivals, here, _labelled(budget, n_labels), margin, n_groups)
    claimed = headlines(list(lines))
    first = " ".join([*(lines[budget] for budget in claimed)])
    above = [one for one in beside if one.labels_per_class in claimed]
    first = " ".join([first, *_compared(above, n_labels)])
    later = _compared([one for one in beside if one not in above], n_labels)
    worth = _worth(rows, comparisons, next((one for one in claimed if one is not None), None))
    others = tuple(
        f"Exploratory, not corrected for several comparisons: {line[0].lower()}{line[1:]}"
        for budget, line in lines.items()
        if budget not in claimed
    )
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
        labels = _labelled(one.labels_per_class, n_labels)
        parts.append(
            f"with {labels} {_AGAINST_PROBE[one.verdict]}, {100 * one.difference.value:+.2f} points "
            f"{_span(one.difference)}"
        )
    return parts


def _line(
    rivals: Sequence[Comparison], accuracies: Mapping[str, float], labels: str, margin: float, n_groups: int
) -> str:
    """The probe against its strongest control; collapse uses the source too and gets its own sentence."""
    without = [one for one in rivals if one.control != COLLAPSE] or rivals
    best = max(without, key=lambda one: accuracies[one.control])
    sentence = _against_best(best, f"With {labels}", margin, n_groups)
    unbeaten = [one.control for one in without if one.verdict != "helps"]
    if best.verdict == "helps" and unbeaten:
        sentence = f"{sentence[:-1]}, but not significantly over {_joined(unbeaten, 'or')}."
    apart = [one for one in rivals if one.control == COLLAPSE and one.verdict == "hurts"]
    if not apart or len(without) == len(rivals):
        return sentence
    return (
        f"{sentence} But no new head is needed: collapse, which derives the class from the source's own classes, "
        f"does better by {_backwards(apart[0].difference)}."
    )


def _worth(rows: Sequence[Row], comparisons: Sequence[Comparison], budget: int | None) -> tuple[str, ...]:
    """How many labels a control needs to be as accurate as the probe with few, read off its learning curve.

    The range is where the ends of the control's intervals reach the probe's accuracy.
    """
    curves: dict[str, list[tuple[int, Score]]] = {}
    for row in rows:
        if row.labels_per_class is not None:
            curves.setdefault(row.strategy, []).append((row.labels_per_class, row.accuracy))
    ours = dict(curves.get(PROBE, [])).get(budget or 0)
    if ours is None or budget is None or len(curves[PROBE]) < 2:
        return ()
    needed: dict[str, list[str]] = {}
    for control in dict.fromkeys(one.control for one in comparisons):
        if not is_rival(control) or control not in curves:
            continue
        curve = sorted(curves[control], key=lambda point: point[0])
        number, fewest, most = (
            _labels_to_reach([(labels, getattr(score, end)) for labels, score in curve], ours.value)
            for end in ("value", "high", "low")
        )
        unknown = fewest <= budget and most == inf  # the interval says nothing
        if number > budget + 0.5 and not unknown:
            needed.setdefault(_needed(number, fewest, most, curve[-1][0]), []).append(control)
    if not needed:
        return ()
    parts = [
        f"{_joined(controls, 'and')} need{'s' if len(controls) == 1 else ''} {text}"
        for text, controls in needed.items()
    ]
    return (
        f"To be as accurate as transfer with {labels_text(budget)} ({ours.value:.1%}), {'; '.join(parts)}.",
    )


def _needed(number: float, fewest: float, most: float, tried: int) -> str:
    """A number of labels with its range, as text; ``tried`` is the largest number that was tried."""
    if fewest == inf:
        return f"more than {labels_text(tried)}"
    low = ceil(fewest - 1e-9)
    middle = number if number == inf else max(round(number), low)
    if most == inf:
        near = "" if middle in (low, inf) else f"about {middle:,}, "
        return f"{near}at least {labels_text(low)}"
    high = max(round(most), low)
    near = f"about {labels_text(int(middle))}"
    return near if low == high else f"{near} ({low:,} to {high:,})"


def _labels_to_reach(curve: Sequence[tuple[int, float]], target: float) -> float:
    """First number of labels at which a curve, straight over their logarithm, reaches an accuracy."""
    if curve[0][1] >= target:
        return curve[0][0]
    for (few, low), (many, high) in itertools.pairwise(curve):
        if high >= target:
            return float(few * (many / few) ** ((target - low) / (high - low)))
    return inf


def _against_best(comparison: Comparison, begin: str, margin: float, n_groups: int) -> str:
    """A sentence or two: the probe against the strongest control."""
    found, rival = comparison.difference, comparison.control
    points = f"{100 * found.value:+.2f} points {_span(found)}"
    if comparison.verdict == "helps":
        return f"{begin}, transfer helps by {points.lstrip('+')} over its strongest control ({rival})."
    if comparison.verdict == "hurts":
        return f"{begin}, transfer hurts by {_backwards(found)}: {rival} does better."
    if comparison.verdict == "practically equal":
        return (
            f"{begin}, transfer and its strongest control ({rival}) are practically equal: they differ by "
            f"{points}, less than {100 * margin:g}."
        )
    return (
        f"{begin}, transfer and its strongest control ({rival}) do not differ significantly: {points}."
        f"{_settled_by(comparison, n_groups)}"
    )


def _joined(names: Sequence[str], word: str) -> str:
    """Names as a text, ``word`` before the last."""
    return f" {word} ".join([part for part in (", ".join(names[:-1]), names[-1]) if part])


def _span(found: Difference) -> str:
    """An interval in points."""
    return f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]"


def _backwards(found: Difference) -> str:
    """A difference and its interval from the side of the control."""
    return f"{-100 * found.value:.2f} points [{-100 * found.high:+.2f}, {-100 * found.low:+.2f}]"


def _settled_by(comparison: Comparison, n_groups: int) -> str:
    """How large a test set would show the difference, if it is as large as it looks."""
    number, here = comparison.n_to_settle, comparison.difference.n
    if round(100 * comparison.difference.value, 2) == 0:
        return ""
    if number is None:
        return " No practical number of test images alone would show a difference of this size."
    if number <= here:
        return ""
    groups = f" of {-(-number * n_groups // here):,} groups" if n_groups else ""
    return f" A test on about {about(number)} images{groups} would show a difference of this size in 4 of 5 cases."


def _labelled(budget: int | None, n_labels: int) -> str:
    """A number of labels as text, with that of all labels."""
    return f"all {n_labels:,} labels" if budget is None else labels_text(budget)


def labels_text(budget: int | None) -> str:
    """A number of labels per class as text."""
    if budget is None:
        return "all labels"
    return f"{budget:,} label{'s' if budget > 1 else ''} per class"
