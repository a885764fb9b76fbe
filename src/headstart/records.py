"""Frozen records and protocols that travel between stages; nothing here computes.

In and out: plain values. Imports nothing of ours but errors, and nothing heavy but NumPy,
because every stage imports it. Called by every stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DEVICES",
    "NONE_OF_THESE",
    "ROLES",
    "Array",
    "Codes",
    "Curve",
    "Epoch",
    "Holdout",
    "Images",
    "InputSpec",
    "LayerSpec",
    "NetworkSpec",
    "Prediction",
    "Seen",
    "Source",
    "TrainSettings",
    "Weights",
]

Array = NDArray[np.float32]
Codes = NDArray[np.int64]
Images = NDArray[np.uint8]
"""uint8 of shape (n_images, height, width, channels), values 0 - 255."""
Weights = dict[str, NDArray[np.float32]]
"""``layer.weight`` / ``layer.bias`` to float32; conv (out, in, kh, kw), dense (out, in); of batch-norm also
``layer.mean`` and ``layer.variance``, all (channels,).
A flattened map is in (height, width, channel) order, in every engine and in the graph."""


DEVICES = ("auto", "cpu", "cuda", "mps")
"""Where torch may train; the engine says which of them are there."""

NONE_OF_THESE = "none of these"
"""What a model answers to a picture unlike all it learnt from."""

ROLES = ("new", "learned", "source", "validation", "test", "judged")
"""What an image was to a model: not seen; learned from; learned from by its source network; held out of
training to calibrate or stop by; held out as a test set; held out of training and only judged by."""


@dataclass(frozen=True)
class InputSpec:
    """What a network or source takes: size in pixels, channels, and how pixels are scaled.

    A pixel value v in 0 - 255 becomes ``(v / 255 - mean) / std``, channel by channel. ``policy``,
    ``interpolation`` (``bilinear`` or ``bicubic``) and ``crop_share`` (how much of the largest
    centred part the policy ``crop`` keeps, in (0, 1]) say how a picture of another size is fitted.
    """

    height_px: int
    width_px: int
    channels: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    policy: str = "squish"
    interpolation: str = "bilinear"
    crop_share: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return (self.height_px, self.width_px, self.channels)


@dataclass(frozen=True)
class LayerSpec:
    """One layer by kind (conv2d, batchnorm2d, maxpool2d, relu, flatten, dense, dropout), name and options."""

    kind: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkSpec:
    """A network as data: the same spec is built by every engine and by the graph builder."""

    name: str
    input: InputSpec
    layers: tuple[LayerSpec, ...]

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names in order of execution; each is a layer."""
        return tuple(layer.name for layer in self.layers)

    @property
    def n_classes(self) -> int:
        """Units of the last dense layer."""
        return int(self.layers[-1].options["units"])


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained; everything that changes the result, and nothing else.

    ``optimizer`` is ``adam``, ``adamw`` (its decay shrinks weights, not gradients), ``sgd``, or with torch
    ``muon`` (matrices inside the network move as one, the rest by adamw); weight decay spares biases and
    norms. ``schedule`` is ``constant``, ``one-cycle`` (Smith and Topin 2018, arXiv:1708.07120): linear
    warm-up to ``learning_rate`` over the first fifth of all steps, then linearly to zero; or ``cosine``:
    warm-up over a twentieth, then half a cosine. ``patience`` counts epochs without a lower validation loss
    before training stops; the best weights come back. ``min_steps`` raises the epochs of a tiny set to that
    many steps. ``prune`` skips that share of the images whose last loss was below the mean, in every epoch
    but the first, and weighs the kept ones up (InfoBatch, arXiv:2303.04947). ``precision`` is ``auto`` (bf16
    where the engine and the machine have it) or ``fp32``.

    The engine torch alone has the rest. ``mixup`` is the parameter of the Beta distribution by which pairs
    of images are mixed (Zhang et al. 2018, arXiv:1710.09412), 0 for none. ``ema`` is the share kept at each
    step by a running mean of the weights, which then is the result (Polyak and Juditsky 1992). ``clip``
    bounds the length of the gradient. ``accumulate`` computes a batch in so many parts, to save memory.
    Each part of the network learns at ``layer_decay`` times the rate of the part above it, and ``gradual``
    opens the parts one after the other, from the top, over that share of all steps (Howard and Ruder 2018,
    arXiv:1801.06146). ``batch_norm`` is ``learn``, or ``frozen``: neither its statistics nor its scales
    change.
    """

    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    schedule: str = "constant"
    momentum: float = 0.9
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    patience: int = 0
    min_steps: int = 0
    prune: float = 0.0
    precision: str = "auto"
    seed: int = 0
    mixup: float = 0.0
    ema: float = 0.0
    clip: float = 0.0
    accumulate: int = 1
    layer_decay: float = 1.0
    gradual: float = 0.0
    batch_norm: str = "learn"


@dataclass(frozen=True)
class Epoch:
    """One line of a training history; losses in nats, accuracies in 0 - 1, NaN where not measured."""

    number: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Holdout:
    """A test set held out of a dataset: the share wanted (0 - 1), the seed, how many images it has."""

    share: float
    seed: int
    n_images: int


@dataclass(frozen=True, eq=False)
class Seen:
    """Which images a model has seen, and in which role, without the images themselves.

    ``digests`` uint8 (n_images, 16) are the first bytes of the SHA-256 of each file, or of the pixels where
    images were in memory; ``roles`` uint8 (n_images,) are positions in `ROLES`. Of some of the images, at
    ``places`` int64 (n_described,), there is more: ``contents`` uint8 (n_described, 16), digests of the
    pixels; ``looks`` int8 (n_described, 256) and ``kinds`` uint8 (n_described,), as `data.looks` makes them.
    """

    digests: NDArray[np.uint8]
    roles: NDArray[np.uint8]
    places: NDArray[np.int64]
    contents: NDArray[np.uint8]
    looks: NDArray[np.int8]
    kinds: NDArray[np.uint8]

    def count(self, role: str) -> int:
        """How many images had this role."""
        return int((self.roles == ROLES.index(role)).sum())


@dataclass(frozen=True)
class Source:
    """A frozen network to learn from.

    ``graph`` is a serialized ONNX model whose tensors are named as the layers; ``layers`` gives the
    shape of each without the images' axis, (features,) or (channels, height, width).
    ``fingerprint`` covers the weights, the layers and the input. ``classes`` are what its own top
    tells apart, or None if it has no top. ``precision`` is what its features are computed in when
    nobody asks for another: fp32, as a saved model computes.
    ``candidates`` are the pairs of layer and pooling worth trying when nobody names a layer; a source
    without any is read at its default layer. ``batch_size`` images at a time run fastest. ``notes``
    are facts to show: licence, parameters, GFLOPs. ``network`` has the layers and weights of a network of
    ours, for who wants to train it further. ``seen`` says which images a model of ours learned from. ``kind``
    names its kind in ``sources.registry.KINDS``, which says what it can do; empty for a network of ours.
    """

    name: str
    graph: bytes
    input: InputSpec
    layers: Mapping[str, tuple[int, ...]]
    default_layer: str
    fingerprint: str
    classes: tuple[str, ...] | None = None
    precision: str = "fp32"
    candidates: tuple[tuple[str, str], ...] = ()
    batch_size: int = 64
    notes: Mapping[str, Any] = field(default_factory=dict)
    network: tuple[NetworkSpec, Weights] | None = field(default=None, repr=False, compare=False)
    seen: Seen | None = field(default=None, repr=False, compare=False)
    kind: str = ""


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for images: ``probabilities`` (n, n_classes) and ``novelty`` (n,), float32.

    Novelty is the distance from the training images in units of the threshold: above 1 the prediction is
    ``none of these``. None for a model without novelty detection.
    """

    probabilities: Array
    novelty: Array | None = None

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which images are like those learnt from, (n,)."""
        if self.novelty is None:
            return np.ones(len(self.probabilities), np.bool_)
        return self.novelty <= 1

    def names(self, classes: Sequence[str]) -> NDArray[np.str_]:
        """The likeliest class of each image, or ``none of these``."""
        named: NDArray[np.str_] = np.asarray([*classes, NONE_OF_THESE])[
            np.where(self.known, self.probabilities.argmax(axis=1), len(classes))
        ]
        return named


@dataclass(frozen=True)
class Curve:
    """Loss and accuracy for training and validation, step by step; NaN where not measured."""

    title: str
    step_name: str
    steps: tuple[float, ...]
    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    train_accuracy: tuple[float, ...]
    val_accuracy: tuple[float, ...]
    best_step: float | None = None
