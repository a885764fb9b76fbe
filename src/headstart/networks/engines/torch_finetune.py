"""A source opened for fine-tuning: its network up to a place, and a dense layer on what is read there.

In: a network of ours or of timm's, a place, a fitted affine head. Out: a Trainable, then the same network
with other weights. Owns torch; imported only when something is fine-tuned. Called by finetune.
"""

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
    """Logits from features, as a head fitted it: (features - mean) * scale @ weight + bias.

    ``mean`` and ``scale`` (n_features,) stay what they are; ``weight`` (n_features, n_classes) and ``bias``
    (n_classes,) learn.
    """

    mean: Array
    scale: Array
    weight: Array
    bias: Array

    def folded(self) -> tuple[Array, Array]:
        """Weight and bias that do the same on features as they come."""
        weight = self.weight.astype(np.float64) * self.scale[:, None]
        bias = self.bias - self.mean.astype(np.float64) @ weight
        return weight.astype(np.float32), bias.astype(np.float32)


@dataclass(frozen=True)
class Body:
    """A network without its top.

    ``module`` gives the tensors of ``layers`` from scaled pixels (n, channels, height, width); ``shapes`` are
    theirs without the images' axis; ``parts`` name its parameters from the input upwards; ``finished``
    makes of the trained module what its maker wants. ``dropout_rng`` is what its dropout draws from, if it
    has a generator of its own.
    """

    module: nn.Module
    layers: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    parts: Sequence[tuple[str, Sequence[str]]]
    finished: Callable[[nn.Module], Any]
    dropout_rng: torch.Generator | None = None


class FinetuneNetwork(TorchTraining):
    """A network on trial: body, pooling, dense layer.

    Parameters
    ----------
    body : Body
        Trained in place.
    pooling : {'avg', 'flat', 'grid2'}
        How maps become a row, as in ``graph.pool``.
    head : AffineMap
        Where it starts: with the head as fitted, opening the network can only be told apart later.
    image : InputSpec
        What it takes.
    dropout : float, default=0.0
        Share of what the head reads that a step leaves out, in [0, 1) (Srivastava et al. 2014).
    seed : int, default=0
        Of whatever is random in the body, of dropout and mixup.
    device : {'auto', 'cpu', 'cuda', 'mps'}, default='auto'
        Where it learns.
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
        reading = _Reading(body, pooling, head, dropout)
        below = [(name, [f"body.{one}" for one in names]) for name, names in body.parts]
        used = _used(reading, image)
        parts = [(name, [one for one in names if one in used]) for name, names in below]
        kept = [(name, names) for name, names in parts if names]
        super().__init__(
            reading, image, [*kept, (HEAD, ["dense.weight", "dense.bias"])], seed=seed, device=device
        )

    def open_last(self, n_parts: int | None) -> None:
        """Freeze all but the head and the last so many parts below it; None opens everything."""
        below = len(self.parts) - 1
        self.freeze_parts(0 if n_parts is None else max(0, below - n_parts))

    def train_step(
        self, images: Images, labels: Codes, learning_rate: float, weights: Array | None = None
    ) -> tuple[Array, NDArray[np.bool_]]:
        """As the training loop has it; dropout within the body draws from this step's own seed."""
        draw = hash((self._seed, self._settings.seed, self._done)) % 2**63  # by step: nothing to remember
        if self._body.dropout_rng is not None:
            self._body.dropout_rng.manual_seed(draw)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(draw)
            return super().train_step(images, labels, learning_rate, weights)

    def finished(self) -> tuple[Any, AffineMap]:
        """The body as its maker wants it, and the head; of the running mean while there is one."""
        self.load_weights(self.weights())
        module = self._module
        assert isinstance(module, _Reading), "made by the constructor"
        dense = module.dense
        head = AffineMap(
            module.mean.cpu().numpy(),
            module.scale.cpu().numpy(),
            dense.weight.detach().cpu().numpy().T.copy(),
            dense.bias.detach().cpu().numpy().copy(),
        )
        return self._body.finished(module.body.cpu().eval()), head


class _Reading(nn.Module):
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
        with torch.autocast(pixels.device.type, enabled=False):  # few sums over many features: keep digits
            rows = self.dropout((features.float() - self.mean) * self.scale)
            return functional.linear(rows, self.dense.weight, self.dense.bias)


def _pooled(maps: Tensor, pooling: str) -> Tensor:
    """What ``graph.pool`` computes."""
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


def _used(reading: nn.Module, image: InputSpec) -> set[str]:
    """Names of parameters that the logits depend on: what lies above the layers is not learnt."""
    pixels = torch.zeros(1, max(image.channels, len(image.mean)), image.height_px, image.width_px)
    reading.eval().requires_grad_(True)
    named = dict(reading.named_parameters())
    found = torch.autograd.grad(reading(pixels).sum(), list(named.values()), allow_unused=True)
    return {name for name, grad in zip(named, found, strict=True) if grad is not None}


def spec_body(spec: NetworkSpec, weights: Weights, layer: str) -> Body:
    """A network of ours up to a layer.

    Parameters
    ----------
    spec : NetworkSpec
        Its layers.
    weights : dict of str to ndarray
        In the canonical layout; those of layers above the layer are not used.
    layer : str
        Layers, joined by ``+``.

    Returns
    -------
    Body
        Finished, it gives the spec up to the last layer, and the weights.
    """
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
    """Layers one after the other, and the outputs of some."""

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
