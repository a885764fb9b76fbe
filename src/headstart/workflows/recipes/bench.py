"""What the strategies of a recipe on a pretrained network share.

Apart from the run and its report, which both read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.records import Array, Curve, Source
from headstart.sources.features import Extraction, Place, extract
from headstart.strategies.places import Reading
from headstart.strategies.result import LearnedModel
from headstart.strategies.select import Choice
from headstart.workflows.recipes.recipe import FrozenRecipe

__all__ = ["AUGMENT_FOLDS", "Bench", "DrawPlan", "Indices"]


AUGMENT_FOLDS = 5  # of the trial of augmentation, whose fits have no closed form


Indices = NDArray[np.intp]


@dataclass(frozen=True)
class DrawPlan:
    """Selected by cross-validation for one draw: places and heads, whose probabilities are averaged.

    ``trials`` are the accuracies that decided on augmentation.
    """

    readings: tuple[Reading, ...]
    choice: Choice | None
    augmentation: Augmentation | None
    trials: tuple[tuple[str, float], ...] = ()


@dataclass
class Bench:
    """What every strategy shares; ``hits`` records by draw which test images a strategy classified correctly."""

    recipe: FrozenRecipe
    source: Source
    train: Dataset
    test: Dataset
    options: Extraction
    seed: int
    plans: dict[bytes, DrawPlan] = field(default_factory=dict)
    hits: dict[str, list[NDArray[np.bool_]]] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    probabilities: list[Array] = field(default_factory=list)

    def test_rows(self, place: Place) -> Array:
        """Features of the test images."""
        return extract(self.test, self.source, layer=place[0], pooling=place[1], options=self.options)

    def model_probabilities(self, learned: LearnedModel) -> Array:
        """The saved model's answers on the test images, computed once."""
        if not self.probabilities:
            options = self.options
            self.probabilities.append(
                learned.model.probabilities(
                    self.test, runtime_name=options.runtime, progress=options.progress
                )
            )
        return self.probabilities[0]
