"""One training loop for every engine, and the evaluation it stops by.

In: a Network, uint8 images, integer codes, settings. Out: a history and the best weights, in place.
Must not import an engine: it knows only the protocol. Called by controls and strategies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError, nearest
from headstart.records import Array, Codes, Epoch, Images, Network, TrainSettings, Weights

__all__ = ["Held", "OnStep", "Renew", "fit", "measure"]

Held = tuple[Images, Codes]
OnStep = Callable[[int, int, float, float], None]
"""Called after each step with (images seen, images in all, mean loss, accuracy) of the epoch so far."""

Renew = Callable[[int], Images]
"""From the number of an epoch to its images, in the order of the labels."""

_SCHEDULES = ("constant", "one-cycle")
_PRECISIONS = ("auto", "fp32")
_WARM_UP = 0.2  # share of all steps


def fit(
    network: Network,
    images: Images,
    labels: Codes,
    settings: TrainSettings,
    *,
    validation: Held | None = None,
    on_step: OnStep | None = None,
    renew: Renew | None = None,
) -> tuple[Epoch, ...]:
    """Train a network; with patience, stop early and bring the best weights back.

    Parameters
    ----------
    network : Network
        Trained in place. What it has frozen stays frozen.
    images : ndarray of shape (n_images, height, width, channels), uint8
        Training images at the network's input size.
    labels : ndarray of shape (n_images,), int64
        Codes in ``[0, n_classes)``.
    settings : TrainSettings
        Everything that changes the result.
    validation : pair of ndarray, optional
        Images and codes measured after every epoch. Needed for ``patience``.
    on_step : callable, optional
        Progress; see ``OnStep``.
    renew : callable, optional
        Gives the images of an epoch by its number, from 1: other augmented views of the same ones.
        Default: the images themselves, in every epoch.

    Returns
    -------
    tuple of Epoch
        One record per epoch. Training figures are means over the epoch's steps, each image taken
        before the step that learnt from it; validation figures are taken after the epoch.

    Raises
    ------
    SettingError
        If ``patience`` is set without validation images, or a setting has no meaning.
    ShapeError
        If images and labels differ in number, or there are none.

    Notes
    -----
    Same seed, same data and same machine give the same weights. Cost: one forward and backward
    pass over the images per epoch, one forward pass over the validation images.
    """
    _check(images, labels, settings, validation)
    network.start(settings)
    rng = np.random.default_rng([settings.seed, 1])
    plan = _Plan(len(images), settings)
    history: list[Epoch] = []
    best: tuple[float, Weights] | None = None
    for number in range(1, plan.epochs + 1):
        begun = perf_counter()
        seen = images if renew is None else renew(number)
        train = _run_epoch(network, seen, labels, plan, rng, on_step)
        held = measure(network, *validation) if validation is not None else (np.nan, np.nan)
        history.append(Epoch(number, *train, *held, plan.learning_rate, perf_counter() - begun))
        if settings.patience:
            if best is None or held[0] < best[0]:
                best = held[0], network.weights()
            elif number - _best_epoch(history) >= settings.patience:
                break
    if best is not None:
        network.load_weights(best[1])
    return tuple(history)


def measure(network: Network, images: Images, labels: Codes) -> tuple[float, float]:
    """Mean loss in nats and accuracy on images nothing is learnt from.

    Parameters
    ----------
    network : Network
        Left as it is.
    images : ndarray of shape (n_images, height, width, channels), uint8
        At the network's input size.
    labels : ndarray of shape (n_images,), int64
        Codes in ``[0, n_classes)``.

    Returns
    -------
    tuple of float
        (loss, accuracy).
    """
    logits = network.logits(images).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_probs[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def _best_epoch(history: list[Epoch]) -> int:
    return min(history, key=lambda epoch: epoch.val_loss).number


class _Plan:
    """How many epochs and steps, the rate of the next step, and which images the epoch visits."""

    def __init__(self, n_images: int, settings: TrainSettings) -> None:
        self._settings = settings
        self._losses = np.full(n_images, np.inf, np.float32)
        per_epoch = -(-n_images // settings.batch_size)
        self.epochs = max(settings.epochs, -(-settings.min_steps // per_epoch))
        self._done, self._epochs_done = 0.0, 0
        self._share_per_image = 1.0 / (self.epochs * n_images)
        self.learning_rate = 0.0

    def epoch(self, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.intp], Array | None]]:
        """Batches of indices in a fresh order, with weights where some images were skipped."""
        chosen, weights = self._choose(rng)
        share = self._share_per_image * len(self._losses) / len(chosen)
        order = rng.permutation(len(chosen))
        for start in range(0, len(order), self._settings.batch_size):
            part = order[start : start + self._settings.batch_size]
            self.learning_rate = self._rate(self._done + 0.5 * share * len(part))
            yield chosen[part], None if weights is None else weights[part]
            self._done += share * len(part)
        self._epochs_done += 1

    def saw(self, indices: NDArray[np.intp], losses: Array) -> None:
        """Remember each image's loss: what the next epoch skips is decided by it."""
        self._losses[indices] = losses

    def _choose(self, rng: np.random.Generator) -> tuple[NDArray[np.intp], Array | None]:
        """All images; or, from the second epoch on, fewer of the easy ones, weighed up in return.

        The expected gradient is unchanged (Qin et al., InfoBatch, ICLR 2024, arXiv:2303.04947).
        """
        skip, everything = self._settings.prune, np.arange(len(self._losses))
        if not skip or not self._epochs_done:
            return everything, None
        easy = self._losses < self._losses.mean()
        kept = ~easy | (rng.random(len(easy)) >= skip)
        weights = np.where(easy, 1.0 / (1.0 - skip), 1.0).astype(np.float32)
        return everything[kept], weights[kept]

    def _rate(self, done: float) -> float:
        """Learning rate when a share ``done`` of the whole training lies behind."""
        peak = self._settings.learning_rate
        if self._settings.schedule == "constant":
            return peak
        return peak * min(done / _WARM_UP, (1.0 - done) / (1.0 - _WARM_UP))


