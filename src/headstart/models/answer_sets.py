"""Answer sets: the classes that an image may have, so many that the true one is among them at a stated level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ModelError, SettingError
from headstart.evaluation.conformal import conformal_threshold, highest_level, left_out_quantiles
from headstart.models.manifest import Manifest
from headstart.records import Array, Codes

__all__ = ["RULES", "AnswerSets", "answer_sets", "answer_sets_note"]

_ROUNDING = 1e-6  # runtimes and sizes of batches differ by less
_FEW = 5  # images of a class, on average
_LEAST = 1e-6  # probability below which a logarithm is cut


def _missing(probabilities: Array) -> NDArray[np.float64]:
    """What each probability lacks."""
    return 1.0 - np.clip(probabilities.astype(np.float64), 0.0, 1.0)


def _margins(probabilities: Array) -> NDArray[np.float64]:
    """How far the logarithm of each probability is behind the largest, in units of their spread.

    It does not change when probabilities are raised to a power: a model that is surer has the same margins.
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
    margins: NDArray[np.float64] = logs.max(axis=1, keepdims=True) - logs
    margins /= np.maximum(logs.std(axis=1, keepdims=True), 1e-9)
    return margins


RULES = {"probability": _missing, "margin": _margins}
"""Scores of every class, (n_images, n_classes), larger for less probable ones."""


@dataclass(frozen=True)
class AnswerSets:
    """The rule for sets at one level: every class with a score up to the threshold, and the most probable class.

    ``rule`` is a key of `RULES`; ``remark`` says why all classes are in every set, if they are.
    """

    level: float
    threshold: float
    rule: str = "probability"
    remark: str | None = None

    def codes(self, probabilities: Array) -> list[NDArray[np.intp]]:
        """The classes in each image's set, the most probable first."""
        orders = np.argsort(-probabilities, axis=1, kind="stable")
        sizes = np.maximum((RULES[self.rule](probabilities) <= self.threshold + _ROUNDING).sum(axis=1), 1)
        return [order[:size] for order, size in zip(orders, sizes, strict=True)]

    def names(self, probabilities: Array, classes: Sequence[str]) -> list[tuple[str, ...]]:
        """The names of the classes in each image's set, the most probable first."""
        return [tuple(classes[code] for code in one) for one in self.codes(probabilities)]


def answer_sets(manifest: Manifest, level: float) -> AnswerSets:
    """The rule at a level in (0, 1); ModelError for a model without left-out scores.

    Notes
    -----
    A set holds the classes that are as probable as the true class of left-out images usually is: Sadinle, Lei,
    Wasserman. Least Ambiguous Set-Valued Classifiers with Bounded Error Levels. JASA 114 (2019), arXiv:1609.00451.
    With validation images that is split conformal prediction, and a set holds the true class of a new image of the
    same origin with a probability of at least the level (Vovk, Gammerman, Shafer 2005; Angelopoulos, Bates 2021,
    arXiv:2107.07511). With cross-validation it is the jackknife's rule for folds: the scores are those of models that
    learned from fewer images than the saved one, and coverage is no theorem (Barber, Candes, Ramdas, Tibshirani.
    Predictive inference with the jackknife+. Annals of Statistics 49 (2021), arXiv:1905.02928); measured in
    docs/decisions/0021. With fewer than 5 images of a class, models without one of them are far less sure than the
    saved one: their probabilities are not comparable, and sets are by how far a class is behind the first one in the
    logarithm of the probability, in units of the image's own spread.
    """
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise SettingError(f"level of sets is {level!r}, expected a share in (0, 1); give one such as 0.95")
    note = manifest.answer_sets
    if not note:
        raise ModelError(
            f"model {manifest.name!r} has no left-out scores for answer sets, expected a model that was evaluated on "
            f"images left out of its training; {_remedy(manifest)}"
        )
    threshold = conformal_threshold(note["left_out"], level)
    if isinf(threshold):
        n_images, n_clusters = note["n_images"], note["n_clusters"]
        left_out = (
            f"{n_clusters:,} independent images were left out"
            if n_images == n_clusters
            else f"{n_images:,} images of {n_clusters:,} groups, or copies of {n_clusters:,} images, were left out"
        )
        return AnswerSets(
            float(level),
            threshold,
            note["rule"],
            f"{left_out}, expected at least {_expected(level)} for the "
            f"level {level:g} (the highest possible is {highest_level(note['left_out']):.3g}): every set "
            "holds all classes",
        )
    return AnswerSets(float(level), threshold, note["rule"])


def answer_sets_note(
    probabilities: Array, codes: Codes, clusters: NDArray[np.generic] | None, images: str, *, crossed: bool
) -> Mapping[str, Any]:
    """Entry in the manifest, from probabilities of left-out images; ``images`` says how they were left out.

    ``crossed`` are probabilities of models that learned from fewer images than the saved one.
    """
    n_clusters = len(codes) if clusters is None else len(np.unique(clusters))
    rule = "margin" if crossed and n_clusters < _FEW * probabilities.shape[1] else "probability"
    scores = RULES[rule](probabilities)[np.arange(len(codes)), codes]
    rounded = np.ceil(scores * 1e6 - 1e-3) / 1e6  # six digits, rounded up
    return {
        "rule": rule,
        "left_out": list(left_out_quantiles(rounded, clusters)),
        "n_images": len(codes),
        "n_clusters": n_clusters,
        "images": images,
    }


def _remedy(manifest: Manifest) -> str:
    """What to do for a model without left-out scores, as far as its manifest tells."""
    if manifest.data.get("n_held"):
        return "make it again with this version of headstart, which stores the scores"
    command = "train" if manifest.strategy == "scratch" else "transfer"
    return (
        f"none were left out; make it again with headstart {command}, from two or more images of each class, and of "
        "two or more groups if they have groups"
    )


def _expected(level: float) -> int:
    """The fewest images with n / (n + 1) of at least the level."""
    return int(np.ceil(level / (1 - level) - 1e-9))
