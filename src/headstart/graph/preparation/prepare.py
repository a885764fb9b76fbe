"""Preparation of one image of any size as a graph, with the same pixels as `data.images.prepare`.

The input is ``image``, uint8 (height, width, 3), RGB. Pillow's filters are matrices computed from the size
while the graph runs, and results are rounded after each direction as in Pillow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from headstart.graph.build import INPUT, NOVELTY, PROBABILITIES, GraphBuilder
from headstart.graph.preparation.filters import UNIT, centred_part, quotient, weights_of, whole_side
from headstart.graph.preparation.ink import framed_ink
from headstart.graph.preparation.tensors import Tensor, Workspace, concatenated, maximum, minimum, where
from headstart.records import InputSpec

__all__ = ["IMAGE", "PREPARED", "preparation_graph", "prepared", "with_preparation"]

IMAGE = "image"
PREPARED = "picture.prepared"
"""The tensor of the pixels that the network gets."""
_LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""ITU-R BT.601 in Pillow's integers; sums over 8-bit pixels are exact in float32."""
_LOWER = 2.0**7
"""Where weights are split in two: 15 bits above times 255, and 7 bits below times 255 times 500 pixels."""


def with_preparation(
    graph: bytes, spec: InputSpec, metadata: Mapping[str, str] | None = None, *, wide: bool = True
) -> bytes:
    """A model's graph with the preparation in front: one ``image`` in, its outputs without a batch axis out.

    ``graph`` maps ``images`` to ``probabilities`` and perhaps ``novelty``. ``wide`` says whether the runtime
    computes float64 as such, for the filters' weights; OpenVINO makes float32 of it.
    """
    model = onnx.ModelProto.FromString(graph)
    space = _workspace(wide=wide)
    pixels = prepared(space.given(IMAGE), spec)
    batch = {name: f"{name}.batch" for name in (value.name for value in model.graph.output)}
    space.builder.graft(_renamed(model, batch), {INPUT: pixels.name})
    flat = space.integers(-1).name
    for name, inner in batch.items():
        space.builder.add("Reshape", inner, flat, name=name)
    whole: bytes = _sized(space.builder.model(list(batch), metadata), model).SerializeToString()
    return whole


def preparation_graph(spec: InputSpec, *, wide: bool = True) -> onnx.ModelProto:
    """Graph of the preparation alone: ``image`` to ``images``, uint8 (1, *spec.shape)."""
    space = _workspace(wide=wide)
    pixels = prepared(space.given(IMAGE), spec)
    space.builder.add("Identity", pixels.name, name=INPUT)
    model = space.builder.model([INPUT])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, *spec.shape]))
    return model


def prepared(image: Tensor, spec: InputSpec) -> Tensor:
    """Append the preparation: uint8 (height, width, 3) to uint8 (1, *spec.shape)."""
    colours = image.cast("float")
    pixels = _grey(colours) if spec.channels == 1 else colours.transpose(2, 0, 1)  # (c, h, w)
    fitted = _POLICIES[spec.policy](pixels, spec)
    space, whole = fitted.space, fitted.transpose(1, 2, 0).cast("byte")
    return space.given(space.builder.add("Unsqueeze", whole.name, space.integers(0).name, name=PREPARED))


def _workspace(*, wide: bool) -> Workspace:
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["height", "width", 3])
    empty = helper.make_model(helper.make_graph([], "headstart", [image], []))
    return Workspace(GraphBuilder(empty), wide=wide)


