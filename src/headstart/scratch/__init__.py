"""A neural network from scratch in NumPy: layers, loss, optimizers, and the network that joins them.

It imports nothing else of this package but errors, so it can be read and taught on its own. Start with
``layers.py``.
"""

from __future__ import annotations

from headstart.scratch.convolution import Conv2D, MaxPool2D
from headstart.scratch.layers import Dense, Dropout, Flatten, Layer, ReLU, TrainableLayer
from headstart.scratch.losses import cross_entropy, softmax
from headstart.scratch.network import Network
from headstart.scratch.optimizers import SGD, Adam, Optimizer

__all__ = [
    "SGD",
    "Adam",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "MaxPool2D",
    "Network",
    "Optimizer",
    "ReLU",
    "TrainableLayer",
    "cross_entropy",
    "softmax",
]
