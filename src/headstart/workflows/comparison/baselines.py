"""Controls that use no source: kernel ridge on raw pixels and on HOG, and a network trained from scratch.

Apart from the other controls because these choose their own preparation, so that the source's preparation
does not put them at a disadvantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation, augment
from headstart.data.images.prepare import prepare
from headstart.data.splits import fewest_per_class
from headstart.heads.base import fit_temperature, softmax
from headstart.heads.held_out import best_setting
from headstart.heads.registry import make_head
from headstart.heads.training import Training, class_weights
from headstart.networks.contract import Trainable
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import ARCHITECTURES, architecture, with_classes
from headstart.networks.training import fit
from headstart.records import Array, Codes, Images, InputSpec, NetworkSpec, Source, TrainSettings
from headstart.sources.hog import hog_source
from headstart.sources.networks import native_input
from headstart.sources.pixels import pixel_source
from headstart.strategies.fits import DECIDING, Indices, Reader, Strategy, clusters_of, fitted
from headstart.strategies.select import deciding_images
from headstart.system.threads import threads_for

__all__ = ["gradient_histograms", "network_from_scratch", "preparations_for", "raw_pixels"]

_SMALL_PX = 64  # side up to which a source's own input can be read as raw pixels
_INK_PX = 28  # side of ink-normalised images
_HEAD = "kernel"
_LEAST_PROBABILITY = 1e-12
VERY_FEW = 100
"""Images below which a network from scratch has settings of its own."""


def preparations_for(dataset: Dataset, source: InputSpec | None = None) -> tuple[InputSpec, ...]:
    """Preparations for a control to choose from; the first is the default.

    The source's own where it is small, images as they are (files squished to 64 x 64), and ink normalisation
    for grey arrays.
    """
    native = native_input(dataset)
    found = [native]
    # some graphs also take small images and enlarge them
    if source is not None and source.height_px <= _SMALL_PX and len(source.mean) == source.channels:
        found.insert(0, source)
    grey = dataset.images.image_shape is not None and native.channels == 1
    if grey and min(native.height_px, native.width_px) >= _INK_PX:
        found.append(InputSpec(_INK_PX, _INK_PX, 1, policy="ink"))
    return tuple(dict.fromkeys(found))


def raw_pixels(
    reader: Reader, *, preparations: Sequence[InputSpec] | None = None, balance: bool = False
) -> Strategy:
    """Kernel ridge on raw pixels, with the preparation that has the lowest held-out loss."""
    inputs = preparations_for(reader.pool, reader.source.input) if preparations is None else preparations
    return _kernel_ridge(reader, [pixel_source(one) for one in inputs], balance=balance)


def gradient_histograms(
    reader: Reader, *, preparations: Sequence[InputSpec] | None = None, balance: bool = False
) -> Strategy:
    """Kernel ridge on histograms of oriented gradients, with the preparation that has the lowest held-out loss."""
    inputs = preparations_for(reader.pool, reader.source.input) if preparations is None else preparations
    return _kernel_ridge(reader, [hog_source(one) for one in inputs], balance=balance)


def _kernel_ridge(reader: Reader, sources: Sequence[Source], *, balance: bool) -> Strategy:
    """Kernel ridge on the default layer of one of some sources, which are one under several preparations.

    The preparation is chosen in every fit on at most 250 of its training images: the first one unless another
    is better by a standard error. Where a class has a single image, probabilities are averaged over all of
    them.
    """
    readers = [replace(reader, source=one, _kept={}) for one in sources]
    place = (sources[0].default_layer, "flat")
    for one in readers:
        one.read([place])
    codes = reader.pool.codes()

    def strategy(train: Indices, test: Indices, seed: int) -> Array:
        some = train[deciding_images(codes[train], seed, DECIDING)]
        rows = [one.rows(place)[some] for one in readers]
        chosen = _chosen_preparations(
            rows, codes[some], clusters_of(reader.pool, some), seed, balance=balance
        )
        predictions = [
            fitted(readers[i], place, _HEAD, train, seed, balance=balance).probabilities(
                readers[i].test_rows(place)[test]
            )
            for i in chosen
        ]
        return np.mean(predictions, axis=0)  # type: ignore[no-any-return]

    return strategy


def _chosen_preparations(
    rows: Sequence[Array], codes: Codes, clusters: Indices | None, seed: int, *, balance: bool = False
) -> list[int]:
    """The first preparation unless another's held-out loss is a standard error lower.

    All of them where a class has a single image.

    With the lower loss alone, the control chose images as they are on 27 letters of one writer (26 right,
    with ink normalisation 27) and got 42 % of other writers' letters right instead of 88 % (2026-11).
    """
    if len(rows) == 1 or fewest_per_class(codes, clusters) < 2:
        return list(range(len(rows)))
    weights = class_weights(codes) if balance else np.ones(len(codes), np.float32)
    losses = [_held_out_losses(one, codes, weights, clusters, seed) for one in rows]
    best = int(np.argmin([one.mean() for one in losses]))
    gain = losses[0] - losses[best]
    return [best] if gain.mean() > _standard_error(gain, clusters) else [0]


def _standard_error(values: NDArray[np.float64], clusters: Indices | None) -> float:
    """Standard error of the mean of values per image, clustered."""
    units = np.arange(len(values)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    totals = np.bincount(units, weights=values - values.mean())
    return float(np.sqrt(len(totals) / (len(totals) - 1) * (totals @ totals))) / len(values)


def _held_out_losses(
    rows: Array, codes: Codes, weights: Array, clusters: Indices | None, seed: int
) -> NDArray[np.float64]:
    """Cross-entropy of kernel ridge on every image, held out with its cluster; (n_images,), nats."""
    training = Training(
        np.ascontiguousarray(rows, np.float32), codes, weights, np.arange(len(codes)), seed, clusters
    )
    with threads_for(rows.size):
        held = make_head(_HEAD).held_out(training)
    assert held is not None, "two clusters of every class leave one when one is held out"
    logits = held.logits[best_setting(held)].astype(np.float64)
    probabilities = softmax(logits * fit_temperature(logits, codes, weights))
    right = np.maximum(probabilities[np.arange(len(codes)), codes], _LEAST_PROBABILITY)
    return np.asarray(-np.log(right) * weights / weights.mean())


def network_from_scratch(
    spec: NetworkSpec,
    engine: str,
    settings: tuple[TrainSettings, TrainSettings],
    pool: Dataset,
    test: Dataset,
    augmentation: Augmentation | None = None,
    *,
    preparations: Sequence[InputSpec] = (),
    very_few: TrainSettings | None = None,
) -> Strategy:
    """The given architecture trained from random weights on the target's labels alone.

    ``settings`` are those for all labels and for fewer, ``very_few`` those for fewer than 100 images, where they
    differ. The preparation is chosen in every fit as `raw_pixels` would.
    """
    inputs = tuple(preparations) or (spec.input,)
    specs = [_fitting(spec, one, len(pool.classes)) for one in inputs]
    images = [_with_copies(pool, one.input, augmentation, settings[0].seed) for one in specs]
    test_images = [
        one[0] if test is pool else prepare(test, s.input) for one, s in zip(images, specs, strict=True)
    ]
    training = _FromScratch(specs, engine, images, pool.codes(), pool.cluster_codes)

    def strategy(train: Indices, test: Indices, seed: int) -> Array:
        chosen = settings[0] if len(train) == len(pool) else settings[1]
        if very_few is not None and len(train) < VERY_FEW:
            chosen = very_few
        chosen = replace(chosen, seed=seed, patience=0)
        predictions = []
        for index in training.preparations_chosen(train, seed):
            network = training.trained(index, train, chosen)
            predictions.append(softmax(network.logits(test_images[index][test])).astype(np.float32))
        return np.mean(predictions, axis=0)  # type: ignore[no-any-return]

    return strategy


def _fitting(spec: NetworkSpec, preparation: InputSpec, n_classes: int) -> NetworkSpec:
    """The architecture for this input and number of classes; a small CNN where it cannot be resized."""
    if preparation == spec.input:
        return with_classes(spec, n_classes)
    return architecture(spec.name if spec.name in ARCHITECTURES else "cnn", preparation, n_classes)


def _with_copies(
    pool: Dataset, preparation: InputSpec, augmentation: Augmentation | None, seed: int
) -> list[Images]:
    """Prepared images, then augmented copies of all of them, one array after the other."""
    images = prepare(pool, preparation)
    everyone = np.arange(len(pool))
    copies = [images]
    for number in range(0 if augmentation is None else augmentation.n_copies):
        assert augmentation is not None, "only an augmentation has copies"
        copies.append(augment(images, augmentation, seed=seed, indices=everyone, copy=number))
    return copies


@dataclass(frozen=True)
class _FromScratch:
    """One architecture under several preparations, which are chosen on training images."""

    specs: Sequence[NetworkSpec]
    engine: str
    images: Sequence[Sequence[Images]]
    codes: Codes
    clusters: Indices | None

    def preparations_chosen(self, train: Indices, seed: int) -> list[int]:
        """Indices of the preparations that raw pixels would choose, which costs no training."""
        some = train[deciding_images(self.codes[train], seed, DECIDING)]
        rows = [one[0][some].reshape(len(some), -1).astype(np.float32) for one in self.images]
        return _chosen_preparations(rows, self.codes[some], self._clusters(some), seed)

    def trained(self, index: int, train: Indices, settings: TrainSettings) -> Trainable:
        """A network trained on these images and their augmented copies."""
        network = make_network(self.specs[index], self.engine, settings.seed)
        copies = self.images[index]
        images = np.concatenate([one[train] for one in copies])
        fit(network, images, np.tile(self.codes[train], len(copies)), settings)
        return network

    def _clusters(self, some: Indices) -> Indices | None:
        return None if self.clusters is None else self.clusters[some]
