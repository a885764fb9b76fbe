"""The contract of a head, and the arithmetic that heads share; only numbers, no networks and no onnx."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.errors import NotFittedError, SettingError, ShapeError, UnknownClassError
from headstart.heads.held_out import HeldOut
from headstart.heads.row_blocks import BLOCK_VALUES, Given, GivenBlocks, RowBlocks, codes_of
from headstart.heads.training import Training, class_weights
from headstart.records import Array, Codes, Curve
from headstart.scratch.losses import softmax
from headstart.system.mapped import in_floats
from headstart.system.threads import threads_for

__all__ = [
    "AffineHead",
    "Builder",
    "Head",
    "Watch",
    "append_softmax",
    "calibrated_loss",
    "fit_temperature",
    "log_loss",
    "softmax",
    "squared_distances",
]

Labels = NDArray[np.str_]
Float = TypeVar("Float", bound=np.floating[Any])
_LABELS = 65_536  # labels that are compared at a time
Watch = tuple[Array, Labels]
"""Validation features and label names that a fit reports on and never learns from."""


class Builder(Protocol):
    """The part of ``graph.build.GraphBuilder`` that a head uses."""

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Store an array under a name."""
        ...

    def add(
        self, operator: str, *inputs: str, name: str | None = None, n_outputs: int = 1, **attributes: Any
    ) -> str:
        """Append an operation and return the name of its first output."""
        ...


