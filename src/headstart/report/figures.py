"""Accuracy by labels and learning curves as SVG that takes colours and fonts from the page around it.

Every colour is a CSS variable with a printable fallback. Apart from the other diagrams because it draws with
matplotlib, which loads in 0.1 s; only its object interface, so that no global state is changed.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from headstart.errors import SettingError
from headstart.records import Curve
from headstart.report.entries import ENTRIES
from headstart.report.records import Row

__all__ = ["STYLES", "LineStyle", "accuracy_by_labels", "learning_curve", "style_of"]


@dataclass(frozen=True)
class LineStyle:
    """How a strategy is drawn everywhere: a CSS variable, its light-mode colour, a dash and a marker."""

    variable: str
    colour: str
    dash: tuple[float, ...]
    marker: str


# Hues after Okabe and Ito (2008), darkened to a contrast of 3.5:1; dash and marker repeat the distinction
STYLES: Mapping[str, LineStyle] = {
    "probe": LineStyle("--c-probe", "#0063a8", (), "o"),
    "textbook": LineStyle("--c-textbook", "#5b4db1", (9, 3), "p"),
    "unlabelled": LineStyle("--c-unlabelled", "#127a86", (10, 2), "X"),
    "finetune": LineStyle("--c-finetune", "#1d8fc4", (7, 2), "D"),
    "scratch": LineStyle("--c-scratch", "#c24e00", (6, 2.5), "s"),
    "random": LineStyle("--c-random", "#00805e", (4, 2), "^"),
    "hog": LineStyle("--c-hog", "#a3123f", (8, 2, 1.5, 2), "d"),
    "pixels": LineStyle("--c-pixels", "#b0568a", (1.5, 1.8), "v"),
    "collapse": LineStyle("--c-collapse", "#9a6b00", (6, 2, 1.5, 2), "P"),
    "majority": LineStyle("--c-majority", "#75757c", (1, 3), "X"),
}
"""How each role of the palette is drawn."""

_OTHERS = (
    LineStyle("--c-other-1", "#4a5568", (9, 3), "<"),
    LineStyle("--c-other-2", "#8a3324", (3, 3), "h"),
    LineStyle("--c-other-3", "#3f6b1f", (2, 2), "*"),
)
_INK, _MUTED, _RULE, _PAPER = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {
    _INK: "var(--ink, #1b1b1f)",
    _MUTED: "var(--muted, #5f5f66)",
    _RULE: "var(--rule, #dcdce0)",
    _PAPER: "var(--paper, #ffffff)",
    **{style.colour: f"var({style.variable}, {style.colour})" for style in (*STYLES.values(), *_OTHERS)},
}
_TEXT_PX, _SMALL_PX = 13.0, 12.0
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: layout is the same everywhere
    "font.size": _TEXT_PX,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": _SMALL_PX,
    "axes.edgecolor": _MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": _RULE,
    "grid.linewidth": 0.8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelsize": _SMALL_PX,
    "ytick.labelsize": _SMALL_PX,
    "xtick.major.size": 4,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "lines.scale_dashes": False,
    "path.simplify": False,
}
_GAP_PX = 16.0  # between the baselines of two labels


@dataclass(frozen=True)
class _Point:
    """One budget on the axis: position, label, and whether it is all labels after a gap."""

    x: float
    label: str
    apart: bool


def style_of(strategy: str, known: Sequence[str]) -> LineStyle:
    """The style of a strategy; names without a role take turns in the order of ``known``.

    >>> style_of("probe", ("probe",)).variable, style_of("mine", ("probe", "mine")).variable
    ('--c-probe', '--c-other-1')
    """
    others = [name for name in known if _role(name) not in STYLES]
    role = _role(strategy)
    return STYLES[role] if role in STYLES else _OTHERS[others.index(strategy) % len(_OTHERS)]


def _role(strategy: str) -> str:
    """The registered role in the palette, else the name itself."""
    return ENTRIES[strategy].role if strategy in ENTRIES else strategy


def accuracy_by_labels(rows: Sequence[Row], sizes: Mapping[str, int], width_px: int = 1000) -> str:
    """Draw accuracy against labels per class as SVG, one line per strategy with its interval as a band.

    All labels are placed at ``sizes["train"] / sizes["classes"]`` where that is right of every other budget,
    else after a gap. Fonts keep their size, so draw one figure per screen width (``width_px``, at least 240).
    """
    _check(rows, width_px)
    points = _points(rows, sizes)
    names = tuple(dict.fromkeys(row.strategy for row in rows))
    height_px, right_px = (460, 132) if width_px >= 600 else (400, 104)
    with rc_context(_settings("labels", width_px)):
        figure, axes = _axes(width_px, height_px, (46, 46, right_px, 12))
        axes.set_xscale("log")
        low, high = _accuracy_limits(rows)
        axes.set_ylim(low, high)
        axes.set_xlim(min(p.x for p in points.values()) / 1.25, max(p.x for p in points.values()) * 1.08)
        for name in reversed(names):  # the first strategy is drawn last, on top
            _line(axes, [row for row in rows if row.strategy == name], points, style_of(name, names))
        _label_budgets(axes, points)
        _percent_ticks(axes)
        axes.set_xlabel("labels per class, log scale", labelpad=8)
        last = {name: _last(rows, name, points) for name in names}
        _label_ends(axes, {n: (xy, style_of(n, names).colour) for n, xy in last.items()}, height_px - 58)
        return _svg(figure, "Accuracy against labels per class, by strategy")


def learning_curve(curve: Curve, quantity: str, width_px: int = 460) -> str:
    """Draw the loss (nats) or accuracy (%) of training and validation as SVG, with the best step marked."""
    _check(curve.steps, width_px)
    if quantity not in ("loss", "accuracy"):
        raise SettingError(f"quantity is {quantity!r}, expected 'loss' or 'accuracy'; draw each on its own")
    scale = 1.0 if quantity == "loss" else 100.0
    series = {
        "train": [scale * value for value in getattr(curve, f"train_{quantity}")],
        "validation": [scale * value for value in getattr(curve, f"val_{quantity}")],
    }
    with rc_context(_settings(f"{quantity} {curve.title}", width_px)):
        figure, axes = _axes(width_px, 270, (46, 46, 84, 26))
        ends: dict[str, tuple[tuple[float, float], str]] = {}
        for name, values in series.items():
            _series(axes, name, curve.steps, values, ends)
        axes.margins(x=0.03, y=0.12)
        axes.autoscale_view()
        low, high = axes.get_ylim()
        axes.set_ylim((0, high) if quantity == "loss" else (low, min(high, 101.0)))
        _mark_best(axes, curve, series["validation"])
        whole = all(float(step).is_integer() for step in curve.steps)
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=whole))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_xlabel(curve.step_name, labelpad=6, parse_math=False)
        _label_ends(axes, ends, 270 - 72)
        return _svg(figure, f"{quantity.capitalize()} by {curve.step_name}: {curve.title}")


def _check(items: Sequence[object], width_px: int) -> None:
    """Raise `SettingError` if there is nothing to draw or too little room."""
    if not items:
        raise SettingError("figure has nothing to draw, expected 1 value or more; leave the figure out")
    if width_px < 240:
        raise SettingError(f"width_px is {width_px!r}, expected 240 or more; the labels have no room")


def _settings(salt: str, width_px: int) -> Any:
    """The style of every figure; the salt makes ids unique on a page and the output reproducible."""
    return {**_SETTINGS, "svg.hashsalt": f"headstart {salt} {width_px}"}


def _axes(width_px: float, height_px: float, room: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """Axes with margins ``room`` in px left, below, right and above; at 72 dpi a point is a pixel."""
    figure = Figure(figsize=(width_px / 72, height_px / 72), dpi=72)
    left, below, right, above = room
    share = (left / width_px, below / height_px)
    size = ((width_px - left - right) / width_px, (height_px - below - above) / height_px)
    return figure, figure.add_axes((*share, *size))


def _points(rows: Sequence[Row], sizes: Mapping[str, int]) -> dict[int | None, _Point]:
    """Place every budget on the axis, in order."""
    numbers = sorted({row.labels_per_class for row in rows if row.labels_per_class is not None})
    points: dict[int | None, _Point] = {n: _Point(float(n), f"{n:,}", apart=False) for n in numbers}
    if any(row.labels_per_class is None for row in rows):
        top = numbers[-1] if numbers else 1
        known = sizes.get("train", 0) / max(sizes.get("classes", 0), 1) if sizes.get("classes") else 0.0
        apart = known <= top * 1.15  # closer labels would touch
        where = top * max(2.2, (top / numbers[0]) ** 0.3 if numbers else 0) if apart else known
        points[None] = _Point(where, "all" if apart else f"all ({known:,.0f})", apart)
    return points


def _accuracy_limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Limits in per cent, multiples of ten, that include every interval."""
    low = min(row.accuracy.low for row in rows)
    return float(min(max(0, math.floor(10 * low)), 9) * 10), 101.0