def _renamed(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """The graph with some tensors under other names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        node.name = node.output[0]
    return copy


def _sized(model: onnx.ModelProto, inner: onnx.ModelProto) -> onnx.ModelProto:
    """State the sizes of the outputs, which shape inference cannot know."""
    declared = inner.graph.output[0].type.tensor_type.shape.dim
    sizes = {PROBABILITIES: (declared[1].dim_value if len(declared) == 2 else 0) or "n_classes", NOVELTY: 1}
    for value in model.graph.output:
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [sizes[value.name]]))
    return model


def _grey(colours: Tensor) -> Tensor:
    """Luma rounded to whole values: (h, w, 3) to (1, h, w)."""
    space = colours.space
    h, w = colours.size(0), colours.size(1)
    # flat first: on (h, w, 1) ONNX Runtime took 200 ms to add a number to 3.7 million, else 15 (2026-11-21)
    luma = (colours @ space.constant(np.array(_LUMA, np.float32)[:, None])).reshape(1, h, w)
    return (luma + 0.5).floor()


def _squish(pixels: Tensor, spec: InputSpec) -> Tensor:
    space, sizes = pixels.space, (spec.height_px, spec.width_px)
    filters = [
        weights_of(side, whole_side(side), space.arange(size), size, spec.interpolation)
        for side, size in zip((pixels.size(1), pixels.size(2)), sizes, strict=True)
    ]
    return _resampled(pixels, *filters)


def _crop(pixels: Tensor, spec: InputSpec) -> Tensor:
    """A share of the largest centred box of the right shape, its sides float32 as in Pillow."""
    h, w = pixels.size(1), pixels.size(2)
    tall = h * spec.width_px <= w * spec.height_px
    old, new = where(tall, h, w), where(tall, spec.height_px, spec.width_px)
    filters = []
    for side, size in ((h, spec.height_px), (w, spec.width_px)):
        cut, place = centred_part(side, old * size, spec.crop_share, new), pixels.space.arange(size)
        filters.append(weights_of(side, cut, place, size, spec.interpolation))
    return _resampled(pixels, *filters)


def _letterbox(pixels: Tensor, spec: InputSpec) -> Tensor:
    h, w = pixels.size(1), pixels.size(2)
    flat = w * spec.height_px <= h * spec.width_px
    new, old = where(flat, spec.height_px, spec.width_px), where(flat, h, w)
    filters, inside = [], []
    for side, full in ((h, spec.height_px), (w, spec.width_px)):
        size = minimum(maximum(quotient(side * new, old).rounded(), 1), full)
        place = pixels.space.arange(full) - ((full - size) / 2).floor()
        within = (place >= 0) * (place < size)
        weights = weights_of(side, whole_side(side), place, size, spec.interpolation)
        filters.append(weights * within.column())
        inside.append(within)
    frame = inside[0].column() * inside[1]  # (height, width)
    return _resampled(pixels, *filters) * frame + _border_colour(pixels) * (1 - frame)


def _ink(pixels: Tensor, spec: InputSpec) -> Tensor:
    luma = (1.0,) if spec.channels == 1 else _LUMA
    framed = framed_ink(pixels, spec.height_px, spec.width_px, luma)
    return framed if spec.channels == 1 else concatenated(framed, framed, framed, axis=0)


_POLICIES = {"squish": _squish, "crop": _crop, "letterbox": _letterbox, "ink": _ink}


def _resampled(pixels: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Filter rows, then columns, rounding to 8 bits after each as in Pillow: (c, h, w) to (c, H, W)."""
    rows = _rounded(*(pixels @ part.transpose(1, 0) for part in _parts(across)))
    return _rounded(*(part @ rows for part in _parts(down)))


def _parts(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower bits: sums over 8-bit pixels of each are below 2**24, so exact in float32."""
    upper = (weights / _LOWER).floor()
    return upper, weights - upper * _LOWER


def _rounded(upper: Tensor, lower: Tensor) -> Tensor:
    unit = UNIT / _LOWER
    return ((upper + (lower / _LOWER).floor() + unit / 2) / unit).floor().clip(0, 255)


def _border_colour(pixels: Tensor) -> Tensor:
    """Median of the outermost pixels, channel by channel, by counting: (c, 1, 1)."""
    space = pixels.space
    sides: Sequence[Tensor] = [pixels.at(axis, end) for axis in (1, 2) for end in (0, -1)]
    border = concatenated(*sides, axis=1)  # (c, n), n even
    levels = space.constant(np.arange(256, dtype=np.float32)[:, None])
    up_to = (space.add("Unsqueeze", border, space.integers(1)) <= levels).sum(2)  # (c, 256)
    half = border.size(1) / 2
    middle = [(up_to <= place).sum(1) for place in (half - 1, half)]
    return ((middle[0] + middle[1]) / 2).floor().reshape(-1, 1, 1)
