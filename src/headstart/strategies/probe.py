"""The strategy probe: a head fitted on the features of a frozen source, as a model."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.heads.registry import make_head
from headstart.records import Array, Source
from headstart.sources.features import PLAIN, AugmentedCopy, Extraction, Place, extract
from headstart.strategies.assemble import Fitted, probe_model
from headstart.strategies.parts import TrainingParts, training_parts
from headstart.strategies.places import CHOSEN, Probe, choose_place
from headstart.strategies.result import LearnedModel

__all__ = ["learn_head", "training_rows"]


def learn_head(
    source: Source,
    dataset: Dataset,
    probe: Probe = CHOSEN,
    *,
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
        The model is the source's graph with the head's operations appended.

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
    place, head, choice = choose_place(source, parts.fit, probe, seed, options)
    rows, labels, images = training_rows(source, parts.fit, place, probe.augmentation, seed, options)
    watch = None
    if parts.held is not None:
        held = extract(parts.held, source, layer=place[0], pooling=place[1], options=options)
        watch = (held, parts.held.labels)
    clusters = parts.fit.cluster_codes
    fitted = make_head(head).fit(
        rows,
        labels,
        classes=dataset.classes,
        seed=seed,
        watch=watch,
        images=images,
        clusters=None if clusters is None else clusters[images],
        balance=probe.balance,
    )
    seconds = perf_counter() - begun
    curve = None if fitted.curve_ is None else replace(fitted.curve_, title=f"{head} head on {dataset.name}")
    scores, held_probs = {}, None
    if watch is not None:
        held_probs = fitted.probabilities(watch[0])
        hits = np.asarray(dataset.classes)[held_probs.argmax(axis=1)] == watch[1]
        scores["val_accuracy"] = float(hits.mean())
    settings: dict[str, Any] = {}
    if probe.augmentation is not None:
        settings["augmentation"] = probe.augmentation.parts()
    if probe.balance:
        settings["balance"] = True
    order = {name: code for code, name in enumerate(dataset.classes)}
    codes = np.array([order[name] for name in labels.tolist()], np.int64)
    watched = None if watch is None or parts.held is None else (watch[0], parts.held.codes(dataset.classes))
    made = Fitted(fitted, place, scores, settings, rows, codes, images, watched)
    model = probe_model(source, made, dataset, parts, seed, seconds)
    return LearnedModel(model, curve, seconds, choice, held_probs, parts)


def training_rows(
    source: Source,
    dataset: Dataset,
    place: Place,
    augmentation: Augmentation | None,
    seed: int,
    options: Extraction,
) -> tuple[Array, NDArray[np.str_], NDArray[np.intp]]:
    """Features of the images and of their augmented copies, with label and image index of each row."""
    n_copies = 0 if augmentation is None else augmentation.n_copies
    copies = [
        None,
        *(AugmentedCopy(augmentation, seed, number) for number in range(n_copies) if augmentation),
    ]
    rows = [
        extract(dataset, source, layer=place[0], pooling=place[1], copy=copy, options=options)
        for copy in copies
    ]
    images = np.tile(np.arange(len(dataset)), len(copies))
    return rows[0] if len(rows) == 1 else np.concatenate(rows), dataset.labels[images], images
