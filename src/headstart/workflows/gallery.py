"""Pictures worth looking at: where a model is surely wrong, and where it can hardly decide.

In: probabilities, true classes, the images they are about. Out: galleries for a report, with what
the answers rest on where somebody can be asked. Pillow is imported on use. Must not import a
training framework. Called by studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.faults import Fault, raise_faults
from headstart.data.images.prepare import fit, prepare
from headstart.data.images.thumbnails import png_address
from headstart.errors import ShapeError
from headstart.records import Array, Codes, Images, InputSpec
from headstart.report.records import Gallery, ReportImage
from headstart.workflows.occlusion import Ask, occlusion, overlay

__all__ = ["Judged", "galleries", "least_certain", "mistakes"]

_SIDE_PX = 144  # twice what a page shows, for fine screens
_HEAT_PX = 96  # a small picture is drawn larger before a smooth map is laid over it
_MOST = 8
_N_CELLS = 7
_HEATS = 6  # maps of one report: each costs 37 answers
_COLOURS = 256  # of a colour picture: more are not seen at this size, and double the bytes of a report
_HEAT_COLOURS = 128


@dataclass(frozen=True)
class Judged:
    """What a model said of some images, and how to ask it again.

    Attributes
    ----------
    dataset : Dataset
        The images.
    probs : ndarray of shape (n_images, n_classes), float
        What was answered.
    codes : ndarray of shape (n_images,), int
        The true classes.
    classes : tuple of str
        Their names, in the order of the probabilities.
    spec : InputSpec or None
        How the network sees a picture: so it is shown. Without it pictures are shown as they are.
    ask : callable or None
        Gives probabilities for images prepared as ``spec`` says. Without it no map is drawn.

    Raises
    ------
    ShapeError
        If lengths differ, there are fewer than two classes, or ``ask`` comes without ``spec``.

    Examples
    --------
    >>> from headstart.data import from_arrays
    >>> data = from_arrays(np.zeros((2, 8, 8), np.uint8), ["a", "b"])
    >>> Judged(data, np.array([[0.9, 0.1], [0.8, 0.2]]), data.codes(), data.classes).wrong.tolist()
    [False, True]
    """

    dataset: Dataset
    probs: Array
    codes: Codes
    classes: Sequence[str]
    spec: InputSpec | None = None
    ask: Ask | None = None

    def __post_init__(self) -> None:
        n_images, n_classes = len(self.dataset), len(self.classes)
        faults: list[Fault] = []
        if n_classes < 2:
            faults.append((ShapeError, f"classes are {list(self.classes)}, expected at least 2; pass all"))
        if self.probs.shape != (n_images, n_classes):
            said = f"probs have shape {self.probs.shape}, expected ({n_images}, {n_classes})"
            faults.append((ShapeError, f"{said}: a row for each image; pass those of this dataset"))
        if self.codes.shape != (n_images,):
            said = f"codes have shape {self.codes.shape}, expected ({n_images},)"
            faults.append((ShapeError, f"{said}: one for each image; pass those of this dataset"))
        if self.ask is not None and self.spec is None:
            faults.append((ShapeError, "ask has no spec, expected the size that it takes; pass model.input"))
        raise_faults(faults)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which images were called something they are not, (n_images,)."""
        missed: NDArray[np.bool_] = self.probs.argmax(axis=1) != self.codes
        return missed

    @property
    def surest_mistakes(self) -> NDArray[np.intp]:
        """The images that are wrong, the most probable answer first."""
        wrong = np.flatnonzero(self.wrong)
        return wrong[np.argsort(-self.probs[wrong].max(axis=1), kind="stable")]

    @property
    def closest_calls(self) -> NDArray[np.intp]:
        """All images, those first whose first and second answer are nearest to each other."""
        two = np.sort(self.probs, axis=1)[:, -2:]
        return np.argsort(two[:, 1] - two[:, 0], kind="stable")


