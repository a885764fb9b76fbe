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

_NAMES = ("adam", "adamw", "muon", "sgd")


@dataclass(frozen=True)
class Stretch:
    """Weights that lie side by side and learn alike.

    ``start`` and ``stop`` are places in the vector; ``scale`` multiplies the learning rate, ``decays``
    says whether weight decay counts, ``part`` is the part of the network, 0 at the top. ``rows`` is how many
    a matrix inside the network has that ``muon`` moves as one; 0 if each weight moves for itself.
    """

    start: int
    stop: int
    scale: float
    decays: bool
    part: int
    rows: int = 0


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
                f"optimizer is {settings.optimizer!r}, expected one of {', '.join(_NAMES)}; "
                f"{nearest(settings.optimizer, _NAMES)}"
            )
        self.stretches, self._grads, self._clip = stretches, grads, settings.clip
        self._rules: list[_Rule] = []
        for one in stretches:
            own = values[one.start : one.stop], grads[one.start : one.stop]
            decay = settings.weight_decay if one.decays else 0.0
            self._rules.append(_rule(settings, *own, decay, one.rows))

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


def _rule(settings: TrainSettings, values: Tensor, grads: Tensor, decay: float, rows: int) -> _Rule:
    if settings.optimizer == "sgd":
        return _SGD(values, grads, decay, settings.momentum)
    if rows:
        return _Muon(values, grads, decay, rows)
    return _Adam(values, grads, decay, decoupled=settings.optimizer != "adam")


class _Rule(ABC):
    """How one stretch moves; but for muon's the formulas are those of `headstart.scratch.optimizers`."""

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


class _Muon(_Rule):
    """Momentum whose every direction counts alike (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    Five steps of Newton and Schulz take the momentum's singular values to about 1. Scaled as by Liu et al.
    2025 (arXiv:2502.16982), so that a learning rate means what it does for ``adamw``.
    """

    _MOMENTUM, _STEPS, _EPS = 0.95, 5, 1e-7
    _A, _B, _C = 3.4445, -4.7750, 2.0315

    def __init__(self, values: Tensor, grads: Tensor, decay: float, rows: int) -> None:
        super().__init__(values, grads, decay)
        self._rows, self.memory = rows, {"velocity": torch.zeros_like(values)}

    def step(self, rate: float) -> None:
        self.n_steps += 1
        v = self.memory["velocity"]
        v.mul_(self._MOMENTUM).add_(self.grads)
        matrix = torch.add(self.grads, v, alpha=self._MOMENTUM, out=self._spare).view(self._rows, -1)
        tall = matrix.shape[0] > matrix.shape[1]
        x = matrix.T if tall else matrix
        x = x / (x.norm() + self._EPS)
        for _ in range(self._STEPS):
            square = x @ x.T
            x = self._A * x + (self._B * square + self._C * (square @ square)) @ x
        if self.decay:
            self.values.mul_(1 - rate * self.decay)
        scale = 0.2 * sqrt(max(matrix.shape))
        self.values.sub_((x.T if tall else x).reshape(-1), alpha=rate * scale)
