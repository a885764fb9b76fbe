"""Softmax cross-entropy: losses, in nats, and the gradient with which the backward pass starts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError, UnknownClassError
from headstart.scratch.layers import Array

__all__ = ["cross_entropy", "softmax"]

_MATRIX_RANK = 2


def softmax(logits: Array) -> Array:
    """Turn logits into probabilities: ``exp(z_k) / sum_j exp(z_j)``.

    Parameters
    ----------
    logits : ndarray of shape (n_images, n_classes), float
        Any finite values; large ones do not overflow.

    Returns
    -------
    ndarray of shape (n_images, n_classes), float
        Probabilities; rows sum to 1.

    Examples
    --------
    >>> softmax(np.array([[1000.0, 1000.0]]))
    array([[0.5, 0.5]])
    """
    powers: Array = np.exp(logits - logits.max(axis=-1, keepdims=True))  # the largest is exp(0)
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def cross_entropy(
    logits: Array,
    labels: NDArray[np.integer[Any]],
    *,
    label_smoothing: float = 0.0,
    weights: Array | None = None,
) -> tuple[Array, Array]:
    """Cross-entropy of softmax(logits) and its gradient.

    Parameters
    ----------
    logits : ndarray of shape (n_images, n_classes), float
        Outputs of the network.
    labels : ndarray of shape (n_images,), int
        Class codes in ``[0, n_classes)``.
    label_smoothing : float, default=0.0
        Share of the target, in [0, 1), that is spread evenly over all classes.
    weights : ndarray of shape (n_images,), float, optional
        Weight of each image in the gradient. Default: 1.

    Returns
    -------
    losses : ndarray of shape (n_images,), float
        Loss of each image in nats, smoothed, not weighted.
    grad : ndarray of shape (n_images, n_classes), float
        Gradient of ``mean(weights * losses)`` for the logits. The mean divides by
        ``n_images``, whatever the weights sum to.

    Raises
    ------
    SettingError
        If ``label_smoothing`` is not in [0, 1).
    ShapeError
        If ``logits`` is not a non-empty matrix, ``labels`` is not one whole number for each of
        its rows, or ``weights`` not one number for each.
    UnknownClassError
        If a label is outside ``[0, n_classes)``.

    Notes
    -----
    For the target t and the probabilities p = softmax(z) the loss is ``-sum_k t_k log p_k``, its
    gradient ``p - t``.

    References
    ----------
    Bridle. Probabilistic Interpretation of Feedforward Classification Network Outputs. 1990.
    Szegedy et al. Rethinking the Inception Architecture for Computer Vision. CVPR 2016,
    arXiv:1512.00567, section 7, for the smoothing.

    Examples
    --------
    >>> losses, grad = cross_entropy(np.zeros((1, 2)), np.array([0]))
    >>> losses.round(4)
    array([0.6931])
    >>> grad
    array([[-0.5,  0.5]])
    """
    _check(logits, labels, label_smoothing, weights)
    n_images, n_classes = logits.shape
    here = np.arange(n_images)
    shifted = logits - logits.max(axis=1, keepdims=True)
    grad = np.exp(shifted)  # (n, classes)
    totals = grad.sum(axis=1, keepdims=True)  # (n, 1)
    losses = np.log(totals[:, 0]) - (1 - label_smoothing) * shifted[here, labels]
    grad /= totals
    grad[here, labels] -= 1 - label_smoothing
    if label_smoothing > 0:
        losses -= label_smoothing * shifted.mean(axis=1)
        grad -= label_smoothing / n_classes
    if weights is not None:
        grad *= np.asarray(weights, grad.dtype)[:, None]
    grad /= n_images
    return losses, grad


def _check(
    logits: Array, labels: NDArray[np.integer[Any]], label_smoothing: float, weights: Array | None
) -> None:
    if not 0 <= label_smoothing < 1:
        raise SettingError(
            f"label_smoothing is {label_smoothing!r}, expected a number in [0, 1); 0 switches it off"
        )
    if logits.ndim != _MATRIX_RANK or logits.size == 0:
        raise ShapeError(
            f"logits has shape {logits.shape}, expected (n_images, n_classes), both at least 1; "
            "pass the outputs of a network for one batch"
        )
    n_images, n_classes = logits.shape
    if labels.shape != (n_images,):
        raise ShapeError(
            f"labels has shape {labels.shape}, expected ({n_images},); pass one class code for each image"
        )
    if labels.dtype.kind not in "iu":
        raise ShapeError(f"labels has dtype {labels.dtype}, expected whole numbers; pass class codes")
    if weights is not None and np.shape(weights) != (n_images,):
        raise ShapeError(
            f"weights has shape {np.shape(weights)}, expected ({n_images},); pass one weight for each image"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise UnknownClassError(
            f"labels has code {low if low < 0 else high}, expected codes from 0 to {n_classes - 1}; "
            "give the network as many outputs as there are classes"
        )
