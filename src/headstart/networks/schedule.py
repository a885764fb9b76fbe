"""The order of a training run: epochs, batches, and the learning rate of each step."""

from __future__ import annotations

from collections.abc import Mapping
from math import cos, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.records import Array, TrainSettings

__all__ = ["SCHEDULES", "Plan"]

SCHEDULES = ("constant", "cosine", "one-cycle")
_WARM_UP = {"one-cycle": 0.2, "cosine": 0.05}  # share of all steps
Indices = NDArray[np.intp]


class Plan:
    """The number of epochs and steps, the images of each batch, and the learning rate of each step."""

    def __init__(self, n_images: int, settings: TrainSettings) -> None:
        self._settings = settings
        self._losses = np.full(n_images, np.inf, np.float32)
        per_epoch = max(1, -(-(n_images - 1) // settings.batch_size))  # see `batch`
        self.epochs = max(settings.epochs, -(-settings.min_steps // per_epoch))
        self.n_steps = self.epochs * per_epoch
        self.step = 0
        self._done, self._begun = 0.0, 0
        self._share_per_image = 1.0 / (self.epochs * n_images)
        self._order: Indices = np.empty(0, np.intp)
        self._weights: Array | None = None
        self._place = 0
        self.learning_rate = 0.0

    def begin(self, rng: np.random.Generator) -> None:
        """Draw the order of the images in a new epoch."""
        chosen, weights = self._choose(rng)
        order = rng.permutation(len(chosen))
        self._order, self._weights = chosen[order], None if weights is None else weights[order]
        self._place = 0
        self._begun += 1

    @property
    def more(self) -> bool:
        """Whether the epoch has another batch."""
        return self._place < len(self._order)

    def batch(self) -> tuple[Indices, Array | None]:
        """The next images, with weights where some were skipped; sets the learning rate."""
        part = self._part(self._place)
        indices = self._order[part]
        share = self._share_per_image * len(self._losses) / len(self._order) * len(indices)
        self.learning_rate = self._rate(self._done + 0.5 * share)
        self._done += share
        self._place += len(indices)
        self.step += 1
        return indices, None if self._weights is None else self._weights[part]

    @property
    def following(self) -> Indices | None:
        """The images of the batch that follows in this epoch; None after its last."""
        return self._order[self._part(self._place)] if self.more else None

    def _part(self, place: int) -> slice:
        stop = place + self._settings.batch_size
        # a last image alone joins the batch before it: one image has no variance for batch norm
        return slice(place, stop + (len(self._order) - stop == 1))

    def record_losses(self, indices: Indices, losses: Array) -> None:
        """Store each image's loss, by which the next epoch skips images."""
        self._losses[indices] = losses

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and values from which another plan continues."""
        arrays: dict[str, NDArray[Any]] = {"losses": self._losses, "order": self._order}
        if self._weights is not None:
            arrays["weights"] = self._weights
        return arrays, {"step": self.step, "done": self._done, "begun": self._begun, "place": self._place}

    def load_state(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._losses, self._order = arrays["losses"].copy(), arrays["order"]
        self._weights = arrays.get("weights")
        self.step, self._done = values["step"], values["done"]
        self._begun, self._place = values["begun"], values["place"]

    def _choose(self, rng: np.random.Generator) -> tuple[Indices, Array | None]:
        """All images; or, from the second epoch on, a part of the easy ones, with a higher weight in return.

        The expected gradient is unchanged (Qin et al., InfoBatch, ICLR 2024, arXiv:2303.04947).
        """
        skip, everything = self._settings.prune, np.arange(len(self._losses))
        if not skip or not self._begun:
            return everything, None
        easy = self._losses < self._losses.mean()
        kept = ~easy | (rng.random(len(easy)) >= skip)
        weights = np.where(easy, 1.0 / (1.0 - skip), 1.0).astype(np.float32)
        return everything[kept], weights[kept]

    def _rate(self, done: float) -> float:
        """Learning rate after the share ``done`` of the whole run."""
        peak, schedule = self._settings.learning_rate, self._settings.schedule
        if schedule == "constant":
            return peak
        warm_up = _WARM_UP[schedule]
        rising, left = done / warm_up, (1.0 - done) / (1.0 - warm_up)
        if schedule == "cosine":
            return peak * min(rising, 0.5 - 0.5 * cos(pi * min(left, 1.0)))
        return peak * min(rising, left)
