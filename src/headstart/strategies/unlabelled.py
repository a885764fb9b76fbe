"""Learning from unlabelled images, too: label propagation, mixed with the probe if left-out images say so."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from headstart.data.dataset import Dataset
from headstart.heads.base import fit_temperature, log_loss, softmax
from headstart.heads.held_out import best_setting
from headstart.heads.propagation import PropagationHead, left_out
from headstart.heads.registry import CLOSED_FORM, make_head
from headstart.heads.training import Training, class_weights
from headstart.records import Array, Source
from headstart.sources.features import PLAIN, Extraction, Place, extract
from headstart.strategies.fits import Chooser, Indices, Reader, Strategy, averaged, clusters_of
from headstart.strategies.mixture import mixed, tempered
from headstart.strategies.places import CHOSEN, Probe
from headstart.strategies.select import n_independent
from headstart.system.mapped import taken
from headstart.system.threads import threads_for

__all__ = ["Propagation", "Unlabelled", "propagation", "unlabelled_probe"]

_WORTH = 8.0  # the share of propagation is this to this plus the labels per class
_LEAST_SHARE = 0.1
_LEAST_EACH, _LEAST_UNCHECKED = 5, 10  # unlabelled images per class; the second where nothing can be left out
_GAIN_NATS = 2.0
"""What propagation must gain in all, in nats of cross-entropy of left-out images.

Measured on 2026-11-30 (docs/decisions/0020-unlabelled-images.md): it then loses 1.6 points at most, with unlabelled
images of other classes, and gains 4.5, 3.4 and 1.8 points at 2, 3 and 5 labels per class on average."""


@dataclass(frozen=True)
class Unlabelled:
    """Unlabelled images and their features, computed once per place and kept."""

    source: Source
    images: Dataset
    options: Extraction = PLAIN
    _kept: dict[Place, Array] = field(default_factory=dict, repr=False)

    def rows(self, place: Place) -> Array:
        """Features of the images, (n_images, n_features)."""
        if place not in self._kept:
            self._kept[place] = extract(
                self.images, self.source, layer=place[0], pooling=place[1], options=self.options
            )
        return self._kept[place]


@dataclass(frozen=True)
class Propagation:
    """Whether propagated labels are mixed with a probe: ``head`` is fitted then, else None.

    ``share`` is that of the head in the mean, ``temperature`` that of the mean; ``sentence`` says why.
    """

    head: PropagationHead | None
    share: float
    temperature: float
    sentence: str


def propagation(name: str, training: Training, classes: tuple[str, ...], unlabelled: Array) -> Propagation:
    """Propagate labels at the place of a probe with the head ``name``, and compare it on left-out images.

    ``training`` are the labelled images there, ``unlabelled`` the features of the others.
    """
    n_each, n_unlabelled = len(training.originals) / len(classes), len(unlabelled)
    least = (_LEAST_EACH if training.smallest_class > 1 else _LEAST_UNCHECKED) * len(classes)
    share = _WORTH / (_WORTH + n_each)
    if share < _LEAST_SHARE:
        return _unused(f"with {n_each:,.0f} labels per class they would count nothing")
    if n_unlabelled < least:
        return _unused(f"{n_unlabelled:,} are too few, {least:,} are needed for {len(classes):,} classes")
    head = PropagationHead(unlabelled)
    with threads_for(unlabelled.size):
        compared = _compared(name, head, training, share)
        if compared is not None and compared[0] < _GAIN_NATS:
            return _unused(
                f"over left-out images they gain {compared[0]:.1f} nats, {_GAIN_NATS:g} are needed"
            )
        head.learn(training, classes)
    used = f"Labels were propagated to {n_unlabelled:,} unlabelled images"
    if compared is None:
        return Propagation(
            head,
            share,
            1.0,
            f"{used}. Whether this helps could not be checked, because a class has one labelled image: it helps if "
            "the unlabelled images are of the same classes in similar numbers.",
        )
    gained = f"over left-out images they gain {compared[0]:.1f} nats, {_GAIN_NATS:g} were needed"
    return Propagation(head, share, compared[1], f"{used}: {gained}.")


def _compared(
    name: str, head: PropagationHead, training: Training, share: float
) -> tuple[float, float] | None:
    """What propagation gains over left-out images, in nats, and the temperature; None if none can be left out."""
    base = make_head(name if name in CLOSED_FORM else "ridge").held_out(training)
    ours = head.held_out(training)
    if base is None or ours is None:
        return None
    judged, own = left_out(training), training.originals
    codes, weights = training.codes[own][judged], training.weights[own][judged]
    alone = base.logits[best_setting(base)][judged].astype(np.float64)
    alone *= fit_temperature(alone, codes, weights)
    both = np.log(mixed([softmax(alone), softmax(ours.logits[0][judged])], [1 - share, share])).astype(
        np.float64
    )
    temperature = fit_temperature(both, codes, weights)
    gain = log_loss(alone, codes, weights) - log_loss(both * temperature, codes, weights)
    clusters = None if training.clusters is None else training.clusters[own][judged]
    return gain * n_independent(len(judged), clusters), temperature


def _unused(reason: str) -> Propagation:
    return Propagation(None, 0.0, 1.0, f"The unlabelled images were not used: {reason}.")


def unlabelled_probe(
    reader: Reader, unlabelled: Unlabelled, wanted: Probe = CHOSEN, chooser: Chooser | None = None
) -> Strategy:
    """The probe mixed with propagated labels, with everything selected again on the training images of each fit."""
    choice = chooser or Chooser(reader, wanted)
    reader.read(choice.places)

    def strategy(train: Indices, test: Indices, seed: int) -> Array:
        readings = choice(train, seed)
        probs = averaged(reader, readings, train, test, seed, balance=wanted.balance)
        place, name = readings[0]
        codes = reader.pool.codes()[train]
        training = Training(
            taken(reader.rows(place), train),
            codes,
            class_weights(codes) if wanted.balance else np.ones(len(codes), np.float32),
            np.arange(len(train)),
            seed,
            clusters_of(reader.pool, train),
        )
        found = propagation(name, training, reader.pool.classes, unlabelled.rows(place))
        if found.head is None:
            return probs
        others = found.head.probabilities(reader.test_rows(place)[test])
        return tempered(mixed([probs, others], [1 - found.share, found.share]), found.temperature)

    return strategy
