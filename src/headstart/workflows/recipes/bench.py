"""What the strategies of a recipe on a pretrained network share.

Apart from the run and its report, which both read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.records import Array, Curve, Source
from headstart.sources.features import PLAIN, Extraction, Place, extract_all
from headstart.strategies.places import Reading
from headstart.strategies.result import LearnedModel
from headstart.strategies.select import Choice
from headstart.system.cache import FolderCache, NullCache
from headstart.system.temporary import own_folder
from headstart.workflows.recipes.ahead import ReadAhead
from headstart.workflows.recipes.recipe import FrozenRecipe

__all__ = ["AUGMENT_FOLDS", "Bench", "DrawPlan", "Indices", "cached"]


AUGMENT_FOLDS = 5  # of the trial of augmentation, for heads without exact held-out scores


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
    """What every strategy shares; ``hits`` records by draw which test images a strategy classified correctly.

    ``exact`` is the source in fp32, to compare with, where ``source`` is in int8. ``ahead`` computes features that
    are known to be read later.
    """

    recipe: FrozenRecipe
    source: Source
    train: Dataset
    test: Dataset
    options: Extraction
    seed: int
    exact: Source | None = None
    plans: dict[bytes, DrawPlan] = field(default_factory=dict)
    hits: dict[str, list[NDArray[np.bool_]]] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    probabilities: list[Array] = field(default_factory=list)
    ahead: ReadAhead = field(default_factory=lambda: ReadAhead(PLAIN))
    _test: dict[tuple[str, Place], Array] = field(default_factory=dict)  # shared by replace()

    @property
    def drawn(self) -> Indices:
        """The images of all draws, in order: a small part of a large training set."""
        return np.unique(np.concatenate([np.frombuffer(key, np.intp) for key in self.plans]))

    def read_test(self, places: Sequence[Place]) -> None:
        """Compute the features of the test images at several places in one pass, unless they are kept."""
        wanted = [one for one in dict.fromkeys(places) if (self.source.fingerprint, one) not in self._test]
        if wanted:
            rows = extract_all(self.test, self.source, wanted, options=self.options)
            found = zip(wanted, rows, strict=True)
            self._test.update({(self.source.fingerprint, place): one for place, one in found})

    def test_rows(self, place: Place) -> Array:
        """Features of the test images."""
        self.read_test([place])
        return self._test[self.source.fingerprint, place]

    def model_probabilities(self, learned: LearnedModel) -> Array:
        """What the saved model predicts for the test images, computed once.

        By its heads on the features that the other strategies read, too: its graph would compute them again.
        """
        if not self.probabilities:
            assert learned.heads is not None, "the model of a recipe is a probe"
            as_saved = self
            if (self.options.precision or self.source.precision) != "fp32":
                as_saved = replace(self, options=replace(self.options, precision="fp32"), _test={})
            rows = [as_saved.test_rows(one.place) for one in learned.heads.heads]
            self.probabilities.append(learned.heads.probabilities(rows))
        return self.probabilities[0]


@contextmanager
def cached(options: Extraction) -> Iterator[Extraction]:
    """A cache for this run where there is none: its strategies read the same features several times."""
    with ExitStack() as stack:
        if options.cache is None or isinstance(options.cache, NullCache):
            with suppress(OSError):  # without a temporary folder features are computed again
                folder = stack.enter_context(own_folder("headstart-features-"))
                options = replace(options, cache=FolderCache(folder))
        yield options
