"""What a report shows: tables, figures, images, and the report itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headstart.evaluation.records import Calibration, Difference, Evaluation, Score
from headstart.records import Curve

__all__ = [
    "Comparison",
    "Factor",
    "Figure",
    "Gallery",
    "PlainTable",
    "Report",
    "ReportImage",
    "Row",
    "Scatter",
]


@dataclass(frozen=True)
class Row:
    """One cell of the result table: a strategy or control at one budget of labels.

    ``labels_per_class`` is None for all labels. ``spread`` is the standard deviation of accuracy over the
    draws of labels, 0 for one draw. ``seconds`` is the median over draws.
    """

    strategy: str
    labels_per_class: int | None
    accuracy: Score
    draws: int
    spread: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A strategy, most often the probe, against a control at one budget, on the same test images.

    ``verdict`` is read off the interval of the difference: ``helps``, ``hurts``, ``practically equal`` or ``cannot
    tell apart``. ``claim`` says that the verdict of the study rests on it: then interval and ``p_adjusted`` are
    simultaneous for all claims; else they are those of this comparison alone. ``n_to_settle`` is how many test
    images would show a difference as large as this one with a power of 80 %; None where no number would.
    """

    strategy: str
    control: str
    labels_per_class: int | None
    difference: Difference
    p_adjusted: float
    verdict: str
    n_to_settle: int | None = None
    claim: bool = True


@dataclass(frozen=True)
class PlainTable:
    """A table of text: the first column is aligned left, the others right."""

    title: str
    caption: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A drawing of ours: ``svg`` is an ``<svg>`` element without script or request."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class ReportImage:
    """One image with its prediction; ``called`` is the predicted class.

    ``address`` and ``heat`` are ``data:image/png;base64,`` addresses; ``heat``, if not empty, is the same
    image with its occlusion map as an overlay. Probabilities are 0 - 1.
    """

    name: str
    address: str
    truth: str
    called: str
    probability: float
    second: str = ""
    second_probability: float = 0.0
    heat: str = ""


@dataclass(frozen=True)
class Gallery:
    """Images worth looking at, such as the most confident mistakes; the field names are JSON keys."""

    title: str
    caption: str
    images: tuple[ReportImage, ...]


@dataclass(frozen=True)
class Scatter:
    """Images as points of a plane; ``codes`` are positions in ``classes``, ``right`` is per image."""

    title: str
    caption: str
    classes: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    codes: tuple[int, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Factor:
    """One setting that a search varied: its importance (0 - 1), and a score for each value tried.

    ``values`` are numbers, or names of choices; ``log`` says that numbers belong on a logarithmic scale.
    """

    name: str
    importance: float
    values: tuple[float | str, ...]
    scores: tuple[float, ...]
    log: bool = False


@dataclass(frozen=True)
class Report:
    """Everything a report shows, and what ``--json`` prints; field names are JSON keys.

    ``judged_on`` says which images the figures are about: ``test``, ``validation``, ``cross-validated
    training`` and the like. ``protocol`` is a sentence or two about the splits and about intervals and
    p-values; ``findings`` come from the doctor; ``kind`` is ``study``, ``transfer``, ``training`` and the
    like.
    """

    title: str
    summary: str
    verdict: str
    remarks: tuple[str, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    evaluations: tuple[Evaluation, ...]
    curves: tuple[Curve, ...]
    facts: Mapping[str, str]
    sizes: Mapping[str, int]
    examples: Sequence[tuple[str, str]] = ()
    tables: tuple[PlainTable, ...] = ()
    judged_on: str = "test"
    protocol: str = ""
    findings: tuple[str, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    scatters: tuple[Scatter, ...] = ()
    factors: tuple[Factor, ...] = ()
    figures: tuple[Figure, ...] = ()
    kind: str = "study"
