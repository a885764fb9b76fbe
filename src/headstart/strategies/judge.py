"""Evaluates a training: on validation images that decided nothing, else by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation, augment
from headstart.data.images.prepare import prepare
from headstart.data.splits import fewest_per_class, folds, holdout
from headstart.errors import DataError
from headstart.evaluation.calibration import reliability
from headstart.evaluation.clusters import cluster_remark
from headstart.evaluation.metrics import evaluate
from headstart.evaluation.records import Calibration, Evaluation
from headstart.heads.base import fit_temperature, softmax
from headstart.models.answer_sets import answer_sets_note
from headstart.networks.engines.registry import make_network
from headstart.networks.training import AugmentBatch, fit
from headstart.records import Array, Codes, Images, NetworkSpec, TrainSettings
from headstart.system.progress import Progress

__all__ = [
    "HeldOutPredictions",
    "augmented_training",
    "cross_fitted",
    "cross_validated_training",
    "fold_logits",
    "halves",
    "training_folds",
]

_FOLDS = 5
Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]
"""Of each fold, the images to train on and those left out."""


@dataclass(frozen=True)
class HeldOutPredictions:
    """Probabilities of images that the network, or that of their fold, was not trained on.

    ``judged_on`` describes the images, as a word before "images".
    """

    images: Dataset
    probabilities: Array
    judged_on: str

    @property
    def crossed(self) -> bool:
        """Whether the probabilities are those of networks that share training images."""
        return self.judged_on == "cross-validated"

    def evaluation(self) -> Evaluation:
        """Accuracy, precision, recall, F1 and confusion matrix, with intervals that count clusters."""
        classes, codes = self.images.classes, self.images.codes()
        title = f"{self.judged_on.capitalize()} images of {self.images.name}"
        clusters = self.images.cluster_codes
        return evaluate(title, self.probabilities, codes, classes, clusters, crossed=self.crossed)

    def calibration(self) -> Calibration:
        """How well calibrated the probabilities are."""
        title = f"Calibration: {self.judged_on} images of {self.images.name}"
        clusters, codes = self.images.cluster_codes, self.images.codes()
        return reliability(title, self.probabilities, codes, clusters=clusters, crossed=self.crossed)

    def answer_sets(self) -> Mapping[str, Any]:
        """Entry of the manifest from which answer sets are made."""
        clusters, codes = self.images.cluster_codes, self.images.codes()
        return answer_sets_note(self.probabilities, codes, clusters, self.judged_on, crossed=self.crossed)

    @property
    def remark(self) -> str | None:
        """A remark if all images, or all of a class, are in one cluster."""
        return cluster_remark(self.images.cluster_codes, self.images.labels)


def halves(held: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Validation images for early stopping and for evaluation; DataError if a class has one cluster only."""
    if fewest_per_class(held.labels, held.cluster_codes) < 2:
        raise DataError(
            f"validation part of dataset {held.name!r} has a class with one image, expected two: one to stop "
            "early and one to evaluate on; add images, or set patience to 0"
        )
    stopping, evaluated = holdout(held.labels, 0.5, seed, held.cluster_codes)
    return held.subset(stopping), held.subset(evaluated)


def cross_fitted(
    logits: Array, codes: Codes, seed: int, clusters: NDArray[np.generic] | None = None
) -> Array:
    """Probabilities of held-out images, the temperature of each half fitted on the other half.

    So calibration is measured on images that the temperature was not fitted on; predictions are those of
    any temperature. Images with the same number in ``clusters`` go to the same half.
    """
    cluster = np.arange(len(codes)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    half = (np.random.default_rng([seed, 13]).permutation(cluster.max() + 1) % 2 == 0)[cluster]
    found = np.empty(logits.shape, np.float32)
    for here in (half, ~half):
        factor = fit_temperature(logits[~here], codes[~here]) if (~here).any() else 1.0
        found[here] = softmax(logits[here] * factor)
    return found


def cross_validated_training(
    pool: Dataset,
    spec: NetworkSpec,
    engine: str,
    settings: TrainSettings,
    augmentation: Augmentation | None,
    *,
    progress: Progress,
    device: str = "auto",
) -> HeldOutPredictions | None:
    """Predictions by networks trained without each of five folds of clusters; None if a class has one only."""
    if fewest_per_class(pool.labels, pool.cluster_codes) < 2:
        return None
    pool = replace(pool, splits=None)
    images, codes = prepare(pool, spec.input), pool.codes()
    parts = training_folds(pool.labels, settings.seed, pool.cluster_codes)
    logits = fold_logits(
        (images, codes), parts, spec, engine, settings, augmentation, progress=progress, device=device
    )
    return HeldOutPredictions(
        pool, cross_fitted(logits, codes, settings.seed, pool.cluster_codes), "cross-validated"
    )


def training_folds(labels: NDArray[np.str_], seed: int, clusters: NDArray[np.generic] | None) -> Folds:
    """Five folds, or fewer where a class has fewer clusters."""
    return folds(labels, min(_FOLDS, fewest_per_class(labels, clusters)), seed, clusters)


def fold_logits(
    pool: tuple[Images, Codes],
    parts: Folds,
    spec: NetworkSpec,
    engine: str,
    settings: TrainSettings,
    augmentation: Augmentation | None,
    *,
    progress: Progress,
    device: str = "auto",
) -> Array:
    """Logits (n_images, n_classes) by networks trained without the fold of each image."""
    images, codes = pool
    logits = np.zeros((len(codes), spec.n_classes), np.float32)
    for number, (train, held) in enumerate(parts):
        progress.step("cross-validation", number, len(parts))
        network = make_network(spec, engine, settings.seed, device)
        copies = augmented_training(augmentation, settings.seed)
        fit(network, images[train], codes[train], replace(settings, patience=0), augment=copies)
        logits[held] = network.logits(images[held])
    return logits


def augmented_training(augmentation: Augmentation | None, seed: int) -> AugmentBatch | None:
    """For `training.fit`: another augmented copy of every image in every epoch; None without augmentation."""
    if augmentation is None:
        return None
    return lambda batch, indices, epoch: augment(batch, augmentation, seed=seed, indices=indices, copy=epoch)
