"""Trains an unfrozen source once: from the probe's head to a source that is frozen again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.errors import HeadstartError, SourceError
from headstart.heads.base import AffineHead, Head
from headstart.heads.registry import make_head
from headstart.heads.scaling import Standardiser
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
    """A source after training, frozen again, with the head it was trained with, which reads at ``place``.

    ``n_parts`` is the number of parts below the head, ``n_unfrozen`` of those that were trained; ``alpha``
    says how far weights are interpolated from before training to after it; ``logits`` are of the held-out
    images. A network that is only judged has neither a ``source`` nor a ``head``: exporting it takes seconds.
    """

    made: tuple[Source, TrainedHead] | None
    place: Place
    depth: str
    n_parts: int
    n_unfrozen: int
    alpha: float
    history: tuple[Epoch, ...]
    best_epoch: int
    logits: Array | None

    @property
    def source(self) -> Source:
        """The network as a source."""
        assert self.made is not None, "it was trained to be used"
        return self.made[0]

    @property
    def head(self) -> TrainedHead:
        """The head that it was trained with."""
        assert self.made is not None, "it was trained to be used"
        return self.made[1]


def starting_head(head: Head | None, rows: Array, codes: Codes, classes: Sequence[str], seed: int) -> Any:
    """The head that training starts from, an AffineMap: the probe's if it is affine, else a linear one."""
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
    finetune: FinetuneOptions,
    depth: str,
    settings: TrainSettings,
    shares: Array | None = None,
    held: ValidationSet | None = None,
    loss: Loss | None = None,
    used: bool = True,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> FineTuned:
    """Train a source's upper parts and its head; a checksum verifies that the frozen parts did not change.

    ``held`` are prepared images with their classes, for the logits of the result and, with patience in the
    settings, for early stopping by ``loss``. ``shares`` weights the images, 1 on average. Without ``used`` the
    network is only judged on the held-out images. SourceError if
    the source has no network that can be trained, MissingExtraError if torch or timm is not installed.
    """
    require("torch", extra="train", for_=FOR)
    from headstart.networks.engines.torch_finetune import FinetuneNetwork

    network = FinetuneNetwork(
        _body(source, place[0]),
        place[1],
        start,
        source.input,
        dropout=dropout_for(side_of(source), finetune),
        seed=settings.seed,
        device=finetune.device,
    )
    n_parts = len(network.parts) - 1
    n_unfrozen = _n_unfrozen(depth, n_parts)
    network.unfreeze_last(n_unfrozen)
    alpha = alpha_for(len(images), source, finetune)
    before, initial = network.checksum(), network.weights() if alpha < 1 else None
    augmentation = augmentation_for(source.input, classes, finetune)
    if not n_unfrozen:  # nothing to unfreeze gradually
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
    if initial is not None:
        _interpolate(network, initial, alpha)
    if network.checksum() != before:
        raise HeadstartError(f"frozen layers of source {source.name!r} changed in training; report it")
    best = best_epoch(history, settings) or len(history)
    logits = None if held is None else network.logits(held[0])
    made = _finished(network, classes) if used else None
    return FineTuned(made, place, depth, n_parts, n_unfrozen, alpha, history, best, logits)


def _finished(network: Any, classes: Sequence[str]) -> tuple[Source, TrainedHead]:
    """The network as a source, and its head."""
    source, head = network.finished()
    weight, bias = head.folded()
    return source, TrainedHead(weight, bias, classes)


def _n_unfrozen(depth: str, n_parts: int) -> int:
    """How many parts, from the top, a depth unfreezes."""
    if depth.isdecimal():
        return min(n_parts, int(depth))
    return {"head": 0, "last": 1}.get(depth, n_parts)


def _interpolate(network: Any, initial: Weights, alpha: float) -> None:
    """Interpolate the weights to a share ``alpha`` of the way from before training to after it."""
    ended = network.weights()
    mixed = {name: start + np.float32(alpha) * (ended[name] - start) for name, start in initial.items()}
    network.load_weights(mixed)


def _body(source: Source, layer: str) -> Any:
    """The network up to a layer, as a ``Body``."""
    make = kind_of(source).body
    body = None if make is None else make(source, layer)
    if body is None:
        raise SourceError(
            f"source {source.name!r} has no network that can be fine-tuned, expected photos, timm:NAME, drawings or "
            "a model folder of a network; use the strategy probe"
        )
    return body
