"""Clusters of images that must stay on one side of every split: copies of one image, and images of one group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset

__all__ = ["joined_clusters", "with_clusters"]


def with_clusters(dataset: Dataset, copies: Iterable[tuple[int, int]]) -> Dataset:
    """The same dataset with clusters of groups and ``copies`` (pairs of positions); None where there are none.

    >>> pixels = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    >>> pets = Dataset("pets", pixels, np.array(["cat", "cat", "dog", "dog"]), ("cat", "dog"))
    >>> with_clusters(pets, [(0, 1)]).clusters.tolist()
    [0, 0, 1, 2]
    """
    pairs = list(copies)
    if not pairs and dataset.groups is None:
        return dataset
    return replace(dataset, clusters=joined_clusters(len(dataset), pairs, dataset.groups))


def joined_clusters(
    n_images: int, copies: Iterable[tuple[int, int]], groups: NDArray[np.str_] | None = None
) -> NDArray[np.intp]:
    """Connected components of the graph whose edges join copies and images of one group, (n_images,).

    They are numbered from 0 in the order of their first images.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.array(list(copies), np.intp).reshape(-1, 2)
    if groups is not None:
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        edges = np.concatenate([edges, np.stack([np.arange(n_images), first[inverse]], axis=1)])
    ones = np.ones(len(edges), np.bool_)
    graph = coo_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(n_images, n_images))
    _, found, inverse = np.unique(
        connected_components(graph, directed=False)[1], return_index=True, return_inverse=True
    )
    numbers: NDArray[np.intp] = np.argsort(np.argsort(found))[inverse]
    return numbers
