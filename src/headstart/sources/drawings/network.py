"""Layers and weights of the source ``drawings``, trained by `tools/train_drawings.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart.records import InputSpec, LayerSpec, NetworkSpec, Weights

__all__ = ["drawings_network"]

_FILE = Path(__file__).with_name("drawings.safetensors")
_INPUT = InputSpec(28, 28, 1, policy="ink")


def drawings_network() -> tuple[NetworkSpec, Weights]:
    """Three convolutions on 28 x 28 px prepared by the policy ``ink``, without a top; weights stored as float16."""
    from safetensors.numpy import load_file

    weights = {name: value.astype(np.float32) for name, value in load_file(_FILE).items()}
    layers: list[LayerSpec] = []
    for number in (1, 2, 3):
        channels = len(weights[f"conv{number}.bias"])
        layers.append(LayerSpec("conv2d", f"conv{number}", {"channels": channels, "kernel": 3}))
        if number < 3:
            layers.append(LayerSpec("maxpool2d", f"pool{number}", {"size": 2}))
        layers.append(LayerSpec("relu", f"block{number}"))
    return NetworkSpec("drawings", _INPUT, (*layers, LayerSpec("flatten", "flatten"))), weights
