"""Thresholds from left-out scores that hold a stated share of new images (conformal prediction).

The distribution of the scores is kept as a short list of numbers, which fits into a manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ShapeError

__all__ = ["conformal_threshold", "highest_level", "left_out_quantiles"]

_MOST = 399  # numbers kept; levels in steps of a quarter of a percent
_ROUNDING = 1e-9


def left_out_quantiles(
    scores: NDArray[np.floating], clusters: NDArray[np.generic] | None = None, most: int = _MOST
) -> tuple[float, ...]:
    """Quantiles of left-out scores, from which `conformal_threshold` takes a threshold for any level.

    Parameters
    ----------
    scores : ndarray of shape (n_images,)
        Of images that were left out of training; larger is less usual.
    clusters : ndarray of shape (n_images,), optional
        Images with the same entry depend on each other: a cluster counts as one image.
    most : int, default=399
        Most numbers returned.

    Returns
    -------
    tuple of float
        In ascending order, the j-th of m at level j / (m + 1), where m is the number of clusters, at most ``most``.

    Notes
    -----
    A threshold at a level holds the score of a new image of a new cluster with at least that probability, if clusters
    are exchangeable: Vovk, Gammerman, Shafer. Algorithmic Learning in a Random World. 2005; with clusters, each of
    which has the same weight: Lee, Barber, Willett. Distribution-free inference with hierarchical data. 2023,
    arXiv:2306.06342.

    Examples
    --------
    >>> left_out_quantiles(np.array([3.0, 1.0, 2.0]))
    (1.0, 2.0, 3.0)
    >>> left_out_quantiles(np.array([1.0, 1.0, 2.0]), np.array([7, 7, 8]))
    (1.0, 2.0)
    """
    if scores.ndim != 1 or (clusters is not None and clusters.shape != scores.shape):
        shape = scores.shape if clusters is None else (scores.shape, clusters.shape)
        raise ShapeError(f"scores have shape {shape}, expected one score, and one cluster, for each image")
    if not len(scores):
        return ()
    numbers = np.arange(len(scores)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(numbers)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1.0 / sizes[numbers[order]])  # in clusters, as are the levels below
    n_clusters = len(sizes)
    kept = min(n_clusters, most)
    levels = (n_clusters + 1) * np.arange(1, kept + 1) / (kept + 1)
    places = np.minimum(np.searchsorted(reached, levels - _ROUNDING), len(scores) - 1)
    return tuple(float(one) for one in scores[order][places])


def conformal_threshold(quantiles: Sequence[float], level: float) -> float:
    """The threshold that holds a share of at least ``level`` of new scores; infinite where too few were left out.

    >>> conformal_threshold((1.0, 2.0, 3.0), 0.75), conformal_threshold((1.0, 2.0, 3.0), 0.95)
    (3.0, inf)
    """
    rank = ceil((len(quantiles) + 1) * level - _ROUNDING)
    return inf if rank > len(quantiles) else quantiles[max(rank, 1) - 1]


def highest_level(quantiles: Sequence[float]) -> float:
    """The highest level at which a threshold is finite: n / (n + 1)."""
    return len(quantiles) / (len(quantiles) + 1)
