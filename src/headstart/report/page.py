"""The report as one HTML page that needs nothing else to be read; it computes positions only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from headstart.evaluation.records import Calibration, Difference, Evaluation, Score
from headstart.records import Curve
from headstart.report import figures, numbers, scatter
from headstart.report import gallery as galleries
from headstart.report import svg as diagrams
from headstart.report.entries import is_rival, note_of
from headstart.report.paths import shareable
from headstart.report.records import Comparison, Factor, Report, Row, Scatter
from headstart.report.scales import Scale, round_scale

__all__ = ["render"]

_HERE = Path(__file__).parent
_WIDE_PX, _NARROW_PX = 1000, 360
_WORDS = {"cannot tell apart": "no significant difference"}
_GLYPHS = {"helps": "▲", "hurts": "▼", "practically equal": "=", "cannot tell apart": "≈"}


def render(result: Report) -> str:
    """Make the report of a study.

    Parameters
    ----------
    result : Report
        The study. ``sizes`` are counts of images and classes by name; ``examples`` are captions with
        ``data:image/png;base64,`` addresses; the fact ``command`` is shown as a block to copy.

    Returns
    -------
    str
        One HTML page with style and figures inside, without script or network request. The same result
        gives the same bytes.

    Raises
    ------
    SettingError
        If an example or an image of a gallery is not a PNG as a data address, or a figure is not SVG.

    Notes
    -----
    Names, titles and remarks are escaped. The page's content security policy forbids every request.
    Drawing the figures takes most of the time, about 0.1 s each.

    Examples
    --------
    >>> row = Row("probe", 5, Score(0.9, 0.88, 0.92, 900), 1, 0.0, 0.1)
    >>> page = render(Report("t", "s", "It helps.", (), (row,), (), (), (), {}, {}))
    >>> "It helps." in page, "<script" in page
    (True, False)
    """
    result = shareable(result)
    budgets = _budgets(result.rows)
    return (
        _environment()
        .get_template("template.html.j2")
        .render(
            result=result,
            css=_style(),
            verdict=_verdict(result.verdict),
            sections=_sections(result),
            budgets=[(budget, _budget(budget)) for budget in budgets],
            table=_table(result),
            scale=_accuracy_scale(result.rows) if len(budgets) == 1 else None,
            plots=_plots(result),
            draws=max((row.draws for row in result.rows), default=1),
            few=any(row.labels_per_class is not None for row in result.rows),
            comparisons=_comparisons(result.comparisons),
            exploratory=any(not one.claim for one in result.comparisons),
            claimed=_claimed(result.comparisons),
            to_settle=any(_open(one) and one.n_to_settle is not None for one in result.comparisons),
            curves=[_curve(curve) for curve in result.curves],
            evaluations=[_evaluation(evaluation) for evaluation in result.evaluations],
            further=[(one, galleries.drawing(one)) for one in result.figures],
            facts=_facts(result.facts),
            examples=galleries.examples(result.examples),
            calibrations=[_calibration(one) for one in result.calibrations],
            galleries=[galleries.gallery(one) for one in result.galleries],
            scatters=[_scatter(one, str(place)) for place, one in enumerate(result.scatters)],
            factors=_factors(result.factors),
        )
    )


@cache
def _environment() -> Environment:
    """Jinja with autoescape, and an error for undefined names."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=numbers.percent, span=numbers.span, points=numbers.points, p_value=numbers.p_value,
        count=numbers.count, about=numbers.about, seconds=numbers.seconds, decimals=numbers.decimals,
        fact_name=numbers.fact_name,
    )  # fmt: skip
    return environment


@cache
def _style() -> Markup:
    """The style sheets of the page, one after the other."""
    return Markup(
        "".join((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "evidence.css"))
    )


def _verdict(text: str) -> dict[str, str]:
    """Split the verdict: its first sentence is the headline, in a smaller font the longer it is.

    Typeset with true minus signs, and without line breaks inside an interval.
    """
    signed = re.sub(r"(?<![\w-])-(?=\d)", "−", text.strip())
    whole = re.sub(r"\[\S+ \S+\]", lambda found: found.group().replace(" ", "\N{NO-BREAK SPACE}"), signed)
    first, *more = re.split(r"(?<=[.!?])\s+(?=[A-Z“\"(])", whole, maxsplit=1)
    size = "short" if len(first) <= 60 else "middling" if len(first) <= 130 else "long"
    return {"first": first, "more": "".join(more), "size": size}


