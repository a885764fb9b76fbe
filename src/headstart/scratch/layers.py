"""The layers of the from-scratch network, each with its forward and its backward pass.

Activations are float, channels last: (n_images, height, width, channels) or (n_images, n_features). What a
layer returns is a buffer that its next call overwrites; `Network` checks shapes and returns copies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headstart.errors import SettingError, ShapeError

__all__ = ["Array", "Dense", "Dropout", "Flatten", "Layer", "Parameter", "ReLU", "Shape", "TrainableLayer"]

Array = NDArray[np.floating[Any]]
Shape = tuple[int, ...]


@dataclass(eq=False)
class Parameter:
    """Learned values and the gradient of the loss for them, of the same shape.

    `Network` points both at slices of its two flat vectors, so an optimizer sees one array.
    """

    value: Array
    grad: Array


class _Buffers:
    """Arrays kept from batch to batch: new ones of this size cost more in page faults than in sums."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[Any]] = {}

    def take(self, role: str, shape: Shape, dtype: DTypeLike) -> NDArray[Any]:
        """Array of this role; zeros at first, later with its last contents."""
        size = prod(shape)
        held = self._held.get(role)
        if held is None or held.size < size:
            held = self._held[role] = np.zeros(size, dtype)
        return held[:size].reshape(shape)


