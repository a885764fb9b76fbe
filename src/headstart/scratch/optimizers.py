"""Optimizers: they change one flat vector of weights in place, given one of gradients.

A step allocates no arrays, so it costs about a dozen passes over the weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import sqrt

import numpy as np

from headstart.errors import SettingError, ShapeError
from headstart.scratch.layers import Array

__all__ = ["SGD", "Adam", "Optimizer"]


class Optimizer(ABC):
    """Moves weights against their gradients.

    Parameters
    ----------
    values : ndarray of shape (n_parameters,), float
        The weights, changed in place by `step`: ``network.trainable_values``.
    grads : ndarray of shape (n_parameters,), float
        Their gradients, read by `step`: ``network.trainable_grads``.
    weight_decay : float or ndarray of shape (n_parameters,), default=0.0
        Factor of the L2 penalty, of all weights or of each.

    Raises
    ------
    SettingError
        If ``weight_decay`` is negative.
    ShapeError
        If the two vectors differ in shape or type.
    """

    def __init__(self, values: Array, grads: Array, *, weight_decay: float | Array = 0.0) -> None:
        if values.ndim != 1 or (values.shape, values.dtype) != (grads.shape, grads.dtype):
            raise ShapeError(
                f"grads is {grads.dtype} of shape {grads.shape}, expected {values.dtype} of shape "
                f"({values.size},) to match values; pass network.trainable_values and network.trainable_grads"
            )
        if not np.all(np.asarray(weight_decay) >= 0):
            raise SettingError(
                f"weight_decay is {weight_decay!r}, expected a number of at least 0; 0 switches it off"
            )
        self.values = values
        self.grads = grads
        self.weight_decay = weight_decay
        self._spare = np.empty_like(values)
        self._decayed = np.empty_like(values) if np.any(weight_decay) else grads
        self.n_steps = 0

    @property
    def memory(self) -> dict[str, Array]:
        """Running means by name, shaped like the weights; with ``n_steps`` the state to resume a run."""
        return {}

    @abstractmethod
    def step(self, learning_rate: float) -> None:
        """Update the weights once, with a step of this size."""

    def _gradient(self) -> Array:
        """Gradient of loss + weight_decay / 2 * |values|^2."""
        if self._decayed is not self.grads:
            np.multiply(self.values, self.weight_decay, out=self._decayed)
            self._decayed += self.grads
        return self._decayed


class SGD(Optimizer):
    """Gradient descent with momentum: ``v <- momentum v + g``, ``w <- w - learning_rate v``.

    Parameters
    ----------
    values, grads : ndarray of shape (n_parameters,), float
        The weights, changed in place, and their gradients.
    momentum : float, default=0.9
        Share of the last step that is kept, in [0, 1).
    weight_decay : float or ndarray of shape (n_parameters,), default=0.0
        Factor of the L2 penalty, added to the gradient.

    Raises
    ------
    SettingError
        If ``momentum`` or ``weight_decay`` is out of range.
    ShapeError
        If the two vectors differ in shape or type.

    Notes
    -----
    As in PyTorch's SGD, the learning rate scales the step, not the momentum.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton. On the importance of initialization and momentum in
    deep learning. ICML 2013.

    Examples
    --------
    >>> values, grads = np.array([1.0]), np.array([0.5])
    >>> SGD(values, grads).step(0.1)
    >>> values
    array([0.95])
    """

    def __init__(
        self, values: Array, grads: Array, *, momentum: float = 0.9, weight_decay: float | Array = 0.0
    ) -> None:
        super().__init__(values, grads, weight_decay=weight_decay)
        self.momentum = _share("momentum", momentum)
        self._velocity = np.zeros_like(values)

    @property
    def memory(self) -> dict[str, Array]:
        """The velocity."""
        return {"velocity": self._velocity}

    def step(self, learning_rate: float) -> None:
        """Update the weights once."""
        self.n_steps += 1
        v = self._velocity
        v *= self.momentum
        v += self._gradient()
        np.multiply(v, learning_rate, out=self._spare)
        self.values -= self._spare


class Adam(Optimizer):
    """Steps of about the learning rate in every weight, whatever the size of its gradient.

    Parameters
    ----------
    values, grads : ndarray of shape (n_parameters,), float
        The weights, changed in place, and their gradients.
    beta1, beta2 : float, default=0.9, 0.999
        Share of the running means of gradient and squared gradient kept, in [0, 1).
    eps : float, default=1e-8
        Added to the root of the bias-corrected mean square, as in PyTorch.
    weight_decay : float or ndarray of shape (n_parameters,), default=0.0
        Factor of the penalty.
    decoupled : bool, default=False
        Shrink the weights themselves (AdamW) instead of adding to the gradient (L2).

    Raises
    ------
    SettingError
        If an option is out of range.
    ShapeError
        If the two vectors differ in shape or type.

    References
    ----------
    Kingma, Ba. Adam: A Method for Stochastic Optimization. ICLR 2015, arXiv:1412.6980,
    algorithm 1. Loshchilov, Hutter. Decoupled Weight Decay Regularization. ICLR 2019,
    arXiv:1711.05101, for ``decoupled``.

    Examples
    --------
    >>> values, grads = np.array([1.0, 1.0]), np.array([0.5, -50.0])
    >>> Adam(values, grads).step(0.1)
    >>> values.round(6)
    array([0.9, 1.1])
    """

    def __init__(
        self,
        values: Array,
        grads: Array,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float | Array = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__(values, grads, weight_decay=weight_decay)
        if not eps > 0:
            raise SettingError(f"eps is {eps!r}, expected a number above 0; 1e-8 is usual")
        self.beta1 = _share("beta1", beta1)
        self.beta2 = _share("beta2", beta2)
        self.eps = eps
        self.decoupled = decoupled
        self._mean = np.zeros_like(values)
        self._square = np.zeros_like(values)

    @property
    def memory(self) -> dict[str, Array]:
        """Running means of the gradient and of its square."""
        return {"mean": self._mean, "square": self._square}

    def step(self, learning_rate: float) -> None:
        """Update the weights once."""
        self.n_steps += 1
        m, v, spare = self._mean, self._square, self._spare
        g = self.grads if self.decoupled else self._gradient()
        np.multiply(g, 1 - self.beta1, out=spare)
        m *= self.beta1
        m += spare  # m <- beta1 m + (1 - beta1) g
        np.multiply(g, g, out=spare)
        spare *= 1 - self.beta2
        v *= self.beta2
        v += spare  # v <- beta2 v + (1 - beta2) g^2
        np.sqrt(v, out=spare)
        spare *= 1 / sqrt(1 - self.beta2**self.n_steps)
        spare += self.eps
        np.divide(m, spare, out=spare)
        spare *= learning_rate / (1 - self.beta1**self.n_steps)
        if self.decoupled:
            self.values *= 1 - learning_rate * self.weight_decay
        self.values -= spare  # w <- w - learning_rate m^ / (sqrt(v^) + eps)


def _share(option: str, value: float) -> float:
    """The value; SettingError if it is not in [0, 1)."""
    if not 0 <= value < 1:
        raise SettingError(f"{option} is {value!r}, expected a number in [0, 1); change it")
    return value
