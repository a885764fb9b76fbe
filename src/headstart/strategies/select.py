"""Selects layer, pooling and head by cross-validation on computed features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from headstart.data.splits import holdout
from headstart.errors import DataError, SettingError, nearest
from headstart.evaluation.clusters import accuracy_score
from headstart.evaluation.records import Score
from headstart.heads.base import calibrated_loss
from headstart.heads.held_out import HeldOut, best_setting
from headstart.heads.registry import CLOSED_FORM, SEARCHED, make_head
from headstart.heads.training import Training, class_weights
from headstart.records import Array, Codes
from headstart.system.threads import threads_for

__all__ = [
    "AVERAGED_FROM",
    "MOST_IMAGES",
    "PRIOR_NATS",
    "Choice",
    "PlaceTrial",
    "choose",
    "deciding_images",
    "n_independent",
    "same_features",
]

MOST_IMAGES = 1_500  # the time of decompositions is cubic in this
_FEW = 16  # images by which places with the same features are found
_SHORTLIST = 4  # best places of the first head, at which the other heads are tried
PRIOR_NATS = 4.0
"""What another place than the default must gain in all, in nats of held-out cross-entropy, to be selected.

That is a prior of about 1 to 50 for each of the others: of a few images the loss of the best of many places is low by
chance. Measured on 2026-11-30 (docs/decisions/0018-selection-for-every-source.md): with two labels per class of ants
and bees 84 % of other photos are then classified correctly, else 70 %; from 100 images on it changes nothing."""
AVERAGED_FROM = 40
"""Independent images from which the probabilities of the three best candidates are averaged.

