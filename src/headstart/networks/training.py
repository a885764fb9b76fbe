"""One training loop for every engine, and the validation that it stops by."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError, nearest
from headstart.networks.ahead import AugmentBatch, Batches
from headstart.networks.checkpoint_files import Snapshot
from headstart.networks.checkpoints import Checkpoints
from headstart.networks.contract import Trainable
from headstart.networks.schedule import SCHEDULES, Plan
from headstart.records import Array, Codes, Epoch, Images, TrainSettings, Weights
from headstart.scratch.losses import cross_entropy

__all__ = ["AugmentBatch", "Loss", "OnEpoch", "OnStep", "ValidationSet", "fit", "measure"]

ValidationSet = tuple[Images, Codes]
OnStep = Callable[[int, int, float, float], None]
"""Called after each step with (images seen, images in all, mean loss, accuracy) of the epoch so far."""

OnEpoch = Callable[[Epoch], None]
"""Called after each epoch."""

Loss = Callable[[NDArray[Any], Codes], float]
"""From logits (n_images, n_classes) and codes to a mean loss in nats."""

_PRECISIONS = ("auto", "fp32")
_NORMS = ("learn", "frozen")


@np.errstate(over="ignore", invalid="ignore")  # divergence shows in the losses
def fit(
    network: Trainable,
    images: Images,
    labels: Codes,
    settings: TrainSettings,
    *,
    validation: ValidationSet | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    augment: AugmentBatch | None = None,
    shares: Array | None = None,
    loss: Loss | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[Epoch, ...]:
    """Train a network; with patience, stop early and restore the best weights.

    Parameters
    ----------
    network : Trainable
        Trained in place. What it has frozen stays frozen.
    images : ndarray of shape (n_images, height, width, channels), uint8
        Training images at the network's input size.
    labels : ndarray of shape (n_images,), int64
        Codes in ``[0, n_classes)``.
    settings : TrainSettings
        Everything that changes the result.
    validation : pair of ndarray, optional
        Images and codes to measure after every epoch. Required by ``patience``.
    on_step, on_epoch : callable, optional
        Progress; see ``OnStep`` and ``OnEpoch``.
    augment : callable, optional
        Augments each batch; see ``AugmentBatch``. It is called in a thread, a batch ahead, where there is another
        core, and must depend on what it is given only. Default: no augmentation.
    shares : ndarray of shape (n_images,), float32, optional
        Weight of each image in the training loss, 1 on average. Default: equal weights.
    loss : callable, optional
        Loss of the validation images, by which training stops; see ``Loss``. Default: cross-entropy.
    checkpoints : Checkpoints, optional
        Where the state of the run is saved. Training continues from a saved state, to the bit, given the same
        data, settings and machine.

    Returns
    -------
    tuple of Epoch
        One record per epoch. Training loss and accuracy are means over the epoch's steps, of each image before
        its step; validation figures are taken after the epoch.

    Raises
    ------
    SettingError
        If ``patience`` is set without validation images, or a setting is invalid.
    ShapeError
        If images and labels differ in number, or there are none.
    KeyboardInterrupt
        If a signal to stop was received; a checkpoint was written before.

    Notes
    -----
    Same seed, same data and same machine give the same weights. Cost: one forward and backward pass over the
    images per epoch, one forward pass over the validation images.
    """
    _check(images, labels, settings, validation)
    run = _Run(network, len(images), settings, shares)
    found = None if checkpoints is None else checkpoints.found()
    if found is not None:
        run.load(found)
    with Batches(images, augment) as batches:
        while not run.over:
            if not run.plan.more:
                run.begin()
            while run.plan.more:
                indices, weights = run.plan.batch()
                batch = batches.get(run.number, indices, run.plan.following)
                run.train_step(batch, labels[indices], indices, weights)
                if on_step is not None:
                    on_step(*run.progress(len(images)))
                if checkpoints is not None and run.plan.more and checkpoints.due():
                    _keep(run, checkpoints)
            run.end(validation, loss or _mean_loss)
            if on_epoch is not None:
                on_epoch(run.history[-1])
            if checkpoints is not None and not run.over:
                _keep(run, checkpoints)
    run.finish()
    return tuple(run.history)


def _keep(run: _Run, checkpoints: Checkpoints) -> None:
    checkpoints.keep(run.snapshot())
    if checkpoints.stopping:
        raise KeyboardInterrupt


class _Run:
    """The whole state of a training run, so that it can be saved and continued."""

    def __init__(
        self, network: Trainable, n_images: int, settings: TrainSettings, shares: Array | None
    ) -> None:
        self._network, self._settings, self._shares = network, settings, shares
        self.plan = Plan(n_images, settings)
        self.history: list[Epoch] = []
        self._rng = np.random.default_rng([settings.seed, 1])
        self._best: tuple[float, Weights] | None = None
        self._seen, self._loss, self._hits = 0.0, 0.0, 0.0
        self._begun, self._spent = perf_counter(), 0.0
        self._stopped = False
        network.start(settings, self.plan.n_steps)

    @property
    def number(self) -> int:
        """Number of the current epoch."""
        return len(self.history) + 1

    @property
    def over(self) -> bool:
        return self._stopped or len(self.history) >= self.plan.epochs

    def begin(self) -> None:
        """Begin an epoch."""
        self.plan.begin(self._rng)
        self._seen, self._loss, self._hits = 0.0, 0.0, 0.0
        self._begun, self._spent = perf_counter(), 0.0

    def train_step(
        self, batch: Images, labels: Codes, indices: NDArray[np.intp], weights: Array | None
    ) -> None:
        """One step; skipped images are counted through the weights of similar ones."""
        share = np.ones(len(indices), np.float32) if weights is None else weights
        if self._shares is not None:
            weights = share * self._shares[indices]
        losses, right = self._network.train_step(batch, labels, self.plan.learning_rate, weights)
        self.plan.record_losses(indices, losses)
        self._seen += float(share.sum())
        self._loss += float(share @ losses)
        self._hits += float(share @ right)

    def progress(self, n_images: int) -> tuple[int, int, float, float]:
        """In this epoch: images seen, images in all, mean loss, accuracy."""
        seen = self._seen
        return int(min(seen, n_images)), n_images, self._loss / seen, self._hits / seen

    def end(self, validation: ValidationSet | None, loss_of: Loss) -> None:
        """End an epoch: measure, store the best weights, or stop after ``patience`` epochs without better ones."""
        measured = (np.nan, np.nan) if validation is None else measure(self._network, *validation, loss_of)
        train = self._loss / self._seen, self._hits / self._seen
        seconds = self._spent + perf_counter() - self._begun
        self.history.append(Epoch(self.number, *train, *measured, self.plan.learning_rate, seconds))
        if not self._settings.patience:
            return
        loss = measured[0] if np.isfinite(measured[0]) else np.inf  # a NaN would stay the best
        if self._best is None or loss < self._best[0]:
            self._best = loss, self._network.weights()
        elif len(self.history) - _best_epoch(self.history) >= self._settings.patience:
            self._stopped = True

    def finish(self) -> None:
        """Set the best weights, or the running mean where there is one."""
        if self._best is not None:
            self._network.load_weights(self._best[1])
        elif self._settings.ema:
            self._network.load_weights(self._network.weights())

    def snapshot(self) -> Snapshot:
        """The state as arrays and plain values."""
        plan_arrays, plan = self.plan.state()
        arrays: dict[str, NDArray[Any]] = {f"plan.{name}": one for name, one in plan_arrays.items()}
        arrays |= {f"network.{name}": one for name, one in self._network.state().items()}
        if self._best is not None:
            arrays |= {f"best.{name}": one for name, one in self._best[1].items()}
        values = {
            "step": self.plan.step,
            "plan": plan,
            "rng": self._rng.bit_generator.state,
            "history": [list(vars(one).values()) for one in self.history],
            "best": None if self._best is None else self._best[0],
            "so_far": [self._seen, self._loss, self._hits],
            "spent": self._spent + perf_counter() - self._begun,
        }
        return Snapshot(arrays, values)

    def load(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot."""
        arrays, values = snapshot.arrays, snapshot.values
        self.plan.load_state(_with_prefix("plan.", arrays), values["plan"])
        self._network.load_state(_with_prefix("network.", arrays))
        best = _with_prefix("best.", arrays)
        self._best = (values["best"], best) if best else None
        self._rng.bit_generator.state = values["rng"]
        self.history = [Epoch(*one) for one in values["history"]]
        self._seen, self._loss, self._hits = values["so_far"]
        self._begun, self._spent = perf_counter(), values["spent"]


