"""Whether an exported file predicts as its model: first the pixels that it prepares, then what it makes of them.

The two are apart because a pixel that is a level off can move the probabilities of a good export by more than any
limit that would find a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.fit import fit_image
from headstart.errors import ModelError
from headstart.graph.files import run_file
from headstart.graph.preparation.prepare import PREPARED
from headstart.graph.run import INT8
from headstart.models.model import Model
from headstart.records import Array, Images, Prediction

__all__ = ["Agreement", "Check", "LazyImages", "Limits", "colour", "limits_of", "make_check"]

_OPENVINO = ".xml"


@dataclass(frozen=True)
class Limits:
    """How far an export may be from its model for the same pixels.

    ``difference`` is of a probability. ``novelty`` is relative to the novelty, and at least to its threshold 1:
    distances add up more roundings.
    """

    difference: float
    novelty: float


_FLOATS = Limits(1e-3, 1e-2)
"""fp32 in two runtimes differs by 1e-5 in a probability, a wrong operation by far more."""
_INT8 = Limits(0.1, 0.3)
"""ONNX Runtime rounds to 8 bits otherwise than OpenVINO, and layers pass it on. Measured 2026-11-30 on 153 photos and
3 networks (docs/decisions/0023-int8.md): up to 0.053 in a probability and 0.13 in a novelty."""
_LIMIT_KNOWN, _KNOWN = 0.2, 0.5
"""Of novelties up to half the threshold: near distance 0 they are rounding errors in units of a small threshold."""
_LIMIT_LEVELS = 0.02
"""Of 255, on average over an image: half a percent was the most measured, a wrong filter or crop has 0.5 or more."""
_FEW_LEVELS = 8
"""In all, for tiny inputs, where one pixel is more than that share."""

LazyImages = Sequence[Callable[[], NDArray[np.uint8]]]
"""Each decodes one image on call: 64 photos at once would take a gigabyte."""


@dataclass(frozen=True)
class Agreement:
    """The largest difference of a probability, and the number of images with another predicted name."""

    largest_difference: float
    n_changed: int


@dataclass(frozen=True)
class Check:
    """Images with the pixels that the model makes of them, and its predictions."""

    model: Model
    images: LazyImages
    pixels: Images
    expected: Prediction

    def agreement(self, path: Path) -> Agreement:
        """How the file on disk agrees with the model; ModelError if it does not."""
        run, limits = run_file(path, PREPARED), limits_of(self.model, path)
        parts = zip(*(run(colour(image())) for image in self.images), strict=True)
        probabilities, *novelty, pixels = (np.stack(values) for values in parts)
        found = Prediction(probabilities, novelty[0][:, 0] if novelty else None)
        self._check_pixels(pixels[:, 0])
        self._check_outputs(found, self.model.predict_prepared([pixels[:, 0]]), limits)
        changed = found.names(self.model.classes) != self.expected.names(self.model.classes)
        return Agreement(_largest(found, self.expected), int(changed.sum()))

    def _check_pixels(self, pixels: Images) -> None:
        off = np.abs(pixels.astype(np.int16) - self.pixels).reshape(len(pixels), -1)
        wrong = off.sum(axis=1) > max(_FEW_LEVELS, _LIMIT_LEVELS * off.shape[1])
        if wrong.any():
            raise ModelError(
                f"export of model {self.model.manifest.name!r} prepares {int(wrong.sum())} of {len(off)} images with "
                f"pixels that differ by {off.mean(axis=1).max():.2g} levels on average and by up to {off.max()}, "
                f"expected those of the model to {_LIMIT_LEVELS:g} levels on average; nothing was written, try "
                "another --to, and please report it"
            )

    def _check_outputs(self, found: Prediction, expected: Prediction, limits: Limits = _FLOATS) -> None:
        """Compare with what the model predicts for the same pixels."""
        off = np.abs(found.probabilities - expected.probabilities).max(axis=1)
        wrong = ~(off <= limits.difference)  # also for NaN
        changed = found.names(self.model.classes) != expected.names(self.model.classes)
        changed &= ~_undecided(expected, limits)
        if found.novelty is not None and expected.novelty is not None:
            scale = np.maximum(1, np.abs(expected.novelty))
            same = found.novelty == expected.novelty  # infinite ones, too
            with np.errstate(invalid="ignore"):  # infinite ones
                # below 0, the usual, a mean of scores is rounding in units of their small spread
                ours, theirs = np.maximum(found.novelty, 0.0), np.maximum(expected.novelty, 0.0)
                apart = np.abs(ours - theirs)
            known = np.maximum(found.novelty, expected.novelty) <= _KNOWN
            wrong |= ~(same | (apart <= limits.novelty * scale) | (known & (apart <= _LIMIT_KNOWN)))
        if wrong.any() or changed.any():
            raise ModelError(
                f"export of model {self.model.manifest.name!r} differs by up to {_largest(found, expected):.3g} in a "
                f"probability (it or the novelty is too far off for {int(wrong.sum())} of {len(off)} images) and in "
                f"the class of {int(changed.sum())}, expected the same classes and at most {limits.difference:g}; "
                "nothing was written, try another --to, and please report it"
            )


def limits_of(model: Model, path: Path) -> Limits:
    """What is allowed to an export: of a model in int8 more where another runtime than the model's runs it."""
    return _INT8 if model.precision == INT8 and path.suffix != _OPENVINO else _FLOATS


def make_check(model: Model, images: LazyImages) -> Check:
    """The pixels and predictions of the model for these images."""
    pixels = np.stack([fit_image(image(), model.manifest.input) for image in images])
    return Check(model, images, pixels, model.predict_prepared([pixels]))


def colour(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Three channels, as the graph takes them."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _undecided(expected: Prediction, limits: Limits) -> NDArray[np.bool_]:
    """Images whose name hangs on less than the limits allow: two classes as probable, or a novelty of just 1."""
    ranked = np.sort(expected.probabilities, axis=1)
    close: NDArray[np.bool_] = ranked[:, -1] - ranked[:, -2] <= 2 * limits.difference
    if expected.novelty is not None:
        close |= np.abs(expected.novelty - 1) <= limits.novelty
    return close


def _largest(found: Prediction, expected: Prediction) -> float:
    difference: Array = np.abs(found.probabilities - expected.probabilities)
    return float(difference.max())
