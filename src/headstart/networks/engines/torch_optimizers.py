"""Optimizers on flat vectors of tensors, with the formulas of the scratch engine, on any device.

Not torch.optim, which loads torch's compiler when the first optimizer is made: 0.7 s (2026-11-20).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from headstart.errors import SettingError, nearest
from headstart.records import TrainSettings

__all__ = ["FlatOptimizer", "Segment", "flat_vectors"]

_NAMES = ("adam", "adamw", "muon", "sgd")


@dataclass(frozen=True)
class Segment:
    """Adjacent weights that are trained alike.

    ``start`` and ``stop`` are positions in the vector; ``scale`` multiplies the learning rate; ``decays`` is whether
    weight decay applies; ``part`` is the part of the network, 0 at the top. ``rows`` is the number of rows of a
    matrix that ``muon`` updates as a whole, 0 if every weight is updated by itself.
    """

    start: int
    stop: int
    scale: float
    decays: bool
    part: int
    rows: int = 0


class FlatOptimizer:
    """The optimizer of the settings on flat float32 vectors (n_weights,), all of which ``segments`` cover."""

    def __init__(
        self, settings: TrainSettings, values: Tensor, grads: Tensor, segments: list[Segment]
    ) -> None:
        if settings.optimizer not in _NAMES:
            raise SettingError(
                f"optimizer is {settings.optimizer!r}, expected one of {', '.join(_NAMES)}; "
                f"{nearest(settings.optimizer, _NAMES)}"
            )
        self.segments, self._grads, self._clip = segments, grads, settings.clip
        self._rules: list[_Rule] = []
        for one in segments:
            own = values[one.start : one.stop], grads[one.start : one.stop]
            decay = settings.weight_decay if one.decays else 0.0
            self._rules.append(_rule(settings, *own, decay, one.rows))

    def step(self, learning_rate: float, n_unfrozen: int) -> None:
        """Update the weights of the first ``n_open`` parts once, with their gradients clipped together."""
        if self._clip:
            length = float(self._grads.norm())  # those of frozen parts are zero
            if length > self._clip:
                self._grads.mul_(self._clip / length)
        for segment, rule in zip(self.segments, self._rules, strict=True):
            if segment.part < n_unfrozen:
                rule.step(learning_rate * segment.scale)

    def state(self) -> dict[str, Tensor]:
        """Running means, and the number of steps of each stretch."""
        found: dict[str, Tensor] = {}
        for number, rule in enumerate(self._rules):
            found |= {f"{number}.{name}": value for name, value in rule.memory.items()}
            found[f"{number}.n_steps"] = torch.tensor(rule.n_steps)
        return found

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        for number, rule in enumerate(self._rules):
            rule.n_steps = int(state[f"{number}.n_steps"])
            for name, value in rule.memory.items():
                value.copy_(state[f"{number}.{name}"])


def flat_vectors(
    module: nn.Module, parts: Sequence[Sequence[str]], settings: TrainSettings, device: torch.device
) -> tuple[Tensor, Tensor, list[Segment]]:
    """Move parameters and their gradients into two flat vectors, with equally trained ones adjacent.

    ``parts`` are the names of the module's parameters by part, from the input to the top.
    """
    named, top = dict(module.named_parameters()), len(parts) - 1
    # muon leaves the first and the last part to adamw (pixels and classes)
    whole = range(1, top) if settings.optimizer == "muon" else range(0)
    learning = [
        (
            top - number,
            bool(settings.weight_decay) and named[name].dim() > 1,
            named[name],
            len(named[name]) if number in whole and named[name].dim() > 1 else 0,
        )
        for number, names in enumerate(parts)
        for name in names
        if named[name].requires_grad
    ]
    if settings.weight_decay:
        learning.sort(key=lambda one: (-one[0], one[1]))
    apart = settings.layer_decay != 1.0 or bool(settings.gradual)
    size = sum(one.numel() for _, _, one, _ in learning)
    values, grads = (torch.zeros(size, device=device) for _ in range(2))
    segments: list[Segment] = []
    at = 0
    for part, decays, one, rows in learning:
        end = at + one.numel()
        value, grad = _shaped(values[at:end], one), _shaped(grads[at:end], one)
        with torch.no_grad():
            value.copy_(one)
        one.data, one.grad = value, grad
        kind = (settings.layer_decay**part, decays, part if apart else 0, rows)
        last = segments[-1] if segments else None
        if last is not None and not rows and (last.scale, last.decays, last.part, last.rows) == kind:
            segments[-1] = Segment(last.start, end, *kind)
        else:
            segments.append(Segment(at, end, *kind))
        at = end
    return values, grads, segments


def _shaped(flat: Tensor, like: Tensor) -> Tensor:
    """A view of a flat vector with a parameter's shape; kernels are channels-last."""
    if like.dim() != 4:  # only kernels have four axes
        return flat.view(like.shape)
    n_out, n_in, height, width = like.shape
    return flat.view(n_out, height, width, n_in).permute(0, 3, 1, 2)


def _rule(settings: TrainSettings, values: Tensor, grads: Tensor, decay: float, rows: int) -> _Rule:
    if settings.optimizer == "sgd":
        return _SGD(values, grads, decay, settings.momentum)
    if rows:
        return _Muon(values, grads, decay, rows)
    return _Adam(values, grads, decay, decoupled=settings.optimizer != "adam")


class _Rule(ABC):
    """How one segment is updated; all but muon have the formulas of `headstart.scratch.optimizers`."""

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
    """Momentum with orthogonalised updates (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    Five Newton-Schulz steps bring the momentum's singular values to about 1. Scaled as by Liu et al. 2025
    (arXiv:2502.16982), so that learning rates are comparable with those of ``adamw``.
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