def _with_prefix(prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): one for name, one in arrays.items() if name.startswith(prefix)}


def _mean_loss(logits: NDArray[Any], labels: Codes) -> float:
    return float(cross_entropy(logits, labels)[0].mean())


def measure(
    network: Trainable, images: Images, labels: Codes, loss: Loss = _mean_loss
) -> tuple[float, float]:
    """Mean loss in nats (default: cross-entropy) and accuracy on uint8 images at the network's input size."""
    logits = network.logits(images).astype(np.float64)
    return loss(logits, labels), float((logits.argmax(axis=1) == labels).mean())


def _best_epoch(history: list[Epoch]) -> int:
    return min(history, key=lambda epoch: (not np.isfinite(epoch.val_loss), epoch.val_loss)).number


def _check(images: Images, labels: Codes, settings: TrainSettings, validation: ValidationSet | None) -> None:
    if len(images) != len(labels) or not len(images):
        raise ShapeError(
            f"images has length {len(images)}, labels {len(labels)}, expected equal lengths of at least 1"
        )
    faults = []
    if settings.schedule not in SCHEDULES:
        faults.append(
            f"schedule is {settings.schedule!r}, expected one of {', '.join(SCHEDULES)}; "
            f"{nearest(settings.schedule, SCHEDULES)}"
        )
    if settings.epochs < 1 or settings.batch_size < 1:
        faults.append(
            f"epochs is {settings.epochs}, batch_size {settings.batch_size}, expected both at least 1"
        )
    if not 0 <= settings.prune < 1:
        faults.append(f"prune is {settings.prune!r}, expected a share in [0, 1)")
    if not settings.learning_rate > 0:
        faults.append(f"learning_rate is {settings.learning_rate!r}, expected a number above 0")
    if settings.precision not in _PRECISIONS:
        faults.append(f"precision is {settings.precision!r}, expected one of {', '.join(_PRECISIONS)}")
    if min(settings.patience, settings.min_steps) < 0 or min(settings.momentum, settings.weight_decay) < 0:
        faults.append(
            f"patience is {settings.patience}, min_steps {settings.min_steps}, "
            f"momentum {settings.momentum!r}, weight_decay {settings.weight_decay!r}, expected none below 0"
        )
    shares = {"ema": settings.ema, "gradual": settings.gradual, "label_smoothing": settings.label_smoothing}
    faults += [
        f"{name} is {value!r}, expected a share in [0, 1)"
        for name, value in shares.items()
        if not 0 <= value < 1
    ]
    if settings.batch_norm not in _NORMS:
        faults.append(f"batch_norm is {settings.batch_norm!r}, expected one of {', '.join(_NORMS)}")
    if min(settings.mixup, settings.clip) < 0 or settings.accumulate < 1 or not 0 < settings.layer_decay <= 1:
        faults.append(
            f"mixup is {settings.mixup!r}, clip {settings.clip!r}, accumulate {settings.accumulate}, "
            f"layer_decay {settings.layer_decay!r}, expected none below 0, at least 1 part, a decay in (0, 1]"
        )
    if settings.patience and validation is None:
        faults.append(
            f"patience is {settings.patience} without validation images, expected some to stop by; "
            "hold out a share"
        )
    if faults:
        raise SettingError("; ".join(faults))
