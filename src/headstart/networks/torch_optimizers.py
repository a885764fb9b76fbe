"""Optimizers on flat vectors of tensors: the scratch engine's arithmetic on any device.

In: a vector of weights, one of gradients, and which stretches of them learn how. Out: the weights move.
Imported by torch_training only, which owns torch. torch.optim would do as well, but loads the whole of
torch's compiler when the first optimizer is made: 0.7 s of a job of ten (2026-11-20).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from headstart.errors import SettingError, nearest
from headstart.records import TrainSettings

__all__ = ["FlatOptimizer", "Stretch"]

_NAMES = ("adam", "adamw", "sgd")


@dataclass(frozen=True)
class Stretch:
    """Weights that lie side by side and learn alike.

    ``start`` and ``stop`` are places in the vector; ``scale`` multiplies the learning rate, ``decays``
    says whether weight decay counts, ``part`` is the part of the network, 0 at the top.
    """

    start: int
    stop: int
    scale: float
    decays: bool
    part: int


class FlatOptimizer:
    """The optimizer that settings name, on flat vectors.

    Parameters
    ----------
    settings : TrainSettings
        Which, and its options.
    values, grads : Tensor of shape (n_weights,), float32
        Changed in place, and read.
    stretches : sequence of Stretch
        All of the vector.

    Raises
    ------
    SettingError
        If the name is unknown.
    """

    def __init__(
        self, settings: TrainSettings, values: Tensor, grads: Tensor, stretches: list[Stretch]
    ) -> None:
        if settings.optimizer not in _NAMES:
            raise SettingError(
                f"optimizer is {settings.optimizer!r}, need one of {', '.join(_NAMES)}; "
                f"{nearest(settings.optimizer, _NAMES)}"
            )
        self.stretches, self._grads, self._clip = stretches, grads, settings.clip
        self._rules: list[_Rule] = []
        for one in stretches:
            own = values[one.start : one.stop], grads[one.start : one.stop]
            decay = settings.weight_decay if one.decays else 0.0
            self._rules.append(
                _SGD(*own, decay, settings.momentum)
                if settings.optimizer == "sgd"
                else _Adam(*own, decay, decoupled=settings.optimizer == "adamw")
            )

    def step(self, learning_rate: float, n_open: int) -> None:
        """Move the weights of the first ``n_open`` parts once, their gradients clipped together."""
        if self._clip:
            length = float(self._grads.norm())  # those of closed parts are zero
            if length > self._clip:
                self._grads.mul_(self._clip / length)
        for stretch, rule in zip(self.stretches, self._rules, strict=True):
            if stretch.part < n_open:
                rule.step(learning_rate * stretch.scale)

    def state(self) -> dict[str, Tensor]:
        """Running means, and how often each rule was applied."""
        found: dict[str, Tensor] = {}
        for number, rule in enumerate(self._rules):
            found |= {f"{number}.{name}": value for name, value in rule.memory.items()}
            found[f"{number}.n_steps"] = torch.tensor(rule.n_steps)
        return found

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take all of it back."""
        for number, rule in enumerate(self._rules):
            rule.n_steps = int(state[f"{number}.n_steps"])
            for name, value in rule.memory.items():
                value.copy_(state[f"{number}.{name}"])


class _Rule(ABC):
    """How one stretch moves; the formulas are those of `headstart.scratch.optimizers`."""

    memory: dict[str, Tensor]

    def __init__(self, values: Tensor, grads: Tensor, decay: float) -> None:
        self.values, self.grads, self.decay, self.n_steps = values, grads, decay, 0
        self._spare = torch.empty_like(values)

    def _gradient(self) -> Tensor:
        """The gradient of loss + decay / 2 * |values|^2."""
        return self.grads if not self.decay else torch.add(self.values * self.decay, self.grads)

    @abstractmethod
    def step(self, rate: float) -> None: ...


class _SGD(_Rule):
    def __init__(self, values: Tensor, grads: Tensor, decay: float, momentum: float) -> None:
        super().__init__(values, grads, decay)
        self._momentum, self.memory = momentum, {"velocity": torch.zeros_like(values)}

    def step(self, rate: float) -> None:
        v = self.memory["velocity"]
        v.mul_(self._momentum).add_(self._gradient())
        self.values.sub_(torch.mul(v, rate, out=self._spare))
        self.n_steps += 1


class _Adam(_Rule):
    _BETAS, _EPS = (0.9, 0.999), 1e-8

    def __init__(self, values: Tensor, grads: Tensor, decay: float, *, decoupled: bool) -> None:
        super().__init__(values, grads, decay)
        self._decoupled = decoupled
        self.memory = {"mean": torch.zeros_like(values), "square": torch.zeros_like(values)}

    def step(self, rate: float) -> None:
        self.n_steps += 1
        (beta1, beta2), spare = self._BETAS, self._spare
        m, v = self.memory["mean"], self.memory["square"]
        g = self.grads if self._decoupled else self._gradient()
        m.mul_(beta1).add_(torch.mul(g, 1 - beta1, out=spare))
        v.mul_(beta2).add_(torch.mul(g, g, out=spare).mul_(1 - beta2))
        torch.sqrt(v, out=spare).mul_(1 / sqrt(1 - beta2**self.n_steps)).add_(self._EPS)
        torch.div(m, spare, out=spare).mul_(rate / (1 - beta1**self.n_steps))
        if self._decoupled and self.decay:
            self.values.mul_(1 - rate * self.decay)
        self.values.sub_(spare)
