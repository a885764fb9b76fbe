"""The feature map of a report: images as points, coloured by class, as SVG.

Apart from the other diagrams because its points, marks and names share nothing with axes.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from headstart.errors import SettingError, ShapeError
from headstart.report.records import Scatter
from headstart.report.svg import svg_element, svg_text

__all__ = ["MOST_POINTS", "class_key", "drawn", "scatter"]


MOST_POINTS = 6000
"""Points that a map draws at most; of more, so many are drawn, spread through them."""


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


def scatter(points: Scatter, salt: str) -> str:
    """Draw images as points of a plane, coloured and shaped by class, wrong predictions with a ring.

    An ``<svg>`` element 720 px wide, both axes on the same scale, a class's name at the median of its points;
    about 12 bytes a point, at most `MOST_POINTS` of them. ``salt`` makes the ids unique on the page.
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
    return svg_element(
        "map" if size == 16 else "map dense", 720, height_px, f"Map of images: {points.title}", parts
    )


def drawn(points: Scatter) -> list[int]:
    """Which points of a map are drawn: all, or `MOST_POINTS` spread evenly through them.

    >>> n = 12000
    >>> len(drawn(Scatter("t", "", ("a",), (0.0,) * n, (0.0,) * n, (0,) * n, (True,) * n)))
    6000
    """
    # multiples of the golden ratio are not in step with any order of the images, unlike every third image
    shuffled = sorted(range(len(points.x)), key=lambda i: (i * 0.6180339887498949) % 1)
    return sorted(shuffled[:MOST_POINTS])


def class_key(code: int) -> str:
    """Draw the mark of a class for the legend."""
    mark = f'<path class="{_colour(code)}" d="{_shape(code)}"/>'
    return f'<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true">{mark}</svg>'


def _check(points: Scatter) -> None:
    """Raise if the columns differ in length, or a code is no class."""
    sizes = {len(points.x), len(points.y), len(points.codes), len(points.right)}
    if len(sizes) > 1:
        raise ShapeError(
            f"scatter {points.title!r} has {len(points.x)} x, {len(points.y)} y, {len(points.codes)} codes "
            f"and {len(points.right)} marks, expected one of each for every image"
        )
    if not points.x:
        raise SettingError(f"scatter {points.title!r} has no points, expected 1 or more; leave the map out")
    wrong = sorted({code for code in points.codes if not 0 <= code < len(points.classes)})
    if wrong:
        raise SettingError(
            f"code is {wrong[0]!r}, expected 0 - {len(points.classes) - 1}, a place in classes"
        )


def _plane(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float], float]:
    """Positions in px on a sheet 720 wide and as high as the map is, within limits; up is up."""
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
    """A mark that one polyline puts on every point: the fewest bytes per point."""
    return (
        f'<marker id="{name}" viewBox="-8 -8 16 16" markerWidth="{size}" markerHeight="{size}"'
        f' markerUnits="userSpaceOnUse"><path class="{kind}" d="{path}"/></marker>'
    )


def _dots(marker: str, places: str) -> str:
    # a polyline of one point has two ends there: it is marked once and has length 0
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
        lift = 0.0 if len(own) > 4 else 16.0  # otherwise the name would hide the points
        edge = 1.6 * half  # letters are that much larger on a phone
        boxes.append([min(max(middle, edge), 720 - edge), statistics.median(y[i] for i in own) - lift, half])
    for _ in range(120):
        if not _push(boxes):
            break
        for box in boxes:
            box[1] = min(max(box[1], 14.0), height_px - 8)
    return [
        svg_text(at, min(max(up, 14.0), height_px - 8) + 5, word, "middle", "class")
        for word, (at, up, _) in zip(words, boxes, strict=True)
    ]


def _push(boxes: list[list[float]]) -> bool:
    """Move every two names that overlap a little apart vertically; return whether any were moved."""
    moved = False
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            gap = _LABEL_PX - abs(one[1] - other[1])
            if gap > 0.01 and abs(one[0] - other[0]) < one[2] + other[2]:
                way = gap / 2 if one[1] > other[1] else -gap / 2
                one[1], other[1], moved = one[1] + way, other[1] - way, True
    return moved
