"""Strategies and controls: functions that learn from some images and answer others.

In: a source or a network, the pool of images to learn from, the images asked. Out: Strategies. Must not
import an engine at the top. Called by recipes, transfers and studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.subsets import subset_map
from headstart.records import Array, NetworkSpec
from headstart.sources.random_network import random_source
from headstart.sources.registry import open_source
from headstart.strategies.fits import FeatureOptions, Indices, Strategy, probe

__all__ = ["collapse", "frozen_controls", "majority"]


def frozen_controls(
    spec: NetworkSpec, pool: Dataset, asked: Dataset, options: FeatureOptions, seed: int
) -> dict[str, Strategy]:
    """What any head on a trained source has to beat: random frozen layers, and raw pixels.

    Parameters
    ----------
    spec : NetworkSpec
        The source's network.
    pool, asked : Dataset
        Images to draw labels from, and images to answer.
    options : FeatureOptions
        As the probe's.
    seed : int
        Draws the random layers.

    Returns
    -------
    dict of str to Strategy
        By the names that tables show. Raw pixels get kernel ridge, the strongest plain classifier
        on them.
    """
    raw = replace(options, layer=None, pooling="flat", head="kernel")
    return {
        "random frozen": probe(random_source(spec, seed), pool, asked, options),
        "raw pixels": probe(open_source("pixels", pool), pool, asked, raw),
    }


def majority(pool: Dataset, *, whole: bool = False) -> Strategy:
    """Always the commonest class.

    Parameters
    ----------
    pool : Dataset
        Images to draw labels from.
    whole : bool, default=False
        Of the whole pool rather than of the labels drawn. Where the pool is judged by itself: what is
        left out makes its own class rarer among the rest, so the commonest of those is wrong too often.

    Returns
    -------
    callable
        A Strategy.
    """
    codes, n_classes = pool.codes(), len(pool.classes)

    def strategy(learn: Indices, asked: Indices, seed: int) -> Array:
        counted = codes if whole else codes[learn]
        shares = np.bincount(counted, minlength=n_classes) / len(counted)
        return np.tile(shares.astype(np.float32), (len(asked), 1))

    return strategy


def collapse(probs: Array, source_classes: Sequence[str], view: str, classes: Sequence[str]) -> Strategy:
    """Read a coarser answer off the source's own: no label of the target is used.

    Parameters
    ----------
    probs : ndarray of shape (n_asked, n_source_classes), float32
        The source's answers on the images asked.
    source_classes : sequence of str
        What they are about.
    view : str
        Says which target class each source class belongs to.
    classes : sequence of str
        Target classes in order.

    Returns
    -------
    callable
        A Strategy that learns nothing.
    """
    mapping = subset_map(source_classes, view)
    summed = np.stack(
        [probs[:, [mapping[name] == wanted for name in source_classes]].sum(axis=1) for wanted in classes],
        axis=1,
    )
    return lambda learn, asked, seed: summed[asked]
