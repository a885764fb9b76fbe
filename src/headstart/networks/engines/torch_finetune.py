"""Fine-tuning in PyTorch: a source's network up to a layer, and a dense layer that starts as the fitted head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from headstart.graph.pooling import JOIN, n_features
from headstart.networks.engines.torch_device import named_weights, tensor
from headstart.networks.engines.torch_engine import spec_module, spec_parts
from headstart.networks.engines.torch_training import TorchTraining
from headstart.networks.specs import layer_shapes
from headstart.records import Array, Codes, Images, InputSpec, NetworkSpec, Weights

__all__ = ["HEAD", "AffineMap", "Body", "FinetuneNetwork", "spec_body"]

HEAD = "head"
"""Name of the topmost part."""


@dataclass(frozen=True)
class AffineMap:
    """A fitted affine head: logits = (features - mean) * scale @ weight + bias.

    ``mean`` and ``scale`` (n_features,) stay fixed; ``weight`` (n_features, n_classes) and ``bias`` (n_classes,)
    are trained.
    """

    mean: Array
    scale: Array
    weight: Array
    bias: Array

    def folded(self) -> tuple[Array, Array]:
        """The same map as one weight and bias on unscaled features."""
        weight = self.weight.astype(np.float64) * self.scale[:, None]
        bias = self.bias - self.mean.astype(np.float64) @ weight
        return weight.astype(np.float32), bias.astype(np.float32)


@dataclass(frozen=True)
class Body:
    """A network without its top.

    ``module`` maps scaled pixels (n, channels, height, width) to the outputs of ``layers``, whose ``shapes`` omit the
    images' axis. ``parts`` name its parameters from the input upwards. ``finished`` converts the trained module.
    ``dropout_rng`` is the generator of its dropout layers, if they have one of their own.
    """

    module: nn.Module
    layers: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    parts: Sequence[tuple[str, Sequence[str]]]
    finished: Callable[[nn.Module], Any]
    dropout_rng: torch.Generator | None = None


class FinetuneNetwork(TorchTraining):
    """Body, pooling ('avg', 'flat' or 'grid2') and a dense layer that starts as the fitted head; trained in place.

    ``dropout`` is the share of the head's input that a step leaves out, in [0, 1) (Srivastava et al. 2014).
    ``seed`` is that of all randomness in training.
    """

    def __init__(
        self,
        body: Body,
        pooling: str,
        head: AffineMap,
        image: InputSpec,
        *,
        dropout: float = 0.0,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self._body = body
        reading = _BodyWithHead(body, pooling, head, dropout)
        below = [(name, [f"body.{one}" for one in names]) for name, names in body.parts]
        used = _used_parameters(reading, image)
        parts = [(name, [one for one in names if one in used]) for name, names in below]
        kept = [(name, names) for name, names in parts if names]
        super().__init__(
            reading, image, [*kept, (HEAD, ["dense.weight", "dense.bias"])], seed=seed, device=device
        )

    def unfreeze_last(self, n_parts: int | None) -> None:
        """Unfreeze the head and the last ``n_parts`` parts below it, None for all; freeze the rest."""
        below = len(self.parts) - 1
        self.freeze_parts(0 if n_parts is None else max(0, below - n_parts))

    def train_step(
        self, images: Images, labels: Codes, learning_rate: float, weights: Array | None = None
    ) -> tuple[Array, NDArray[np.bool_]]:
        """One step as in `TorchTraining`; dropout draws from a seed that is the step's own."""
        # seeded by step: no state to store
        draw = hash((self._seed, self._settings.seed, self._done)) % 2**63
        if self._body.dropout_rng is not None:
            self._body.dropout_rng.manual_seed(draw)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(draw)
            return super().train_step(images, labels, learning_rate, weights)

    def finished(self) -> tuple[Any, AffineMap]:
        """The converted body, and the head; of the running mean while there is one."""
        self.load_weights(self.weights())
        module = self._module
        assert isinstance(module, _BodyWithHead), "made by the constructor"
        dense = module.dense
        head = AffineMap(
            module.mean.cpu().numpy(),
            module.scale.cpu().numpy(),
            dense.weight.detach().cpu().numpy().T.copy(),
            dense.bias.detach().cpu().numpy().copy(),
        )
        return self._body.finished(module.body.cpu().eval()), head


