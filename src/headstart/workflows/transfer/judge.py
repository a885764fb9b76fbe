"""Evaluates a transfer: on validation images if there are some, else by nested cross-validation.

Every figure of the report comes from the probabilities made here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import headstart.workflows.study.contestants  # noqa: F401 (registers names and notes of the rows)
from headstart.data.dataset import Dataset
from headstart.data.readable import has_pixels
from headstart.records import Array, Source
from headstart.sources.features import Extraction
from headstart.sources.registry import kind_of
from headstart.strategies.fits import Chooser, Reader, Strategy, chosen_probe
from headstart.strategies.parts import TrainingParts
from headstart.strategies.places import Probe, places_of
from headstart.strategies.result import LearnedModel
from headstart.strategies.select import MOST_IMAGES
from headstart.strategies.unlabelled import Unlabelled, unlabelled_probe
from headstart.workflows.comparison.baselines import gradient_histograms, raw_pixels
from headstart.workflows.comparison.controls import majority
from headstart.workflows.comparison.protocol import Protocol, crossed_protocol
from headstart.workflows.comparison.table import Table, run_table
from headstart.workflows.comparison.verdict import FINETUNE, FLOAT, PROBE, UNLABELLED

__all__ = ["PIXEL_CONTROLS", "TransferEvaluation", "by_cross_validation", "judged"]

PIXEL_CONTROLS = ("HOG", "raw pixels")
"""Controls that compute from images."""

_FOLDS, _MORE_FOLDS = 10, 20
_PAIRS = ((UNLABELLED, PROBE), (FLOAT, PROBE))
_FEW = 150  # images up to which training on a tenth less costs more than a point, and folds are cheap


@dataclass(frozen=True)
class TransferEvaluation:
    """A model and its controls on images that they were not trained on.

    ``probabilities``, (n_images, n_classes), are of the model or of the models of the folds; ``name`` is
    its row of the table. ``judged_on`` describes the images, as a word before "images";
    ``protocol`` says how they were held out.
    """

    table: Table
    images: Dataset
    probabilities: Array
    name: str
    judged_on: str
    protocol: str

    @property
    def crossed(self) -> bool:
        """Whether the probabilities are those of models that share training images."""
        return self.judged_on == "cross-validated"


def judged(
    source: Source,
    learned: LearnedModel,
    kept: LearnedModel,
    parts: TrainingParts,
    probe: Probe,
    *,
    seed: int,
    options: Extraction,
    unlabelled: Unlabelled | None = None,
    plain: Source | None = None,
) -> TransferEvaluation | None:
    """Evaluate the model ``kept``, the probe ``learned`` or a fine-tuned network; None if nothing can be held out.

    ``plain`` is the source in fp32, to compare with, where ``source`` is in int8.
    """
    if parts.held is None:
        return by_cross_validation(
            source, parts.fit, probe, seed=seed, options=options, unlabelled=unlabelled, plain=plain
        )
    assert learned.held_probs is not None and kept.held_probs is not None
    alone = learned.held_probs if learned.probe_probs is None else learned.probe_probs
    first, final = learned.held_probs, kept.held_probs
    strategies: dict[str, Strategy] = {PROBE: lambda train, test, seed: alone}
    if unlabelled is not None:
        strategies[UNLABELLED] = lambda train, test, seed: first
    reader = Reader(source, parts.fit, parts.held, options, probe.augmentation, seed)
    strategies |= {**_in_floats(plain, reader, probe), **_controls(reader, probe)}
    if kept is not learned:
        strategies[FINETUNE] = lambda train, test, seed: final
    protocol = Protocol((), 1, seed, shown=(FINETUNE, UNLABELLED, FLOAT), pairs=_PAIRS)
    table = run_table(strategies, parts.fit, parts.held, protocol, progress=options.progress)
    protocol_text = (
        f"The model learned from {len(parts.fit):,} images and is evaluated on {len(parts.held):,} others, "
        "which were used for neither training nor selection. Intervals are Wilson's and account for copies and "
        "groups; differences are paired."
    )
    name = FINETUNE if kept is not learned else PROBE if unlabelled is None else UNLABELLED
    return TransferEvaluation(table, parts.held, final, name, "validation", protocol_text)


def by_cross_validation(
    source: Source,
    pool: Dataset,
    probe: Probe,
    *,
    seed: int,
    options: Extraction,
    unlabelled: Unlabelled | None = None,
    plain: Source | None = None,
) -> TransferEvaluation | None:
    """Repeat the procedure without each of 10 or 20 folds of clusters; None if a class has one cluster only."""
    protocol = crossed_protocol(pool, _MORE_FOLDS if len(pool) <= _FEW else _FOLDS, seed)
    if protocol is None:
        return None
    pool = replace(pool, splits=None)
    reader = Reader(source, pool, pool, options, probe.augmentation, seed)
    chooser = Chooser(reader, probe, MOST_IMAGES)
    strategies = {PROBE: chosen_probe(reader, probe, chooser)}
    if unlabelled is not None:
        strategies[UNLABELLED] = unlabelled_probe(reader, unlabelled, probe, chooser)
    protocol = replace(protocol, shown=(UNLABELLED, FLOAT), pairs=_PAIRS)
    strategies |= {**_in_floats(plain, reader, probe), **_controls(reader, probe, whole=True)}
    name = PROBE if unlabelled is None else UNLABELLED
    table = run_table(strategies, pool, pool, protocol, progress=options.progress)
    selected = bool(places_of(source, probe)[1])
    again = " Layer, pooling and head were selected again in every fold." if selected else ""
    protocol_text = (
        f"Nested cross-validation: {protocol.n_folds} folds of the {len(pool):,} images, copies and groups in one "
        f"fold; each image was predicted by a model trained on the other folds only.{again} The saved "
        "model learned from all images. Intervals account for training images that folds share."
    )
    return TransferEvaluation(table, pool, table.predictions[name], name, "cross-validated", protocol_text)


def _in_floats(plain: Source | None, reader: Reader, probe: Probe) -> dict[str, Strategy]:
    """The probe on the same network in fp32, on the same images; none where the probe is in fp32 itself."""
    if plain is None:
        return {}
    exact = replace(reader, source=plain, _kept={}, _copies={})
    return {FLOAT: chosen_probe(exact, probe, Chooser(exact, probe, MOST_IMAGES))}


def _controls(reader: Reader, probe: Probe, *, whole: bool = False) -> dict[str, Strategy]:
    """The controls HOG, raw pixels and majority; none if the source is not pretrained.

    Majority alone where the images have no pixels.
    """
    if not kind_of(reader.source).pretrained:
        return {}
    makers: dict[str, Callable[[], Strategy]] = {
        "HOG": lambda: gradient_histograms(reader, balance=probe.balance),
        "raw pixels": lambda: raw_pixels(reader, balance=probe.balance),
        "majority": lambda: majority(reader.pool, whole=whole),
    }
    there = has_pixels(reader.pool.images)
    return {name: make() for name, make in makers.items() if there or name not in PIXEL_CONTROLS}
