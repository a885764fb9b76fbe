"""The report: a study as one HTML page that needs nothing else to be read.

In: ``records.StudyResult``. Out: HTML text, or a file written whole or not at all.
Imports only errors and records of ours and the figures next door; owns Jinja. It computes nothing
but places on the page: every number comes from the records. Called by studies and the command line.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from headstart.errors import SettingError
from headstart.records import Comparison, Curve, Difference, Evaluation, Row, Score, StudyResult
from headstart.report import figures

__all__ = ["render", "write"]

_PNG = "data:image/png;base64,"
_WIDE_PX, _NARROW_PX = 1000, 360
_NOTES = {
    "probe": "the source, frozen, under a new head",
    "textbook probe": "frozen where the textbook does",
    "finetune": "probe first, then everything unfrozen",
    "scratch": "the same network, from these labels alone",
    "random frozen": "the same network, random weights, frozen",
    "raw pixels": "no network, only the pixels",
    "collapse": "read off the source's own classes",
    "majority": "always the commonest class",
}
_GLYPHS = {"helps": "▲", "hurts": "▼", "cannot tell apart": "≈"}


def render(result: StudyResult) -> str:
    """Make the report of a study.

    Parameters
    ----------
    result : StudyResult
        The study. ``sizes`` are counts of images and classes by name; ``examples`` are captions with
        ``data:image/png;base64,`` addresses; a fact called ``command`` is set as a block to copy.

    Returns
    -------
    str
        One HTML page: style and figures inside, no script, no request to anywhere. The same result
        gives the same bytes.

    Raises
    ------
    SettingError
        If an example is not a PNG as a data address.

    Notes
    -----
    Names, titles and remarks are escaped. The page forbids itself every request by its own content
    security policy. Time is that of the figures, about 0.1 s each.

    Examples
    --------
    >>> row = Row("probe", 5, Score(0.9, 0.88, 0.92, 900), 1, 0.0, 0.1)
    >>> page = render(StudyResult("t", "s", "It helps.", (), (row,), (), (), (), {}, {}))
    >>> "It helps." in page, "<script" in page
    (True, False)
    """
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=_percent, span=_span, points=_points, p_value=_p_value, count=_count, seconds=_seconds
    )
    return environment.get_template("template.html.j2").render(
        result=result,
        css=Markup((folder / "page.css").read_text(encoding="utf-8")),
        budgets=[(budget, _budget(budget)) for budget in _budgets(result.rows)],
        table=_table(result),
        plots=_plots(result),
        draws=max((row.draws for row in result.rows), default=1),
        comparisons=_comparisons(result.comparisons),
        curves=[_curve(curve) for curve in result.curves],
        evaluations=[_evaluation(evaluation) for evaluation in result.evaluations],
        facts=_facts(result.facts),
        examples=_examples(result.examples),
    )


def write(result: StudyResult, path: str | os.PathLike[str]) -> None:
    """Write the report of a study, whole or not at all.

    Parameters
    ----------
    result : StudyResult
        The study.
    path : path
        Where the page goes, in a folder that exists. A file already there is replaced at the end, in
        one step; until then, and if anything fails, it stays as it is.

    Raises
    ------
    SettingError
        If the folder does not exist, ``path`` is a folder, or an example is not a PNG.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> row = Row("probe", 5, Score(0.9, 0.88, 0.92, 900), 1, 0.0, 0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(StudyResult("t", "s", "v", (), (row,), (), (), (), {}, {}), Path(folder) / "report.html")
    ...     os.listdir(folder)
    ['report.html']
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise SettingError(
            f"path {str(target)!r} is in a folder that does not exist, need one that does; "
            f"create it with: mkdir -p {target.parent}"
        )
    if target.is_dir():
        raise SettingError(f"path {str(target)!r} is a folder, need a file; add a name such as report.html")
    page = render(result)
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(scratch, "x", encoding="utf-8", newline="\n") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def _number(value: float, spec: str) -> str:
    """Write a number with a true minus sign, or a dash where there is none."""
    return format(value, spec).replace("-", "−") if math.isfinite(value) else "–"


def _percent(share: float) -> str:
    """Write 0.9731 as 97.3."""
    return _number(100 * share, ".1f")


def _span(score: Score) -> str:
    """Write the interval of a share in per cent."""
    return f"{_percent(score.low)}–{_percent(score.high)}"


def _points(share: float) -> str:
    """Write a difference in points, with its sign."""
    return _number(100 * share, "+.1f")


def _p_value(p: float) -> str:
    """Write a p-value to three places, or the bound it is below."""
    return "< 0.001" if p < 0.001 else _number(p, ".3f")


def _count(n: int) -> str:
    """Write 60000 as 60,000."""
    return f"{n:,}"


def _seconds(seconds: float) -> str:
    """Write seconds to two figures where they are few."""
    return _number(seconds, ",.0f" if seconds >= 10 else ".2g")


def _budget(labels_per_class: int | None) -> str:
    """Name a budget."""
    return "all" if labels_per_class is None else f"{labels_per_class:,}"


def _budgets(cells: Sequence[Row] | Sequence[Comparison]) -> list[int | None]:
    """List budgets in order, all labels last."""
    found = {cell.labels_per_class for cell in cells}
    return sorted(found, key=lambda budget: math.inf if budget is None else budget)


def _table(result: StudyResult) -> list[dict[str, Any]]:
    """Lay out the result table: a row per strategy, a cell per budget, None where nothing was run."""
    budgets = _budgets(result.rows)
    cells = {(row.strategy, row.labels_per_class): row for row in result.rows}
    best = {
        budget: max(row.accuracy.value for row in result.rows if row.labels_per_class == budget)
        for budget in budgets
    }
    controls = {comparison.control for comparison in result.comparisons}
    table = []
    for name in dict.fromkeys(row.strategy for row in result.rows):
        line = [cells.get((name, budget)) for budget in budgets]
        marks = [cell is not None and cell.accuracy.value == best[cell.labels_per_class] for cell in line]
        table.append({
            "name": name,
            "note": _NOTES.get(name, ""),
            "control": name in controls,
            "cells": list(zip(line, marks, strict=True)),
        })  # fmt: skip
    return table


def _plots(result: StudyResult) -> list[tuple[str, Markup]]:
    """Draw the main figure for a wide and for a narrow screen."""
    rows = result.rows
    if not rows:
        return []
    one = len(_budgets(rows)) == 1
    widths = {"wide": _WIDE_PX, "narrow": _NARROW_PX}
    return [
        (name, Markup(figures.accuracy_by_strategy(rows, px) if one else
                      figures.accuracy_by_labels(rows, result.sizes, px)))
        for name, px in widths.items()
    ]  # fmt: skip


def _comparisons(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Group comparisons by budget, each with its interval placed on one scale that holds zero."""
    low, high = _scale(comparisons)
    groups = []
    for budget in _budgets(comparisons):
        lines = [
            {"it": it, "glyph": _GLYPHS.get(it.verdict, ""), "place": _place(it.difference, low, high)}
            for it in comparisons
            if it.labels_per_class == budget
        ]
        groups.append({"label": _budget(budget), "lines": lines})
    return groups


def _scale(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Find a scale that holds zero and every interval, but for those against a control that is no rival."""
    rivals = [c for c in comparisons if c.control != "majority"] or comparisons
    ends = [end for c in rivals for end in (c.difference.low, c.difference.high) if math.isfinite(end)]
    return min([0.0, *ends]), max([0.0, *ends])


def _place(difference: Difference, low: float, high: float) -> dict[str, Any]:
    """Say where zero, the interval and the estimate fall on the scale, in per cent of its length."""
    room = max(high - low, 1e-9)

    def at(value: float) -> float:
        return 4 + 90 * (min(max(value, low), high) - low) / room if math.isfinite(value) else 4.0

    start, stop = at(difference.low), at(difference.high)
    places = {"zero": at(0.0), "start": start, "length": stop - start, "value": at(difference.value)}
    return {"beyond": difference.value > high, **{name: f"{place:.2f}" for name, place in places.items()}}


def _curve(curve: Curve) -> dict[str, Any]:
    """Draw a learning curve as two small figures, without those that were not measured."""
    drawn = []
    for quantity, caption in (("loss", "Loss, nats per image"), ("accuracy", "Accuracy, %")):
        values = (*getattr(curve, f"train_{quantity}"), *getattr(curve, f"val_{quantity}"))
        if any(math.isfinite(value) for value in values):
            drawn.append((caption, Markup(figures.learning_curve(curve, quantity))))
    return {"title": curve.title, "plots": drawn}


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Lay out an evaluation with its confusion cells shaded by their share of the row."""
    rows = []
    for true, counts in enumerate(evaluation.confusion):
        total = max(sum(counts), 1)
        # square root: a class called wrong once in a hundred must still be seen; 60 % leaves text legible
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
    """Set the command apart from the other facts."""
    commands = [value for name, value in facts.items() if name.lower() == "command"]
    others = [(name.replace("_", " "), value) for name, value in facts.items() if name.lower() != "command"]
    return {"command": commands[0] if commands else "", "others": others}


def _examples(examples: Sequence[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """Check thumbnails, and say whether each is so small that its pixels should be seen."""
    checked = []
    for caption, address in examples:
        try:
            if not address.startswith(_PNG):
                raise ValueError(address[:40])
            data = base64.b64decode(address[len(_PNG) :], validate=True)
        except (ValueError, binascii.Error) as error:
            raise SettingError(
                f"example {caption!r} is {address[:40]!r}, need a PNG as {_PNG}...; encode it with base64"
            ) from error
        # bytes 16 - 20 of a PNG are its width
        checked.append((caption, address, int.from_bytes(data[16:20], "big") <= 64))
    return checked