def galleries(answers: Judged, *, most: int = _MOST, heats: int = _HEATS) -> tuple[Gallery, ...]:
    """Every gallery there is something for: the most confident mistakes, the least certain.

    Parameters
    ----------
    answers : Judged
        What was said of images that were not learnt from.
    most : int, default=8
        Pictures in each.
    heats : int, default=6
        Maps in all: most of them for the mistakes.

    Returns
    -------
    tuple of Gallery
        Mistakes are left out where there are none; the other says so.

    Examples
    --------
    >>> from headstart.data import from_arrays
    >>> data = from_arrays(np.zeros((2, 8, 8), np.uint8), ["a", "b"])
    >>> answers = Judged(data, np.array([[0.9, 0.1], [0.8, 0.2]]), data.codes(), data.classes)
    >>> [(one.title, len(one.pictures)) for one in galleries(answers)]
    [('The most confident mistakes', 1), ('The least certain', 2)]
    """
    n_wrong = min(int(answers.wrong.sum()), most)
    least = min(len(answers.codes), most)
    for_mistakes = min(n_wrong, max(heats - least, -(-2 * heats // 3)))
    found = mistakes(answers, most=most, heats=for_mistakes)
    unsure = least_certain(answers, most=most, heats=heats - for_mistakes)
    return (found, unsure) if found.pictures else (unsure,)


def mistakes(answers: Judged, *, most: int = _MOST, heats: int = 0) -> Gallery:
    """The wrong answers that were given with the highest probability.

    Parameters
    ----------
    answers : Judged
        What was said of images that were not learnt from.
    most : int, default=8
        Pictures, at most.
    heats : int, default=0
        How many of them get a map, where ``answers.ask`` is there.

    Returns
    -------
    Gallery
        The surest first; without pictures where nothing was wrong.

    Examples
    --------
    >>> from headstart.data import from_arrays
    >>> data = from_arrays(np.zeros((2, 8, 8), np.uint8), ["a", "b"])
    >>> answers = Judged(data, np.array([[0.9, 0.1], [0.8, 0.2]]), data.codes(), data.classes)
    >>> [(one.truth, one.called, one.probability) for one in mistakes(answers).pictures]
    [('b', 'a', 0.8)]
    """
    surest = answers.surest_mistakes[:most]
    n_images, n_wrong = len(answers.codes), int(answers.wrong.sum())
    caption = (
        f"{n_wrong:,} of {n_images:,} images {_were(n_wrong)} assigned to another class than their label"
    )
    if n_wrong > len(surest):
        caption += f"; here are the {len(surest)} with the highest probability"
    caption += ". Check the labels too: a confident mistake is often a wrong label."
    return _gallery(
        "The most confident mistakes",
        caption if n_wrong else f"None of {n_images:,} images was classified wrongly.",
        answers,
        surest,
        heats,
    )


def least_certain(answers: Judged, *, most: int = _MOST, heats: int = 0) -> Gallery:
    """The images whose first and second answer are nearest to each other, right or wrong.

    Parameters
    ----------
    answers : Judged
        What was said of images that were not learnt from.
    most : int, default=8
        Pictures, at most.
    heats : int, default=0
        How many of them get a map, where ``answers.ask`` is there.

    Returns
    -------
    Gallery
        The least certain first. Its caption says so where no image was classified wrongly.

    Examples
    --------
    >>> from headstart.data import from_arrays
    >>> data = from_arrays(np.zeros((2, 8, 8), np.uint8), ["a", "b"])
    >>> answers = Judged(data, np.array([[0.9, 0.1], [0.4, 0.6]]), data.codes(), data.classes)
    >>> gallery = least_certain(answers, most=1)
    >>> gallery.pictures[0].second, gallery.caption.partition(".")[0]
    ('a', 'None of 2 images was classified wrongly')
    """
    chosen = answers.closest_calls[:most]
    n_right = int((~answers.wrong[chosen]).sum())
    caption = (
        f"The images whose two highest probabilities are closest: {n_right} of these {len(chosen)} "
        f"{_were(n_right)} classified correctly. Label images like them next."
    )
    if not answers.wrong.any():
        caption = f"None of {len(answers.codes):,} images was classified wrongly. {caption}"
    return _gallery("The least certain", caption, answers, chosen, heats)


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _gallery(title: str, caption: str, answers: Judged, chosen: NDArray[np.intp], heats: int) -> Gallery:
    if not len(chosen):
        return Gallery(title, caption, ())
    some = answers.dataset.subset(chosen)
    views = prepare(some, answers.spec or _shown_as(some))
    laid = _laid_over(answers, views[:heats], chosen[:heats]) if answers.ask is not None else []
    if laid:
        whose = "map of the first shows" if len(laid) == 1 else f"maps of the first {len(laid)} show"
        caption += (
            f" The {whose} what the prediction depends on: parts of the image were covered in turn, "
            "and the brighter the colour, the more its probability fell. Where all stays grey, no single "
            "part was decisive."
        )
    pictures = []
    for place, index in enumerate(chosen):
        order = np.argsort(-answers.probs[index], kind="stable")[:2]
        first, second = (float(answers.probs[index, code]) for code in order)
        pictures.append(
            ReportImage(
                name=_name(some, place, int(index)),
                address=png_address(_small(views[place]), colours=_COLOURS),
                truth=str(answers.classes[int(answers.codes[index])]),
                called=str(answers.classes[order[0]]),
                probability=first,
                second=str(answers.classes[order[1]]),
                second_probability=second,
                heat=laid[place] if place < len(laid) else "",
            )
        )
    return Gallery(title, caption, tuple(pictures))


def _laid_over(answers: Judged, views: Images, indices: NDArray[np.intp]) -> list[str]:
    """Pictures with the map of the class that they were called."""
    if answers.ask is None or not len(views):
        return []
    cells = min(_N_CELLS, *views.shape[1:3])
    if cells < 2:
        return []
    called = answers.probs[indices].argmax(axis=1)
    maps = occlusion(answers.ask, views, called, n_cells=cells)
    return [
        png_address(overlay(_large(_small(view)), heat), colours=_HEAT_COLOURS)
        for view, heat in zip(views, maps, strict=True)
    ]


def _shown_as(dataset: Dataset) -> InputSpec:
    """Images in memory as they are; pictures of any size cut to a square."""
    shape = dataset.images.image_shape
    return InputSpec(_SIDE_PX, _SIDE_PX, 3, policy="crop") if shape is None else InputSpec(*shape)


def _small(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most so many pixels a side."""
    height, width, channels = view.shape
    share = _SIDE_PX / max(height, width)
    if share >= 1:
        return view
    size = (max(1, round(height * share)), max(1, round(width * share)))
    return fit(view, InputSpec(*size, channels))


def _large(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Whole times as large where it is tiny: a smooth map needs pixels to be smooth in."""
    times = max(1, _HEAT_PX // max(view.shape[:2]))
    return view.repeat(times, axis=0).repeat(times, axis=1)


def _name(dataset: Dataset, place: int, index: int) -> str:
    images = dataset.images
    return f"image {index}" if images.paths is None else images.paths[place].name
