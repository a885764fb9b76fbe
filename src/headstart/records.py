"""Frozen records and protocols that travel between stages; nothing here computes.

In and out: plain values. Imports nothing of ours but errors, and nothing heavy but NumPy,
because every stage imports it. Called by every stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DEVICES",
    "NONE_OF_THESE",
    "ROLES",
    "Answered",
    "Array",
    "Calibration",
    "ClassScore",
    "Codes",
    "Comparison",
    "Curve",
    "Detection",
    "Difference",
    "Epoch",
    "Evaluated",
    "Evaluation",
    "Factor",
    "Figure",
    "Gallery",
    "Holdout",
    "Images",
    "InputSpec",
    "LayerSpec",
    "Network",
    "NetworkSpec",
    "PlainTable",
    "ReliabilityBin",
    "Report",
    "ReportImage",
    "Row",
    "Scatter",
    "Score",
    "Seen",
    "Source",
    "TrainSettings",
    "Trainable",
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


class Trainable(Protocol):
    """What the training loop needs. Images are uint8 (n, h, w, c), labels int64 codes."""

    engine: str

    def start(self, settings: TrainSettings, n_steps: int = 0) -> None:
        """Make the optimizer for the parts that are not frozen; ``n_steps`` are to come, 0 if unknown."""
        ...

    def train_step(
        self, images: Images, labels: Codes, learning_rate: float, weights: Array | None = None
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Learn from one batch; give each image's loss in nats and whether it was right, before the step."""
        ...

    def logits(self, images: Images) -> Array:
        """Outputs of the last layer without dropout, (n, n_classes)."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """All that training changes, for `load_state` of an equal network after the same `start`."""
        ...

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state, to the bit."""
        ...

    def weights(self) -> Weights:
        """A copy of all weights in the canonical layout; of their running mean while there is one."""
        ...

    def load_weights(self, weights: Weights) -> None:
        """Take weights in the canonical layout; names and shapes must match exactly."""
        ...


class Network(Trainable, Protocol):
    """A trainable network in some engine, built from a spec."""

    spec: NetworkSpec

    def freeze(self, through: str) -> None:
        """Stop learning in every layer up to and including ``through``."""
        ...

    def replace_head(self, n_classes: int, seed: int) -> None:
        """Put a new last dense layer, freshly drawn, in place of the old one."""
        ...


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
class Answered:
    """What a model says of images: ``probabilities`` (n, n_classes) and ``novelty`` (n,), float32.

    Novelty is how unlike a picture is to all that was learnt from, in units of the threshold: above 1
    the answer is ``none of these``. None for a model that never says so.
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
class Score:
    """An estimate with its 95 % interval and the number of images behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """A paired difference of accuracies (0 - 1) with its 95 % interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p_value: float
    n: int


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one class on the test images."""

    name: str
    precision: Score
    recall: Score
    f1: Score


@dataclass(frozen=True)
class Evaluation:
    """How one model did on one test set; ``confusion[i][j]`` counts class i called class j.

    ``macro`` holds the averages over the classes that have images.
    """

    title: str
    classes: tuple[str, ...]
    accuracy: Score
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassScore, ...]
    macro: ClassScore | None = None

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without an image."""
        return tuple(name for name, row in zip(self.classes, self.confusion, strict=True) if not sum(row))


@dataclass(frozen=True)
class Evaluated:
    """How one model did on one dataset, and what the figures are about.

    ``evaluation`` and ``calibration`` are about the images that ``about`` names: ``new images``; ``images
    learned from`` where none is new; ``images`` where the model does not say what it learned from. ``new``
    and ``learned`` are the accuracies on either kind, None without images of it. ``counts`` says how many
    images were of which kind. ``warnings`` are sentences without which the figures would be misread.
    """

    title: str
    about: str
    split: str
    new: Score | None
    learned: Score | None
    counts: Mapping[str, int]
    evaluation: Evaluation
    calibration: Calibration
    detection: Detection | None = None
    n_groups: int = 0
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class Row:
    """One cell of the result table: a strategy or control at one budget of labels.

    ``labels_per_class`` is None for all labels. ``spread`` is the standard deviation of accuracy
    over the draws of labels, 0 for one draw. ``seconds`` is the median over draws.
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

    ``p_adjusted`` is Holm's over all comparisons of the study; ``verdict`` is
    ``helps``, ``hurts`` or ``cannot tell apart``. ``n_to_settle`` is how many test images would
    show a difference as large as this one four times in five; None where no number would.
    """

    strategy: str
    control: str
    labels_per_class: int | None
    difference: Difference
    p_adjusted: float
    verdict: str
    n_to_settle: int | None = None


@dataclass(frozen=True)
class PlainTable:
    """A table of text for a report: the first column names the line, the others are set to the right."""

    title: str
    caption: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A picture for a report: ``svg`` is an ``<svg>`` element without script or request, ours."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of about the same confidence, (``low``, ``high``], and how many of them were right."""

    low: float
    high: float
    confidence: float
    accuracy: Score


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be believed.

    ``ece`` is the expected calibration error (0 - 1), ``brier`` the Brier score over all classes
    (0 - 2), ``nll`` the loss in nats per image; ``n`` images. Empty bins are left out.
    """

    title: str
    ece: float
    brier: float
    nll: float
    n: int
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Detection:
    """How well pictures of none of the classes are told from those of the classes.

    ``auroc`` and ``baseline_auroc`` (of the largest probability) are the chance that a novel picture looks
    stranger than a known one. ``detected`` and ``falsely_rejected`` are shares at the model's own threshold,
    ``detected_at_rate`` and ``baseline_detected_at_rate`` of the novel where ``rate`` of these known ones is
    refused.
    """

    title: str
    auroc: Score
    baseline_auroc: Score
    detected: Score
    falsely_rejected: Score
    rate: float
    detected_at_rate: Score
    baseline_detected_at_rate: Score


@dataclass(frozen=True)
class ReportImage:
    """One image as a report shows it, with what a model said of it.

    ``address`` and ``heat`` are ``data:image/png;base64,`` addresses; ``heat``, if not empty, is the
    same picture with what the network looked at laid over it. Probabilities are 0 - 1.
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
    """Pictures worth looking at: the most confident mistakes, say."""

    title: str
    caption: str
    pictures: tuple[ReportImage, ...]


@dataclass(frozen=True)
class Scatter:
    """Images as points of a plane; ``codes`` are positions in ``classes``, ``right`` whether they were."""

    title: str
    caption: str
    classes: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    codes: tuple[int, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Factor:
    """One setting that a search varied: its share of what mattered (0 - 1), and a score for each value tried.

    ``values`` are numbers, or names of choices; ``log`` says that numbers belong on a logarithmic scale.
    """

    name: str
    importance: float
    values: tuple[float | str, ...]
    scores: tuple[float, ...]
    log: bool = False


@dataclass(frozen=True)
class Report:
    """All a report needs, and all that ``--json`` prints.

    ``judged_on`` says which images the figures are about: ``test``, ``validation``,
    ``cross-validated training`` and the like. ``protocol`` says in a sentence or two how images were
    parted and what every interval and p-value rests on; ``findings`` are the doctor's; ``kind`` is what
    was done: ``study``, ``transfer``, ``training`` and the like.
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
