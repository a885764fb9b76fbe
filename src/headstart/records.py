"""Frozen records that travel between stages; nothing here computes.

Every stage imports this module, so it imports nothing but NumPy.
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
    "PREPARATION",
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
"""Where torch may train; the engine says which of them are available."""

NONE_OF_THESE = "none of these"
"""What a model predicts for an image unlike all its training images."""

PREPARATION = 2
"""The version of image preparation. In 1, files are decoded at full size; in 2, large JPEGs at a reduced size."""

ROLES = ("new", "learned", "source", "validation", "test", "judged")
"""The role of an image for a model: not seen; training image; training image of its source; held out for
validation (calibration, early stopping); held out as a test set; held out and used for evaluation only."""


@dataclass(frozen=True)
class InputSpec:
    """The input of a network or source: size in pixels, channels, and how pixels are scaled.

    A pixel value v in 0 - 255 becomes ``(v / 255 - mean) / std``, channel by channel. ``policy``,
    ``interpolation`` (``bilinear`` or ``bicubic``) and ``crop_share`` (the share of the largest
    centred part that the policy ``crop`` keeps, in (0, 1]) say how an image of another size is fitted.
    ``depth_bits`` is how many bits the 16-bit files of the training images use (8, 10, 12, 14 or 16): other
    16-bit files are scaled likewise. None if there was none; then files are scaled as their dataset is.
    ``version`` is that of the preparation, see `PREPARATION`: models that were saved before keep theirs.
    """

    height_px: int
    width_px: int
    channels: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    policy: str = "squish"
    interpolation: str = "bilinear"
    crop_share: float = 1.0
    depth_bits: int | None = None
    version: int = PREPARATION

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
    """A network as data; every engine and the graph builder build it from the same spec."""

    name: str
    input: InputSpec
    layers: tuple[LayerSpec, ...]

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers in order of execution."""
        return tuple(layer.name for layer in self.layers)

    @property
    def n_classes(self) -> int:
        """Units of the last dense layer."""
        return int(self.layers[-1].options["units"])


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained: everything that changes the result, and nothing else.

    ``optimizer`` is ``adam``, ``adamw`` (decoupled weight decay), ``sgd``, or with torch ``muon`` (for the
    matrices inside the network, adamw for the rest); biases and norms have no weight decay. ``schedule`` is
    ``constant``; ``one-cycle`` (Smith and Topin 2018, arXiv:1708.07120), a linear warm-up to
    ``learning_rate`` over the first fifth of all steps, then linear decay to zero; or ``cosine``, a warm-up
    over a twentieth, then half a cosine. ``patience`` counts epochs without a lower validation loss before
    training stops; the best weights are restored. ``min_steps`` raises the number of epochs for a small
    dataset to reach that many steps. ``prune`` skips that share of the images whose last loss was below the
    mean, in every epoch but the first, and increases the weights of the kept ones (InfoBatch,
    arXiv:2303.04947). ``precision`` is ``auto`` (bf16 where the engine and the machine support it) or
    ``fp32``.

    The other settings work with the engine torch only. ``mixup`` is the parameter of the Beta distribution
    with which pairs of images are mixed (Zhang et al. 2018, arXiv:1710.09412), 0 for none. ``ema`` is the
    decay of a running mean of the weights, which then is the result (Polyak and Juditsky 1992). ``clip``
    bounds the norm of the gradient. ``accumulate`` computes a batch in that many parts, to save memory. The
    learning rate of each part of the network is ``layer_decay`` times that of the part above it, and
    ``gradual`` unfreezes the parts one after the other, from the top, over that share of all steps (Howard
    and Ruder 2018, arXiv:1801.06146). ``batch_norm`` is ``learn``, or ``frozen``: neither statistics nor
    scales change.
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
    """A test set held out of a dataset: the requested share (0 - 1), the seed, the number of images."""

    share: float
    seed: int
    n_images: int


@dataclass(frozen=True, eq=False)
class Seen:
    """Which images a model has seen, and in which role, without the images themselves.

    ``digests`` uint8 (n_images, 16) are the first bytes of the SHA-256 of each file, or of the pixels of
    images in memory; ``roles`` uint8 (n_images,) index `ROLES`. For some of the images, at ``places`` int64
    (n_described,), there is more: ``contents`` uint8 (n_described, 16), digests of the pixels; ``looks`` int8
    (n_described, 256) and ``kinds`` uint8 (n_described,), see `data.checks.appearance`.
    """

    digests: NDArray[np.uint8]
    roles: NDArray[np.uint8]
    places: NDArray[np.int64]
    contents: NDArray[np.uint8]
    looks: NDArray[np.int8]
    kinds: NDArray[np.uint8]

    def count(self, role: str) -> int:
        """Number of images with this role."""
        return int((self.roles == ROLES.index(role)).sum())


@dataclass(frozen=True)
class Source:
    """A frozen pretrained network.

    ``graph`` is a serialized ONNX model whose tensors are named like the layers; ``layers`` gives the shape
    of each without the batch axis, (features,) or (channels, height, width). ``fingerprint`` covers the
    weights, the layers and the input. ``classes`` are those of its own classifier, or None if it has none.
    ``precision`` is the default precision of its features: fp32, as a saved model computes, or int8 where the graph
    has its convolutions in 8 bits. ``candidates``
    are the pairs of layer and pooling to select from where no layer is given; a source without any is read at
    its default layer. ``batch_size`` is the fastest one. ``notes`` are facts to show: licence, parameters,
    GFLOPs. ``network`` has the layers and weights of a network trained here, for fine-tuning. ``seen`` says
    which images it learned from. ``kind`` is a name in ``sources.registry.KINDS``, which says what the source
    can do; empty for a network trained here.
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
        """Which images resemble the training images, (n,)."""
        if self.novelty is None:
            return np.ones(len(self.probabilities), np.bool_)
        return self.novelty <= 1

    def names(self, classes: Sequence[str]) -> NDArray[np.str_]:
        """The most probable class of each image, or ``none of these``."""
        named: NDArray[np.str_] = np.asarray([*classes, NONE_OF_THESE])[
            np.where(self.known, self.probabilities.argmax(axis=1), len(classes))
        ]
        return named


@dataclass(frozen=True)
class Curve:
    """Loss and accuracy in training and validation, step by step; NaN where not measured."""

    title: str
    step_name: str
    steps: tuple[float, ...]
    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    train_accuracy: tuple[float, ...]
    val_accuracy: tuple[float, ...]
    best_step: float | None = None