class Layer(ABC):
    """One step of a network: a function of a batch, and how gradients flow back through it.

    Parameters
    ----------
    name : str
        Name of the layer, unique within its network.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.parameters: dict[str, Parameter] = {}
        self._buffers = _Buffers()

    def build(self, shape: Shape, rng: np.random.Generator, dtype: DTypeLike) -> Shape:
        """Draw the weights for one image's input of this shape; the shape of its output.

        ShapeError if the layer cannot take inputs of this shape.
        """
        return shape

    @abstractmethod
    def forward(self, x: Array, training: bool) -> Array:
        """Outputs (n_images, *output_shape) of a batch (n_images, *input_shape), C-contiguous.

        With ``training``, dropout drops and the layer keeps what `backward` uses. The next call overwrites the
        result.
        """

    @abstractmethod
    def backward(self, grad: Array) -> Array:
        """Gradient for the inputs of the last training batch, from the gradient for its outputs.

        Both are of the loss and shaped like a batch; the next call overwrites the result.
        """


class TrainableLayer(Layer):
    """A layer with a weight and a bias; ``name`` as in `Layer`."""

    @property
    def weight(self) -> Parameter:
        """The weight; its last axis counts the outputs."""
        return self.parameters["weight"]

    @property
    def bias(self) -> Parameter:
        """The bias, one value for each output."""
        return self.parameters["bias"]

    @abstractmethod
    def learn(self, grad: Array) -> None:
        """Compute the gradients of weight and bias from ``grad``, shaped like the outputs."""

    def _draw(self, shape: Shape, rng: np.random.Generator, dtype: DTypeLike) -> None:
        """Weights N(0, 2 / inputs of one unit), He et al. 2015, arXiv:1502.01852, eq. 10; biases zero."""
        # drawn in float64 and rounded, so that a seed means the same network in either precision
        weight = (rng.standard_normal(shape) * sqrt(2 / prod(shape[:-1]))).astype(dtype)
        bias = np.zeros(shape[-1], dtype)
        self.parameters = {
            "weight": Parameter(weight, np.zeros_like(weight)),
            "bias": Parameter(bias, np.zeros_like(bias)),
        }


class Dense(TrainableLayer):
    """Every output is a weighted sum of all inputs: ``y = x W + b``.

    Parameters
    ----------
    name : str
        Name of the layer.
    units : int
        Number of outputs.

    Raises
    ------
    SettingError
        If ``units`` is not a positive whole number.

    Notes
    -----
    The weight has shape (n_inputs, units), the transpose of PyTorch's.

    Examples
    --------
    >>> layer = Dense("head", 10)
    >>> layer.build((64,), np.random.default_rng(0), np.float32)
    (10,)
    >>> layer.forward(np.ones((2, 64), np.float32), training=False).shape
    (2, 10)
    """

    def __init__(self, name: str, units: int) -> None:
        super().__init__(name)
        self.units = _positive(name, "units", units)

    def build(self, shape: Shape, rng: np.random.Generator, dtype: DTypeLike) -> Shape:
        """Draw a weight (n_inputs, units) and a bias (units,)."""
        if len(shape) != 1:
            raise ShapeError(
                f"input of dense {self.name!r} has shape {shape}, "
                "expected (n_features,); put a Flatten before it"
            )
        self._draw((shape[0], self.units), rng, dtype)
        return (self.units,)

    def forward(self, x: Array, training: bool) -> Array:
        """Compute ``y = x W + b``."""
        if training:
            self._x = x
        out = self._buffers.take("out", (len(x), self.units), x.dtype)
        np.matmul(x, self.weight.value, out=out)  # (n, in) (in, out) -> (n, out)
        out += self.bias.value
        return out

    def backward(self, grad: Array) -> Array:
        """Compute ``dL/dx = dL/dy W^T``."""
        self.learn(grad)
        grad_x = self._buffers.take("grad_x", self._x.shape, grad.dtype)
        return np.matmul(grad, self.weight.value.T, out=grad_x)  # (n, out) (out, in) -> (n, in)

    def learn(self, grad: Array) -> None:
        """Compute ``dL/dW = x^T dL/dy`` and ``dL/db``, the sum of dL/dy over images."""
        np.matmul(self._x.T, grad, out=self.weight.grad)  # (in, n) (n, out) -> (in, out)
        np.sum(grad, axis=0, out=self.bias.grad)


class ReLU(Layer):
    """Negative values become zero: ``y = max(x, 0)``; the slope at zero is zero, as in PyTorch.

    Parameters
    ----------
    name : str
        Name of the layer.

    Examples
    --------
    >>> ReLU("relu1").forward(np.array([[-1.0, 2.0]]), training=False)
    array([[0., 2.]])
    """

    def forward(self, x: Array, training: bool) -> Array:
        """Compute ``y = max(x, 0)``."""
        self._out: Array = self._buffers.take("out", x.shape, x.dtype)
        return np.maximum(x, 0, out=self._out)

    def backward(self, grad: Array) -> Array:
        """Compute ``dL/dx = dL/dy`` where y > 0, else 0."""
        grad_x = self._buffers.take("grad_x", grad.shape, grad.dtype)
        active = self._buffers.take("active", grad.shape, np.bool_)
        np.greater(self._out, 0, out=active)
        np.multiply(grad, active, out=grad_x)
        return grad_x


class Flatten(Layer):
    """Maps become rows of numbers, in (height, width, channel) order.

    Parameters
    ----------
    name : str
        Name of the layer.

    Examples
    --------
    >>> Flatten("flatten").forward(np.zeros((2, 3, 3, 8)), training=False).shape
    (2, 72)
    """

    def build(self, shape: Shape, rng: np.random.Generator, dtype: DTypeLike) -> Shape:
        """Count the values of one map."""
        return (prod(shape),)

    def forward(self, x: Array, training: bool) -> Array:
        """Reshape; nothing is copied."""
        self._shape = x.shape
        return x.reshape(len(x), -1)  # (n, height width channels)

    def backward(self, grad: Array) -> Array:
        """Reshape back; nothing is copied."""
        return grad.reshape(self._shape)  # (n, height, width, channels)


class Dropout(Layer):
    """In training, each value is zero with probability ``rate`` and scaled by 1 / (1 - rate) otherwise.

    Parameters
    ----------
    name : str
        Name of the layer.
    rate : float
        Share of values dropped, in [0, 1).
    rng : numpy.random.Generator
        Source of the masks only, so its state is all that a resumed run requires.

    Raises
    ------
    SettingError
        If ``rate`` is not in [0, 1).

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov. Dropout: A Simple Way
    to Prevent Neural Networks from Overfitting. JMLR 15, 2014.

    Examples
    --------
    >>> layer = Dropout("drop", 0.5, np.random.default_rng(0))
    >>> layer.forward(np.ones((1, 4)), training=True)
    array([[2., 0., 0., 0.]])
    >>> layer.forward(np.ones((1, 4)), training=False)
    array([[1., 1., 1., 1.]])
    """

    def __init__(self, name: str, rate: float, rng: np.random.Generator) -> None:
        super().__init__(name)
        if not 0 <= rate < 1:
            raise SettingError(f"rate of {name!r} is {rate!r}, expected a number in [0, 1); 0 drops nothing")
        self.rate = float(rate)
        self.rng = rng

    def forward(self, x: Array, training: bool) -> Array:
        """Compute ``y = x scale``, scale 0 or 1 / (1 - rate) at random; in prediction ``y = x``."""
        if not training:
            return x
        self._scale: Array = self._buffers.take("scale", x.shape, x.dtype)
        self.rng.random(dtype=x.dtype.type, out=self._scale)
        kept = self._buffers.take("kept", x.shape, np.bool_)
        np.greater_equal(self._scale, self.rate, out=kept)
        np.multiply(kept, 1 / (1 - self.rate), out=self._scale)  # 0 or 1 / (1 - rate)
        out = self._buffers.take("out", x.shape, x.dtype)
        np.multiply(x, self._scale, out=out)
        return out

    def backward(self, grad: Array) -> Array:
        """Compute ``dL/dx = dL/dy scale``."""
        grad_x = self._buffers.take("grad_x", grad.shape, grad.dtype)
        np.multiply(grad, self._scale, out=grad_x)
        return grad_x


def _positive(owner: str, option: str, value: int) -> int:
    """The value as int; SettingError if it is not a positive whole number."""
    if not isinstance(value, int | np.integer) or value < 1:
        raise SettingError(
            f"{option} of {owner!r} is {value!r}, expected a whole number of at least 1; change it"
        )
    return int(value)
