"""Sources in int8: calibrated on images of a dataset, each a source of its own with a fingerprint of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.errors import SettingError
from headstart.graph.quantize import RANGES, int8_fault, plan_int8
from headstart.graph.run import INT8
from headstart.records import Array, Source
from headstart.sources.features import Extraction, extract
from headstart.sources.registry import kind_of

__all__ = [
    "INT8",
    "SAVED_PRECISIONS",
    "Precise",
    "calibrated_on",
    "check_saved",
    "in_int8",
    "in_precision_of",
    "int8_obstacle",
    "int8_ranges",
    "precise",
    "with_ranges",
]

SAVED_PRECISIONS = ("fp32", INT8)
"""In which a model computes that is saved; bf16 is how a processor computes a graph in fp32."""
_CALIBRATED = 100  # images; measured in docs/decisions/0023-int8.md


@dataclass(frozen=True)
class Precise:
    """A source in the precision that was asked for, and how its features are computed."""

    source: Source
    options: Extraction


def check_saved(precision: str | None) -> None:
    """SettingError unless a saved model can compute in a precision; None is fp32."""
    if precision is not None and precision not in SAVED_PRECISIONS:
        raise SettingError(
            f"precision is {precision!r}, expected one of {', '.join(SAVED_PRECISIONS)}, in which a saved model "
            "computes; leave it out for fp32"
        )


def precise(source: Source, calibration: Callable[[], Dataset], options: Extraction) -> Precise:
    """The source itself, or in int8 where the options say so; calibrated on images of a dataset, without labels.

    SettingError if it cannot be computed in int8, or is a model that was made in int8 and another precision is given.
    """
    if options.precision != INT8:
        if source.precision == INT8 and options.precision not in (None, "auto"):
            raise SettingError(
                f"precision is {options.precision!r} for source {source.name!r}, which was made in int8, expected "
                "int8; leave the precision out"
            )
        return Precise(source, options)
    options = replace(options, precision=None)
    return Precise(in_int8(source, calibration(), options), options)


def in_int8(source: Source, calibration: Dataset, options: Extraction) -> Source:
    """A source whose convolutions compute in int8; it stays as it is where it is in int8 already.

    Calibrated on at most 100 images of a dataset, evenly spaced; their labels play no part. SettingError if the
    source cannot be computed in int8.
    """
    if source.precision == INT8:
        return source
    return with_ranges(source, int8_ranges(source, calibration, options), calibrated_on(calibration))


def in_precision_of(
    source: Source, network: Source, calibration: Callable[[], Dataset], options: Extraction
) -> Source:
    """Another network, in int8 where a source is and where it can be: a control differs by its weights alone."""
    if source.precision != INT8 or int8_obstacle(network) is not None:
        return network
    return in_int8(network, calibration(), options)


def calibrated_on(calibration: Dataset) -> str:
    """What a source is calibrated on, as text."""
    n_images = len(_spaced(len(calibration)))
    return f"{n_images} image{'s' * (n_images > 1)} of {calibration.name}"


def int8_ranges(source: Source, calibration: Dataset, options: Extraction) -> Array:
    """Smallest and largest value of every tensor that is rounded, over some of the images, (2 x n_tensors,)."""
    obstacle = int8_obstacle(source)
    if obstacle is not None:
        raise SettingError(
            f"source {source.name!r} {obstacle}, expected a network of convolutions for precision "
            "'int8'; leave the precision out"
        )
    plan = plan_int8(onnx.ModelProto.FromString(source.graph))
    some = calibration.subset(_spaced(len(calibration)))
    graph = plan.ranges_graph().SerializeToString(deterministic=True)
    ranges = replace(
        source,
        graph=graph,
        layers={RANGES: (2 * len(plan.tensors),)},
        default_layer=RANGES,
        fingerprint=hashlib.sha256(graph).hexdigest(),
        candidates=(),
    )
    seen = extract(some, ranges, options=replace(options, precision="fp32"))
    found: Array = np.stack([seen[:, ::2].min(axis=0), seen[:, 1::2].max(axis=0)], axis=1).reshape(-1)
    return found


def with_ranges(source: Source, ranges: Array, calibration: str) -> Source:
    """A source in int8 by ranges of its tensors, as `int8_ranges` gives them; ``calibration`` says of which images.

    SettingError if there are not as many as the source has tensors.
    """
    plan = plan_int8(onnx.ModelProto.FromString(source.graph))
    if len(ranges) != 2 * len(plan.tensors):
        raise SettingError(
            f"ranges have {len(ranges)} values for source {source.name!r}, expected {2 * len(plan.tensors)}; "
            "calibrate it again"
        )
    written = plan.graph(ranges[None]).SerializeToString(deterministic=True)
    return replace(
        source,
        graph=written,
        fingerprint=hashlib.sha256(f"{source.fingerprint} int8 ".encode() + written).hexdigest(),
        precision=INT8,
        notes={**source.notes, "calibrated on": calibration},
    )


def int8_obstacle(source: Source) -> str | None:
    """Why a source cannot be computed in int8, as the end of "source X ..."; None if it can."""
    if not kind_of(source).pretrained:
        return "has no network"
    return int8_fault(onnx.ModelProto.FromString(source.graph))


def _spaced(n_images: int) -> NDArray[np.intp]:
    """Indices of the images to calibrate on."""
    return np.unique(np.linspace(0, n_images - 1, min(_CALIBRATED, n_images)).astype(np.intp))