def _line(axes: Axes, rows: Sequence[Row], points: Mapping[int | None, _Point], style: LineStyle) -> None:
    """One strategy: band, line and markers; all labels after a gap are connected by a thin line."""
    ordered = sorted(rows, key=lambda row: points[row.labels_per_class].x)
    x = [points[row.labels_per_class].x for row in ordered]
    middle, low, high = (
        [100 * getattr(row.accuracy, end) for row in ordered] for end in ("value", "low", "high")
    )
    joined = sum(not points[row.labels_per_class].apart for row in ordered)
    axes.fill_between(x[:joined], low[:joined], high[:joined], color=style.colour, alpha=0.13, lw=0)
    if joined < len(x):
        axes.plot(x[joined - 1 :], middle[joined - 1 :], color=style.colour, lw=0.9, dashes=(1, 3))
        axes.plot([x[-1]] * 2, [low[-1], high[-1]], color=style.colour, lw=5, alpha=0.25)
    dashes = style.dash or (None, None)
    width = 2.6 if style.marker == "o" else 1.7
    axes.plot(x[:joined], middle[:joined], color=style.colour, lw=width, dashes=dashes)
    axes.plot(x, middle, style.marker, color=style.colour, ms=9, mec=_PAPER, mew=1.2, clip_on=False)


