"""Marked blocks of Markdown: ``<!-- figures: NAME -->`` ... ``<!-- /figures -->``, written from results.

A block is one or more whole paragraphs or tables. Its text is a Jinja template,
``benchmarks/blocks/NAME.md.j2``, which sees the results of the figures that list it and nothing else.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound

__all__ = ["Block", "blocks_in", "outside_blocks", "rendered", "replaced"]

WIDTH = 118
_BEGIN = re.compile(r"<!-- figures: ([^>]*?) -->")
_BLOCK = re.compile(r"<!-- figures: ([^>]*?) -->\n(.*?)<!-- /figures -->", flags=re.DOTALL)
_END = "<!-- /figures -->"
_NOT_PROSE = ("|", "#", "```", "    ")
_ITEM = re.compile(r"(?:[-*+]|\d+\.) ")


class StateError(ValueError):
    """A template states what its results do not show."""


@dataclass(frozen=True)
class Block:
    """A block as it stands in a document; ``line`` counts from 1."""

    name: str
    text: str
    line: int


def blocks_in(text: str) -> Iterator[Block]:
    """Find the marked blocks of a document.

    Raises
    ------
    ValueError
        If a marker has no partner.
    """
    found = [Block(m[1], m[2], text.count("\n", 0, m.start()) + 1) for m in _BLOCK.finditer(text)]
    n_begun, n_ended = len(_BEGIN.findall(text)), text.count(_END)
    if not len(found) == n_begun == n_ended or any(_BEGIN.search(block.text) for block in found):
        raise ValueError(
            f"the markers of its figures are {n_begun} beginnings and {n_ended} ends, expected pairs, "
            "each on a line of its own"
        )
    yield from found


def replaced(text: str, name: str, content: str) -> str:
    """The document with new text in the blocks of a name."""
    return _BLOCK.sub(lambda m: f"<!-- figures: {name} -->\n{content}{_END}" if m[1] == name else m[0], text)


def outside_blocks(text: str) -> str:
    """The document with its blocks blanked, line by line, so that line numbers stay."""
    return _BLOCK.sub(lambda m: "\n" * m[0].count("\n"), text)


def rendered(folder: Path, name: str, results: Mapping[str, Any]) -> str:
    """Make the text of a block.

    Parameters
    ----------
    folder : Path
        Where the templates are.
    name : str
        Of the block.
    results : mapping of str to dict
        Results of the figures that it may quote.

    Returns
    -------
    str
        Markdown that ends with a line break.

    Raises
    ------
    ValueError
        If there is no such template, it asks for what is not in the results, or states what they do not show.
    """
    try:
        return _wrapped(_environment(folder).get_template(f"{name}.md.j2").render(figures=results))
    except TemplateNotFound:
        raise ValueError(
            f"is unknown, expected a template in {folder.name}; add it or correct the name"
        ) from None
    except StateError:
        raise
    except Exception as error:  # whatever a template does with results of another shape
        raise ValueError(
            f"cannot be written ({type(error).__name__}: {error}); correct its template"
        ) from error


def _environment(folder: Path) -> Environment:
    made = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    called = (row, comparison, table, remark, states, labels_table, rows_table)
    made.globals |= {one.__name__: one for one in called}
    made.filters |= {one.__name__: one for one in (percent, span, scored, to, points, between, count)}
    return made


def _wrapped(text: str) -> str:
    """Paragraphs filled to the width; tables, headings and code stay as they are."""
    parts = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        if part.startswith(_NOT_PROSE):
            parts.append("\n".join(line.rstrip() for line in part.splitlines()))
        else:
            items = re.split(rf"\n(?={_ITEM.pattern})", part)
            parts.append("\n".join(_filled(item) for item in items))
    return "\n\n".join(parts) + "\n"


def _filled(paragraph: str) -> str:
    indent = "  " if _ITEM.match(paragraph) else ""
    lines = textwrap.wrap(
        " ".join(paragraph.split()),
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for place in range(1, len(lines)):
        while _ITEM.match(lines[place].strip()):  # would begin a list
            word, _, rest = lines[place].strip().partition(" ")
            lines[place - 1], lines[place] = f"{lines[place - 1]} {word}", indent + rest
    return "\n".join(lines)


# ---- what templates call ----


def states(holds: bool, what: str) -> str:
    """Nothing, where what the text says holds; else an error, so that a sentence goes with its numbers."""
    if not holds:
        raise StateError(f"states that {what}, which its results no longer show; rewrite its template")
    return ""


def row(result: Mapping[str, Any], strategy: str, labels: int | None = None) -> dict[str, Any]:
    """The accuracy of a strategy: value, low, high, n."""
    for one in result["rows"]:
        if (one["strategy"], one["labels_per_class"]) == (strategy, labels):
            return dict(one["accuracy"])
    raise LookupError(f"asks for {strategy!r} with {labels or 'all'} labels per class, which no row has")


def comparison(result: Mapping[str, Any], control: str, labels: int | None = None, of: str = "probe") -> Any:
    """The comparison of a strategy with a control: difference, verdict."""
    for one in result["comparisons"]:
        if (one["strategy"], one["control"], one["labels_per_class"]) == (of, control, labels):
            return one
    raise LookupError(f"asks for {of!r} against {control!r}, which were not compared")


def table(result: Mapping[str, Any], header: str) -> Any:
    """The first table of a report that has this column."""
    for one in result["tables"]:
        if header in one["header"]:
            return one
    raise LookupError(f"asks for a table with the column {header!r}, which the result does not have")


def remark(result: Mapping[str, Any], words: str) -> str:
    """The first remark of a report that has these words."""
    for one in result["remarks"]:
        if words in one:
            return str(one)
    raise LookupError(f"asks for a remark with the words {words!r}, which the result does not have")


def percent(share: Any, digits: int = 1) -> str:
    """0.9731 as 97.3; of a score, its value."""
    value = share["value"] if isinstance(share, Mapping) else share
    return f"{100 * value:.{digits}f}"


def span(score: Mapping[str, float], digits: int = 1) -> str:
    """[59.6, 62.3]."""
    return f"[{percent(score['low'], digits)}, {percent(score['high'], digits)}]"


def scored(score: Mapping[str, float], digits: int = 1) -> str:
    """61.0 [59.6, 62.3]."""
    return f"{percent(score, digits)} {span(score, digits)}"


def to(score: Mapping[str, float], digits: int = 1) -> str:
    """59.6 to 62.3."""
    return f"{percent(score['low'], digits)} to {percent(score['high'], digits)}"


def points(difference: Mapping[str, float], digits: int = 2) -> str:
    """+2.82 points [+1.47, +4.16]."""
    return f"{100 * difference['value']:+.{digits}f} points {between(difference, digits)}"


def between(difference: Mapping[str, float], digits: int = 2) -> str:
    """[+1.47, +4.16]."""
    return f"[{100 * difference['low']:+.{digits}f}, {100 * difference['high']:+.{digits}f}]"


def count(n: float) -> str:
    """26543 as 26,543."""
    return f"{n:,.0f}"


def labels_table(
    result: Mapping[str, Any],
    names: Mapping[str, str],
    *,
    intervals: bool = True,
    of: str = "",
    over: str = "",
) -> str:
    """Strategies by labels per class; the highest value of each column is bold.

    ``of`` and ``over`` name two strategies that were compared: their difference makes the last row, with an
    asterisk where it is significant.
    """
    budgets = sorted({one["labels_per_class"] for one in result["rows"]}, key=lambda n: (n is None, n))
    best = {n: max(_shown(row(result, name, n)) for name in names) for n in budgets}
    lines = [
        f"| labels per class | {' | '.join('all' if n is None else str(n) for n in budgets)} |",
        "|---" * (len(budgets) + 1) + "|",
    ]
    for name, shown in names.items():
        cells = []
        for n in budgets:
            score = row(result, name, n)
            value = f"**{percent(score)}**" if _shown(score) == best[n] else percent(score)
            cells.append(f"{value} {span(score)}" if intervals else value)
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    if of:
        compared = [comparison(result, over, n, of) for n in budgets]
        cells = [
            f"{points(one['difference'], 1)}{'*' if one['verdict'] in ('helps', 'hurts') else ''}"
            for one in compared
        ]
        lines.append(f"| {of} - {over}, points | {' | '.join(cells)} |".replace(" points [", " ["))
    return "\n".join(lines)


def rows_table(result: Mapping[str, Any], names: Mapping[str, str], labels: int | None = None) -> str:
    """Strategies with one budget: accuracy and its interval, the highest bold, in the order given."""
    best = max(_shown(row(result, name, labels)) for name in names)
    lines = ["| strategy | accuracy, % | 95 % interval |", "|---|---|---|"]
    for name, shown in names.items():
        score = row(result, name, labels)
        value = f"**{percent(score)}**" if _shown(score) == best else percent(score)
        lines.append(f"| {shown} | {value} | {to(score)} |")
    return "\n".join(lines)


def _shown(score: Mapping[str, float]) -> float:
    """The value as a table shows it: equal ones are all the highest."""
    return float(percent(score))
