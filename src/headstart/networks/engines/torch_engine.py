"""The PyTorch engine: a NetworkSpec as a torch module, behind the protocol `TrainableNetwork`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.networks.engines.numpy_engine import initial_weights
from headstart.networks.engines.torch_device import tensor
from headstart.networks.engines.torch_training import TorchTraining
from headstart.networks.specs import check_freezable, layer_shapes, with_classes
from headstart.records import LayerSpec, NetworkSpec

__all__ = ["TorchNetwork", "spec_module", "spec_parts"]


class TorchNetwork(TorchTraining):
    """A network built from a spec and trained by PyTorch; its initial weights are those of the scratch engine."""

    def __init__(self, spec: NetworkSpec, seed: int = 0, device: str = "auto") -> None:
        self.spec = spec
        self._dropout_rng = torch.Generator().manual_seed(seed)
        self._frozen: tuple[str, ...] = ()
        module = spec_module(spec, self._dropout_rng)
        super().__init__(module, spec.input, spec_parts(spec, module), seed=seed, device=device)
        self.load_weights(initial_weights(spec, seed))

    def freeze(self, through: str) -> None:
        """Freeze every layer up to and including ``through``."""
        check_freezable(self.spec, through)
        self._frozen = self.spec.layer_names[: self.spec.layer_names.index(through) + 1]
        self.freeze_parts(sum(part in self._frozen for part in self.parts))

    def replace_head(self, n_classes: int, seed: int) -> None:
        """Replace the last dense layer by a new one with random weights."""
        last = self.spec.layers[-1].name
        body = {name: value for name, value in self.weights().items() if not name.startswith(f"{last}.")}
        self.spec = with_classes(self.spec, n_classes)
        module = spec_module(self.spec, self._dropout_rng)
        self._set_module(module, spec_parts(self.spec, module))
        self.load_weights({**initial_weights(self.spec, seed), **body})
        if self._frozen:
            self.freeze(self._frozen[-1])

    @property
    def _title(self) -> str:
        return f"network {self.spec.name!r}"

    def _random_state(self) -> dict[str, NDArray[Any]]:
        return {"dropout": self._dropout_rng.get_state().numpy().copy()}

    def _load_random_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._dropout_rng.set_state(tensor(state["dropout"]))


def spec_module(spec: NetworkSpec, dropout_rng: torch.Generator) -> nn.Sequential:
    """The layers of a spec as a module, one named child each; the weights are not set yet."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    height, width, channels = spec.input.shape
    before: tuple[int, ...] = (channels, height, width)
    with torch.device("meta"):  # sizes only: the weights are set later
        for layer, shape in zip(spec.layers, layer_shapes(spec).values(), strict=True):
            layers[layer.name] = _build(layer, before[0], dropout_rng)
            before = shape
    return nn.Sequential(layers).to_empty(device="cpu")


def spec_parts(spec: NetworkSpec, module: nn.Module) -> list[tuple[str, list[str]]]:
    """Parameter names by part, from the input to the top: each convolution or dense layer with the norm after it."""
    names: dict[str, list[str]] = {}
    for name, _ in module.named_parameters():
        names.setdefault(name.partition(".")[0], []).append(name)
    parts: list[tuple[str, list[str]]] = []
    for layer in spec.layers:
        if layer.kind == "batchnorm2d" and parts:
            parts[-1][1].extend(names[layer.name])
        elif layer.name in names:
            parts.append((layer.name, names[layer.name]))
    return parts


class _FlattenLast(nn.Module):
    """(n, c, h, w) to (n, h * w * c): no copy in channels-last memory, and the layout of every engine."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).flatten(1)


class _SeededDropout(nn.Module):
    """Inverted dropout with the network's own generator, so that no global state decides a result."""

    def __init__(self, rate: float, rng: torch.Generator) -> None:
        super().__init__()
        self._below = round((1.0 - rate) * 2**15)  # integers take a quarter of the time of Bernoulli draws
        self._keep, self._rng = self._below / 2**15, rng

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        drawn = torch.empty(x.shape, dtype=torch.int16).random_(generator=self._rng)  # in [0, 2 ** 15)
        return x * (drawn < self._below).to(x.device, x.dtype) / self._keep


def _build(layer: LayerSpec, n_inputs: int, rng: torch.Generator) -> nn.Module:
    """The module of one layer with this many input channels or features."""
    options = layer.options
    match layer.kind:
        case "conv2d":
            pad = options["kernel"] // 2 if options.get("padding", "valid") == "same" else 0
            return nn.Conv2d(n_inputs, options["channels"], options["kernel"], padding=pad)
        case "batchnorm2d":
            return nn.BatchNorm2d(n_inputs)
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
