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
from headstart.strategies.result import LearnedModel
from headstart.strategies.select import Choice
from headstart.workflows.recipes.recipe import FrozenRecipe

__all__ = ["AUGMENT_FOLDS", "Bench", "Indices", "Plan"]


AUGMENT_FOLDS = 5  # of the trial of augmentation, whose fits have no closed form


Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Plan:
    """What cross-validation chose for one draw of labels, with the accuracies that decided on the views."""

    place: Place
    head: str
    choice: Choice | None
    augmentation: Augmentation | None
    trials: tuple[tuple[str, float], ...] = ()


@dataclass
class Bench:
    """The parts that every strategy shares; ``hits`` notes who was right on which test image, by draw."""

    recipe: FrozenRecipe
    source: Source
    train: Dataset
    test: Dataset
    options: Extraction
    seed: int
    plans: dict[bytes, Plan] = field(default_factory=dict)
    hits: dict[str, list[NDArray[np.bool_]]] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    answered: list[Array] = field(default_factory=list)

    def answers(self, place: Place) -> Array:
        """Features of the test images."""
        return extract(self.test, self.source, layer=place[0], pooling=place[1], options=self.options)

    def asked(self, learnt: LearnedModel) -> Array:
        """The saved model's answers on the test images, asked once."""
        if not self.answered:
            options = self.options
            self.answered.append(
                learnt.model.probabilities(self.test, runtime_name=options.runtime, progress=options.progress)
            )
        return self.answered[0]
