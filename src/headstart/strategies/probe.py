"""The strategy probe: a head fitted on the features of a frozen source, as a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.heads.registry import make_head
from headstart.heads.training import Training, class_weights
from headstart.records import Array, Source
from headstart.sources.features import PLAIN, AugmentedCopy, Extraction, Place, extract_all
from headstart.strategies.assemble import Fitted, probe_model
from headstart.strategies.copies import copy_rows
from headstart.strategies.mixture import FittedHead, Mixture
from headstart.strategies.parts import TrainingParts, training_parts
from headstart.strategies.places import CHOSEN, Probe, Reading, choose_places
from headstart.strategies.result import LearnedModel
from headstart.strategies.unlabelled import Unlabelled, propagation
from headstart.system.mapped import joined

__all__ = ["learn_head", "training_rows"]


def learn_head(
    source: Source,
    dataset: Dataset,
    probe: Probe = CHOSEN,
    *,
    readings: Sequence[Reading] | None = None,
    unlabelled: Unlabelled | None = None,
    seed: int = 0,
    spare: bool = True,
    held_share: float | None = None,
    options: Extraction = PLAIN,
) -> LearnedModel:
    """Fit a head on a frozen source's features: the strategy ``probe``.

    Parameters
    ----------
    source : Source
        Is not changed; its features are computed once per image and augmented copy.
    dataset : Dataset
        Its ``test`` split, if any, is not used.
    probe : Probe, optional
        Where features are read and which head is fitted. Default: both are selected by cross-validation.
    readings : sequence of Reading, optional
        Where features are read and which heads are fitted, if that is selected already; the probabilities of several
        are averaged. Default: as ``probe`` says.
    unlabelled : Unlabelled, optional
        Images without labels: labels are propagated to them, if that is better on left-out images.
    seed : int, default=0
        Of folds, held-out images and augmented copies.
    spare : bool, default=True
        Hold out some of many training images for evaluation. False trains on all of them.
    held_share : float, optional
        Share of the training images to hold out if there is no ``val`` split. Default: a tenth, at most
        3,000 images, and none if that were fewer than 50.
    options : Extraction, optional
        Cache and runtime. Features are always computed in fp32, as the saved model computes them.

    Returns
    -------
    LearnedModel
        The model is the source's graph with the operations of one head appended, or of several heads and their mean.

    Raises
    ------
    SettingError
        If the head is unknown.
    UnknownLayerError
        If the source has no such layer.
    DataError
        If there are fewer than two classes, or a class has no training image.
    """
    begun, parts = perf_counter(), training_parts(dataset, seed, held_share)
    options = replace(options, precision="fp32")  # as the saved model computes
    if not spare:
        parts = TrainingParts(dataset if dataset.splits is None else dataset.split("train"), None)
    choice = None
    if readings is None:
        readings, choice = choose_places(source, parts.fit, probe, seed, options)
    places = [one.place for one in readings]
    rows, labels, images = training_rows(source, parts.fit, places, probe.augmentation, seed, options)
    held: list[Array] = []
    if parts.held is not None:
        held = extract_all(parts.held, source, places, options=options)
    heads = _heads(readings, rows, (labels, images), held, parts, balance=probe.balance, seed=seed)
    alone = mixture = Mixture.even(heads)
    remarks = []
    if unlabelled is not None:
        mixture, remark = _with_unlabelled(alone, parts.fit, unlabelled, probe, seed)
        remarks.append(remark)
    seconds = perf_counter() - begun
    curve = heads[0].head.curve_
    curve = None if curve is None else replace(curve, title=f"{heads[0].head.name} head on {dataset.name}")
    scores, judged, probe_probs = {}, None, None
    if parts.held is not None:
        probe_probs = alone.probabilities(held)
        final = probe_probs if mixture is alone else mixture.probabilities([*held, held[0]])
        judged = (final, parts.held.codes(dataset.classes))
        scores["val_accuracy"] = float((judged[0].argmax(axis=1) == judged[1]).mean())
    settings: dict[str, Any] = {}
    if probe.augmentation is not None:
        settings["augmentation"] = probe.augmentation.parts()
    if probe.balance:
        settings["balance"] = True
    codes = parts.fit.codes(dataset.classes)[images]
    made = Fitted(mixture, scores, settings, codes, images, judged)
    if mixture is not alone and unlabelled is not None:
        made = replace(made, unlabelled=unlabelled.images)
    model = probe_model(source, made, dataset, parts, seed, seconds)
    probs = None if judged is None else judged[0]
    learned = LearnedModel(model, curve, seconds, choice, probs, parts, remarks=tuple(remarks))
    return replace(learned, probe_probs=probe_probs, heads=mixture.without_rows)


def _heads(
    readings: Sequence[Reading],
    rows: Sequence[Array],
    labelled: tuple[NDArray[np.str_], NDArray[np.intp]],
    held: Sequence[Array],
    parts: TrainingParts,
    *,
    balance: bool,
    seed: int,
) -> list[FittedHead]:
    """Fit the heads on the rows of their places, with label and image of each row."""
    (labels, images), clusters, found = labelled, parts.fit.cluster_codes, []
    for number, (place, name) in enumerate(readings):
        fitted = make_head(name).fit(
            rows[number],
            labels,
            classes=parts.fit.classes,
            seed=seed,
            watch=None if parts.held is None else (held[number], parts.held.labels),
            images=images,
            clusters=None if clusters is None else clusters[images],
            balance=balance,
        )
        found.append(FittedHead(fitted, place, rows[number]))
    return found


def _with_unlabelled(
    mixture: Mixture, fit: Dataset, unlabelled: Unlabelled, probe: Probe, seed: int
) -> tuple[Mixture, str]:
    """The heads and, if it helps, one that learned from unlabelled images at the place of the first; a remark."""
    first, codes = mixture.first, fit.codes()
    training = Training(
        first.rows[: len(fit)],  # without augmented copies
        codes,
        class_weights(codes) if probe.balance else np.ones(len(codes), np.float32),
        np.arange(len(fit)),
        seed,
        fit.cluster_codes,
    )
    found = propagation(first.head.name, training, fit.classes, unlabelled.rows(first.place))
    if found.head is None:
        return mixture, found.sentence
    shares = *((1 - found.share) * one for one in mixture.shares), found.share
    another = FittedHead(found.head, first.place, first.rows)
    return Mixture((*mixture.heads, another), shares, found.temperature), found.sentence


def training_rows(
    source: Source,
    dataset: Dataset,
    places: Sequence[Place],
    augmentation: Augmentation | None,
    seed: int,
    options: Extraction,
    *,
    like: Augmentation | None = None,
) -> tuple[list[Array], NDArray[np.str_], NDArray[np.intp]]:
    """Features of the images and of their augmented copies at some places, with label and image index of each row.

    ``like`` is an augmentation whose copies are in the cache: see `copy_rows`.
    """
    n_copies = 0 if augmentation is None else augmentation.n_copies
    copies = [
        None,
        *(AugmentedCopy(augmentation, seed, number) for number in range(n_copies) if augmentation),
    ]
    rows = [copy_rows(dataset, source, places, copy, options, like) for copy in copies]
    images = np.tile(np.arange(len(dataset)), len(copies))
    return [joined(one) for one in zip(*rows, strict=True)], dataset.labels[images], images
