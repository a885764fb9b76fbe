"""The PyTorch engine: a NetworkSpec as a torch module behind the Network protocol.

In: specs, uint8 NumPy batches. Out: losses, logits, weights, all NumPy: no tensor leaves this module.
Owns torch; imported only when the engine 'torch' is asked for. Called by registry.
"""

from __future__ import annotations

import ctypes
import platform
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from headstart.errors import ShapeError
from headstart.networks.architectures import check_freezable, layer_shapes, with_classes
from headstart.networks.scratch_engine import initial_weights, make_optimizer
from headstart.records import Array, Codes, Images, LayerSpec, NetworkSpec, TrainSettings, Weights
from headstart.scratch import Optimizer

__all__ = ["TorchNetwork"]

_EVALUATION_BATCH = 1024


class TorchNetwork:
    """A network trained by PyTorch on the CPU.

    Parameters
    ----------
    spec : NetworkSpec
        What to build.
    seed : int, default=0
        Draws the weights: the same ones the scratch engine draws.

    Notes
    -----
    Channels-last throughout; bfloat16 for the layers' arithmetic where the CPU computes it and
    the settings say ``auto``, float32 for weights, losses and the optimizer.
    """

    engine = "torch"

    def __init__(self, spec: NetworkSpec, seed: int = 0) -> None:
        _keep_freed_memory()
        self.spec = spec
        self._dropout_rng = torch.Generator().manual_seed(seed)
        self._module = self._assemble(spec)
        self._frozen: tuple[str, ...] = ()
        self._optimizer: Optimizer | None = None
        self._grads = np.empty(0, np.float32)
        self._settings = TrainSettings()
        self._bf16 = False
        scale = 1.0 / (255.0 * torch.tensor(spec.input.std))
        self._scale, self._shift = scale, -torch.tensor(spec.input.mean) / torch.tensor(spec.input.std)
        self.load_weights(initial_weights(spec, seed))

    def _assemble(self, spec: NetworkSpec) -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        height, width, channels = spec.input.shape
        before: tuple[int, ...] = (channels, height, width)
        with torch.device("meta"):  # sizes only: the weights come from initial_weights
            for layer, shape in zip(spec.layers, layer_shapes(spec).values(), strict=True):
                layers[layer.name] = _build(layer, before[0], self._dropout_rng)
                before = shape
        return nn.Sequential(layers).to_empty(device="cpu").to(memory_format=torch.channels_last)

    def start(self, settings: TrainSettings) -> None:
        """Make the optimizer for the layers that are not frozen."""
        values, self._grads = _one_vector([one for one in self._module.parameters() if one.requires_grad])
        self._optimizer = make_optimizer(settings, values, self._grads)
        self._settings, self._bf16 = settings, _use_bf16(settings.precision)

    def train_step(
        self, images: Images, labels: Codes, learning_rate: float, weights: Array | None = None
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Learn from one batch; give each image's loss in nats and whether it was right, before the step."""
        assert self._optimizer is not None, "start() comes before train_step()"
        targets = _tensor(labels)
        self._module.train()
        logits = self._forward(images)
        losses = functional.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self._settings.label_smoothing
        )
        objective = losses.mean() if weights is None else (losses * _tensor(weights)).mean()
        self._grads.fill(0.0)  # backward adds to what is there
        objective.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step(learning_rate)
        with torch.no_grad():
            plain = (
                functional.cross_entropy(logits, targets, reduction="none")
                if self._settings.label_smoothing
                else losses
            )
            return plain.detach().numpy(), (logits.argmax(1) == targets).numpy()

    def logits(self, images: Images) -> Array:
        """Outputs of the last layer without dropout, (n, n_classes)."""
        self._module.eval()
        with torch.inference_mode():
            parts = [
                self._forward(images[start : start + _EVALUATION_BATCH]).numpy()
                for start in range(0, len(images), _EVALUATION_BATCH)
            ]
        return np.concatenate(parts)

    def _forward(self, images: Images) -> Tensor:
        if images.shape[1:] != self.spec.input.shape:
            raise ShapeError(
                f"images have shape {images.shape}, need (n, {', '.join(map(str, self.spec.input.shape))}); "
                "prepare them for this network first"
            )
        pixels = _tensor(images).to(torch.float32) * self._scale + self._shift  # (n, h, w, c)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bf16):
            return self._module(pixels.permute(0, 3, 1, 2)).float()  # type: ignore[no-any-return]

    def freeze(self, through: str) -> None:
        """Stop learning in every layer up to and including ``through``."""
        check_freezable(self.spec, through)
        self._frozen = self.spec.layer_names[: self.spec.layer_names.index(through) + 1]
        for name, layer in self._module.named_children():
            layer.requires_grad_(name not in self._frozen)
        self._optimizer = None  # it was made for other layers

    def replace_head(self, n_classes: int, seed: int) -> None:
        """Put a new last dense layer, freshly drawn, in place of the old one."""
        body = {
            name: value for name, value in self.weights().items() if not name.startswith(self._last + ".")
        }
        self.spec = with_classes(self.spec, n_classes)
        drawn = initial_weights(self.spec, seed)
        self._module = self._assemble(self.spec)
        self.load_weights({**drawn, **body})
        self._optimizer = None
        if self._frozen:
            self.freeze(self._frozen[-1])

    @property
    def _last(self) -> str:
        return self.spec.layers[-1].name

    def weights(self) -> Weights:
        """A copy of all weights in the canonical layout."""
        return {
            name: value.detach().numpy().copy(order="C") for name, value in self._module.named_parameters()
        }

    def load_weights(self, weights: Weights) -> None:
        """Take weights in the canonical layout; names and shapes must match exactly."""
        own = dict(self._module.named_parameters())
        wanted = {name: tuple(value.shape) for name, value in own.items()}
        given = {name: value.shape for name, value in weights.items()}
        if wanted != given:
            raise ShapeError(
                f"weights are {_named(given)}, need {_named(wanted)} for network {self.spec.name!r}"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(_tensor(np.ascontiguousarray(weights[name])))


def _tensor(array: NDArray[Any]) -> Tensor:
    """The array's memory as a tensor; a copy where it is read-only, of which torch would warn."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _one_vector(parameters: list[nn.Parameter]) -> tuple[Array, Array]:
    """Move parameters, and gradients for them, into two flat vectors that NumPy and torch share.

    The optimizers are the scratch engine's, which work on such vectors. torch.optim would do as
    well, but loads the whole of torch's compiler when the first optimizer is made: 0.7 s of a job
    of ten (2026-11-20).
    """
    sizes = [one.numel() for one in parameters]
    values, grads = (np.zeros(sum(sizes), np.float32) for _ in range(2))
    for one, end, size in zip(parameters, np.cumsum(sizes), sizes, strict=True):
        value, grad = (_shaped(torch.from_numpy(flat[end - size : end]), one) for flat in (values, grads))
        with torch.no_grad():
            value.copy_(one)
        one.data, one.grad = value, grad
    return values, grads


def _shaped(flat: Tensor, like: Tensor) -> Tensor:
    """A view of a flat vector with a parameter's shape; kernels are channels-last."""
    if like.dim() < 4:  # only kernels have four axes
        return flat.view(like.shape)
    n_out, n_in, height, width = like.shape
    return flat.view(n_out, height, width, n_in).permute(0, 3, 1, 2)


def _named(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))