def _run_epoch(
    network: Network,
    images: Images,
    labels: Codes,
    plan: _Plan,
    rng: np.random.Generator,
    on_step: OnStep | None,
) -> tuple[float, float]:
    """One pass; mean loss and accuracy, skipped images counted through those that stand for them."""
    seen, loss, hits = 0.0, 0.0, 0.0
    for indices, weights in plan.epoch(rng):
        losses, right = network.train_step(images[indices], labels[indices], plan.learning_rate, weights)
        plan.saw(indices, losses)
        share = np.ones(len(indices)) if weights is None else weights
        seen, loss, hits = seen + share.sum(), loss + float(share @ losses), hits + float(share @ right)
        if on_step is not None:
            on_step(int(min(seen, len(images))), len(images), loss / seen, hits / seen)
    return loss / seen, hits / seen


def _check(images: Images, labels: Codes, settings: TrainSettings, validation: Held | None) -> None:
    if len(images) != len(labels) or not len(images):
        raise ShapeError(
            f"images number {len(images)}, labels {len(labels)}, need as many of each and at least one"
        )
    faults = []
    if settings.schedule not in _SCHEDULES:
        faults.append(
            f"schedule is {settings.schedule!r}, need one of {', '.join(_SCHEDULES)}; "
            f"{nearest(settings.schedule, _SCHEDULES)}"
        )
    if settings.epochs < 1 or settings.batch_size < 1:
        faults.append(f"epochs is {settings.epochs}, batch_size {settings.batch_size}, need both at least 1")
    if not 0 <= settings.prune < 1:
        faults.append(f"prune is {settings.prune!r}, need a share in [0, 1)")
    if not settings.learning_rate > 0:
        faults.append(f"learning_rate is {settings.learning_rate!r}, need a number above 0")
    if settings.precision not in _PRECISIONS:
        faults.append(f"precision is {settings.precision!r}, need one of {', '.join(_PRECISIONS)}")
    if min(settings.patience, settings.min_steps) < 0 or min(settings.momentum, settings.weight_decay) < 0:
        faults.append(
            f"patience is {settings.patience}, min_steps {settings.min_steps}, "
            f"momentum {settings.momentum!r}, weight_decay {settings.weight_decay!r}, need none below 0"
        )
    if settings.patience and validation is None:
        faults.append(
            f"patience is {settings.patience} without validation images, need some to stop by; "
            "hold a share out"
        )
    if faults:
        raise SettingError("; ".join(faults))
