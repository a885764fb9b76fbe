"""How a source is opened: which depths are tried, by which settings, and one training of it.

In: a source, a place, a fitted head, images. Out: what training made of them. Must not import an engine at
the top. Called by finetune.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import sqrt
from typing import Any

import numpy as np

from headstart._optional import require
from headstart.errors import HeadstartError, SettingError, SourceError, nearest
from headstart.features import Place
from headstart.graph import build
from headstart.heads.base import AffineHead, Head, Standardiser
from headstart.heads.registry import make_head
from headstart.heads.trained import TrainedHead
from headstart.imaging.augment import PRESETS, Augmentation, flip_warning, parse_augmentation
from headstart.networks.training import Held, Loss, OnEpoch, OnStep, fit
from headstart.pretrained import trained_source
from headstart.records import DEVICES, Array, Codes, Epoch, Images, InputSpec, Source, TrainSettings
from headstart.sources import spec_source
from headstart.strategies import best_epoch, training_views

__all__ = [
    "DEPTHS",
    "STRATEGIES",
    "Opened",
    "Opening",
    "augmentation_for",
    "depths_of",
    "dropout_for",
    "open_and_train",
    "parse_opening",
    "parse_strategies",
    "parse_transfer",
    "settings_for",
    "side_of",
    "starting_head",
]

STRATEGIES = ("probe", "finetune", "scratch")
"""How much is relearnt: nothing of the source, some of it, everything."""

DEPTHS = ("head", "last", "2", "all", "auto")

_SMALL_PX = 64  # side up to which images are small and a step costs milliseconds
_MANY, _MANY_SMALL = 5_000, 500  # images from which batch-norm's statistics may follow the new data
_SEEN_SMALL, _SEEN_PHOTOS = 5_000, 100  # images learnt from, times the square root of how many there are
_MOST_EPOCHS = 150  # of a handful of images; more cost time and give nothing
_PHOTO_PX = 224  # side of the photos that is meant for; smaller ones cost less, and more are seen
_DROPOUT_SMALL = 0.25  # as in the network `best`, whose own dropout lies above the places it is read at
_FOR = "strategy 'finetune'"
_NAMES = {one.name for one in fields(TrainSettings)}


@dataclass(frozen=True)
class Opening:
    """How far a source is opened and how it is trained; what is None goes by rule.

    ``unfreeze`` is ``head`` (nothing of the network), ``last`` (its last part), a number of parts, ``all``,
    or ``auto``: several depths are tried and the best on validation images is taken. ``dropout`` is the share
    of what the head reads that a step leaves out. ``settings`` are fields of `TrainSettings` that replace
    the rule's.
    """

    unfreeze: str = "auto"
    augmentation: Augmentation | None = None
    device: str = "auto"
    dropout: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        depths_of(self.unfreeze)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise SettingError(f"dropout is {self.dropout!r}, need a share in [0, 1); 0 leaves nothing out")
        if self.device not in DEVICES:
            raise SettingError(
                f"device is {self.device!r}, need one of {', '.join(DEVICES)}; auto takes the fastest"
            )
        for name in self.settings:
            if name not in _NAMES:
                raise SettingError(
                    f"setting {name!r} is unknown, need one of TrainSettings, {nearest(name, _NAMES)}"
                )


@dataclass(frozen=True)
class Opened:
    """A source as training left it: frozen again, and the head it was trained with, which reads at ``place``.

    ``parts`` is how many parts lay below the head and ``open_parts`` how many of them learnt; ``logits`` are
    of the held images, None without any.
    """

    source: Source
    place: Place
    head: TrainedHead
    depth: str
    parts: int
    open_parts: int
    history: tuple[Epoch, ...]
    best_epoch: int
    logits: Array | None


def depths_of(unfreeze: str) -> tuple[str, ...]:
    """The depths that a wish means.

    Parameters
    ----------
    unfreeze : str
        As in `Opening`.

    Returns
    -------
    tuple of str
        One; several for ``auto``.

    Raises
    ------
    SettingError
        If it means nothing.

    Examples
    --------
    >>> depths_of("auto"), depths_of("3")
    (('last', '2', 'all'), ('3',))
    """
    if unfreeze == "auto":
        return ("last", "2", "all")
    if unfreeze in DEPTHS or (unfreeze.isdecimal() and int(unfreeze) >= 1):
        return (unfreeze,)
    raise SettingError(
        f"unfreeze is {unfreeze!r}, need head, last, all, auto or a number of parts of at least 1; "
        f"{nearest(unfreeze, DEPTHS)}"
    )


def parse_strategies(text: str) -> tuple[str, ...]:
    """Read which strategies are wanted; the probe is always among them.

    Parameters
    ----------
    text : str
        Names between commas.

    Returns
    -------
    tuple of str

    Raises
    ------
    SettingError
        If one is unknown.

    Examples
    --------
    >>> parse_strategies("finetune, scratch")
    ('probe', 'finetune', 'scratch')
    """
    names = [name for part in text.split(",") if (name := part.strip())]
    for name in names:
        if name not in STRATEGIES:
            raise SettingError(
                f"strategy is {name!r}, need some of {', '.join(STRATEGIES)}; {nearest(name, STRATEGIES)}"
            )
    return tuple(one for one in STRATEGIES if one == "probe" or one in names)


def parse_opening(strategies: str, unfreeze: str = "auto", device: str = "auto") -> Opening | None:
    """How to open a source, if fine-tuning is among the strategies.

    Parameters
    ----------
    strategies : str
        As `parse_strategies` takes them.
    unfreeze, device : str
        As `Opening` takes them.

    Returns
    -------
    Opening or None

    Raises
    ------
    SettingError
        If a name means nothing, or it is said how to open what is not opened.
    MissingExtraError
        If it is, and torch is not installed: before anything is computed.
    """
    if "finetune" in parse_strategies(strategies):
        require("torch", extra="train", for_=_FOR)
        return Opening(unfreeze, device=device)
    for name, value in (("unfreeze", unfreeze), ("device", device)):
        if value != "auto":
            raise SettingError(
                f"{name} is {value!r} without the strategy finetune, need both or neither; "
                "name finetune among the strategies"
            )
    return None


def parse_transfer(strategy: str, unfreeze: str = "auto", device: str = "auto") -> Opening | None:
    """The same for one strategy that makes a model: probe or finetune.

    Parameters
    ----------
    strategy, unfreeze, device : str
        As `parse_opening` takes them, but one strategy.

    Returns
    -------
    Opening or None

    Raises
    ------
    SettingError
        If a name means nothing here.
    MissingExtraError
        As `parse_opening` raises it.
    """
    if strategy not in STRATEGIES[:2]:
        raise SettingError(
            f"strategy is {strategy!r}, need probe or finetune; to learn from nothing use: headstart train"
        )
    return parse_opening(strategy, unfreeze, device)


def settings_for(n_images: int, side_px: int, opening: Opening, seed: int) -> TrainSettings:
    """The one recipe: only the length, the size of a batch and what is done to photos depend on the data.

    Parameters
    ----------
    n_images : int
        To learn from.
    side_px : int
        Of what the network computes on: small images are cheap and get many views, photos few.
    opening : Opening
        Its settings go before the rule's.
    seed : int
        Of order, views and mixup.

    Returns
    -------
    TrainSettings

    Notes
    -----
    In the manner of BiT's rule (Kolesnikov et al. 2020, arXiv:1912.11370): images seen grow with the square
    root of those there are, and half of what a smaller side saves goes into more of them. The head is fitted
    before anything is opened (Kumar et al. 2022, arXiv:2202.10054).

    Examples
    --------
    >>> settings_for(1_000, 28, Opening(), 0).epochs
    150
    """
    small = side_px <= _SMALL_PX
    photos = _SEEN_PHOTOS * max(1.0, _PHOTO_PX / side_px)
    seen = (_SEEN_SMALL if small else photos) * sqrt(n_images)
    shared = TrainSettings(
        epochs=min(_MOST_EPOCHS, max(3, round(seen / n_images))),
        optimizer="adamw",
        schedule="cosine",
        weight_decay=0.01,
        label_smoothing=0.05,
        clip=1.0,
        seed=seed,
    )
    if small:  # cheap, so it may go far from where it started
        by_rule = replace(
            shared,
            batch_size=min(64, max(8, n_images // 2)),
            learning_rate=4e-3,
            gradual=0.1,
            batch_norm="learn" if n_images >= _MANY_SMALL else "frozen",
        )
    else:
        by_rule = replace(
            shared,
            batch_size=min(16, max(8, n_images // 2)),
            learning_rate=1e-4,
            layer_decay=0.8,
            gradual=0.3,
            mixup=0.1,
            ema=0.98,
            batch_norm="learn" if n_images >= _MANY else "frozen",
        )
    return replace(by_rule, **opening.settings)


def side_of(source: Source) -> int:
    """Side in px of what a source's network computes on: it may enlarge its input itself."""
    own: int = source.notes.get("size_px", max(source.input.height_px, source.input.width_px))
    return own


