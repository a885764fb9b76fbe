"""Training by PyTorch: any module, on any device, behind the protocol `Trainable`; arrays in and out are NumPy's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import floor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from headstart.errors import ShapeError
from headstart.networks.engines.torch_device import (
    STATISTICS,
    chosen_device,
    keep_freed_memory,
    named_weights,
    tensor,
    use_bf16,
)
from headstart.networks.engines.torch_norms import NORMS, fixed_norms
from headstart.networks.engines.torch_optimizers import FlatOptimizer, flat_vectors
from headstart.records import Array, Codes, Images, InputSpec, TrainSettings, Weights

__all__ = ["TorchTraining"]

_EVALUATION_PIXELS = 1024 * 28 * 28


class TorchTraining:
    """A module in training: its optimizer, its running mean, and what is frozen.

    ``module`` maps scaled pixels (n, channels, height, width) to logits. ``parts`` are names of parameters that are
    unfrozen together, from the input to the top. Channels-last throughout; bf16 for the layers' arithmetic where the
    machine is faster at it and the settings allow it, fp32 for weights, losses and the optimizer.
    """

    engine = "torch"

    def __init__(
        self,
        module: nn.Module,
        image: InputSpec,
        parts: Sequence[tuple[str, Sequence[str]]],
        *,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        keep_freed_memory()
        self.device = chosen_device(device)
        self._image, self._seed = image, seed
        std = torch.tensor(image.std, device=self.device)
        self._scale, self._shift = 1.0 / (255.0 * std), -torch.tensor(image.mean, device=self.device) / std
        self._n_frozen = 0
        self._set_module(module, parts)

    def _set_module(self, module: nn.Module, parts: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Train this module from now on."""
        self._module = module.to(self.device).to(memory_format=torch.channels_last)
        self.parts = tuple(name for name, _ in parts)
        self._names = [list(names) for _, names in parts]
        self._optimizer: FlatOptimizer | None = None
        self._average: Tensor | None = None
        self._settings, self._n_steps, self._done, self._n_unfrozen = TrainSettings(), 0, 0, len(parts)
        self._bf16 = False
        self._apply_freeze()

    # what is frozen

    def freeze_parts(self, n_frozen: int) -> None:
        """Freeze the first ``n_frozen`` parts, batch-norm statistics included."""
        self._n_frozen, self._optimizer, self._average = n_frozen, None, None
        self._n_unfrozen = len(self.parts) - n_frozen
        self._apply_freeze()

    def _apply_freeze(self) -> None:
        """Set which parameters need a gradient: those of unfrozen parts."""
        named = dict(self._module.named_parameters())
        first = len(self.parts) - self._n_unfrozen
        norms_frozen = self._settings.batch_norm == "frozen"
        norms = {f"{name}." for name, one in self._module.named_modules() if isinstance(one, NORMS)}
        for number, names in enumerate(self._names):
            for name in names:
                norm = f"{name.rpartition('.')[0]}." in norms
                named[name].requires_grad_(
                    number >= max(first, self._n_frozen) and not (norms_frozen and norm)
                )

    def checksum(self) -> str:
        """Hex SHA-256 over all that is frozen: weights, and batch-norm statistics."""
        digest, frozen_modules = hashlib.sha256(), set(self._modules_of(self._n_frozen))
        frozen = {name for names in self._names[: self._n_frozen] for name in names}
        for prefix, child in self._module.named_modules():
            own = f"{prefix}." if prefix else ""
            tensors = [
                (own + name, one)
                for name, one in (*child.named_parameters(recurse=False), *child.named_buffers(recurse=False))
            ]
            inside = child in frozen_modules or any(name in frozen for name, _ in tensors)
            for name, one in sorted(tensors):
                if name in frozen or (inside and not isinstance(one, nn.Parameter)):
                    digest.update(f"{name} {tuple(one.shape)} {one.dtype}".encode())
                    digest.update(one.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def _modules_of(self, n_parts: int) -> list[nn.Module]:
        """Modules of the first parts; one without weights belongs to the next with weights."""
        owners = {name.rpartition(".")[0] for names in self._names[:n_parts] for name in names}
        found: list[nn.Module] = []
        waiting: list[nn.Module] = []
        for name, one in self._module.named_modules():
            if not isinstance(one, NORMS) and any(True for _ in one.children()):
                continue  # some norms contain an activation, so they are not leaves
            if name in owners:
                found += [*waiting, one]
            elif not any(True for _ in one.parameters(recurse=False)):
                waiting.append(one)
                continue
            waiting = []
        return found

    # training

    def start(self, settings: TrainSettings, n_steps: int = 0) -> None:
        """Make the optimizer for the parts that are not frozen; ``n_steps`` will follow, 0 if unknown."""
        self._settings, self._n_steps, self._done = settings, n_steps, 0
        self._bf16 = use_bf16(settings.precision, self.device)
        self._n_unfrozen = len(self.parts) - self._n_frozen
        self._apply_freeze()
        self._values, self._grads, segments = flat_vectors(self._module, self._names, settings, self.device)
        self._optimizer = FlatOptimizer(settings, self._values, self._grads, segments)
        self._average = self._values.clone() if settings.ema else None
        self._statistics = [one for _, one in self._learning_statistics()]
        self._average_statistics = [one.clone() for one in self._statistics]
        self._unfreeze_due()

    def _unfreeze_due(self) -> None:
        """With ``gradual``, unfreeze another part when it is due."""
        n_parts, share = len(self.parts) - self._n_frozen, self._settings.gradual
        n_unfrozen = n_parts
        if share and self._n_steps:
            n_unfrozen = min(n_parts, 1 + floor((n_parts - 1) * self._done / (share * self._n_steps)))
        if n_unfrozen != self._n_unfrozen:
            self._n_unfrozen = n_unfrozen
            self._apply_freeze()
        self._set_modes()

    def _set_modes(self) -> None:
        """Dropout and batch-norm statistics are active in unfrozen parts only."""
        self._module.train()
        inactive = self._modules_of(len(self.parts) - self._n_unfrozen)
        if self._settings.batch_norm == "frozen":
            inactive += [one for one in self._module.modules() if isinstance(one, NORMS)]
        for one in inactive:
            one.eval()

    def train_step(
        self, images: Images, labels: Codes, learning_rate: float, weights: Array | None = None
    ) -> tuple[Array, NDArray[np.bool_]]:
        """One step on a batch; returns each image's loss in nats and whether it was right, before the step."""
        assert self._optimizer is not None, "start() comes before train_step()"
        if not self._module.training or self._settings.gradual:
            self._unfreeze_due()
        self._grads.zero_()  # backward accumulates
        targets, shares = self._moved(labels), None if weights is None else self._moved(weights)
        pixels, mixed = self._mixup(self._pixels(images))
        losses, rights = [], []
        # at least 2: one image has no variance for batch norm
        size = max(2, -(-len(images) // self._settings.accumulate))
        for part in (slice(at, at + size) for at in range(0, len(images), size)):
            with fixed_norms(self._module):
                plain, loss, right = self._losses(pixels[part], targets, part, mixed)
            counted = loss if shares is None else loss * shares[part]
            objective = counted.mean() if size >= len(images) else counted.sum() / len(images)
            objective.backward()  # type: ignore[no-untyped-call]
            losses.append(plain.detach())
            rights.append(right)
        self._optimizer.step(learning_rate, self._n_unfrozen)
        self._done += 1
        self._update_average()
        return torch.cat(losses).cpu().numpy(), torch.cat(rights).cpu().numpy()

    def _losses(
        self, pixels: Tensor, targets: Tensor, part: slice, mixed: tuple[Tensor, float] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For each image: the loss in nats, the loss that is minimised, and whether it was predicted right."""
        smoothing, logits = self._settings.label_smoothing, self._logits(pixels)

        def loss(wanted: Tensor, label_smoothing: float) -> Tensor:
            return functional.cross_entropy(
                logits, wanted[part], reduction="none", label_smoothing=label_smoothing
            )

        minimised = loss(targets, smoothing)
        if mixed is not None:
            partners, share = mixed
            minimised = share * minimised + (1 - share) * loss(targets[partners], smoothing)
        with torch.no_grad():
            plain = loss(targets, 0.0) if smoothing or mixed is not None else minimised
            return plain, minimised, logits.argmax(1) == targets[part]

    def _mixup(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, float] | None]:
        """Each image mixed with another: the partner, and the share of the first."""
        strength = self._settings.mixup
        if not strength:
            return pixels, None
        rng = np.random.default_rng([self._settings.seed, 4, self._done])  # seeded by step: no state to store
        share = float(rng.beta(strength, strength))
        share = max(share, 1 - share)  # the larger share is the image's own, and so is the loss reported
        partners = self._moved(rng.permutation(len(pixels)))
        return share * pixels + (1 - share) * pixels[partners], (partners, share)

    def _update_average(self) -> None:
        """Update the running mean; it forgets faster in the first steps, to drop the initial weights."""
        if self._average is None:
            return
        keep = min(self._settings.ema, (1 + self._done) / (10 + self._done))
        self._average.lerp_(self._values, 1 - keep)
        for mean, now in zip(self._average_statistics, self._statistics, strict=True):
            mean.lerp_(now, 1 - keep)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Swap the running mean in for the weights, while there is one."""
        if self._average is None:
            yield
            return
        pairs = [
            (self._values, self._average),
            *zip(self._statistics, self._average_statistics, strict=True),
        ]
        for now, mean in pairs:
            _swap(now, mean)
        try:
            yield
        finally:
            for now, mean in pairs:
                _swap(now, mean)

    def logits(self, images: Images) -> Array:
        """Outputs of the last layer without dropout, (n, n_classes)."""
        self._module.eval()
        size = max(1, _EVALUATION_PIXELS // (self._image.height_px * self._image.width_px))
        with self._averaged(), torch.inference_mode():
            parts = [
                self._logits(self._pixels(images[start : start + size])).cpu().numpy()
                for start in range(0, len(images), size)
            ]
        return np.concatenate(parts)

    def _pixels(self, images: Images) -> Tensor:
        """Scaled, (n, channels, height, width)."""
        if images.shape[1:] != self._image.shape:
            raise ShapeError(
                f"images have shape {images.shape}, expected (n, {', '.join(map(str, self._image.shape))}); "
                "prepare them for this network first"
            )
        return (self._moved(images).to(torch.float32) * self._scale + self._shift).permute(0, 3, 1, 2)

    def _logits(self, pixels: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            return self._module(pixels).float()  # type: ignore[no-any-return]

    def _moved(self, array: NDArray[Any]) -> Tensor:
        return tensor(array).to(self.device)

    # weights and state

    def state(self) -> dict[str, NDArray[Any]]:
        """All that training changes, for `load_state` of an equal network after the same `start`."""
        assert self._optimizer is not None, "start() comes before state()"
        found = {"values": self._values, **{f"optimizer.{k}": v for k, v in self._optimizer.state().items()}}
        if self._average is not None:
            found["average"] = self._average
        for number, (now, mean) in enumerate(zip(self._statistics, self._average_statistics, strict=True)):
            found |= {f"statistics.{number}": now, f"average_statistics.{number}": mean}
        arrays = {name: one.detach().cpu().numpy().copy() for name, one in found.items()}
        return {**arrays, "n_done": np.array(self._done), **self._random_state()}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a state, to the bit."""
        assert self._optimizer is not None, "start() comes before load_state()"
        with torch.no_grad():
            self._values.copy_(tensor(state["values"]))
            if self._average is not None:
                self._average.copy_(tensor(state["average"]))
            for number, (now, mean) in enumerate(
                zip(self._statistics, self._average_statistics, strict=True)
            ):
                now.copy_(tensor(state[f"statistics.{number}"]))
                mean.copy_(tensor(state[f"average_statistics.{number}"]))
            prefix = "optimizer."
            self._optimizer.load_state(
                {
                    name.removeprefix(prefix): tensor(np.asarray(value))
                    for name, value in state.items()
                    if name.startswith(prefix)
                }
            )
        self._done = int(state["n_done"])
        self._load_random_state(state)
        self._unfreeze_due()

    def _random_state(self) -> dict[str, NDArray[Any]]:
        """State of generators that the module draws from."""
        return {}

    def _load_random_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Inverse of `_random_state`."""

    def weights(self) -> Weights:
        """A copy of all weights and statistics by name; of their running mean while there is one."""
        with self._averaged():
            return {
                name: one.detach().cpu().numpy().copy(order="C")
                for name, one in named_weights(self._module).items()
            }

    def load_weights(self, weights: Weights) -> None:
        """Set weights as `weights` returns them; names and shapes must match exactly."""
        own = named_weights(self._module)
        wanted = {name: tuple(value.shape) for name, value in own.items()}
        given = {name: value.shape for name, value in weights.items()}
        if wanted != given:
            raise ShapeError(f"weights are {_named(given)}, expected {_named(wanted)} for {self._title}")
        self._average = None
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(tensor(np.ascontiguousarray(weights[name])))

    @property
    def _title(self) -> str:
        """The network's name in an error."""
        return "this network"

    def _learning_statistics(self) -> list[tuple[str, Tensor]]:
        """Batch-norm statistics that training changes."""
        if self._settings.batch_norm == "frozen":
            return []
        frozen = set(self._modules_of(self._n_frozen))
        return [
            (f"{name}.{own}", getattr(one, own))
            for name, one in self._module.named_modules()
            if isinstance(one, NORMS) and one not in frozen
            for own in STATISTICS
            if getattr(one, own) is not None
        ]


def _swap(one: Tensor, other: Tensor) -> None:
    kept = one.clone()
    one.copy_(other)
    other.copy_(kept)


def _named(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))