def _last(rows: Sequence[Row], name: str, points: Mapping[int | None, _Point]) -> tuple[float, float]:
    """Right end of a strategy's line."""
    last = max((row for row in rows if row.strategy == name), key=lambda row: points[row.labels_per_class].x)
    return points[last.labels_per_class].x, 100 * last.accuracy.value


def _label_budgets(axes: Axes, points: Mapping[int | None, _Point]) -> None:
    """Label the budgets on the axis, with no other ticks."""
    axes.set_xticks([point.x for point in points.values()], [point.label for point in points.values()])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(visible=False, axis="x")


def _percent_ticks(axes: Axes) -> None:
    """Per cent on the y axis, with the sign on the highest tick only."""
    low, high = (int(end) for end in axes.get_ylim())
    step = next(step for room, step in ((60, 20), (25, 10), (12, 5), (0, 2)) if high - low > room)
    ticks = list(range(-(-low // step) * step, 101, step))
    axes.set_yticks(ticks, [f"{tick} %" if tick == 100 else f"{tick}" for tick in ticks])


def _series(
    axes: Axes,
    name: str,
    steps: Sequence[float],
    values: Sequence[float],
    ends: dict[str, tuple[tuple[float, float], str]],
) -> None:
    """One line of a learning curve, from the steps at which it was measured."""
    measured = [(x, y) for x, y in zip(steps, values, strict=True) if math.isfinite(y)]
    if not measured:
        return
    colour, dashes = (_MUTED, (4, 2)) if name == "train" else (STYLES["probe"].colour, (None, None))
    x, y = zip(*measured, strict=True)
    axes.plot(x, y, color=colour, lw=2.2 if name == "validation" else 1.6, dashes=dashes)
    if len(x) == 1:
        axes.plot(x, y, "o", color=colour, ms=6)
    ends[name] = (measured[-1], colour)


def _mark_best(axes: Axes, curve: Curve, values: Sequence[float]) -> None:
    """Mark the step that was kept with a thin line and a ring."""
    if curve.best_step is None:
        return
    best = curve.best_step
    axes.axvline(best, color=_MUTED, lw=0.8, dashes=(2, 2))
    pairs = zip(curve.steps, values, strict=True)
    here = [value for step, value in pairs if step == best and math.isfinite(value)]
    if here:
        axes.plot([best], here[:1], "o", ms=8, mfc=_PAPER, mec=STYLES["probe"].colour, mew=2)
    left, right = axes.get_xlim()
    place = (best - left) / (right - left)
    side = "left" if place < 0.2 else "right" if place > 0.8 else "center"
    axes.text(
        best, 1.03, f"best: {best:g}", transform=axes.get_xaxis_transform(), ha=side, color=_MUTED,
        size=_SMALL_PX,
    )  # fmt: skip


def _label_ends(axes: Axes, ends: Mapping[str, tuple[tuple[float, float], str]], height_px: float) -> None:
    """Write names right of the axes, at the height of their lines or as near as they fit."""
    if not ends:
        return
    low, high = axes.get_ylim()
    names = sorted(ends, key=lambda name: ends[name][0][1])
    positions = [(ends[name][0][1] - low) / (high - low) * height_px for name in names]
    for name, place in zip(names, _spread_apart(positions, height_px), strict=True):
        axes.text(
            1.018, place / height_px, name, transform=axes.transAxes, va="center", color=ends[name][1],
            size=_TEXT_PX, weight="bold" if name in ("probe", "validation") else "normal", parse_math=False,
        )  # fmt: skip


def _spread_apart(positions: Sequence[float], height_px: float) -> list[float]:
    """Positions near the given ones (ascending), at least a gap apart, and not above the top."""
    placed: list[float] = []
    for place in positions:
        placed.append(max(place, placed[-1] + _GAP_PX) if placed else place)
    ceiling = height_px
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - _GAP_PX
    return placed


def _svg(figure: Figure, label: str) -> str:
    """Turn the figure into an element of the page."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<defs>\s*</defs>", "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    body = re.sub(r'style="[^"]*"', lambda found: _page_style(found.group()), body)
    width, height = (72 * inches for inches in figure.get_size_inches())
    name = escape(label, quote=True)
    body = re.sub(r"\n\s*", "\n", body)
    head = f'<svg role="img" aria-label="{name}" viewBox="0 0 {width:g} {height:g}">'
    return f"{head}{body.strip()}</svg>"


def _page_style(style: str) -> str:
    """Replace our colours by the page's variables and drop font families, so that the page's font is used."""
    style = re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES.get(found.group(), found.group()), style)
    return re.sub(r"font-family: [^;\"]*;? ?|(?<=px )'DejaVu Sans'[^;\"]*", "", style)
