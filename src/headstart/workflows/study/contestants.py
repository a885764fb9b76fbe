"""The contestants of a study: every strategy and control with its name, its note and how it is made.

A new control is a function here or in a module of its own, and one line of the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

from headstart.data.subsets import subset_map
from headstart.errors import DataError, UnknownSubsetError
from headstart.networks.specs import architecture
from headstart.records import NetworkSpec, TrainSettings
from headstart.report.entries import ENTRIES
from headstart.sources.hog import HOG
from headstart.sources.networks import native_input
from headstart.sources.pixels import PIXELS
from headstart.sources.precision import in_precision_of
from headstart.sources.random_network import random_source
from headstart.sources.registry import kind_of
from headstart.strategies.finetune.decide import FINETUNE_NAMES, finetune_strategies
from headstart.strategies.fits import Reader, chosen_probe, redrawn_probe
from headstart.strategies.unlabelled import unlabelled_probe
from headstart.workflows.comparison.baselines import (
    gradient_histograms,
    network_from_scratch,
    preparations_for,
    raw_pixels,
)
from headstart.workflows.comparison.controls import collapse, majority
from headstart.workflows.comparison.verdict import COLLAPSE, FINETUNE, FLOAT, PROBE, UNLABELLED
from headstart.workflows.study.context import Contestant, ReadyStrategy, StudyContext

__all__ = ["CONTESTANTS", "CONTROLS", "SCRATCH", "SCRATCH_VERY_FEW"]

SCRATCH = "scratch"
SCRATCH_VERY_FEW = TrainSettings(
    epochs=12, min_steps=300, batch_size=32, learning_rate=3e-3, schedule="one-cycle"
)
"""Settings of the control from scratch for fewer than 100 images."""


def _probe(study: StudyContext) -> ReadyStrategy:
    return ReadyStrategy(chosen_probe(study.reader, study.probe, study.chooser))


def _unlabelled(study: StudyContext) -> ReadyStrategy:
    if study.unlabelled is None:
        return ReadyStrategy(None)
    return ReadyStrategy(unlabelled_probe(study.reader, study.unlabelled, study.probe, study.chooser))


def _finetune(study: StudyContext, name: str = FINETUNE) -> ReadyStrategy:
    return ReadyStrategy(None if study.finetuner is None else finetune_strategies(study.finetuner)[name])


def _scratch(study: StudyContext) -> ReadyStrategy:
    pool = study.plain.pool
    spec, engine, remark = _scratch_network(study)
    preparations = preparations_for(pool, study.plain.source.input)
    strategy = network_from_scratch(
        spec,
        engine,
        study.scratch,
        pool,
        study.plain.test,
        study.probe.augmentation,
        preparations=preparations if spec.input in preparations else (spec.input, *preparations),
        very_few=study.scratch_very_few,
    )
    return ReadyStrategy(strategy, remark)


def _random_frozen(study: StudyContext) -> ReadyStrategy:
    if (drawn := _random_readers(study)) is not None:
        return ReadyStrategy(redrawn_probe(drawn, study.probe, study.chooser))
    if not kind_of(study.reader.source).pretrained:
        return ReadyStrategy(None)
    return ReadyStrategy(
        None,
        "The control random frozen is left out: the layers of this source are not known, so it cannot "
        "be given random weights.",
    )


def _raw_pixels(study: StudyContext) -> ReadyStrategy:
    if kind_of(study.reader.source) is PIXELS:  # the probe itself
        return ReadyStrategy(None)
    preparations = preparations_for(study.plain.pool, study.plain.source.input)
    return ReadyStrategy(raw_pixels(study.plain, preparations=preparations, balance=study.probe.balance))


def _hog(study: StudyContext) -> ReadyStrategy:
    if kind_of(study.reader.source) is HOG:  # the probe itself
        return ReadyStrategy(None)
    preparations = preparations_for(study.plain.pool, study.plain.source.input)
    return ReadyStrategy(
        gradient_histograms(study.plain, preparations=preparations, balance=study.probe.balance)
    )


def _majority(study: StudyContext) -> ReadyStrategy:
    return ReadyStrategy(majority(study.plain.pool, whole=study.setup.protocol.crossed))


def _scratch_network(study: StudyContext) -> tuple[NetworkSpec, str, str]:
    """The network to train from scratch, the engine that trains it, and a remark."""
    spec, remark = study.spec or _source_network(study, study.plain), ""
    if spec is None:
        spec = architecture("cnn", native_input(study.plain.pool), 2)
        remark = (
            "The control scratch is a small convolutional network (28 x 28 px), because the source has no network "
            "that can be trained on so few images in reasonable time."
        )
    if study.engine is not None:
        return spec, study.engine, remark
    if find_spec("torch") is not None:
        return spec, "torch", remark
    numpy_remark = "The control scratch is trained by the NumPy engine, because torch is not installed."
    return spec, "scratch", f"{remark} {numpy_remark}".strip()


def _source_network(study: StudyContext, reader: Reader) -> NetworkSpec | None:
    """The source's architecture with a reader's preparation; None where we do not have the layers."""
    if study.source.network is None:
        return None
    spec, policy = study.source.network[0], reader.source.input.policy
    return replace(spec, input=replace(spec.input, policy=policy))


def _random_readers(study: StudyContext) -> Callable[[int], Reader] | None:
    """Readers of the source's network with random weights, by seed; None where it has no network."""
    source = study.reader.source
    spec = study.spec or _source_network(study, study.reader)
    redraw = kind_of(source).redraw
    if spec is None and redraw is None:
        return None

    def reader(seed: int) -> Reader:
        if spec is not None:
            drawn = random_source(spec, seed)
        else:
            assert redraw is not None, "checked above"
            drawn = redraw(source, study.reader.pool, seed, source.notes["size_px"])
        drawn = replace(drawn, input=replace(drawn.input, policy=source.input.policy))
        drawn = in_precision_of(source, drawn, lambda: study.reader.pool, study.options)
        return replace(study.reader, source=drawn, _kept={})

    return reader