def _use_bf16(precision: str) -> bool:
    """bf16 pays only where the CPU multiplies it natively."""
    if precision == "fp32":
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _FlattenLast(nn.Module):
    """(n, c, h, w) to (n, h * w * c): free in channels-last memory, and the layout of every engine."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).flatten(1)


class _SeededDropout(nn.Module):
    """Inverted dropout from the network's own generator, so that nothing global decides a result."""

    def __init__(self, rate: float, rng: torch.Generator) -> None:
        super().__init__()
        self._keep, self._rng = 1.0 - rate, rng

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mask = torch.empty(x.shape, dtype=x.dtype).bernoulli_(self._keep, generator=self._rng)
        return x * mask / self._keep


def _build(layer: LayerSpec, n_inputs: int, rng: torch.Generator) -> nn.Module:
    """The module of one layer that takes so many channels or features."""
    options = layer.options
    match layer.kind:
        case "conv2d":
            pad = options["kernel"] // 2 if options.get("padding", "valid") == "same" else 0
            return nn.Conv2d(n_inputs, options["channels"], options["kernel"], padding=pad)
        case "maxpool2d":
            return nn.MaxPool2d(options["size"])
        case "flatten":
            return _FlattenLast()
        case "dense":
            return nn.Linear(n_inputs, options["units"])
        case "dropout":
            return _SeededDropout(options["rate"], rng)
    assert layer.kind == "relu", f"no torch layer for kind {layer.kind!r}"
    return nn.ReLU()


_KEPT: list[bool] = []


def _keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of handing them back to the kernel after every step.

    A step frees and asks again for tens of megabytes; each time the kernel must clear the pages.
    Measured 2026-11-20 on 2 cores, CNN, batch 128, bf16: 13.0 ms per step without, 7.3 ms with.
    """
    if _KEPT or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    _KEPT.append(True)
