"""Galleries of a report: the most confident mistakes and the least certain images, with occlusion maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.faults import Fault, raise_faults
from headstart.data.images.fit import fit_image
from headstart.data.images.prepare import prepare
from headstart.data.images.thumbnails import png_address
from headstart.data.readable import has_pixels
from headstart.errors import ShapeError
from headstart.records import Array, Codes, Images, InputSpec
from headstart.report.records import Gallery, ReportImage
from headstart.workflows.occlusion import PredictFunction, occlusion, overlay

__all__ = ["EvaluatedImages", "galleries", "least_certain", "mistakes"]

_SIDE_PX = 144  # twice the size on a page, for high-resolution screens
_HEAT_PX = 96  # a small image is enlarged first, so that the map over it is smooth
_MOST = 8
_N_CELLS = 7
_HEATS = 6  # maps of one report: each costs 37 predictions
_COLOURS = 256  # of a colour image: more cannot be seen at this size, and double the size of a report
_HEAT_COLOURS = 128


@dataclass(frozen=True)
class EvaluatedImages:
    """What a model predicts for images that it did not learn from.

    ``probabilities`` (n_images, n_classes), ``codes`` of the true classes (n_images,). ``spec`` says how
    images are prepared and shown; without it they are shown as they are. ``predict`` draws occlusion maps and
    requires ``spec``.
    """

    dataset: Dataset
    probabilities: Array
    codes: Codes
    classes: Sequence[str]
    spec: InputSpec | None = None
    predict: PredictFunction | None = None

    def __post_init__(self) -> None:
        n_images, n_classes = len(self.dataset), len(self.classes)
        faults: list[Fault] = []
        if n_classes < 2:
            faults.append((ShapeError, f"classes are {list(self.classes)}, expected at least 2; pass all"))
        if self.probabilities.shape != (n_images, n_classes):
            fault = f"probabilities have shape {self.probabilities.shape}, expected ({n_images}, {n_classes})"
            faults.append((ShapeError, f"{fault}: a row for each image; pass those of this dataset"))
        if self.codes.shape != (n_images,):
            fault = f"codes have shape {self.codes.shape}, expected ({n_images},)"
            faults.append((ShapeError, f"{fault}: one for each image; pass those of this dataset"))
        if self.predict is not None and self.spec is None:
            faults.append(
                (ShapeError, "predict has no spec, expected the size that it takes; pass model.input")
            )
        raise_faults(faults)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which images are classified wrongly, (n_images,)."""
        missed: NDArray[np.bool_] = self.probabilities.argmax(axis=1) != self.codes
        return missed

    @property
    def mistakes_by_confidence(self) -> NDArray[np.intp]:
        """Indices of wrong predictions, the highest probability first."""
        wrong = np.flatnonzero(self.wrong)
        return wrong[np.argsort(-self.probabilities[wrong].max(axis=1), kind="stable")]

    @property
    def least_certain_first(self) -> NDArray[np.intp]:
        """Indices of all images by the gap between their two highest probabilities, ascending."""
        two = np.sort(self.probabilities, axis=1)[:, -2:]
        return np.argsort(two[:, 1] - two[:, 0], kind="stable")


