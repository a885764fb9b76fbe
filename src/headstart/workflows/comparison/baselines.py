"""Controls that use no source: kernel ridge on raw pixels, and a network trained from scratch.

Apart from the other controls because these two choose their own preparation: no control is handicapped
by the source's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation, augment
from headstart.data.images.prepare import prepare
from headstart.data.splits import fewest_per_class, holdout
from headstart.heads.base import calibrated_loss, fit_temperature, softmax
from headstart.heads.held_out import best_setting
from headstart.heads.registry import make_head
from headstart.heads.training import Training, class_weights
from headstart.networks.contract import Trainable
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import ARCHITECTURES, architecture, with_classes
from headstart.networks.training import fit
from headstart.records import Array, Codes, Images, InputSpec, NetworkSpec, TrainSettings
from headstart.sources.networks import native_input
from headstart.sources.pixels import pixel_source
from headstart.strategies.fits import DECIDING, Indices, Reader, Strategy, clusters_of, fitted
from headstart.strategies.select import deciding_images
from headstart.system.threads import threads_for

__all__ = ["frames_for", "network_from_scratch", "raw_pixels"]

_SMALL_PX = 64  # side up to which a source's own input can be read as raw pixels
_INK_PX = 28  # side that ink normalisation was made for
_PLACE = ("values", "flat")
_HEAD = "kernel"
_TRIED = 1_500  # images that settings of a training are chosen on, at most
_LEAST_PROBABILITY = 1e-12
_FEWEST_TRIED = 100  # images below which settings are not chosen: a held-out fifth would say too little


def frames_for(dataset: Dataset, source: InputSpec | None = None) -> tuple[InputSpec, ...]:
    """Preparations for a control to choose from, first the one that stands where nothing speaks against it.

    Parameters
    ----------
    dataset : Dataset
        Arrays are taken at their own size, files squished to 64 x 64.
    source : InputSpec, optional
        What the source takes: among the preparations if it is small.

    Returns
    -------
    tuple of InputSpec
        The source's preparation; images as they are; ink normalisation for grey arrays.
    """
    native = native_input(dataset)
    found = [native]
    # a graph that enlarges by itself takes small images too, with the scaling of its colours
    if source is not None and source.height_px <= _SMALL_PX and len(source.mean) == source.channels:
        found.insert(0, source)
    grey = dataset.images.image_shape is not None and native.channels == 1
    if grey and min(native.height_px, native.width_px) >= _INK_PX:
        found.append(InputSpec(_INK_PX, _INK_PX, 1, policy="ink"))
    return tuple(dict.fromkeys(found))


def raw_pixels(
    reader: Reader, *, frames: Sequence[InputSpec] | None = None, balance: bool = False
) -> Strategy:
    """Kernel ridge on raw pixels, in the preparation that suits it best.

    Parameters
    ----------
    reader : Reader
        The probe's: its pool, its images to answer, its augmentation.
    frames : sequence of InputSpec, optional
        Preparations to choose from. Default: as `frames_for`.
    balance : bool, default=False
        Let every class count alike.

    Returns
    -------
    callable
        A Strategy. The preparation is chosen in every fit, by the held-out loss on at most 250 of the
        images that it learns from: the first one stands unless another is better by a standard error. Where
        a class has one image only, all preparations answer together, by their mean probability.
    """
    wanted = frames_for(reader.pool, reader.source.input) if frames is None else frames
    readers = [replace(reader, source=pixel_source(one), _kept={}) for one in wanted]
    for one in readers:
        one.read([_PLACE])
    codes = reader.pool.codes()

    def strategy(learn: Indices, asked: Indices, seed: int) -> Array:
        some = learn[deciding_images(codes[learn], seed, DECIDING)]
        rows = [one.rows(_PLACE)[some] for one in readers]
        chosen = _chosen_frame(rows, codes[some], clusters_of(reader.pool, some), seed, balance=balance)
        answers = [
            fitted(readers[i], _PLACE, _HEAD, learn, seed, balance=balance).probabilities(
                readers[i].test_rows(_PLACE)[asked]
            )
            for i in chosen
        ]
        return np.mean(answers, axis=0)  # type: ignore[no-any-return]

    return strategy


def _chosen_frame(
    rows: Sequence[Array], codes: Codes, clusters: Indices | None, seed: int, *, balance: bool = False
) -> list[int]:
    """The first preparation unless another has a held-out loss lower by a standard error; all at one image.

    Of 27 letters by one hand, 26 are right as they are and 27 in the ink frame: with the lower loss alone the
    control took the images as they are, and read 42 % of strangers' letters where it reads 88 % (2026-11).
    """
    if len(rows) == 1 or fewest_per_class(codes, clusters) < 2:
        return list(range(len(rows)))
    weights = class_weights(codes) if balance else np.ones(len(codes), np.float32)
    losses = [_held_out_losses(one, codes, weights, clusters, seed) for one in rows]
    best = int(np.argmin([one.mean() for one in losses]))
    gain = losses[0] - losses[best]
    return [best] if gain.mean() > _standard_error(gain, clusters) else [0]


def _standard_error(values: NDArray[np.float64], clusters: Indices | None) -> float:
    """Of the mean of values that images of one cluster share."""
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
    answers = softmax(logits * fit_temperature(logits, codes, weights))
    right = np.maximum(answers[np.arange(len(codes)), codes], _LEAST_PROBABILITY)
    return np.asarray(-np.log(right) * weights / weights.mean())


def network_from_scratch(
    spec: NetworkSpec,
    engine: str,
    settings: tuple[TrainSettings, TrainSettings],
    pool: Dataset,
    asked: Dataset,
    augmentation: Augmentation | None = None,
    *,
    frames: Sequence[InputSpec] = (),
    alternatives: Sequence[TrainSettings] = (),
) -> Strategy:
    """The same network learning the target from nothing.

    Parameters
    ----------
    spec : NetworkSpec
        The source's layers; the last is replaced.
    engine : str
        What trains it.
    settings : pair of TrainSettings
        With all labels, as the source was trained but for early stopping; and with fewer.
    pool, asked : Dataset
        Images to draw labels from, and images to answer.
    augmentation : Augmentation, optional
        Augmented copies of the images are learned from too.
    frames : sequence of InputSpec, optional
        Preparations to choose from, in every fit, as raw pixels would. Default: the network's own.
    alternatives : sequence of TrainSettings, optional
        Further settings to choose from, in every fit of 100 images or more, by the loss on a held-out
        fifth of at most 1,500 of them. Default: none.

    Returns
    -------
    callable
        A Strategy.
    """
    wanted = tuple(frames) or (spec.input,)
    specs = [_fitting(spec, one, len(pool.classes)) for one in wanted]
    images = [_with_copies(pool, one.input, augmentation, settings[0].seed) for one in specs]
    answered = [
        one[0] if asked is pool else prepare(asked, s.input) for one, s in zip(images, specs, strict=True)
    ]
    training = _FromScratch(specs, engine, images, pool.codes(), pool.together, tuple(alternatives))

    def strategy(learn: Indices, asked: Indices, seed: int) -> Array:
        base = replace(settings[0] if len(learn) == len(pool) else settings[1], seed=seed, patience=0)
        answers = []
        for frame in training.frame_for(learn, seed):
            chosen = training.settings_for(frame, learn, base)
            network = training.trained(frame, learn, chosen)
            answers.append(softmax(network.logits(answered[frame][asked])).astype(np.float32))
        return np.mean(answers, axis=0)  # type: ignore[no-any-return]

    return strategy


def _fitting(spec: NetworkSpec, frame: InputSpec, n_classes: int) -> NetworkSpec:
    """The network for images of another size, with another last layer; of other kinds a small CNN instead."""
    if frame == spec.input:
        return with_classes(spec, n_classes)
    return architecture(spec.name if spec.name in ARCHITECTURES else "cnn", frame, n_classes)


def _with_copies(
    pool: Dataset, frame: InputSpec, augmentation: Augmentation | None, seed: int
) -> list[Images]:
    """Prepared images, then augmented copies of all of them, one array after the other."""
    images = prepare(pool, frame)
    everyone = np.arange(len(pool))
    copies = [images]
    for number in range(0 if augmentation is None else augmentation.views):
        assert augmentation is not None, "only an augmentation has copies"
        copies.append(augment(images, augmentation, seed=seed, indices=everyone, view=number))
    return copies


@dataclass(frozen=True)
class _FromScratch:
    """A network under several preparations: it chooses one, and its settings, from what it learns from."""

    specs: Sequence[NetworkSpec]
    engine: str
    images: Sequence[Sequence[Images]]
    codes: Codes
    clusters: Indices | None
    alternatives: tuple[TrainSettings, ...] = field(default=())

    def frame_for(self, learn: Indices, seed: int) -> list[int]:
        """The preparation that raw pixels would choose: a stand-in that costs no training."""
        some = learn[deciding_images(self.codes[learn], seed, DECIDING)]
        rows = [one[0][some].reshape(len(some), -1).astype(np.float32) for one in self.images]
        return _chosen_frame(rows, self.codes[some], self._clusters(some), seed)

    def settings_for(self, frame: int, learn: Indices, base: TrainSettings) -> TrainSettings:
        """Of the given settings and the alternatives those with the least loss on a held-out fifth."""
        tried = (base, *(replace(one, seed=base.seed, patience=0) for one in self.alternatives))
        if len(tried) == 1 or len(learn) < _FEWEST_TRIED:
            return base
        some = learn[deciding_images(self.codes[learn], base.seed, _TRIED)]
        if fewest_per_class(self.codes[some], self._clusters(some)) < 2:
            return base
        rest, held = holdout(self.codes[some], 0.2, base.seed, self._clusters(some))
        losses = []
        for one in tried:
            logits = self.trained(frame, some[rest], one).logits(self.images[frame][0][some[held]])
            losses.append(calibrated_loss(logits, self.codes[some[held]]))
        return tried[int(np.argmin(losses))]

    def trained(self, frame: int, learn: Indices, settings: TrainSettings) -> Trainable:
        """A network trained on these images and their augmented copies."""
        network = make_network(self.specs[frame], self.engine, settings.seed)
        copies = self.images[frame]
        images = np.concatenate([one[learn] for one in copies])
        fit(network, images, np.tile(self.codes[learn], len(copies)), settings)
        return network

    def _clusters(self, some: Indices) -> Indices | None:
        return None if self.clusters is None else self.clusters[some]