class Head(ABC):
    """A classifier on features.

    Subclasses store settings in the constructor, learn in ``_fit``, and write the same function
    twice: ``_probabilities`` in NumPy and ``_append`` as graph operations.

    Attributes
    ----------
    classes_ : tuple of str
        Class names in the order of the probabilities; set by ``fit``.
    chosen_ : dict
        What cross-validation selected, such as ``{"strength": 1e-4}``.
    curve_ : Curve or None
        Loss and accuracy by step, for heads fitted in steps when ``watch`` was given.
    """

    name: ClassVar[str]

    classes_: tuple[str, ...]
    chosen_: dict[str, float]
    curve_: Curve | None

    def fit(
        self,
        features: Array,
        labels: Labels,
        *,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        watch: Watch | None = None,
        images: NDArray[np.integer[Any]] | None = None,
        clusters: NDArray[np.integer[Any]] | None = None,
        balance: bool = False,
        shares: Sequence[float] | None = None,
    ) -> Self:
        """Learn from features and label names.

        Parameters
        ----------
        features : ndarray of shape (n_rows, n_features), float32
            One row per image; with augmentation several, the image's own first.
        labels : ndarray of shape (n_rows,), str
            The class name of each row.
        classes : sequence of str, optional
            Order of the classes. Default: sorted names.
        seed : int, default=0
            Decides folds and, for the MLP, initial weights.
        watch : pair of ndarray, optional
            Validation features and names, reported in ``curve_`` and not learned from.
        images : ndarray of shape (n_rows,), int, optional
            Which image each row shows, where an image has several rows. Default: each row its own.
        clusters : ndarray of shape (n_rows,), int, optional
            Rows with the same number are held out together wherever something is selected: copies of one
            image, images of one group. Default: the rows of one image.
        balance : bool, default=False
            Give every class the same weight, however many images it has.
        shares : sequence of float, optional
            Total weight of each class, in the order of the classes; ``balance`` takes precedence.
            Default: in proportion to its rows.

        Returns
        -------
        Head
            Itself.

        Raises
        ------
        ShapeError
            If ``features`` is not 2-D or its rows do not match ``labels``.
        DataError
            If a feature is not finite.
        UnknownClassError
            If there are fewer than 2 classes, a label is not in ``classes``, or a class has no row.
        """
        features = in_floats(np.asarray(features))
        if features.ndim != 2 or len(features) != len(labels):
            raise ShapeError(
                f"features have shape {features.shape}, expected ({len(labels)}, n_features) "
                "to match labels; pass the labels stored with them"
            )
        order = tuple(classes) if classes is not None else _names(labels)
        codes = _codes(labels, order)
        self.classes_, self.chosen_, self.curve_ = order, {}, None
        weights = np.ones(len(codes), np.float32)
        if balance or shares is not None:
            weights = class_weights(codes, None if balance else shares)
        training = Training(
            features,
            codes,
            weights,
            np.arange(len(codes)) if images is None else np.asarray(images, np.intp),
            seed,
            None if clusters is None else np.asarray(clusters, np.intp),
        )
        with threads_for(features.size):
            self._fit(training, watch)
        return self

    def fit_blocks(
        self,
        blocks: Given,
        *,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        watch: Watch | None = None,
        balance: bool = False,
        shares: Sequence[float] | None = None,
    ) -> Self:
        """Learn from rows that are read block by block, such as the shards of a table; heads ridge and linear.

        Parameters
        ----------
        blocks : iterable of tuple, or function that returns one
            Pairs of features (n, n_features) and label names (n,), or triples with cluster numbers (n,) after them:
            rows of one cluster are held out together. Every row is an image of its own. An iterator, which can be
            read only once, is enough for ridge without ``balance`` and ``shares`` if ``classes`` are given.
        classes : sequence of str, optional
            Order of the classes. Default: sorted names, for which a first pass reads the labels.
        seed : int, default=0
            Decides folds and samples, with the number of each row: the size of blocks does not count.
        watch : pair of ndarray, optional
            As in `fit`.
        balance : bool, default=False
            As in `fit`; a first pass counts the labels.
        shares : sequence of float, optional
            As in `fit`; a first pass counts the labels.

        Returns
        -------
        Head
            Itself. Memory does not grow with the number of rows: it is that of a sample of rows, of the products of
            features and of what solves them: for ridge 20 times n_features squared in float64, 13 times from 10,000
            rows with more than 1,024 features on. Ridge reads the rows once, linear about 20 times.

        Raises
        ------
        SettingError
            If the head cannot learn from blocks, or an iterator would be read twice.
        ShapeError
            If the parts of a block do not match, or differ in width from the first block.
        DataError
            If a feature is not finite, or there are no rows.
        UnknownClassError
            If there are fewer than 2 classes, a label is not in ``classes``, or a class has no row.

        Examples
        --------
        >>> from headstart.heads.registry import make_head
        >>> shards = [(np.full((4, 2), number, np.float32), np.repeat(name, 4)) for number, name in enumerate("ab")]
        >>> make_head("ridge").fit_blocks(shards).predict(np.ones((1, 2), np.float32)).tolist()
        ['b']
        """
        given = GivenBlocks(blocks, classes=classes, seed=seed, balance=balance, shares=shares)
        self.classes_, self.chosen_, self.curve_ = given.classes, {}, None
        with threads_for(BLOCK_VALUES):
            self._fit_blocks(given, watch)
        return self

    def probabilities(self, features: Array) -> Array:
        """Probability of each class, (n_images, n_classes), rows summing to 1.

        Raises
        ------
        NotFittedError
            If ``fit`` was not called.
        ShapeError
            If the number of features is not the one fitted on.
        """
        if not hasattr(self, "classes_"):
            raise NotFittedError(f"head {self.name!r} is not fitted, expected fit() first")
        wanted = self.n_features
        if features.ndim != 2 or features.shape[1] != wanted:
            raise ShapeError(f"features have shape {features.shape}, expected (n_images, {wanted}) as at fit")
        with threads_for(features.size):
            return self._probabilities(np.asarray(features, np.float32))

    def predict(self, features: Array) -> Labels:
        """Class name with the highest probability of each row."""
        predicted = self.probabilities(features).argmax(axis=1)
        names: Labels = np.asarray(self.classes_)[predicted]
        return names

    def append(self, builder: Builder, features: str) -> str:
        """Append the head's operations to a graph and return the name of the probabilities' tensor."""
        return self._append(builder, features)

    def held_out(self, training: Training) -> HeldOut | None:
        """Held-out scores of every image at every setting, from fits without the image's cluster.

        None where that has no closed form, or where a class has only one cluster.
        """
        return None

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Number of features per row that the head was fitted on."""

    @abstractmethod
    def _fit(self, training: Training, watch: Watch | None) -> None: ...

    def _fit_blocks(self, blocks: RowBlocks, watch: Watch | None) -> None:
        raise SettingError(
            f"head {self.name!r} cannot learn from blocks of rows, expected ridge or linear; choose one of them, or "
            "pass all features to fit"
        )

    @abstractmethod
    def _probabilities(self, features: Array) -> Array: ...

    @abstractmethod
    def _append(self, builder: Builder, features: str) -> str: ...

    def _watched(self, watch: Watch) -> tuple[Array, Codes]:
        order = {name: code for code, name in enumerate(self.classes_)}
        return np.asarray(watch[0], np.float32), np.array(
            [order[name] for name in watch[1].tolist()], np.int64
        )


def _names(labels: Labels) -> tuple[str, ...]:
    """All different labels, sorted, from parts of them: many strings take a lot of memory to sort."""
    parts = range(0, len(labels), _LABELS)
    return tuple(sorted({str(name) for i in parts for name in np.unique(labels[i : i + _LABELS]).tolist()}))


def _codes(labels: Labels, classes: tuple[str, ...]) -> Codes:
    """Names to positions in ``classes``; every class must occur, no other may."""
    order = {name: code for code, name in enumerate(classes)}
    parts = [codes_of(labels[i : i + _LABELS], order) for i in range(0, len(labels), _LABELS)]
    codes = np.concatenate(parts) if parts else np.empty(0, np.int64)
    counts = np.bincount(codes, minlength=len(order))
    missing = sorted(name for name, code in order.items() if not counts[code])
    if missing or len(order) < 2:
        what = f"class {missing[0]!r} has no image" if missing else f"classes are {list(order)}"
        raise UnknownClassError(f"{what}, expected at least 2 classes with an image each; add images")
    return codes


class AffineHead(Head):
    """A head that ends as logits = features @ weight_ + bias_, however they were found."""

    weight_: Array  # (n_features, n_classes)
    bias_: Array  # (n_classes,)

    @property
    def n_features(self) -> int:
        """Number of features per row that the head was fitted on."""
        return len(self.weight_)

    def _probabilities(self, features: Array) -> Array:
        return softmax(features @ self.weight_ + self.bias_).astype(np.float32)

    def _append(self, builder: Builder, features: str) -> str:
        return append_softmax(builder, features, self.weight_, self.bias_)


def append_softmax(builder: Builder, rows: str, weight: Array, bias: Array) -> str:
    """Append softmax of rows @ weight (n_inputs, n_classes) + bias; ``head.logits`` is the sum."""
    names = (builder.constant("head.weight", weight), builder.constant("head.bias", bias))
    return builder.add("Softmax", builder.add("Gemm", rows, *names, name="head.logits"), axis=1)


def log_loss(logits: NDArray[Any], codes: Codes, weights: Array | None = None) -> float:
    """Mean cross-entropy of softmax(logits) in nats; ``weights`` (n_images,) weight images."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(codes)), codes]
    return float(np.average(np.log(np.exp(shifted).sum(axis=1)) - chosen, weights=weights))