class _BodyWithHead(nn.Module):
    """Body, pooling, standardised features, dropout, dense layer."""

    mean: Tensor
    scale: Tensor

    def __init__(self, body: Body, pooling: str, head: AffineMap, dropout: float) -> None:
        super().__init__()
        self.body, self._pooling = body.module, pooling
        self.register_buffer("mean", tensor(head.mean))
        self.register_buffer("scale", tensor(head.scale))
        width = sum(n_features(body.shapes[layer], pooling) for layer in body.layers)
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(width, head.weight.shape[1])
        with torch.no_grad():
            self.dense.weight.copy_(tensor(np.ascontiguousarray(head.weight.T)))
            self.dense.bias.copy_(tensor(head.bias))

    def forward(self, pixels: Tensor) -> Tensor:
        read = [_pooled(one, self._pooling) for one in self.body(pixels)]
        features = read[0] if len(read) == 1 else torch.cat(read, dim=1)
        with torch.autocast(pixels.device.type, enabled=False):  # sums over many features: keep fp32
            rows = self.dropout((features.float() - self.mean) * self.scale)
            return functional.linear(rows, self.dense.weight, self.dense.bias)


def _pooled(maps: Tensor, pooling: str) -> Tensor:
    """The same as ``graph.pooling``, in torch."""
    if maps.dim() == 2:
        return maps
    if pooling == "avg":
        return maps.mean(dim=(2, 3))
    if pooling == "grid2":
        height, width = maps.shape[2:]
        maps = torch.cat([maps, maps], dim=2) if height == 1 else maps
        maps = torch.cat([maps, maps], dim=3) if width == 1 else maps
        kernel, stride = (-(-height // 2), -(-width // 2)), (max(1, height // 2), max(1, width // 2))
        maps = functional.avg_pool2d(maps, kernel, stride)
    return maps.permute(0, 2, 3, 1).flatten(1)


def _used_parameters(reading: nn.Module, image: InputSpec) -> set[str]:
    """Names of parameters that the logits depend on; those above the layer are not trained."""
    pixels = torch.zeros(1, max(image.channels, len(image.mean)), image.height_px, image.width_px)
    reading.eval().requires_grad_(True)
    named = dict(reading.named_parameters())
    found = torch.autograd.grad(reading(pixels).sum(), list(named.values()), allow_unused=True)
    return {name for name, grad in zip(named, found, strict=True) if grad is not None}


def spec_body(spec: NetworkSpec, weights: Weights, layer: str) -> Body:
    """A network built from a spec, up to a layer (several joined by ``+``); finished, it gives spec and weights."""
    layers = tuple(layer.split(JOIN))
    last = max(spec.layer_names.index(one) for one in layers)
    cut = replace(spec, layers=spec.layers[: last + 1])
    dropout_rng = torch.Generator()
    module = _WithOutputs(spec_module(cut, dropout_rng), layers)
    parts = spec_parts(cut, module.layers)
    with torch.no_grad():
        for name, value in named_weights(module.layers).items():
            value.copy_(tensor(np.ascontiguousarray(weights[name])))

    def finished(trained: nn.Module) -> tuple[NetworkSpec, Weights]:
        assert isinstance(trained, _WithOutputs), "the module that was given"
        found = named_weights(trained.layers)
        return cut, {name: one.detach().numpy().copy(order="C") for name, one in found.items()}

    return Body(
        module,
        layers,
        layer_shapes(cut),
        [(name, [f"layers.{one}" for one in names]) for name, names in parts],
        finished,
        dropout_rng,
    )


class _WithOutputs(nn.Module):
    """A sequence of layers, and the outputs of some of them."""

    def __init__(self, layers: nn.Sequential, wanted: tuple[str, ...]) -> None:
        super().__init__()
        self.layers, self._wanted = layers, wanted

    def forward(self, pixels: Tensor) -> list[Tensor]:
        found = {}
        for name, layer in self.layers.named_children():
            pixels = layer(pixels)
            if name in self._wanted:
                found[name] = pixels
        return [found[name] for name in self._wanted]