def galleries(evaluated: EvaluatedImages, *, most: int = _MOST, heats: int = _HEATS) -> tuple[Gallery, ...]:
    """The most confident mistakes, if there are any, and the least certain images.

    ``most`` images in each; ``heats`` occlusion maps in all, most of them for the mistakes. None where the images
    have no pixels.
    """
    if not has_pixels(evaluated.dataset.images):
        return ()
    n_wrong = min(int(evaluated.wrong.sum()), most)
    least = min(len(evaluated.codes), most)
    for_mistakes = min(n_wrong, max(heats - least, -(-2 * heats // 3)))
    found = mistakes(evaluated, most=most, heats=for_mistakes)
    unsure = least_certain(evaluated, most=most, heats=heats - for_mistakes)
    return (found, unsure) if found.images else (unsure,)


def mistakes(evaluated: EvaluatedImages, *, most: int = _MOST, heats: int = 0) -> Gallery:
    """The wrong predictions with the highest probability, the first ``heats`` with an occlusion map."""
    surest = evaluated.mistakes_by_confidence[:most]
    n_images, n_wrong = len(evaluated.codes), int(evaluated.wrong.sum())
    caption = (
        f"{n_wrong:,} of {n_images:,} images {_were(n_wrong)} assigned to another class than their label"
    )
    if n_wrong > len(surest):
        caption += f"; here are the {len(surest)} with the highest probability"
    caption += ". Check the labels too: a confident mistake is often a wrong label."
    return _gallery(
        "The most confident mistakes",
        caption if n_wrong else f"None of {n_images:,} images was classified wrongly.",
        evaluated,
        surest,
        heats,
    )


def least_certain(evaluated: EvaluatedImages, *, most: int = _MOST, heats: int = 0) -> Gallery:
    """The images whose two highest probabilities are closest, right or wrong."""
    chosen = evaluated.least_certain_first[:most]
    n_right = int((~evaluated.wrong[chosen]).sum())
    caption = (
        f"The images whose two highest probabilities are closest: {n_right} of these {len(chosen)} "
        f"{_were(n_right)} classified correctly. Label images like them next."
    )
    if not evaluated.wrong.any():
        caption = f"None of {len(evaluated.codes):,} images was classified wrongly. {caption}"
    return _gallery("The least certain", caption, evaluated, chosen, heats)


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _gallery(
    title: str, caption: str, evaluated: EvaluatedImages, chosen: NDArray[np.intp], heats: int
) -> Gallery:
    if not len(chosen):
        return Gallery(title, caption, ())
    some = evaluated.dataset.subset(chosen)
    prepared = prepare(some, evaluated.spec or _shown_as(some))
    overlays = _overlays(evaluated, prepared[:heats], chosen[:heats]) if evaluated.predict is not None else []
    if overlays:
        whose = "map of the first shows" if len(overlays) == 1 else f"maps of the first {len(overlays)} show"
        caption += (
            f" The {whose} what the prediction depends on: parts of the image were covered in turn, "
            "and the brighter the colour, the more its probability fell. Where all stays grey, no single "
            "part was decisive."
        )
    shown = []
    for place, index in enumerate(chosen):
        order = np.argsort(-evaluated.probabilities[index], kind="stable")[:2]
        first, second = (float(evaluated.probabilities[index, code]) for code in order)
        shown.append(
            ReportImage(
                name=_name(some, place, int(index)),
                address=png_address(_small(prepared[place]), colours=_COLOURS),
                truth=str(evaluated.classes[int(evaluated.codes[index])]),
                called=str(evaluated.classes[order[0]]),
                probability=first,
                second=str(evaluated.classes[order[1]]),
                second_probability=second,
                heat=overlays[place] if place < len(overlays) else "",
            )
        )
    return Gallery(title, caption, tuple(shown))


def _overlays(evaluated: EvaluatedImages, prepared: Images, indices: NDArray[np.intp]) -> list[str]:
    """Images with the occlusion map of their predicted class."""
    if evaluated.predict is None or not len(prepared):
        return []
    cells = min(_N_CELLS, *prepared.shape[1:3])
    if cells < 2:
        return []
    codes = evaluated.probabilities[indices].argmax(axis=1)
    maps = occlusion(evaluated.predict, prepared, codes, n_cells=cells)
    return [
        png_address(overlay(_large(_small(image)), heat), colours=_HEAT_COLOURS)
        for image, heat in zip(prepared, maps, strict=True)
    ]


def _shown_as(dataset: Dataset) -> InputSpec:
    """Images in memory as they are; files, of any size, cropped to a square."""
    shape = dataset.images.image_shape
    return InputSpec(_SIDE_PX, _SIDE_PX, 3, policy="crop") if shape is None else InputSpec(*shape)


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduced to at most 144 px a side."""
    height, width, channels = image.shape
    share = _SIDE_PX / max(height, width)
    if share >= 1:
        return image
    size = (max(1, round(height * share)), max(1, round(width * share)))
    return fit_image(image, InputSpec(*size, channels))


def _large(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarged by a whole factor where it is tiny, so that a map over it looks smooth."""
    times = max(1, _HEAT_PX // max(image.shape[:2]))
    return image.repeat(times, axis=0).repeat(times, axis=1)


def _name(dataset: Dataset, place: int, index: int) -> str:
    images = dataset.images
    return f"image {index}" if images.pixels is not None else PurePath(images.image_name(place)).name