def _sections(result: Report) -> list[tuple[str, str]]:
    """The sections that the page has, for its table of contents."""
    known: tuple[tuple[str, str, Sequence[object]], ...] = (
        ("accuracy", "Accuracy", result.rows),
        ("chance", "Comparisons", result.comparisons),
        ("remarks", "Remarks", result.remarks),
        ("findings", "Data", result.findings),
        ("figures", "Figures", result.figures),
        ("training", "Training", result.curves),
        ("mistakes", "Metrics", result.evaluations),
        ("belief", "Calibration", result.calibrations),
        ("images", "Examples", result.galleries),
        ("maps", "Maps", result.scatters),
        ("search", "Search", result.factors),
    )
    return [
        *((name, title) for name, title, records in known if records),
        ("again", "Reproduce"),
    ]


def _budget(labels_per_class: int | None) -> str:
    return "all" if labels_per_class is None else f"{labels_per_class:,}"


def _budgets(cells: Sequence[Row] | Sequence[Comparison]) -> list[int | None]:
    """Budgets in ascending order, all labels last."""
    found = {cell.labels_per_class for cell in cells}
    return sorted(found, key=lambda budget: math.inf if budget is None else budget)


def _table(result: Report) -> list[dict[str, Any]]:
    """The result table: a row per strategy, a cell per budget, None where nothing was run."""
    budgets = _budgets(result.rows)
    cells = {(row.strategy, row.labels_per_class): row for row in result.rows}
    best = {
        budget: max(row.accuracy.value for row in result.rows if row.labels_per_class == budget)
        for budget in budgets
    }
    controls = {one.control for one in result.comparisons} - {one.strategy for one in result.comparisons}
    scale = _accuracy_scale(result.rows)
    names = tuple(dict.fromkeys(row.strategy for row in result.rows))
    table = []
    for name in names:
        line = [cells.get((name, budget)) for budget in budgets]
        marks = [cell is not None and cell.accuracy.value == best[cell.labels_per_class] for cell in line]
        table.append({
            "name": name,
            "note": note_of(name),
            "control": name in controls,
            "colour": figures.style_of(name, names).variable,
            "place": _whisker(line[0].accuracy, scale["it"]) if line[0] else None,
            "cells": list(zip(line, marks, strict=True)),
        })  # fmt: skip
    return table


def _accuracy_scale(rows: Sequence[Row]) -> dict[str, Any]:
    """The scale that bars of a result table share; the majority is shown off it where it is far.

    The interval of the best strategy is drawn as a band behind all of them.
    """
    rivals = [row.accuracy for row in rows if is_rival(row.strategy)] or [row.accuracy for row in rows]
    ends = [end for score in rivals for end in (score.low, score.high)]
    loose = round_scale(ends, most=6)
    scale = Scale(max(loose.low, 0.0), min(loose.high, 1.0))
    best = max(rivals, key=lambda score: score.value, default=Score(0.0, 0.0, 0.0, 0))
    ticks = [(f"{_across(scale.at(tick)):.2f}", f"{100 * tick:g}") for tick in scale.ticks(6)]
    return {"it": scale, "ticks": ticks, "band": _whisker(best, scale)}


def _across(share: float) -> float:
    """Per cent of the width of a cell, with room at its ends for half a dot."""
    return 2 + 94 * share


def _whisker(score: Score, scale: Scale) -> dict[str, Any]:
    """Positions of an accuracy and its interval, in per cent of the cell's width."""
    start, stop = _across(scale.at(score.low)), _across(scale.at(score.high))
    places = {"start": start, "length": stop - start, "value": _across(scale.at(score.value))}
    return {"beyond": score.high < scale.low, **{name: f"{place:.2f}" for name, place in places.items()}}


def _plots(result: Report) -> list[tuple[str, Markup]]:
    """Accuracy by labels for a wide and for a narrow screen; a single budget is drawn in the table."""
    if len(_budgets(result.rows)) < 2:
        return []
    widths = {"wide": _WIDE_PX, "narrow": _NARROW_PX}
    return [
        (name, Markup(figures.accuracy_by_labels(result.rows, result.sizes, px)))
        for name, px in widths.items()
    ]


def _open(comparison: Comparison) -> bool:
    """Whether a comparison found no significant difference."""
    return comparison.verdict == "cannot tell apart"


def _claimed(comparisons: Sequence[Comparison]) -> str:
    """The numbers of labels that the verdict is about, as text."""
    budgets = dict.fromkeys(one.labels_per_class for one in comparisons if one.claim)
    texts = [f"{labels} labels per class" if labels else "all labels" for labels in budgets]
    return " and ".join(
        text.replace("1 labels", "1 label") if text.startswith("1 ") else text for text in texts
    )


