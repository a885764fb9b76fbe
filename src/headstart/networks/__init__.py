"""Trainable networks: their layers as data, the engines that build them, and the training loop."""

from __future__ import annotations

from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture
from headstart.networks.training import fit

__all__ = ["architecture", "fit", "make_network"]