def _collapse(study: StudyContext) -> ReadyStrategy:
    """The source's own classes summed into the target's, where the dataset is a subset that maps them."""
    own, test = study.trained, study.setup.test
    _, colon, subset = test.name.rpartition(":")
    if own is None or not colon or own.manifest.strategy != "scratch":
        return ReadyStrategy(None)
    try:
        mapping = subset_map(own.classes, subset)
    except (UnknownSubsetError, DataError):
        return ReadyStrategy(None)
    classes = study.setup.pool.classes
    if None in mapping.values() or set(mapping.values()) != set(classes) or set(own.classes) == set(classes):
        return ReadyStrategy(None)
    probs = own.probabilities(test, runtime_name=study.options.runtime)
    return ReadyStrategy(collapse(probs, own.classes, subset, classes))


# in the order of the result table
_ALL = (
    Contestant(PROBE, "transfer, a new head on the frozen source", "probe", make=_probe),
    Contestant(
        UNLABELLED, "the probe, labels propagated to unlabelled images", "unlabelled", make=_unlabelled
    ),
    Contestant("probe, no augmentation", "the probe without augmented copies", "other"),
    Contestant("textbook probe", "frozen at the textbook's layer", "textbook"),
    Contestant(FLOAT, "the probe on the same network in fp32", "other"),
    Contestant("textbook", "network, preparation and head of the textbook", "other"),
    Contestant("textbook, no flip", "the textbook's augmentation without flips", "other"),
    Contestant("textbook, no augmentation", "the textbook's head without augmented copies", "other"),
    Contestant(FINETUNE, "fine-tuned if that beats the probe on held-out images", "finetune", make=_finetune),
    Contestant(
        FINETUNE_NAMES[1],
        "fine-tuned always",
        "other",
        make=lambda study: _finetune(study, FINETUNE_NAMES[1]),
    ),
    Contestant(
        SCRATCH,
        "a network trained on these labels alone",
        "scratch",
        control=True,
        make=_scratch,
        parallel=True,
        pixels=True,
    ),
    Contestant(
        "random frozen",
        "the same network with random weights, frozen",
        "random",
        control=True,
        make=_random_frozen,
        redrawn=True,
        pixels=True,
    ),
    Contestant(
        "HOG", "histograms of oriented gradients, no network", "hog", control=True, make=_hog, pixels=True
    ),
    Contestant(
        "raw pixels", "prepared pixels, no network", "pixels", control=True, make=_raw_pixels, pixels=True
    ),
    Contestant(
        COLLAPSE,
        "derived from the source's own classes",
        "collapse",
        control=True,
        make=_collapse,
        pixels=True,
    ),
    Contestant(
        "majority", "always the most frequent class", "majority", rival=False, control=True, make=_majority
    ),
)
CONTESTANTS = {one.name: one for one in _ALL}
"""Every strategy and control by its name, in the order of the result table."""

CONTROLS = tuple(one.name for one in _ALL if one.control)
"""Controls by name. ``collapse`` applies only where the source's own classes determine the target's."""

ENTRIES.update(CONTESTANTS)  # the report is a lower layer and shows what is registered there
