"""The NumPy engine: the network written from scratch, behind the protocol `TrainableNetwork`.

The torch engine takes its initial weights from here, so that the same seed starts both engines equally.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError, nearest
from headstart.networks.specs import check_freezable, layer_shapes, with_classes
from headstart.records import Array, Codes, Images, LayerSpec, NetworkSpec, TrainSettings, Weights
from headstart.scratch import SGD, Adam, Conv2D, Dense, Dropout, Flatten, Layer, MaxPool2D, Optimizer, ReLU
from headstart.scratch import Network as Layers

__all__ = ["ScratchNetwork", "initial_weights", "make_optimizer"]

_EVALUATION_BATCH = 512
_AXES = {1: ((0,), (0,)), 2: ((1, 0), (1, 0)), 4: ((3, 2, 0, 1), (2, 3, 1, 0))}
"""By rank, the order of axes that gives the canonical layout, and its inverse."""


class ScratchNetwork:
    """A network trained by NumPy, in float32. ``seed`` draws the weights (He et al. 2015) and the dropout masks."""

    engine = "scratch"

    def __init__(self, spec: NetworkSpec, seed: int = 0) -> None:
        self.spec = spec
        self._dropout_rng = np.random.default_rng([seed, 3])
        layers = [_layer(layer, self._dropout_rng) for layer in spec.layers]
        self._network = Layers(layers, spec.input.shape, np.random.default_rng([seed, 0]))
        self._optimizer: Optimizer | None = None
        self._settings = TrainSettings()
        std = np.asarray(spec.input.std, np.float32)
        self._scale = (1.0 / (255.0 * std)).astype(np.float32)
        self._shift = (-np.asarray(spec.input.mean, np.float32) / std).astype(np.float32)

    def start(self, settings: TrainSettings, n_steps: int = 0) -> None:
        """Make the optimizer for the layers that are not frozen; ``n_steps`` is not used here."""
        _check(settings)
        values, grads = self._network.trainable_values, self._network.trainable_grads
        decay = np.where(self._network.trainable_matrices, settings.weight_decay, 0.0).astype(np.float32)
        self._optimizer = make_optimizer(settings, values, grads, decay if settings.weight_decay else 0.0)
        self._settings = settings

    def train_step(
        self, images: Images, labels: Codes, learning_rate: float, weights: Array | None = None
    ) -> tuple[Array, NDArray[np.bool_]]:
        """One step on a batch; returns each image's loss in nats and whether it was right, before the step."""
        assert self._optimizer is not None, "start() comes before train_step()"
        return self._network.train_step(
            self._pixels(images),
            labels,
            self._optimizer,
            learning_rate,
            label_smoothing=self._settings.label_smoothing,
            weights=weights,
        )

    def logits(self, images: Images) -> Array:
        """Outputs of the last layer without dropout, (n, n_classes)."""
        parts = [
            self._network.logits(self._pixels(images[start : start + _EVALUATION_BATCH]))
            for start in range(0, len(images), _EVALUATION_BATCH)
        ]
        return np.concatenate(parts)

    def state(self) -> dict[str, NDArray[Any]]:
        """All that training changes, for `load_state` of an equal network after the same `start`."""
        assert self._optimizer is not None, "start() comes before state()"
        return {
            "values": self._network.trainable_values.copy(),
            "n_steps": np.array(self._optimizer.n_steps),
            "dropout": _packed(self._dropout_rng),
            **{f"optimizer.{name}": value.copy() for name, value in self._optimizer.memory.items()},
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a state, to the bit."""
        assert self._optimizer is not None, "start() comes before load_state()"
        self._network.trainable_values[:] = state["values"]
        self._optimizer.n_steps = int(state["n_steps"])
        _unpack(self._dropout_rng, state["dropout"])
        for name, value in self._optimizer.memory.items():
            value[:] = state[f"optimizer.{name}"]

    def _pixels(self, images: Images) -> Array:
        if images.shape[1:] != self.spec.input.shape:
            raise ShapeError(
                f"images have shape {images.shape}, expected (n, {', '.join(map(str, self.spec.input.shape))}); "
                "prepare them for this network first"
            )
        return images * self._scale + self._shift

    def freeze(self, through: str) -> None:
        """Freeze every layer up to and including ``through``."""
        check_freezable(self.spec, through)
        self._network.freeze(through)
        self._optimizer = None  # made for other layers

    def replace_head(self, n_classes: int, seed: int) -> None:
        """Replace the last dense layer by a new one with random weights."""
        self.spec, self._optimizer = with_classes(self.spec, n_classes), None
        last = self.spec.layers[-1].name
        self._network.replace_head(n_classes, np.random.default_rng([seed, 0]))
        drawn = initial_weights(self.spec, seed)  # drawn as for a new network, in every engine
        self.load_weights(
            {**self.weights(), **{name: drawn[name] for name in (f"{last}.weight", f"{last}.bias")}}
        )

    def weights(self) -> Weights:
        """A copy of all weights in the canonical layout."""
        return {name: _canonical(value) for name, value in self._network.parameters().items()}

    def load_weights(self, weights: Weights) -> None:
        """Set weights in the canonical layout; names and shapes must match exactly."""
        unknown = [f"{name} {value.shape}" for name, value in weights.items() if value.ndim not in _AXES]
        if unknown:
            raise ShapeError(
                f"weights are {', '.join(unknown)}, expected dense, convolution or bias in the canonical layout; "
                f"take them from network {self.spec.name!r}"
            )
        self._network.load_parameters({name: _scratch_layout(value) for name, value in weights.items()})


def _check(settings: TrainSettings) -> None:
    """Refuse settings that only the torch engine supports."""
    plain = TrainSettings()
    for name in ("mixup", "ema", "clip", "accumulate", "layer_decay", "gradual", "batch_norm"):
        if getattr(settings, name) != getattr(plain, name):
            raise SettingError(
                f"{name} is {getattr(settings, name)!r}, which the engine scratch does not support, expected "
                f"{getattr(plain, name)!r}; leave it out, or train with the engine torch"
            )


def _packed(rng: np.random.Generator) -> NDArray[np.uint64]:
    """A generator's state as 64-bit numbers."""
    found = rng.bit_generator.state
    wide = (found["state"]["state"], found["state"]["inc"])
    halves = [part for one in wide for part in (one >> 64, one & (2**64 - 1))]
    return np.array([*halves, found["has_uint32"], found["uinteger"]], np.uint64)


def _unpack(rng: np.random.Generator, packed: NDArray[np.uint64]) -> None:
    """Inverse of `_packed`."""
    high, low, inc_high, inc_low, has, rest = (int(one) for one in packed)
    rng.bit_generator.state = {
        **rng.bit_generator.state,
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has,
        "uinteger": rest,
    }


def make_optimizer(
    settings: TrainSettings, values: Array, grads: Array, decay: float | Array = 0.0
) -> Optimizer:
    """The optimizer of the settings on flat float32 vectors (n_weights,); ``decay`` is of all weights or of each."""
    if settings.optimizer in ("adam", "adamw"):
        decoupled = settings.optimizer == "adamw"
        return Adam(values, grads, weight_decay=decay, decoupled=decoupled)
    if settings.optimizer == "sgd":
        return SGD(values, grads, momentum=settings.momentum, weight_decay=decay)
    raise SettingError(
        f"optimizer is {settings.optimizer!r}, expected one of adam, adamw, sgd; "
        f"{nearest(settings.optimizer, ('adam', 'adamw', 'sgd'))}"
    )


def initial_weights(spec: NetworkSpec, seed: int) -> Weights:
    """The weights that a seed draws for a spec, in the canonical layout, the same for every engine.

    He, Zhang, Ren, Sun. Delving Deep into Rectifiers. ICCV 2015, arXiv:1502.01852.
    """
    norms = [layer for layer in spec.layers if layer.kind == "batchnorm2d"]
    plain = replace(spec, layers=tuple(layer for layer in spec.layers if layer not in norms))
    drawn, shapes = ScratchNetwork(plain, seed).weights(), layer_shapes(spec)
    for layer in norms:
        n_channels = shapes[layer.name][0]
        drawn |= {f"{layer.name}.{one}": np.ones(n_channels, np.float32) for one in ("weight", "variance")}
        drawn |= {f"{layer.name}.{one}": np.zeros(n_channels, np.float32) for one in ("bias", "mean")}
    return drawn


def _layer(layer: LayerSpec, rng: np.random.Generator) -> Layer:
    options: Mapping[str, object] = layer.options
    match layer.kind:
        case "conv2d":
            return Conv2D(layer.name, layer.options["channels"], layer.options["kernel"], **_padding(options))
        case "maxpool2d":
            return MaxPool2D(layer.name, layer.options["size"])
        case "relu":
            return ReLU(layer.name)
        case "flatten":
            return Flatten(layer.name)
        case "dense":
            return Dense(layer.name, layer.options["units"])
        case "dropout":
            return Dropout(layer.name, layer.options["rate"], rng)
        case kind:
            raise SettingError(
                f"layer {layer.name!r} is of kind {kind!r}, expected conv2d, maxpool2d, relu, flatten, "
                "dense or dropout; batchnorm2d requires the engine torch"
            )


def _padding(options: Mapping[str, object]) -> dict[str, str]:
    return {"padding": str(options["padding"])} if "padding" in options else {}


def _canonical(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """(in, out) to (out, in); (kh, kw, in, out) to (out, in, kh, kw); a bias unchanged."""
    return np.ascontiguousarray(value.transpose(_AXES[value.ndim][0]))


def _scratch_layout(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse of `_canonical`."""
    return np.ascontiguousarray(value.transpose(_AXES[value.ndim][1]))
