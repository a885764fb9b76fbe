"""The settings of a training that are searched, and the wider network with dropout that they make."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headstart.errors import SettingError
from headstart.records import LayerSpec, NetworkSpec, TrainSettings

__all__ = ["Regime", "default_regime", "widened", "with_dropout"]


@dataclass(frozen=True)
class Regime:
    """The settings of a training that are searched; ``width`` multiplies units and channels."""

    learning_rate: float = 1e-3
    batch_size: int = 128
    epochs: int = 5
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    width: float = 1.0
    dropout: float = 0.0

    def settings(self, seed: int) -> TrainSettings:
        """Those that belong to training."""
        return TrainSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            label_smoothing=self.label_smoothing,
            weight_decay=self.weight_decay,
            seed=seed,
        )

    def network(self, spec: NetworkSpec) -> NetworkSpec:
        """The network with those that belong to it."""
        return with_dropout(widened(spec, self.width), self.dropout)


def default_regime(spec: NetworkSpec) -> Regime:
    """What ``train`` does by default: the network as it is, five epochs of Adam."""
    own = [layer.options["rate"] for layer in spec.layers if layer.kind == "dropout"]
    return Regime(dropout=float(own[0]) if own else 0.0)


def widened(spec: NetworkSpec, width: float) -> NetworkSpec:
    """The same network with ``width`` times the channels and units, at least 1, in every layer but the last."""
    if not width > 0:
        raise SettingError(f"width is {width!r}, expected a number above 0; 1 leaves the network as it is")
    layers = []
    for layer in spec.layers[:-1]:
        scaled = {
            name: max(1, round(layer.options[name] * width))
            for name in ("channels", "units")
            if name in layer.options
        }
        layers.append(replace(layer, options={**layer.options, **scaled}))
    return replace(spec, layers=(*layers, spec.layers[-1]))


def with_dropout(spec: NetworkSpec, rate: float) -> NetworkSpec:
    """The same network with dropout in [0, 1): where it has some, else before its last dense layer."""
    if not 0 <= rate < 1:
        raise SettingError(f"dropout is {rate!r}, expected a share in [0, 1); 0 drops nothing")
    has = any(layer.kind == "dropout" for layer in spec.layers)
    layers = [
        replace(layer, options={**layer.options, "rate": rate}) if layer.kind == "dropout" else layer
        for layer in spec.layers
        if rate or layer.kind != "dropout"
    ]
    if rate and not has:
        layers.insert(len(layers) - 1, LayerSpec("dropout", "dropout", {"rate": rate}))
    return replace(spec, layers=tuple(layers))