def squared_distances(rows: NDArray[Float], others: NDArray[Float]) -> NDArray[Float]:
    """Squared Euclidean distances, (n_rows, n_others), never below zero."""
    distances: NDArray[Float] = rows @ others.T
    distances *= -2.0  # in place: arrays of this size cost as much as the product
    distances += (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    np.maximum(distances, 0.0, out=distances)
    return distances


def fit_temperature(logits: NDArray[Any], codes: Codes, weights: Array | None = None) -> float:
    """The factor in [1e-3, 1e3] on held-out logits (n_images, n_classes) with the least cross-entropy."""
    # Guo, Pleiss, Sun, Weinberger. On Calibration of Modern Neural Networks. ICML 2017, arXiv:1706.04599.
    # Where all of n images are classified correctly, certainty would be best; there each label counts as true
    # with (n + 1/2) / (n + 1) only: Platt (Probabilistic Outputs for Support Vector Machines, 1999), with
    # Jeffreys' prior instead of Laplace's.
    from scipy.optimize import minimize_scalar

    certain = bool((logits.argmax(axis=1) == codes).all())
    doubt = 0.5 / (len(codes) + 1) if certain else 0.0
    away = doubt * logits.shape[1] / max(logits.shape[1] - 1, 1)  # of the mass, spread over all classes

    # a search fits thousands of these: what does not depend on the factor is taken out, to the same bits
    mean = _mean_of(weights)
    largest, own = logits.max(axis=1), logits[np.arange(len(codes)), codes]

    def loss(power: float) -> float:
        factor = np.exp(power)
        scaled, highest = logits * factor, largest * factor
        spread = np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
        right = mean(spread - (own * factor - highest))
        if not away:
            return float(right)
        return float((1.0 - away) * right + away * mean(spread + highest - scaled.mean(axis=1)))

    found = minimize_scalar(loss, bounds=(-6.9, 6.9), method="bounded")
    return float(np.exp(found.x))


def _mean_of(weights: Array | None) -> Callable[[NDArray[Any]], Any]:
    """``np.average`` for many rows of numbers with the same weights, without its checks."""
    if weights is None:
        return lambda values: np.add.reduce(values) / len(values)
    wide, total = weights.astype(np.float64), weights.sum(dtype=np.float64)
    return lambda values: np.add.reduce(values * wide) / total


def calibrated_loss(scores: NDArray[Any], codes: Codes, weights: Array | None = None) -> float:
    """Mean cross-entropy in nats of held-out scores after the temperature that fits them best.

    It compares heads of every kind, because their confidence does not count, only what a temperature leaves.
    """
    logits = scores.astype(np.float64)
    return log_loss(logits * fit_temperature(logits, codes, weights), codes, weights)