Measured on 2026-11-30 (docs/decisions/0018-selection-for-every-source.md): from there on the mean is as accurate as
the best one or more so, and better calibrated; of fewer images the third best is often a bad layer."""
_AVERAGED = 3
_CORRELATION = 0.2  # of the losses of images by one writer, as the intervals assume at least
_LEAST = 3  # images of each class that are always among the deciding ones


@dataclass(frozen=True)
class PlaceTrial:
    """One layer, pooling and head at its best setting, evaluated by leave-one-out cross-validation.

    ``error`` is the mean squared error of its held-out scores; ``loss`` their mean cross-entropy in nats
    after temperature scaling.
    """

    layer: str
    pooling: str
    head: str
    setting: Mapping[str, float]
    accuracy: Score
    error: float
    loss: float

    @property
    def title(self) -> str:
        """Head and place, as text."""
        return f"{self.head} on {self.layer}, {self.pooling}"

    @property
    def described(self) -> str:
        """The setting as text, such as ``strength 0.1``."""
        return ", ".join(f"{name} {value:g}" for name, value in self.setting.items())


@dataclass(frozen=True)
class Choice:
    """All trials, the best first; other places than ``default`` had to be better by `PRIOR_NATS`.

    The probabilities of the first ``n_averaged`` are averaged. The accuracy of the best is the maximum of many, so it
    overestimates accuracy on new images.
    """

    trials: tuple[PlaceTrial, ...]
    n_tried: int
    n_images: int
    default: tuple[str, str] | None
    seconds: float
    n_averaged: int = 1

    @property
    def selected(self) -> tuple[PlaceTrial, ...]:
        """The trials whose probabilities are averaged, the best first."""
        return self.trials[: self.n_averaged]

    @property
    def best(self) -> PlaceTrial:
        """The trial with the lowest loss."""
        return self.trials[0]

    @property
    def sentence(self) -> str:
        """What was selected, among how many candidates."""
        best = [f"{one.title} ({one.described})" for one in self.selected]
        what = best[0] if len(best) == 1 else f"The mean of {'; '.join(best[:-1])} and {best[-1]}"
        return (
            f"{what} was selected by leave-one-out cross-validation on {self.n_images:,} training images among "
            f"{self.n_tried:,} candidates."
        )


def choose(
    features: Mapping[tuple[str, str], Array],
    codes: Codes,
    *,
    heads: Sequence[str] = SEARCHED,
    default: tuple[str, str] | None = None,
    clusters: NDArray[np.intp] | None = None,
    balance: bool = False,
    averaged: bool = False,
    seed: int = 0,
) -> Choice:
    """Evaluate every head at every setting on the features of every place; ``heads`` are some of CLOSED_FORM.

    Images with the same number in ``clusters`` are left out together. Trials are ranked by held-out loss, summed
    over images, with `PRIOR_NATS` in favour of the place ``default``, then by accuracy; the setting of each is the
    one that `Head.fit` would choose. With ``averaged`` the three best are selected, of `AVERAGED_FROM` independent
    images or more. Leave-one-out is exact: one decomposition per place and kind of head serves all settings.
    DataError if a class has one cluster only.
    """
    begun = perf_counter()
    for head in heads:
        if head not in CLOSED_FORM:
            raise SettingError(
                f"head is {head!r}, expected one of {', '.join(CLOSED_FORM)}; {nearest(head, CLOSED_FORM)}"
            )
    if not features or not heads:
        raise SettingError("there is nothing to choose from, expected features and heads; name some")
    used = deciding_images(codes, seed)
    codes, clusters = codes[used], None if clusters is None else clusters[used]
    weights = class_weights(codes) if balance else np.ones(len(codes), np.float32)
    evaluator = _Evaluator(codes, weights, seed, clusters, default)
    places = _distinct(features, default)
    evaluator.at({place: features[place][used] for place in places}, heads[0])
    for head in heads[1:]:
        evaluator.at({place: features[place][used] for place in evaluator.shortlist(heads[0])}, head)
    trials = tuple(sorted(evaluator.trials, key=evaluator.rank))
    several = averaged and evaluator.n_independent >= AVERAGED_FROM
    n_averaged = min(_AVERAGED, len(trials)) if several else 1
    return Choice(trials, evaluator.n_tried, len(codes), default, perf_counter() - begun, n_averaged)


def _distinct(
    features: Mapping[tuple[str, str], Array], default: tuple[str, str] | None
) -> list[tuple[str, str]]:
    """Places whose features differ: an embedding may be the average of a stage. The default stays."""
    kept = [place for place in features if place == default]
    for place, rows in features.items():
        if place not in kept and not any(
            same_features(rows[:_FEW], features[other][:_FEW]) for other in kept
        ):
            kept.append(place)
    return kept


@dataclass
class _Evaluator:
    """Evaluates heads at places on the same images, and keeps all trials."""

    codes: Codes
    weights: Array
    seed: int
    clusters: NDArray[np.intp] | None
    default: tuple[str, str] | None = None
    trials: list[PlaceTrial] = field(default_factory=list)
    n_tried: int = 0

    def at(self, features: Mapping[tuple[str, str], Array], head: str) -> None:
        """Evaluate a head on the features of some places."""
        for (layer, pooling), rows in features.items():
            known = np.ascontiguousarray(rows, np.float32)
            images = np.arange(len(self.codes))
            training = Training(known, self.codes, self.weights, images, self.seed, self.clusters)
            with threads_for(known.size):
                held = make_head(head).held_out(training)
            if held is None:
                raise DataError(
                    "a class has one image, or images of one group only, expected two to hold one out; "
                    "add images"
                )
            self.n_tried += len(held.settings)
            self.trials.append(PlaceTrial(layer, pooling, head, *_judged(held, training)))

    def rank(self, trial: PlaceTrial) -> tuple[float, float]:
        """By loss: it compares heads of every kind, and varies less from sample to sample than accuracy."""
        prior = PRIOR_NATS if self.default not in (None, (trial.layer, trial.pooling)) else 0.0
        return (trial.loss + prior / self.n_independent, -trial.accuracy.value)

    @cached_property
    def n_independent(self) -> float:
        """As how many independent images these count."""
        return n_independent(len(self.codes), self.clusters)

    def shortlist(self, head: str) -> list[tuple[str, str]]:
        """The places where one head has the smallest loss."""
        ranked = sorted((one for one in self.trials if one.head == head), key=self.rank)
        return [(one.layer, one.pooling) for one in ranked[:_SHORTLIST]]


def _judged(held: HeldOut, training: Training) -> tuple[Mapping[str, float], Score, float, float]:
    """The best setting of a head with its accuracy, error and loss."""
    best, codes = best_setting(held), training.codes
    right = held.scores[best].argmax(axis=1) == codes
    loss = calibrated_loss(held.logits[best], codes, training.weights)
    score = accuracy_score(right, training.cluster_codes)
    return held.settings[best], score, float(held.errors[best]), loss


def n_independent(n_images: int, clusters: NDArray[np.generic] | None) -> float:
    """As how many independent images some count: those of one cluster correlate."""
    n_each = 1 if clusters is None else n_images / len(np.unique(clusters))
    return n_images / (1 + _CORRELATION * (n_each - 1))


def deciding_images(codes: Codes, seed: int, most: int = MOST_IMAGES) -> NDArray[np.intp]:
    """Indices of the images that a selection uses: all, or a stratified sample of ``most``, 3 of each class."""
    n_classes = int(codes.max()) + 1
    if len(codes) <= most + _LEAST * n_classes:
        return np.arange(len(codes))
    rest, held = holdout(codes, most / len(codes), seed)
    lacking = _LEAST - np.bincount(codes[held], minlength=n_classes)
    more = [rest[codes[rest] == code][: max(lack, 0)] for code, lack in enumerate(lacking)]
    return np.sort(np.concatenate([held, *more]))


def same_features(rows: Array, others: Array) -> bool:
    """Whether two places have the same features of the same images, up to the rounding of bf16."""
    return rows.shape == others.shape and bool(
        np.linalg.norm(rows - others) <= 0.02 * np.linalg.norm(rows - rows.mean(axis=0))
    )