def dropout_for(side_px: int, opening: Opening) -> float:
    """Share of what the head reads that a step leaves out: of small images, which go far, a quarter.

    Parameters
    ----------
    side_px : int
        Of what the network computes on.
    opening : Opening
        Its own share goes before the rule's.

    Returns
    -------
    float
    """
    by_rule = _DROPOUT_SMALL if side_px <= _SMALL_PX else 0.0
    return by_rule if opening.dropout is None else opening.dropout


def augmentation_for(spec: InputSpec, classes: Sequence[str], opening: Opening) -> Augmentation:
    """What is done to training images: to handwriting what hands do, to photos what cameras do.

    Parameters
    ----------
    spec : InputSpec
        Grey or small images of characters count as handwriting.
    classes : sequence of str
        A mirror must not change what they mean.
    opening : Opening
        Its own augmentation goes before the rule's.

    Returns
    -------
    Augmentation
    """
    if opening.augmentation is not None:
        return opening.augmentation
    if spec.channels == 1 or spec.policy == "ink":
        return parse_augmentation("many-hands", 1)
    photo = parse_augmentation(f"{PRESETS['photo']},blur=0", 1)
    return photo if flip_warning(classes, photo) is None else parse_augmentation("photo,blur=0,flip=0", 1)


def starting_head(head: Head | None, rows: Array, codes: Codes, classes: Sequence[str], seed: int) -> Any:
    """Where training starts: the probe's own head if it is affine, else a linear one on the same features.

    Parameters
    ----------
    head : Head or None
        Fitted.
    rows : ndarray of shape (n_rows, n_features), float32
        Features to learn from.
    codes : ndarray of shape (n_rows,), int64
        Their classes.
    classes : sequence of str
        Names.
    seed : int
        Decides folds.

    Returns
    -------
    AffineMap
    """
    from headstart.networks.opened import AffineMap

    if not isinstance(head, AffineHead):
        head = make_head("linear").fit(rows, np.asarray(classes)[codes], classes=classes, seed=seed)
    assert isinstance(head, AffineHead), "a linear head is affine"
    standard = Standardiser.of(rows)
    weight = head.weight_ / standard.scale[:, None]
    return AffineMap(standard.mean, standard.scale, weight, head.bias_ + standard.mean @ head.weight_)


