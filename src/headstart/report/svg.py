"""Diagrams written by hand as SVG, because matplotlib takes 0.1 s a figure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.records import Calibration, ReliabilityBin
from headstart.report.numbers import count, labels
from headstart.report.records import Factor
from headstart.report.scales import Scale, round_scale

__all__ = [
    "axis_marks",
    "rate_test",
    "reliability_diagram",
    "strip",
    "svg_element",
    "svg_grid",
    "svg_text",
]


_Place = Callable[[float], float]
_LINE = "fill:none;stroke:var(--c-probe, #0063a8);stroke-width:2.2;stroke-linejoin:round"
_HAIRLINE = "fill:none;stroke:var(--muted, #5f5f66);stroke-width:.8;stroke-dasharray:2 2"
_RING = "fill:var(--paper, #ffffff);stroke:var(--c-probe, #0063a8);stroke-width:2"


def reliability_diagram(calibration: Calibration) -> str:
    """Draw the share of correct predictions against their confidence, over a histogram; 440 px wide.

    A bin's dot is hollow where its interval includes the bin's own confidence, so that chance alone can
    explain the gap. Niculescu-Mizil and Caruana. Predicting Good Probabilities with Supervised Learning. ICML
    2005.
    """
    if not calibration.bins:
        raise SettingError(
            "calibration has no bins, expected 1 or more with images in them; leave the diagram out"
        )
    left, right, top, bottom, floor, foot = 46.0, 424.0, 8.0, 308.0, 388.0, 428.0
    whole = Scale(0.0, 1.0)

    def x(share: float) -> float:
        return left + (right - left) * whole.at(share)

    def y(share: float) -> float:
        return bottom - (bottom - top) * whole.at(share)

    parts = [
        svg_grid([(left, y(tick), right, y(tick)) for tick in whole.ticks(6)]),
        *(svg_text(left - 8, y(tick) + 4, _share(tick), "end") for tick in whole.ticks(6)),
        f'<path class="diagonal" d="M{x(0):g} {y(0):g}L{x(1):g} {y(1):g}"/>',
        svg_text(left + 12, top + 20, "↖ underconfident", "start", "word"),
        svg_text(right - 8, bottom - 12, "overconfident ↘", "end", "word"),
        *(_bin(one, x, y) for one in calibration.bins),
        *_histogram(calibration.bins, x, floor, 52.0),
        *(svg_text(x(tick), floor + 17, _share(tick), "middle") for tick in whole.ticks(6)),
        svg_text((left + right) / 2, foot - 3, "confidence", "middle", "name"),
    ]
    return svg_element("reliability", 440, foot + 4, f"Reliability: {calibration.title}", parts)


def strip(factor: Factor, scores: Scale) -> str:
    """Draw the score of every trial of a search against one setting, 320 px wide, the highest ringed."""
    if len(factor.values) != len(factor.scores):
        raise ShapeError(
            f"factor {factor.name!r} has {len(factor.values)} values and {len(factor.scores)} scores, "
            "expected one score for each value; give NaN for a trial that failed"
        )
    trials = [(v, s) for v, s in zip(factor.values, factor.scores, strict=True) if math.isfinite(s)]
    if not trials:
        raise SettingError(f"factor {factor.name!r} has no score, expected 1 or more; leave the factor out")
    left, right, top, bottom = 44.0, 312.0, 10.0, 148.0
    named = any(isinstance(value, str) for value, _ in trials)
    spread, ticks = _choices(trials) if named else _numbers(trials, factor.log)

    def x(share: float) -> float:
        return left + 10 + (right - left - 20) * share

    def y(share: float) -> float:
        return bottom - (bottom - top) * share

    xs, ys = [x(share) for share in spread], [y(scores.at(score)) for _, score in trials]
    best = max(range(len(trials)), key=lambda i: trials[i][1])
    levels = axis_marks(scores, 5)
    dots = "".join(f"M{across:.1f} {up:.1f}h0" for across, up in zip(xs, ys, strict=True))
    parts = [
        svg_grid([(left, y(share), right, y(share)) for share, _ in levels]),
        *(svg_text(left - 8, y(share) + 4, label, "end") for share, label in levels),
        *(svg_text(x(share), bottom + 20, label, "middle") for share, label in ticks),
        f'<path class="trials" d="{dots}"/>',
        f'<circle class="ring" cx="{xs[best]:.1f}" cy="{ys[best]:.1f}" r="7"/>',
    ]  # fmt: skip
    return svg_element("strip", 320, 176, f"Score by {factor.name}", parts)


def rate_test(rates: Sequence[float], losses: Sequence[float], suggestion: float) -> str:
    """Draw the loss (nats) while the learning rate rose, with the suggested rate marked; 460 px wide."""
    if len(rates) != len(losses):
        raise ShapeError(
            f"rate test has {len(rates)} rates and {len(losses)} losses, expected one loss for each rate"
        )
    if len(rates) < 2 or not 0 < rates[0] <= suggestion <= rates[-1]:
        raise SettingError(
            f"suggestion is {suggestion!r} of {len(rates)} rates, expected two rates or more above 0 and a "
            "suggestion between them; leave the diagram out"
        )
    left, right, top, bottom = 46.0, 444.0, 34.0, 222.0
    across, up = Scale(rates[0], rates[-1], log=True), round_scale([0.0, *losses], most=5)

    def x(rate: float) -> float:
        return left + (right - left) * across.at(rate)

    def y(share: float) -> float:
        return bottom - (bottom - top) * share

    after = next(i for i, rate in enumerate(rates) if rate >= suggestion)
    part = Scale(rates[max(after - 1, 0)], rates[after], log=True).at(suggestion) if after else 1.0
    loss = losses[max(after - 1, 0)] * (1 - part) + losses[after] * part
    at, (side, shift) = x(suggestion), ("end", 4) if across.at(suggestion) > 0.7 else ("start", -4)
    points = "L".join(f"{x(a):.1f} {y(up.at(b)):.1f}" for a, b in zip(rates, losses, strict=True))
    levels = axis_marks(up, 5)
    parts = [
        svg_grid([(left, y(share), right, y(share)) for share, _ in levels]),
        *(svg_text(left - 8, y(share) + 4, label, "end") for share, label in levels),
        *(svg_text(left + (right - left) * share, bottom + 20, label, "middle")
          for share, label in axis_marks(across, 7)),
        f'<path d="M{points}" style="{_LINE}"/>',
        f'<path d="M{at:.1f} {top:g}V{bottom:g}" style="{_HAIRLINE}"/>',
        f'<circle cx="{at:.1f}" cy="{y(up.at(loss)):.1f}" r="5" style="{_RING}"/>',
        svg_text(at + shift, top - 4, f"suggested: {_rounded(suggestion)}", side, "word"),
        svg_text(left - 8, 14, "loss, nats", "start", "name"),
        svg_text((left + right) / 2, bottom + 44, "learning rate, log scale", "middle", "name"),
    ]  # fmt: skip
    return svg_element("rates", 460, 274, "Loss by learning rate", parts)


def svg_element(kind: str, width_px: float, height_px: float, label: str, parts: Iterable[str]) -> str:
    """An element with a name for screen readers."""
    name = escape(label, quote=True)
    head = f'<svg class="{kind}" role="img" aria-label="{name}" viewBox="0 0 {width_px:g} {height_px:g}">'
    return f"{head}{''.join(parts)}</svg>"


def svg_text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> str:
    """Words at a place; ``anchor`` is start, middle or end."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def svg_grid(lines: Iterable[tuple[float, float, float, float]]) -> str:
    """Thin lines behind everything."""
    return f'<path class="grid" d="{"".join(f"M{a:g} {b:g}L{c:g} {d:g}" for a, b, c, d in lines)}"/>'


