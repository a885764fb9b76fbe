"""A network of layers in NumPy: forward, backward, one step of learning, and weights by name.

All weights are in one flat vector and all gradients in another, in the order of the layers, so what is
frozen is a prefix and what learns is a suffix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from headstart.errors import SettingError, ShapeError, unknown
from headstart.scratch.layers import Array, Dense, Layer, Parameter, Shape, TrainableLayer
from headstart.scratch.losses import cross_entropy
from headstart.scratch.optimizers import Optimizer

__all__ = ["Network"]


class Network:
    """Layers one after another, from images to logits, and the weights they learn.

    Parameters
    ----------
    layers : sequence of Layer
        Fresh layers in order of execution, with distinct names. The output of
        the last has shape (n_classes,).
    input_shape : tuple of int
        Shape of one image: (height, width, channels) or (n_features,).
    rng : numpy.random.Generator
        Source of the initial weights.
    dtype : {numpy.float32, numpy.float64}, default=numpy.float32
        Type of everything; float64 is for checking gradients.

    Raises
    ------
    SettingError
        If there are no layers, a name occurs twice, a layer belongs to another
        network already, or ``dtype`` is another type.
    ShapeError
        If a layer cannot take the output of the one before it, or the last output is
        not a row.

    Notes
    -----
    Memory for activations is kept from batch to batch and grows to the largest
    batch seen. The same ``rng`` state gives the same weights. Not for two
    threads at once.

    Examples
    --------
    >>> from headstart.scratch import Adam, Dense, ReLU
    >>> rng = np.random.default_rng(0)
    >>> layers = [Dense("fc1", 32), ReLU("relu1"), Dense("head", 2)]
    >>> network = Network(layers, (4,), rng)
    >>> adam = Adam(network.trainable_values, network.trainable_grads)
    >>> x = rng.standard_normal((64, 4))
    >>> labels = (x[:, 0] > 0).astype(int)
    >>> for _ in range(100):
    ...     losses, hits = network.train_step(x, labels, adam, 0.01)
    >>> bool(hits.all())
    True
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Shape,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise SettingError(f"dtype is {self.dtype}, expected float32 or float64; float32 is for training")
        self.layers = tuple(layers)
        _check_layers(self.layers)
        self.input_shape = tuple(input_shape)
        shape = self.input_shape
        for layer in self.layers:
            shape = layer.build(shape, rng, self.dtype)
        if len(shape) != 1:
            raise ShapeError(
                f"output of the network has shape {shape}, expected (n_classes,); end it with a Dense"
            )
        self.n_classes = shape[0]
        self._n_frozen = 0
        self._batch_shape: Shape | None = None
        self._pack()

    def __repr__(self) -> str:
        """Show the layers in order and the number of weights."""
        return f"Network({' > '.join(self.layer_names)}, {self.n_parameters} parameters)"

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers in order of execution."""
        return tuple(layer.name for layer in self.layers)

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Names of the layers that do not learn: a prefix of `layer_names`."""
        return self.layer_names[: self._n_frozen]

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases, frozen ones included."""
        return self._values.size

    @property
    def trainable_values(self) -> Array:
        """Weights of the layers that are not frozen, one flat vector; for an optimizer to change."""
        return self._trainable.value

    @property
    def trainable_grads(self) -> Array:
        """Gradients for `trainable_values`, filled by `backward`."""
        return self._trainable.grad

    @property
    def trainable_matrices(self) -> NDArray[np.bool_]:
        """Which of `trainable_values` are weights, True, and which biases, which no penalty should shrink."""
        ranks = [np.full(one.value.size, one.value.ndim > 1) for _, one in self._named()]
        whole: NDArray[np.bool_] = np.concatenate(ranks)
        return whole[len(whole) - self.trainable_values.size :]

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Run one batch (n_images, *input_shape) through all layers; logits (n_images, n_classes), a copy.

        With ``training``, dropout drops and layers keep what `backward` needs, so ``x`` must not change until
        `backward` has run. Frozen layers run as in prediction.
        """
        return self._forward(self._checked(x), training).copy()

    def backward(self, grad: ArrayLike) -> None:
        """Fill the gradients of all layers that learn, from ``grad`` (n_images, n_classes) for the logits.

        It belongs to the last forward pass, which must have been one with ``training`` (else SettingError).
        """
        grad = np.ascontiguousarray(grad, self.dtype)
        if self._batch_shape is None:
            raise SettingError(
                "grad has no training pass to follow, expected one just before; call "
                "forward(x, training=True)"
            )
        if grad.shape != self._batch_shape:
            raise ShapeError(
                f"grad has shape {grad.shape}, expected {self._batch_shape}; pass one row for each image"
            )
        first = next(i for i, layer in enumerate(self.layers) if i >= self._n_frozen and layer.parameters)
        for layer in reversed(self.layers[first + 1 :]):
            grad = layer.backward(grad)
        lowest = self.layers[first]
        assert isinstance(lowest, TrainableLayer)
        lowest.learn(grad)  # nothing below it learns, so no gradient for its inputs

    def train_step(
        self,
        x: ArrayLike,
        labels: NDArray[np.integer[Any]],
        optimizer: Optimizer,
        learning_rate: float,
        *,
        label_smoothing: float = 0.0,
        weights: Array | None = None,
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Learn from one batch.

        Parameters
        ----------
        x : array of shape (n_images, *input_shape), float
            Images.
        labels : ndarray of shape (n_images,), int
            Class codes in ``[0, n_classes)``.
        optimizer : Optimizer
            Made from this network's `trainable_values` and `trainable_grads`.
        learning_rate : float
            Size of the step, at least 0.
        label_smoothing : float, default=0.0
            Share of the target spread over all classes.
        weights : ndarray of shape (n_images,), float, optional
            Weight of each image in the gradient.

        Returns
        -------
        losses : ndarray of shape (n_images,), float
            Loss of each image before the step, in nats, neither weighted nor smoothed, so that it
            compares with validation losses.
        hits : ndarray of shape (n_images,), bool
            Whether the true class had the highest logit before the step.

        Raises
        ------
        SettingError
            If an option is out of range, or the optimizer was made before
            `freeze`, `unfreeze` or `replace_head` changed what learns.
        ShapeError
            If images, labels and weights do not match each other or the network.
        UnknownClassError
            If a label is outside ``[0, n_classes)``.
        """
        if optimizer.values is not self.trainable_values or optimizer.grads is not self.trainable_grads:
            raise SettingError(
                "optimizer is made for other weights than those that learn here, expected this network's "
                "trainable_values and trainable_grads; make it after freeze, unfreeze and replace_head"
            )
        if not 0 <= learning_rate < np.inf:
            raise SettingError(
                f"learning_rate is {learning_rate!r}, expected a finite number of at least 0; 1e-3 is usual"
            )
        logits = self._forward(self._checked(x), training=True)
        labels = np.asarray(labels)
        losses, grad = cross_entropy(logits, labels, label_smoothing=label_smoothing, weights=weights)
        if label_smoothing > 0:
            losses, _ = cross_entropy(logits, labels)
        hits: NDArray[np.bool_] = logits.argmax(axis=1) == labels
        self.backward(grad)
        optimizer.step(learning_rate)
        return losses, hits

    def logits(self, x: ArrayLike, batch_size: int = 128) -> Array:
        """Logits of any number of images, batch by batch, without dropout."""
        if batch_size < 1:
            raise SettingError(f"batch_size is {batch_size!r}, expected at least 1; 128 is usual")
        x = np.asarray(x)
        self._check_images(x)
        out = np.empty((len(x), self.n_classes), self.dtype)
        for start in range(0, len(x), batch_size):
            batch = np.ascontiguousarray(x[start : start + batch_size], self.dtype)
            out[start : start + batch_size] = self._forward(batch, training=False)
        return out

    def freeze(self, through: str) -> None:
        """Freeze all layers up to and including one; the layers after it learn.

        Parameters
        ----------
        through : str
            Name of the last frozen layer.

        Raises
        ------
        SettingError
            If no layer has this name, or none after it has weights to learn.

        Notes
        -----
        Frozen layers run as in prediction, and their weights do not change by a bit. Make the
        optimizer afterwards.
        """
        if through not in self.layer_names:
            raise SettingError(unknown("layer", through, self.layer_names))
        n_frozen = self.layer_names.index(through) + 1
        if not any(layer.parameters for layer in self.layers[n_frozen:]):
            raise SettingError(
                f"layer {through!r} is the last with weights, expected one before it; freeze fewer layers"
            )
        self._n_frozen = n_frozen
        self._select()

    def unfreeze(self) -> None:
        """Let every layer learn again; make the optimizer afterwards."""
        self._n_frozen = 0
        self._select()

    def replace_head(self, n_classes: int, rng: np.random.Generator) -> None:
        """Replace the last Dense layer by a new one of the same name with ``n_classes`` outputs.

        All other weights, and what is frozen, stay. Make the optimizer afterwards.
        """
        old = self.layers[-1]
        if not isinstance(old, Dense):
            raise SettingError(
                f"last layer {old.name!r} is a {type(old).__name__}, expected a Dense; "
                "end the network with one"
            )
        head = Dense(old.name, n_classes)
        head.build(old.weight.value.shape[:1], rng, self.dtype)
        self.layers = (*self.layers[:-1], head)
        self.n_classes = head.units
        self._batch_shape = None
        self._pack()

    def parameters(self) -> dict[str, Array]:
        """Copy all weights, ``"layer.weight"`` and ``"layer.bias"``, in order of execution.

        A dense weight has shape (in, out), a convolution's (height, width, in, out).
        """
        return {name: parameter.value.copy() for name, parameter in self._named()}

    def gradients(self) -> dict[str, Array]:
        """Copy the gradients of the last `backward`, named like `parameters`, without frozen layers."""
        frozen = self.frozen_names
        return {
            name: parameter.grad.copy()
            for name, parameter in self._named()
            if name.rpartition(".")[0] not in frozen
        }

    def load_parameters(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Set all weights, as `parameters` returns them; ShapeError if a name or shape differs.

        The values are copied in place, so an optimizer made before stays valid.
        """
        own = dict(self._named())
        arrays = {name: np.asarray(value) for name, value in parameters.items()}
        faults = [f"{name} is missing" for name in own if name not in arrays]
        faults += [f"{name} is unknown" for name in arrays if name not in own]
        faults += [
            f"{name} has shape {arrays[name].shape}, not {parameter.value.shape}"
            for name, parameter in own.items()
            if name in arrays and arrays[name].shape != parameter.value.shape
        ]
        if faults:
            raise ShapeError(
                f"parameters is for another network: {', '.join(faults)}, expected the names and shapes of "
                "network.parameters(); build the network that they came from"
            )
        for name, parameter in own.items():
            parameter.value[...] = arrays[name]

    def _forward(self, x: Array, training: bool) -> Array:
        """Logits of a checked batch, in a buffer."""
        out = x
        for i, layer in enumerate(self.layers):
            out = layer.forward(out, training and i >= self._n_frozen)
        self._batch_shape = out.shape if training else None
        return out

    def _checked(self, x: ArrayLike) -> Array:
        x = np.ascontiguousarray(x, self.dtype)
        self._check_images(x)
        if len(x) == 0:
            raise ShapeError(f"x has shape {x.shape}, expected at least one image; skip empty batches")
        return x

    def _check_images(self, x: NDArray[Any]) -> None:
        if x.ndim == 0 or x.shape[1:] != self.input_shape:
            sizes = ", ".join(str(size) for size in ("n_images", *self.input_shape))
            raise ShapeError(f"x has shape {x.shape}, expected ({sizes}); reshape or resize the images")

    def _named(self) -> Iterator[tuple[str, Parameter]]:
        for layer in self.layers:
            for role, parameter in layer.parameters.items():
                yield f"{layer.name}.{role}", parameter

    def _pack(self) -> None:
        """Move all weights and gradients into one flat vector each."""
        owned = [parameter for _, parameter in self._named()]
        n_parameters = sum(parameter.value.size for parameter in owned)
        self._values = np.zeros(n_parameters, self.dtype)
        self._grads = np.zeros(n_parameters, self.dtype)
        start = 0
        for parameter in owned:
            stop, shape = start + parameter.value.size, parameter.value.shape
            value, grad = self._values[start:stop].reshape(shape), self._grads[start:stop].reshape(shape)
            value[...] = parameter.value
            parameter.value, parameter.grad = value, grad
            start = stop
        self._select()

    def _select(self) -> None:
        """Set which suffix of the flat vectors learns; new slices, so that stale optimizers are detected."""
        frozen = self.layers[: self._n_frozen]
        start = sum(p.value.size for layer in frozen for p in layer.parameters.values())
        self._trainable = Parameter(self._values[start:], self._grads[start:])
        self._batch_shape = None


def _check_layers(layers: tuple[Layer, ...]) -> None:
    twice = [name for name, count in Counter(layer.name for layer in layers).items() if count > 1]
    if twice:
        raise SettingError(
            f"layer name {twice[0]!r} is used more than once, expected distinct names; rename one of them"
        )
    used = [layer.name for layer in layers if layer.parameters]
    if used:
        raise SettingError(
            f"layer {used[0]!r} belongs to a network already, expected a fresh one; make a new layer"
        )
    if not any(isinstance(layer, TrainableLayer) for layer in layers):
        raise SettingError("layers have no weights, expected at least one Dense or Conv2D; add one")
