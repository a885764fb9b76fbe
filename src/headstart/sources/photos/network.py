"""EfficientNet-Lite as a graph: inverted residuals without squeeze-and-excitation.

Tan, Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. ICML 2019, arXiv:1905.11946; the
lite variants: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Layers are named as
those of timm's ``tf_efficientnet_lite0``, and weights as in the packages' files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from headstart.graph.build import GraphBuilder
from headstart.records import Weights

__all__ = ["Block", "EfficientNetLite", "initial_weights", "lite_graph"]

_EPSILON = 1e-3  # of batch normalisation, as TensorFlow trained it
_STEM, _TOP, _N_CLASSES = 32, 1280, 1000
# kernel, stride, expansion, channels and repetitions of each stage
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_ENDS = (0, 1, 2, 4, 6)  # stages after which the size changes, and the last


@dataclass(frozen=True)
class Block:
    """An inverted residual; ``layer`` is the name of its output if it ends a stage."""

    kernel: int
    stride: int
    n_in: int
    n_inner: int
    n_out: int
    layer: str = ""


@dataclass(frozen=True)
class EfficientNetLite:
    """A size of the network: factors on channels and repetitions, the side of its input, and its crop."""

    width: float
    depth: float
    side_px: int
    crop_share: float

    def blocks(self) -> Iterator[Block]:
        """All blocks from the input upwards; the first and the last stage are never deeper."""
        n_in = _STEM
        for place, (kernel, stride, expansion, channels, repeats) in enumerate(_STAGES):
            fixed = place in (0, len(_STAGES) - 1)
            n_out, n_blocks = (
                _rounded(channels * self.width),
                repeats if fixed else ceil(repeats * self.depth),
            )
            for number in range(n_blocks):
                ends = place in _ENDS and number == n_blocks - 1
                name = f"stage{_ENDS.index(place) + 1}" if ends else ""
                yield Block(kernel, stride if number == 0 else 1, n_in, n_in * expansion, n_out, name)
                n_in = n_out

    def convolutions(self) -> Iterator[tuple[str, str, tuple[int, int, int, int]]]:
        """Name, batch normalisation and weight shape of every convolution, in order."""
        yield "_conv_stem", "_bn0", (_STEM, 3, 3, 3)
        n_out = _STEM
        for number, one in enumerate(self.blocks()):
            name, n_out = f"_blocks.{number}.", one.n_out
            if one.n_inner != one.n_in:
                yield name + "_expand_conv", name + "_bn0", (one.n_inner, one.n_in, 1, 1)
            yield name + "_depthwise_conv", name + "_bn1", (one.n_inner, 1, one.kernel, one.kernel)
            yield name + "_project_conv", name + "_bn2", (one.n_out, one.n_inner, 1, 1)
        yield "_conv_head", "_bn1", (_TOP, n_out, 1, 1)


def initial_weights(network: EfficientNetLite, seed: int) -> Weights:
    """Random weights for rectified units (He et al. 2015, arXiv:1502.01852, by fan-out), without statistics."""
    rng, weights = np.random.default_rng([seed, 17]), Weights()
    for conv, norm, shape in network.convolutions():
        fan_out = prod(shape[2:]) * (1 if shape[1] == 1 else shape[0])
        weights[f"{conv}.weight"] = rng.normal(0, (2 / fan_out) ** 0.5, shape).astype(np.float32)
        for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            weights[f"{norm}.{part}"] = np.full(shape[0], value, np.float32)
    weights["_fc.weight"] = rng.normal(0, 0.01, (_N_CLASSES, _TOP)).astype(np.float32)
    weights["_fc.bias"] = np.zeros(_N_CLASSES, np.float32)
    return weights


def lite_graph(
    network: EfficientNetLite, weights: Mapping[str, NDArray[np.float32]], side_px: int
) -> tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]:
    """The network on ``pixels``, float32 (n, 3, side_px, side_px), and its layers with their shapes.

    Batch normalisation is part of the convolution before it.
    """
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, side_px, side_px])
    empty = helper.make_model(helper.make_graph([], "pixels", [pixels], []))
    convolve = _Convolution(GraphBuilder(empty), weights)
    builder, layers = convolve.builder, dict[str, tuple[int, ...]]()
    x, side = convolve("_conv_stem", "_bn0", "pixels", side_px, stride=2)
    for number, block in enumerate(network.blocks()):
        name, before = f"_blocks.{number}.", x
        if block.n_inner != block.n_in:
            x, _ = convolve(name + "_expand_conv", name + "_bn0", x, side)
        x, side = convolve(name + "_depthwise_conv", name + "_bn1", x, side, stride=block.stride)
        residual = block.stride == 1 and block.n_in == block.n_out
        last = "" if residual else block.layer
        x, _ = convolve(name + "_project_conv", name + "_bn2", x, side, clip=False, layer=last)
        if residual:
            x = builder.add("Add", x, before, name=block.layer or f"{name}sum")
        if block.layer:
            layers[block.layer] = (block.n_out, side, side)
    x, _ = convolve("_conv_head", "_bn1", x, side, layer="features")
    axes = builder.constant("embedding.axes", np.array([2, 3], np.int64))
    x = builder.add("ReduceMean", x, axes, name="embedding", keepdims=0)
    top = [builder.constant(f"_fc.{part}", weights[f"_fc.{part}"]) for part in ("weight", "bias")]
    builder.add("Gemm", x, *top, name="logits", transB=1)
    layers |= {"features": (_TOP, side, side), "embedding": (_TOP,), "logits": (_N_CLASSES,)}
    return builder.model(list(layers)), layers


@dataclass(frozen=True)
class _Convolution:
    """Appends convolutions with their batch normalisation to a graph."""

    builder: GraphBuilder
    weights: Mapping[str, NDArray[np.float32]]

    def __call__(
        self, name: str, norm: str, x: str, side: int, *, stride: int = 1, clip: bool = True, layer: str = ""
    ) -> tuple[str, int]:
        """The output, with values in 0 - 6 if ``clip``, and its side; padded as TensorFlow's ``SAME``."""
        kernel = self.weights[f"{name}.weight"]
        gain, shift, mean, variance = (
            self.weights[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + _EPSILON)
        weight = self.builder.constant(
            f"{name}.weight", (kernel * scale[:, None, None, None]).astype(np.float32)
        )
        bias = self.builder.constant(f"{name}.bias", (shift - mean * scale).astype(np.float32))
        after = -(-side // stride)
        missing = max(0, (after - 1) * stride + kernel.shape[2] - side)
        before = missing // 2
        x = self.builder.add(
            "Conv",
            x,
            weight,
            bias,
            name=layer if layer and not clip else f"{name}.out",
            strides=[stride] * 2,
            pads=[before, before, missing - before, missing - before],
            group=len(kernel) if kernel.shape[1] == 1 else 1,
        )
        if clip:
            limits = (self.builder.constant(f"clip.{value}", np.array(value, np.float32)) for value in (0, 6))
            x = self.builder.add("Clip", x, *limits, name=layer or f"{name}.clipped")
        return x, after


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 90 % of the wanted number."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near
