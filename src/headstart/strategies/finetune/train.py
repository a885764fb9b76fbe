"""One training of an opened source: from the head that the probe would have, to a source frozen again.

In: a source, a place, a fitted head, images, settings. Out: what training made of them. Must not import an
engine at the top. Called by finetune.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.errors import HeadstartError, SourceError
from headstart.heads.base import AffineHead, Head, Standardiser
from headstart.heads.registry import make_head
from headstart.heads.trained import TrainedHead
from headstart.networks.training import Loss, OnEpoch, OnStep, ValidationSet, fit
from headstart.records import Array, Codes, Epoch, Images, Source, TrainSettings, Weights
from headstart.sources.features import Place
from headstart.sources.registry import kind_of
from headstart.strategies.finetune.options import FOR, FinetuneOptions
from headstart.strategies.finetune.rules import alpha_for, augmentation_for, dropout_for, side_of
from headstart.strategies.judge import augmented_training
from headstart.strategies.result import best_epoch
from headstart.system.optional import require

__all__ = ["FineTuned", "starting_head", "unfreeze_and_train"]


@dataclass(frozen=True)
class FineTuned:
    """A source as training left it: frozen again, and the head it was trained with, which reads at ``place``.

    ``parts`` is how many parts lay below the head and ``open_parts`` how many of them learnt; ``alpha`` says
    how far the weights went from before training to after it; ``logits`` are of the held images, None without
    any.
    """

    source: Source
    place: Place
    head: TrainedHead
    depth: str
    parts: int
    open_parts: int
    alpha: float
    history: tuple[Epoch, ...]
    best_epoch: int
    logits: Array | None


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
    from headstart.networks.engines.torch_finetune import AffineMap

    if not isinstance(head, AffineHead):
        head = make_head("linear").fit(rows, np.asarray(classes)[codes], classes=classes, seed=seed)
    assert isinstance(head, AffineHead), "a linear head is affine"
    standard = Standardiser.of(rows)
    weight = head.weight_ / standard.scale[:, None]
    return AffineMap(standard.mean, standard.scale, weight, head.bias_ + standard.mean @ head.weight_)


def unfreeze_and_train(
    source: Source,
    place: Place,
    start: Any,
    images: Images,
    codes: Codes,
    classes: Sequence[str],
    *,
    opening: FinetuneOptions,
    depth: str,
    settings: TrainSettings,
    shares: Array | None = None,
    held: ValidationSet | None = None,
    loss: Loss | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> FineTuned:
    """Train a source's upper parts and its head; what is frozen is compared by checksum.

    Parameters
    ----------
    source : Source
        Of ours or of timm's.
    place : (layer, pooling)
        Where the head reads.
    start : AffineMap
        From `starting_head`.
    images : ndarray of shape (n_images, height, width, channels), uint8
        Prepared for the source.
    codes : ndarray of shape (n_images,), int64
        Their classes.
    classes : sequence of str
        Names.
    opening : FinetuneOptions
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
    FineTuned

    Raises
    ------
    SourceError
        If the source has no network that can be trained.
    MissingExtraError
        If torch, or for a network of timm's timm, is not installed.
    """
    require("torch", extra="train", for_=FOR)
    from headstart.networks.engines.torch_finetune import FinetuneNetwork

    body = _body(source, place[0])
    network = FinetuneNetwork(
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
    network.unfreeze_last(n_open)
    alpha = alpha_for(len(images), source, opening)
    before, begun = network.checksum(), network.weights() if alpha < 1 else None
    augmentation = augmentation_for(source.input, classes, opening)
    if not n_open:  # the head alone opens at once
        settings = replace(settings, gradual=0.0)
    history = fit(
        network,
        images,
        codes,
        settings,
        validation=held if settings.patience else None,
        augment=augmented_training(augmentation, settings.seed),
        shares=shares,
        loss=loss,
        on_step=on_step,
        on_epoch=on_epoch,
    )
    if begun is not None:
        _go_back(network, begun, alpha)
    if network.checksum() != before:
        raise HeadstartError(f"frozen layers of source {source.name!r} changed in training; report it")
    best = best_epoch(history, settings) or len(history)
    logits = None if held is None else network.logits(held[0])
    made, head = network.finished()
    weight, bias = head.folded()
    trained = TrainedHead(weight, bias, classes)
    return FineTuned(made, place, trained, depth, below, n_open, alpha, history, best, logits)


def _go_back(network: Any, begun: Weights, alpha: float) -> None:
    """Leave the weights a share ``alpha`` of the way from where they began; what did not move stays."""
    ended = network.weights()
    way = {name: start + np.float32(alpha) * (ended[name] - start) for name, start in begun.items()}
    network.load_weights(way)


def _body(source: Source, layer: str) -> Any:
    """The network up to a layer, as a ``Body``."""
    make = kind_of(source).body
    body = None if make is None else make(source, layer)
    if body is None:
        raise SourceError(
            f"source {source.name!r} has no network that can be fine-tuned, expected timm:NAME, drawings or "
            "a model folder of a network; use the strategy probe"
        )
    return body
