"""The source ``hog``: histograms of oriented gradients, the strongest features that no network learned.

Dalal, Triggs. Histograms of Oriented Gradients for Human Detection. CVPR 2005, doi:10.1109/CVPR.2005.177.
"""

from __future__ import annotations

from dataclasses import replace
from math import pi

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.graph import build, layers
from headstart.records import InputSpec, Source
from headstart.sources.kind import SourceKind
from headstart.sources.networks import graph_source, native_input

__all__ = ["HOG", "hog_source"]

_N_BINS = 9
_CELLS = ((12, 2), (40, 4))  # side of an image in pixels up to which cells have this side; else 8
_LARGE_CELL = 8
_LEAST = 1e-3  # of a gradient or a block's length, for values of 0 - 1; below it is noise
_NOISE = 1e-6  # a gradient of rounding errors; one of 1 of 255 in blue is 4e-4
_LUMA = (0.299, 0.587, 0.114)


def hog_source(spec: InputSpec) -> Source:
    """Histograms of images prepared to this size and policy, as a source with one layer, ``histograms``."""
    spec = replace(spec, mean=(0.0,) * spec.channels, std=(1.0,) * spec.channels)
    side = min(spec.height_px, spec.width_px)
    cell = min(side, next((size for limit, size in _CELLS if side <= limit), _LARGE_CELL))
    builder = build.GraphBuilder(input_spec=spec)
    magnitude, angle = _gradients(builder, layers.normalise(builder, spec), spec.channels)
    cells = _cells(builder, magnitude, angle, cell)
    rows, columns = spec.height_px // cell, spec.width_px // cell
    shape = _blocks(builder, cells, rows, columns)
    return graph_source(HOG.prefix, builder.model(["histograms"]), spec, shape)


def _gradients(builder: build.GraphBuilder, pixels: str, channels: int) -> tuple[str, str]:
    """Length, and angle in -pi/2 to pi/2, of the gradient of the luminance at every pixel."""
    edge = builder.constant("hog.pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    padded = builder.add("Pad", pixels, edge, mode="edge")
    step = np.zeros((2, channels, 3, 3), np.float32)
    for channel, share in enumerate(_LUMA if channels == 3 else (1.0,)):
        step[0, channel, 1] = np.array([-share, 0, share])
        step[1, channel, :, 1] = np.array([-share, 0, share])
    both = builder.add("Conv", padded, builder.constant("hog.step", step))
    across, down = (
        builder.add("Gather", both, builder.constant(f"hog.{place}", np.array([place])), axis=1)
        for place in (0, 1)
    )
    squares = builder.add("Add", builder.add("Mul", across, across), builder.add("Mul", down, down))
    # flat images get zeros in every runtime: heads would compare rounding errors that runtimes do not share
    noise = builder.constant("hog.noise", np.array(_NOISE, np.float32))
    magnitude = builder.add("Relu", builder.add("Sub", builder.add("Sqrt", squares), noise))
    # the sign of `across` stays: it decides on which side of the vertical a steep gradient is
    tiny = builder.constant("hog.tiny", np.array(1e-6, np.float32))
    safe = builder.add("Add", across, tiny)
    return magnitude, builder.add("Atan", builder.add("Div", down, safe))


def _cells(builder: build.GraphBuilder, magnitude: str, angle: str, cell: int) -> str:
    """Histograms of the cells, (n, 9, rows, columns); a gradient counts for the two nearest bins."""
    width = pi / _N_BINS
    centres = (-pi / 2 + width * (np.arange(_N_BINS) + 0.5)).astype(np.float32)
    apart = builder.add(
        "Abs", builder.add("Sub", angle, builder.constant("hog.centres", centres[:, None, None]))
    )
    around = builder.add("Sub", builder.constant("hog.pi", np.array(pi, np.float32)), apart)
    nearest = builder.add("Min", apart, around)
    one = builder.constant("hog.one", np.array(1, np.float32))
    scaled = builder.add("Div", nearest, builder.constant("hog.width", np.array(width, np.float32)))
    votes = builder.add("Mul", builder.add("Relu", builder.add("Sub", one, scaled)), magnitude)
    return builder.add("AveragePool", votes, kernel_shape=[cell, cell], strides=[cell, cell])


def _blocks(builder: build.GraphBuilder, cells: str, rows: int, columns: int) -> tuple[int, int, int]:
    """The layer ``histograms``: blocks of 2 x 2 cells, each of length 1; its shape is returned."""
    tall, wide = min(2, rows), min(2, columns)
    parts = []
    for down in range(tall):
        for right in range(wide):
            first = builder.constant(f"hog.first{down}{right}", np.array([down, right]))
            last = builder.constant(
                f"hog.last{down}{right}", np.array([rows - tall + 1 + down, columns - wide + 1 + right])
            )
            axes = builder.constant("hog.axes", np.array([2, 3]))
            parts.append(builder.add("Slice", cells, first, last, axes))
    joined = builder.add("Concat", *parts, axis=1)
    channel = builder.constant("hog.channel", np.array([1]))
    length = builder.add("ReduceL2", joined, channel, keepdims=1)
    least = builder.constant("hog.least", np.array(_LEAST, np.float32))
    builder.add("Div", joined, builder.add("Add", length, least), name="histograms")
    return (len(parts) * _N_BINS, rows - tall + 1, columns - wide + 1)


def _open(name: str, *, dataset: Dataset | None, seed: int, size_px: int | None) -> Source:
    return hog_source(native_input(dataset or load("digits")))


HOG = SourceKind(
    "hog",
    {"hog": "no network: histograms of oriented gradients, a control"},
    _open,
    pretrained=False,
)
