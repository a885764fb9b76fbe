"""Diagrams written by hand as SVG: reliability, a map of images, settings of a search, a test of rates.

In: records, plain numbers. Out: SVG text to put inside HTML, coloured by the page's style sheets through
classes. Imports records, errors and the report's own numbers and scales; not matplotlib, because at 0.1 s
a figure a page with many would be slow. Called by page and whoever draws one alone.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape

from headstart.errors import SettingError, ShapeError
from headstart.records import Calibration, Factor, ReliabilityBin, Scatter
from headstart.report.numbers import count, labels
from headstart.report.scales import Scale, round_scale

__all__ = ["MOST_POINTS", "class_key", "drawn", "rate_test", "reliability", "scatter", "strip"]

MOST_POINTS = 6000
"""Points that a map draws at most; of more, so many are drawn, spread through them."""

_Place = Callable[[float], float]
_N_COLOURS = 10
# Seven shapes and ten colours: no two of 70 classes share both
_SHAPES = (
    "M-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0-8.4 0z",
    "M-3.8-3.8h7.6v7.6h-7.6z",
    "M0-4.9l4.7 8.2h-9.4z",
    "M0-5.4l5.4 5.4-5.4 5.4-5.4-5.4z",
    "M0 4.9l4.7-8.2h-9.4z",
    "M-1.6-5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z",
    "M-4.6-2.5l2.1-2.1 2.5 2.5 2.5-2.5 2.1 2.1-2.5 2.5 2.5 2.5-2.1 2.1-2.5-2.5-2.5 2.5-2.1-2.1 2.5-2.5z",
)
_ENDS = ("start", "mid", "end")
_LABEL_PX, _LETTER_PX = 18.0, 8.6  # height of a name on a map, and the width of one of its letters
_LONGEST = 18  # letters of a name on a map
_LINE = "fill:none;stroke:var(--c-probe, #0063a8);stroke-width:2.2;stroke-linejoin:round"
_HAIRLINE = "fill:none;stroke:var(--muted, #5f5f66);stroke-width:.8;stroke-dasharray:2 2"
_RING = "fill:var(--paper, #ffffff);stroke:var(--c-probe, #0063a8);stroke-width:2"


def reliability(calibration: Calibration) -> str:
    """Draw how often answers were right against how sure they were, over a histogram of confidence.

    Parameters
    ----------
    calibration : Calibration
        What was measured, bin by bin.

    Returns
    -------
    str
        An ``<svg>`` element, 440 px wide. A bin's dot is hollow where its interval holds the bin's
        own confidence, so that chance alone can explain the gap.

    Raises
    ------
    SettingError
        If there are no bins.

    References
    ----------
    Niculescu-Mizil and Caruana. Predicting Good Probabilities with Supervised Learning. ICML 2005.

    Examples
    --------
    >>> from headstart.records import Score
    >>> one = ReliabilityBin(0.8, 0.9, 0.86, Score(0.7, 0.6, 0.8, 90))
    >>> reliability(Calibration("test", 0.16, 0.2, 0.5, 90, (one,))).count('class="dot off"')
    1
    """
    if not calibration.bins:
        raise SettingError(
            "calibration has no bins, need 1 or more with answers in them; leave the diagram out"
        )
    left, right, top, bottom, floor, foot = 46.0, 424.0, 8.0, 308.0, 388.0, 428.0
    whole = Scale(0.0, 1.0)

    def x(share: float) -> float:
        return left + (right - left) * whole.at(share)

    def y(share: float) -> float:
        return bottom - (bottom - top) * whole.at(share)

    parts = [
        _grid([(left, y(tick), right, y(tick)) for tick in whole.ticks(6)]),
        *(_text(left - 8, y(tick) + 4, _share(tick), "end") for tick in whole.ticks(6)),
        f'<path class="diagonal" d="M{x(0):g} {y(0):g}L{x(1):g} {y(1):g}"/>',
        _text(left + 12, top + 20, "↖ too modest", "start", "word"),
        _text(right - 8, bottom - 12, "too sure ↘", "end", "word"),
        *(_bin(one, x, y) for one in calibration.bins),
        *_histogram(calibration.bins, x, floor, 52.0),
        *(_text(x(tick), floor + 17, _share(tick), "middle") for tick in whole.ticks(6)),
        _text((left + right) / 2, foot - 3, "confidence of an answer", "middle", "name"),
    ]
    return _svg("reliability", 440, foot + 4, f"Reliability: {calibration.title}", parts)


def scatter(points: Scatter, salt: str) -> str:
    """Draw images as points of a plane, coloured and shaped by class, the wrong ones ringed.

    Parameters
    ----------
    points : Scatter
        Where each image is. Both axes get the same scale, as distances are what a map is about.
    salt : str
        Letters and digits that make the ids of this map differ from those of others on the page.

    Returns
    -------
    str
        An ``<svg>`` element, 720 px wide. A class's name stands at the median of its points.

    Raises
    ------
    ShapeError
        If the coordinates, codes and marks are not one for each image.
    SettingError
        If there are no points, or a code is not a place in ``classes``.

    Notes
    -----
    About 12 bytes a point; of more than `MOST_POINTS` only so many are drawn.

    Examples
    --------
    >>> two = Scatter("map", "", ("a", "b"), (0.0, 1.0), (0.0, 1.0), (0, 1), (True, False))
    >>> scatter(two, "0").count("<polyline")
    3
    """
    _check(points)
    x, y, height_px = _plane(points.x, points.y)
    kept = drawn(points)
    size = 16 if len(kept) <= 1500 else 13 if len(kept) <= 4000 else 10
    where = [f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)]
    parts = []
    for code in sorted(set(points.codes)):
        here = " ".join(where[i] for i in kept if points.codes[i] == code)
        mark = f"m{salt}-{code}"
        parts += [_marker(mark, _shape(code), _colour(code), size), _dots(mark, here)]
    wrong = " ".join(where[i] for i in kept if not points.right[i])
    if wrong:
        ring = "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0z"
        parts += [_marker(f"m{salt}-ring", ring, "ring", size), _dots(f"m{salt}-ring", wrong)]
    parts += _names(points, x, y, height_px)
    return _svg("map" if size == 16 else "map dense", 720, height_px, f"Map of images: {points.title}", parts)


def drawn(points: Scatter) -> list[int]:
    """Which points of a map are drawn: all, or `MOST_POINTS` spread through them.

    Examples
    --------
    >>> n = 12000
    >>> len(drawn(Scatter("t", "", ("a",), (0.0,) * n, (0.0,) * n, (0,) * n, (True,) * n)))
    6000
    """
    # multiples of the golden ratio fall in step with no order of classes, as every third image might
    shuffled = sorted(range(len(points.x)), key=lambda i: (i * 0.6180339887498949) % 1)
    return sorted(shuffled[:MOST_POINTS])


def class_key(code: int) -> str:
    """Draw the mark of a class as a map has it, for a legend.

    Examples
    --------
    >>> class_key(3).startswith('<svg class="key"')
    True
    """
    mark = f'<path class="{_colour(code)}" d="{_shape(code)}"/>'
    return f'<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true">{mark}</svg>'


def strip(factor: Factor, scores: Scale) -> str:
    """Draw the score of every trial of a search against one setting.

    Parameters
    ----------
    factor : Factor
        The setting: numbers on a linear or logarithmic axis, or names of choices side by side.
    scores : Scale
        The axis of scores, the same for all settings of a search.

    Returns
    -------
    str
        An ``<svg>`` element, 320 px wide, with the highest score ringed.

    Raises
    ------
    ShapeError
        If there is not one score for each value.
    SettingError
        If no trial has a score.

    Examples
    --------
    >>> rate = Factor("learning_rate", 0.7, (1e-4, 1e-3, 1e-2), (0.81, 0.9, 0.86), log=True)
    >>> '10⁻⁴' in strip(rate, Scale(0.8, 0.9))
    True
    """
    if len(factor.values) != len(factor.scores):
        raise ShapeError(
            f"factor {factor.name!r} has {len(factor.values)} values and {len(factor.scores)} scores, "
            "need one score for each value; give NaN for a trial that failed"
        )
    trials = [(v, s) for v, s in zip(factor.values, factor.scores, strict=True) if math.isfinite(s)]
    if not trials:
        raise SettingError(f"factor {factor.name!r} has no score, need 1 or more; leave the factor out")
    left, right, top, bottom = 44.0, 312.0, 10.0, 148.0
    named = any(isinstance(value, str) for value, _ in trials)
    spread, ticks = _choices(trials) if named else _numbers(trials, factor.log)

    def x(share: float) -> float:
        return left + 10 + (right - left - 20) * share

    def y(share: float) -> float:
        return bottom - (bottom - top) * share

    xs, ys = [x(share) for share in spread], [y(scores.at(score)) for _, score in trials]
    best = max(range(len(trials)), key=lambda i: trials[i][1])
    levels = _marks(scores, 5)
    dots = "".join(f"M{across:.1f} {up:.1f}h0" for across, up in zip(xs, ys, strict=True))
    parts = [
        _grid([(left, y(share), right, y(share)) for share, _ in levels]),
        *(_text(left - 8, y(share) + 4, label, "end") for share, label in levels),
        *(_text(x(share), bottom + 20, label, "middle") for share, label in ticks),
        f'<path class="trials" d="{dots}"/>',
        f'<circle class="ring" cx="{xs[best]:.1f}" cy="{ys[best]:.1f}" r="7"/>',
    ]  # fmt: skip
    return _svg("strip", 320, 176, f"Score by {factor.name}", parts)


def rate_test(rates: Sequence[float], losses: Sequence[float], suggestion: float) -> str:
    """Draw how the loss went while the learning rate rose, with the rate to train with marked.

    Parameters
    ----------
    rates : sequence of float
        Rates above 0, ascending.
    losses : sequence of float
        Loss in nats at each of them.
    suggestion : float
        One of the rates, or one between them.

    Returns
    -------
    str
        An ``<svg>`` element, 460 px wide, the size of a learning curve.

    Raises
    ------
    ShapeError
        If there is not one loss for each rate.
    SettingError
        If there are fewer than two, or the suggestion lies outside of them.

    Examples
    --------
    >>> drawing = rate_test((1e-4, 1e-3, 1e-2, 1e-1), (2.3, 1.9, 0.8, 1.6), 4.3e-3)
    >>> "suggested: 0.0043" in drawing, "10⁻⁴" in drawing
    (True, True)
    """
    if len(rates) != len(losses):
        raise ShapeError(
            f"rate test has {len(rates)} rates and {len(losses)} losses, need one loss for each rate"
        )
    if len(rates) < 2 or not 0 < rates[0] <= suggestion <= rates[-1]:
        raise SettingError(
            f"suggestion is {suggestion!r} of {len(rates)} rates, need two rates or more above 0 and a "
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
    levels = _marks(up, 5)
    parts = [
        _grid([(left, y(share), right, y(share)) for share, _ in levels]),
        *(_text(left - 8, y(share) + 4, label, "end") for share, label in levels),
        *(_text(left + (right - left) * share, bottom + 20, label, "middle")
          for share, label in _marks(across, 7)),
        f'<path d="M{points}" style="{_LINE}"/>',
        f'<path d="M{at:.1f} {top:g}V{bottom:g}" style="{_HAIRLINE}"/>',
        f'<circle cx="{at:.1f}" cy="{y(up.at(loss)):.1f}" r="5" style="{_RING}"/>',
        _text(at + shift, top - 4, f"suggested: {_rounded(suggestion)}", side, "word"),
        _text(left - 8, 14, "loss, nats", "start", "name"),
        _text((left + right) / 2, bottom + 44, "learning rate, log scale", "middle", "name"),
    ]  # fmt: skip
    return _svg("rates", 460, 274, "Loss by learning rate", parts)


def _svg(kind: str, width_px: float, height_px: float, label: str, parts: Iterable[str]) -> str:
    """An element with a name for those who do not see it."""
    name = escape(label, quote=True)
    head = f'<svg class="{kind}" role="img" aria-label="{name}" viewBox="0 0 {width_px:g} {height_px:g}">'
    return f"{head}{''.join(parts)}</svg>"


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _grid(lines: Iterable[tuple[float, float, float, float]]) -> str:
    """Hairlines behind everything."""
    return f'<path class="grid" d="{"".join(f"M{a:g} {b:g}L{c:g} {d:g}" for a, b, c, d in lines)}"/>'


def _share(share: float) -> str:
    """Per cent, the sign on the highest alone."""
    return f"{100 * share:.0f}{' %' if share == 1 else ''}"


def _bin(one: ReliabilityBin, x: _Place, y: _Place) -> str:
    """One bin: its interval, and its dot where it stands."""
    at, score = x(one.confidence), one.accuracy
    kind = "dot" if score.low <= one.confidence <= score.high else "dot off"
    return (
        f'<path class="bar" d="M{at:.1f} {y(score.low):.1f}V{y(score.high):.1f}"/>'
        f'<circle class="{kind}" cx="{at:.1f}" cy="{y(score.value):.1f}" r="5"/>'
    )


def _histogram(bins: Sequence[ReliabilityBin], x: _Place, floor: float, height: float) -> Iterable[str]:
    """How many answers each bin has: a bar, with its number where there is room."""
    most = max(one.accuracy.n for one in bins)
    for one in bins:
        start, stop, n = x(one.low), x(one.high), one.accuracy.n
        tall, wide = max(height * n / most, 1.5), max(stop - start - 1.5, 1.0)
        yield (
            f'<rect class="count" x="{start + 0.75:.1f}" y="{floor - tall:.1f}"'
            f' width="{wide:.1f}" height="{tall:.1f}"/>'
        )
        if wide >= 6.4 * len(count(n)):
            yield _text((start + stop) / 2, floor - tall - 4, count(n), "middle", "n")


def _check(points: Scatter) -> None:
    """One of everything for each image, and a class for each code."""
    sizes = {len(points.x), len(points.y), len(points.codes), len(points.right)}
    if len(sizes) > 1:
        raise ShapeError(
            f"scatter {points.title!r} has {len(points.x)} x, {len(points.y)} y, {len(points.codes)} codes "
            f"and {len(points.right)} marks, need one of each for every image"
        )
    if not points.x:
        raise SettingError(f"scatter {points.title!r} has no points, need 1 or more; leave the map out")
    wrong = sorted({code for code in points.codes if not 0 <= code < len(points.classes)})
    if wrong:
        raise SettingError(f"code is {wrong[0]!r}, need 0 - {len(points.classes) - 1}, a place in classes")


def _plane(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float], float]:
    """Places in px on a sheet 720 wide and as high as the map is, within reason; up is up."""
    edge, width = 16.0, 720.0
    low_x, low_y = min(xs), min(ys)
    wide, high = max(max(xs) - low_x, 1e-12), max(max(ys) - low_y, 1e-12)
    height = min(max(width * high / wide, 340.0), 600.0)
    scale = min((width - 2 * edge) / wide, (height - 2 * edge) / high)
    left, below = (width - scale * wide) / 2, (height + scale * high) / 2
    return [left + scale * (v - low_x) for v in xs], [below - scale * (v - low_y) for v in ys], height


def _colour(code: int) -> str:
    return f"k{code % _N_COLOURS}"


def _shape(code: int) -> str:
    return _SHAPES[code % len(_SHAPES)]


def _marker(name: str, path: str, kind: str, size: int) -> str:
    """A mark that a line of points puts on every point: the fewest bytes a point."""
    return (
        f'<marker id="{name}" viewBox="-8 -8 16 16" markerWidth="{size}" markerHeight="{size}"'
        f' markerUnits="userSpaceOnUse"><path class="{kind}" d="{path}"/></marker>'
    )


def _dots(marker: str, places: str) -> str:
    # a line of one point has a start and an end there: marked once, and given a length of nothing
    lone = " " not in places
    ends = "".join(f' marker-{end}="url(#{marker})"' for end in (("start",) if lone else _ENDS))
    return f'<polyline class="dots" points="{f"{places} {places}" if lone else places}"{ends}/>'


def _names(points: Scatter, x: Sequence[float], y: Sequence[float], height_px: float) -> list[str]:
    """Names of classes at the medians of their points, moved apart where they would overlap."""
    boxes: list[list[float]] = []
    words = []
    for code in sorted(set(points.codes)):
        own = [i for i, other in enumerate(points.codes) if other == code]
        name = points.classes[code]
        words.append(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…")
        half = _LETTER_PX * len(words[-1]) / 2
        middle = statistics.median(x[i] for i in own)
        lift = 0.0 if len(own) > 4 else 16.0  # or the name would hide the points
        edge = 1.6 * half  # letters are that much larger on a phone
        boxes.append([min(max(middle, edge), 720 - edge), statistics.median(y[i] for i in own) - lift, half])
    for _ in range(120):
        if not _push(boxes):
            break
        for box in boxes:
            box[1] = min(max(box[1], 14.0), height_px - 8)
    return [
        _text(at, min(max(up, 14.0), height_px - 8) + 5, word, "middle", "class")
        for word, (at, up, _) in zip(words, boxes, strict=True)
    ]


def _push(boxes: list[list[float]]) -> bool:
    """Move every two names that overlap a little apart, up and down; say whether any were."""
    moved = False
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            gap = _LABEL_PX - abs(one[1] - other[1])
            if gap > 0.01 and abs(one[0] - other[0]) < one[2] + other[2]:
                way = gap / 2 if one[1] > other[1] else -gap / 2
                one[1], other[1], moved = one[1] + way, other[1] - way, True
    return moved


def _choices(trials: Sequence[tuple[float | str, float]]) -> tuple[list[float], list[tuple[float, str]]]:
    """Place names side by side, trials of one name spread a little, the same way every time."""
    names = list(dict.fromkeys(str(value) for value, _ in trials))
    middle = {name: (i + 0.5) / len(names) for i, name in enumerate(names)}
    # the golden ratio spreads any number of trials evenly and looks like no pattern
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
    return [scale.at(value) for value in values], _marks(scale, 5)


def _marks(scale: Scale, most: int) -> list[tuple[float, str]]:
    """Where along an axis its ticks are, 0 - 1, and what is written there."""
    ticks = scale.ticks(most)
    return [
        (scale.at(tick), label) for tick, label in zip(ticks, labels(ticks, even=not scale.log), strict=True)
    ]


def _rounded(value: float) -> str:
    """A value to two figures."""
    return labels([float(f"{value:.2g}")])[0]
