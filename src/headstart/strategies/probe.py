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
from headstart.records import Array, Source
from headstart.sources.features import PLAIN, AugmentedCopy, Extraction, Place, extract_all
from headstart.strategies.assemble import Fitted, FittedHead, mean_probabilities, probe_model
from headstart.strategies.parts import TrainingParts, training_parts
from headstart.strategies.places import CHOSEN, Probe, Reading, choose_places
from headstart.strategies.result import LearnedModel

__all__ = ["learn_head", "training_rows"]


def learn_head(
    source: Source,
    dataset: Dataset,
    probe: Probe = CHOSEN,
    *,
    readings: Sequence[Reading] | None = None,
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
    clusters = parts.fit.cluster_codes
    heads = []
    for number, (place, name) in enumerate(readings):
        fitted = make_head(name).fit(
            rows[number],
            labels,
            classes=dataset.classes,
            seed=seed,
            watch=None if parts.held is None else (held[number], parts.held.labels),
            images=images,
            clusters=None if clusters is None else clusters[images],
            balance=probe.balance,
        )
        heads.append(FittedHead(fitted, place, rows[number]))
    seconds = perf_counter() - begun
    curve = heads[0].head.curve_
    curve = None if curve is None else replace(curve, title=f"{heads[0].head.name} head on {dataset.name}")
    scores, judged = {}, None
    if parts.held is not None:
        judged = (mean_probabilities(heads, held), parts.held.codes(dataset.classes))
        scores["val_accuracy"] = float((judged[0].argmax(axis=1) == judged[1]).mean())
    settings: dict[str, Any] = {}
    if probe.augmentation is not None:
        settings["augmentation"] = probe.augmentation.parts()
    if probe.balance:
        settings["balance"] = True
    codes = parts.fit.codes(dataset.classes)[images]
    made = Fitted(tuple(heads), scores, settings, codes, images, judged)
    model = probe_model(source, made, dataset, parts, seed, seconds)
    return LearnedModel(model, curve, seconds, choice, None if judged is None else judged[0], parts)


def training_rows(
    source: Source,
    dataset: Dataset,
    places: Sequence[Place],
    augmentation: Augmentation | None,
    seed: int,
    options: Extraction,
) -> tuple[list[Array], NDArray[np.str_], NDArray[np.intp]]:
    """Features of the images and of their augmented copies at some places, with label and image index of each row."""
    n_copies = 0 if augmentation is None else augmentation.n_copies
    copies = [
        None,
        *(AugmentedCopy(augmentation, seed, number) for number in range(n_copies) if augmentation),
    ]
    rows = [extract_all(dataset, source, places, copy=copy, options=options) for copy in copies]
    images = np.tile(np.arange(len(dataset)), len(copies))
    joined = [one[0] if len(one) == 1 else np.concatenate(one) for one in zip(*rows, strict=True)]
    return joined, dataset.labels[images], images