def _comparisons(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Comparisons by budget, each with its interval placed on one scale that includes zero."""
    low, high = _scale(comparisons)
    groups = []
    for budget in _budgets(comparisons):
        lines = [
            {
                "it": it,
                "glyph": _GLYPHS.get(it.verdict, ""),
                "word": _WORDS.get(it.verdict, it.verdict),
                "place": _place(it.difference, low, high),
                "open": _open(it),
            }
            for it in comparisons
            if it.labels_per_class == budget
        ]
        claim = all(one.claim for one in comparisons if one.labels_per_class == budget)
        groups.append({"label": _budget(budget), "lines": lines, "claim": claim})
    return groups


def _scale(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Ends of a scale that includes zero and every interval, except against a control that is no rival."""
    rivals = [c for c in comparisons if is_rival(c.control)] or comparisons
    ends = [end for c in rivals for end in (c.difference.low, c.difference.high) if math.isfinite(end)]
    return min([0.0, *ends]), max([0.0, *ends])


def _place(difference: Difference, low: float, high: float) -> dict[str, Any]:
    """Positions of zero, the interval and the estimate on the scale, in per cent of its length."""
    room = max(high - low, 1e-9)

    def at(value: float) -> float:
        return 4 + 90 * (min(max(value, low), high) - low) / room if math.isfinite(value) else 4.0

    start, stop = at(difference.low), at(difference.high)
    places = {"zero": at(0.0), "start": start, "length": stop - start, "value": at(difference.value)}
    return {"beyond": difference.value > high, **{name: f"{place:.2f}" for name, place in places.items()}}


def _curve(curve: Curve) -> dict[str, Any]:
    """A learning curve as two small figures, without a quantity that was not measured."""
    drawn = []
    for quantity, caption in (("loss", "Loss, nats per image"), ("accuracy", "Accuracy, %")):
        values = (*getattr(curve, f"train_{quantity}"), *getattr(curve, f"val_{quantity}"))
        if any(math.isfinite(value) for value in values):
            drawn.append((caption, Markup(figures.learning_curve(curve, quantity))))
    return {"title": curve.title, "plots": drawn}


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation, with its confusion cells shaded by their share of the row."""
    rows = []
    for true, counts in enumerate(evaluation.confusion):
        total = max(sum(counts), 1)
        # square root, so that an error rate of 1 % is still visible; up to 60 % the text is legible
        shades = [f"{min(60.0, 110 * math.sqrt(count / total)):.0f}" for count in counts]
        rows.append({"name": evaluation.classes[true], "cells": list(zip(counts, shades, strict=True))})
    sideways = len(evaluation.classes) > 6 and max(map(len, evaluation.classes)) > 3
    return {
        "it": evaluation,
        "rows": rows,
        "sideways": sideways,
        "size": "small" if len(evaluation.classes) <= 10 else "large",
    }


def _facts(facts: Mapping[str, str]) -> dict[str, Any]:
    """The command, apart from the other facts."""
    commands = [value for name, value in facts.items() if name.lower() == "command"]
    others = [(numbers.fact_name(name), value) for name, value in facts.items() if name.lower() != "command"]
    return {"command": commands[0] if commands else "", "others": others}


def _calibration(one: Calibration) -> dict[str, Any]:
    """A reliability diagram, where there is a bin to draw."""
    return {"it": one, "plot": Markup(diagrams.reliability_diagram(one)) if one.bins else ""}


def _scatter(one: Scatter, salt: str) -> dict[str, Any]:
    """A feature map with a legend of its classes."""
    legend = [
        (Markup(scatter.class_key(code)), one.classes[code], one.codes.count(code))
        for code in sorted(set(one.codes))
    ]
    return {
        "it": one,
        "plot": Markup(scatter.scatter(one, salt)),
        "legend": legend,
        "n_wrong": one.right.count(False),
        "n_drawn": len(scatter.drawn(one)),
    }


def _factors(factors: Sequence[Factor]) -> list[dict[str, Any]]:
    """Settings by descending importance, each with its trials on one axis of scores."""
    scores = round_scale((score for one in factors for score in one.scores), most=5)
    most = max((one.importance for one in factors if one.importance > 0), default=1.0)
    return [
        {
            "it": one,
            "name": one.name.replace("_", " "),
            "width": f"{100 * max(one.importance, 0.0) / most:.1f}" if one.importance > 0 else "0",
            "plot": Markup(diagrams.strip(one, scores)) if any(map(math.isfinite, one.scores)) else "",
        }
        for one in sorted(factors, key=lambda one: (not one.importance > 0, -one.importance))
    ]
