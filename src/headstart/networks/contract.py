"""The protocol of every engine's network: all that the training loop uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.records import Array, Codes, Images, NetworkSpec, TrainSettings, Weights

__all__ = [
    "Trainable",
    "TrainableNetwork",
]


class Trainable(Protocol):
    """What the training loop uses. Images are uint8 (n, height, width, channels), labels int64 codes."""

    engine: str

    def start(self, settings: TrainSettings, n_steps: int = 0) -> None:
        """Make the optimizer for the parts that are not frozen; ``n_steps`` will follow, 0 if unknown."""
        ...

    def train_step(
        self, images: Images, labels: Codes, learning_rate: float, weights: Array | None = None
    ) -> tuple[Array, NDArray[np.bool_]]:
        """One step on a batch; returns each image's loss in nats and whether it was right, before the step."""
        ...

    def logits(self, images: Images) -> Array:
        """Outputs of the last layer without dropout, (n, n_classes)."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """All that training changes, for `load_state` of an equal network after the same `start`."""
        ...

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a state, to the bit."""
        ...

    def weights(self) -> Weights:
        """A copy of all weights in the canonical layout; of their running mean while there is one."""
        ...

    def load_weights(self, weights: Weights) -> None:
        """Set weights in the canonical layout; names and shapes must match exactly."""
        ...


class TrainableNetwork(Trainable, Protocol):
    """A trainable network in some engine, built from a spec."""

    spec: NetworkSpec

    def freeze(self, through: str) -> None:
        """Freeze every layer up to and including ``through``."""
        ...

    def replace_head(self, n_classes: int, seed: int) -> None:
        """Replace the last dense layer by a new one with random weights."""
        ...