def _share(share: float) -> str:
    """Per cent, with the sign on the highest tick only."""
    return f"{100 * share:.0f}{' %' if share == 1 else ''}"


def _bin(one: ReliabilityBin, x: _Place, y: _Place) -> str:
    """One bin: its interval and its dot."""
    at, score = x(one.confidence), one.accuracy
    kind = "dot" if score.low <= one.confidence <= score.high else "dot off"
    return (
        f'<path class="bar" d="M{at:.1f} {y(score.low):.1f}V{y(score.high):.1f}"/>'
        f'<circle class="{kind}" cx="{at:.1f}" cy="{y(score.value):.1f}" r="5"/>'
    )


def _histogram(bins: Sequence[ReliabilityBin], x: _Place, floor: float, height: float) -> Iterable[str]:
    """How many images each bin has: a bar, with its number where there is room."""
    most = max(one.accuracy.n for one in bins)
    for one in bins:
        start, stop, n = x(one.low), x(one.high), one.accuracy.n
        tall, wide = max(height * n / most, 1.5), max(stop - start - 1.5, 1.0)
        yield (
            f'<rect class="count" x="{start + 0.75:.1f}" y="{floor - tall:.1f}"'
            f' width="{wide:.1f}" height="{tall:.1f}"/>'
        )
        if wide >= 6.4 * len(count(n)):
            yield svg_text((start + stop) / 2, floor - tall - 4, count(n), "middle", "n")


def _choices(trials: Sequence[tuple[float | str, float]]) -> tuple[list[float], list[tuple[float, str]]]:
    """Place names next to each other, trials of one name spread a little, the same way every time."""
    names = list(dict.fromkeys(str(value) for value, _ in trials))
    middle = {name: (i + 0.5) / len(names) for i, name in enumerate(names)}
    # the golden ratio spreads any number of trials evenly without a visible pattern
    seen: Counter[str] = Counter()
    spread = []
    for value, _ in trials:
        name = str(value)
        spread.append(middle[name] + (0.6 / len(names)) * ((0.618034 * seen[name] + 0.5) % 1 - 0.5))
        seen[name] += 1
    room = max(int(36 / len(names)), 3)
    return spread, [(middle[name], name if len(name) <= room else f"{name[: room - 1]}…") for name in names]


def _numbers(
    trials: Sequence[tuple[float | str, float]], log: bool
) -> tuple[list[float], list[tuple[float, str]]]:
    """Place numbers on their axis."""
    values = [float(value) for value, _ in trials]
    logarithmic = log and min(values) > 0 and max(values) > min(values)
    scale = Scale(min(values), max(values), log=True) if logarithmic else round_scale(values, most=5)
    return [scale.at(value) for value in values], axis_marks(scale, 5)


def axis_marks(scale: Scale, most: int) -> list[tuple[float, str]]:
    """Positions of ticks along an axis, 0 - 1, and their labels."""
    ticks = scale.ticks(most)
    return [
        (scale.at(tick), label) for tick, label in zip(ticks, labels(ticks, even=not scale.log), strict=True)
    ]


def _rounded(value: float) -> str:
    """A value to two figures."""
    return labels([float(f"{value:.2g}")])[0]
