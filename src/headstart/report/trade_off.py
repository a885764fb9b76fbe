"""Accuracy against time, as a drawing for the page: which sources are worth their cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headstart.errors import SettingError
from headstart.evaluation.records import Score
from headstart.report.scales import Scale, round_scale
from headstart.report.svg import axis_marks, svg_element, svg_grid, svg_text

__all__ = ["Point", "trade_off"]

_WIDTH, _HEIGHT = 480.0, 294.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 322.0, 34.0, 242.0
_BLUE, _GREY = "var(--c-probe, #0063a8)", "var(--muted, #5f5f66)"
_LINE_HEIGHT, _LONGEST = 17.0, 20  # of names: pixels, and characters


@dataclass(frozen=True)
class Point:
    """A source: ms per image (above 0), accuracy with its interval, and whether it is on the Pareto front."""

    name: str
    ms: float
    accuracy: Score
    on_front: bool


def trade_off(points: Sequence[Point]) -> str:
    """Draw points with their intervals over a logarithmic axis of time, and a line along the Pareto front."""
    if not points or min(one.ms for one in points) <= 0:
        raise SettingError(
            "points are none or have no time, expected some with ms above 0; leave the figure out"
        )
    times = [one.ms for one in points]
    across = Scale(min(times) / 1.5, max(times) * 1.5, log=True)
    up = round_scale([100 * v for one in points for v in (one.accuracy.low, one.accuracy.high)], most=6)

    def at(one: Point, share: float | None = None) -> tuple[float, float]:
        value = one.accuracy.value if share is None else share
        return (
            _LEFT + (_RIGHT - _LEFT) * across.at(one.ms),
            _BOTTOM - (_BOTTOM - _TOP) * up.at(100 * value),
        )

    front = sorted((at(one) for one in points if one.on_front), key=lambda place: place[0])
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in front)
    levels = [(_BOTTOM - (_BOTTOM - _TOP) * share, label) for share, label in axis_marks(up, 6)]
    parts = [
        svg_grid([(_LEFT, y, _RIGHT, y) for y, _ in levels]),
        *(svg_text(_LEFT - 8, y + 4, label, "end") for y, label in levels),
        *(
            svg_text(_LEFT + (_RIGHT - _LEFT) * share, _BOTTOM + 20, label, "middle")
            for share, label in axis_marks(across, 5)
        ),
        f'<path d="M{line}" style="fill:none;stroke:{_BLUE};stroke-width:1.6"/>',
        *_names([(one, *at(one)) for one in points]),
        *(_mark(one, at(one), at(one, one.accuracy.low)[1], at(one, one.accuracy.high)[1]) for one in points),
        svg_text(_LEFT - 8, 14, "accuracy, %", "start", "name"),
        svg_text((_LEFT + _RIGHT) / 2, _BOTTOM + 44, "ms per image, log scale", "middle", "name"),
    ]
    return svg_element("trade-off", _WIDTH, _HEIGHT, "Accuracy against time per image, by source", parts)


def _mark(one: Point, place: tuple[float, float], low: float, high: float) -> str:
    """The interval and the dot."""
    (x, y), colour = place, _BLUE if one.on_front else _GREY
    bar = f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" style="fill:none;stroke:{colour};stroke-width:1.4"/>'
    return f'{bar}<circle cx="{x:.1f}" cy="{y:.1f}" r="5" style="fill:{colour}"/>'


def _names(places: Sequence[tuple[Point, float, float]]) -> Iterator[str]:
    """Names right of the plot, at the height of their dots or as near as they fit, and lines that lead to them."""
    ordered = sorted(places, key=lambda place: place[2])
    lines, top = [], _TOP
    for _, _, y in ordered:
        lines.append(max(y, top))
        top = lines[-1] + _LINE_HEIGHT
    above = max(0.0, lines[-1] - _BOTTOM) if lines else 0.0
    for (one, x, y), line in zip(ordered, lines, strict=True):
        lead = f"M{x + 7:.1f} {y:.1f}L{_RIGHT + 4:.1f} {line - above:.1f}"
        yield f'<path d="{lead}" style="fill:none;stroke:{_GREY};stroke-width:.7;stroke-dasharray:1 3"/>'
        yield svg_text(_RIGHT + 10, line - above + 4, _short(one.name), "start", "name")


def _short(name: str) -> str:
    """A name that fits beside the plot."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."
