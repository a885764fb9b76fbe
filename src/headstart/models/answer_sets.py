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

__all__ = ["AnswerSets", "answer_sets", "answer_sets_note"]

_ROUNDING = 1e-6  # runtimes and sizes of batches differ by less
_FEW = 5  # images of a class, on average
_BY_RANK = "rank"


@dataclass(frozen=True)
class AnswerSets:
    """The rule for sets at one level: every class with a probability of at least ``least``, and the first ``first``.

    ``remark`` says why all classes are in every set, if they are.
    """

    level: float
    least: float
    first: int = 1
    remark: str | None = None

    def codes(self, probabilities: Array) -> list[NDArray[np.intp]]:
        """The classes in each image's set, the most probable first."""
        orders = np.argsort(-probabilities, axis=1, kind="stable")
        sizes = np.maximum((probabilities >= self.least - _ROUNDING).sum(axis=1), self.first)
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
    saved one: their probabilities are not comparable, and every set holds the same number of most probable classes.
    """
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise SettingError(f"level of sets is {level!r}, expected a share in (0, 1); give one such as 0.95")
    note = manifest.answer_sets
    if not note:
        raise ModelError(
            f"model {manifest.name!r} has no left-out scores for answer sets, expected those of a model of headstart "
            "transfer that was evaluated on left-out images; make it again"
        )
    threshold = conformal_threshold(note["left_out"], level)
    if isinf(threshold):
        n_left_out = note["n_clusters"]
        return AnswerSets(
            float(level),
            0.0,
            remark=f"{n_left_out} independent images were left out, expected at least {_expected(level)} for the "
            f"level {level:g} (the highest possible is {highest_level(note['left_out']):.3g}): every set "
            "holds all classes",
        )
    if note["rule"] == _BY_RANK:
        return AnswerSets(float(level), np.inf, round(threshold))
    return AnswerSets(float(level), 1 - threshold)


def answer_sets_note(
    probabilities: Array, codes: Codes, clusters: NDArray[np.generic] | None, images: str, *, crossed: bool
) -> Mapping[str, Any]:
    """Entry in the manifest, from probabilities of left-out images; ``images`` says how they were left out.

    ``crossed`` are probabilities of models that learned from fewer images than the saved one.
    """
    n_clusters = len(codes) if clusters is None else len(np.unique(clusters))
    true = probabilities[np.arange(len(codes)), codes].astype(np.float64)
    few = crossed and n_clusters < _FEW * probabilities.shape[1]
    if few:
        scores = (probabilities >= true[:, None]).sum(axis=1).astype(np.float64)  # the rank, of ties the last
    else:
        scores = np.ceil(np.clip(1.0 - true, 0.0, 1.0) * 1e6) / 1e6  # six digits, rounded up
    return {
        "rule": _BY_RANK if few else "probability",
        "left_out": list(left_out_quantiles(scores, clusters)),
        "n_images": len(codes),
        "n_clusters": n_clusters,
        "images": images,
    }


def _expected(level: float) -> int:
    """The fewest images with n / (n + 1) of at least the level."""
    return int(np.ceil(level / (1 - level) - 1e-9))