def open_and_train(
    source: Source,
    place: Place,
    start: Any,
    images: Images,
    codes: Codes,
    classes: Sequence[str],
    *,
    opening: Opening,
    depth: str,
    settings: TrainSettings,
    shares: Array | None = None,
    held: Held | None = None,
    loss: Loss | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> Opened:
    """Train a source's upper parts and its head; what is frozen is compared by checksum.

    Parameters
    ----------
    source : Source
        Of ours or of timm's.
    place : (tap, pooling)
        Where the head reads.
    start : AffineMap
        From `starting_head`.
    images : ndarray of shape (n_images, height, width, channels), uint8
        Prepared for the source.
    codes : ndarray of shape (n_images,), int64
        Their classes.
    classes : sequence of str
        Names.
    opening : Opening
        Views and device.
    depth : str
        One of `depths_of`.
    settings : TrainSettings
        From `settings_for`.
    shares : ndarray of shape (n_images,), float32, optional
        How much each image counts, 1 on average.
    held : pair, optional
        Images and codes to answer in the end; with patience in the settings, also to stop by.
    loss : callable, optional
        What they are measured by; see `networks.training.Loss`.
    on_step, on_epoch : callable, optional
        Progress.

    Returns
    -------
    Opened

    Raises
    ------
    SourceError
        If the source has no network that can be trained.
    MissingExtraError
        If torch, or for a network of timm's timm, is not installed.
    """
    require("torch", extra="train", for_=_FOR)
    from headstart.networks.opened import OpenedNetwork

    body = _body(source, place[0])
    network = OpenedNetwork(
        body,
        place[1],
        start,
        source.input,
        dropout=dropout_for(side_of(source), opening),
        seed=settings.seed,
        device=opening.device,
    )
    below = len(network.parts) - 1
    n_open = {"head": 0, "last": 1, "all": below}.get(depth, below)
    n_open = min(below, int(depth)) if depth.isdecimal() else n_open
    network.open_last(n_open)
    before = network.checksum()
    augmentation = augmentation_for(source.input, classes, opening)
    if not n_open:  # the head alone opens at once
        settings = replace(settings, gradual=0.0)
    history = fit(
        network,
        images,
        codes,
        settings,
        validation=held if settings.patience else None,
        views=training_views(augmentation, settings.seed),
        shares=shares,
        loss=loss,
        on_step=on_step,
        on_epoch=on_epoch,
    )
    if network.checksum() != before:
        raise HeadstartError(f"frozen layers of source {source.name!r} changed in training; report it")
    best = best_epoch(history, settings) or len(history)
    logits = None if held is None else network.logits(held[0])
    made, head = network.finished()
    weight, bias = head.folded()
    trained = TrainedHead(weight, bias, classes)
    return Opened(_source(source, made), place, trained, depth, below, n_open, history, best, logits)


def _body(source: Source, tap: str) -> Any:
    """The network below a tap, as a module."""
    if source.network is not None:
        from headstart.networks.opened import spec_body

        return spec_body(*source.network, tap)
    if not source.name.startswith("timm:"):
        raise SourceError(
            f"source {source.name!r} has no network that can be trained further, need timm:NAME, drawings or "
            "a model folder of a network; use the strategy probe"
        )
    require("timm", extra="train", for_=f"fine-tuning source {source.name!r}")
    from headstart.networks.timm_body import timm_body

    return timm_body(source, tap)


def _source(before: Source, made: Any) -> Source:
    """What training made, frozen again, in place of the source."""
    if before.network is None:
        return trained_source(made, before)
    spec, weights = made
    spec = replace(spec, input=before.input)
    name = f"{before.name}, fine-tuned"
    return spec_source(name, spec, build.network_graph(spec, weights), weights)
