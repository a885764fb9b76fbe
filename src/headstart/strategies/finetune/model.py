"""Fine-tunes a source on a dataset and makes it a model, if it beats the probe on held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from headstart.data.dataset import Dataset
from headstart.heads.base import fit_temperature
from headstart.heads.trained import TrainedHead
from headstart.models.manifest import Manifest
from headstart.records import Array, Codes, Source
from headstart.report.records import PlainTable
from headstart.sources.features import PLAIN, Extraction, extract
from headstart.strategies.assemble import Fitted, probe_model
from headstart.strategies.finetune.decide import Decision, Finetuner
from headstart.strategies.finetune.options import FinetuneOptions
from headstart.strategies.finetune.rules import augmentation_for
from headstart.strategies.finetune.train import FineTuned
from headstart.strategies.fits import Chooser, Reader
from headstart.strategies.mixture import FittedHead, Mixture
from headstart.strategies.parts import TrainingParts
from headstart.strategies.places import Probe, Reading
from headstart.strategies.result import LearnedModel, epoch_curve

__all__ = ["Attempt", "attempt", "depth_table"]


@dataclass(frozen=True)
class Attempt:
    """The model that is kept, fine-tuned or the probe, and what was tried."""

    learned: LearnedModel
    decision: Decision

    @property
    def sentence(self) -> str:
        """Which model was kept and why, with a warning if its figures are optimistic."""
        sentence = self.decision.sentence
        if self.decision.accepted:
            sentence += (
                " These held-out images decided which model was kept, so both figures are optimistic; the "
                "reported accuracy is that on other images."
            )
        return sentence


def attempt(
    source: Source,
    dataset: Dataset,
    learned: LearnedModel,
    wanted: Probe,
    finetune: FinetuneOptions,
    parts: TrainingParts,
    *,
    seed: int = 0,
    options: Extraction = PLAIN,
) -> Attempt:
    """Fine-tune a source from where its probe ``learned`` reads; the probe is kept unless it is beaten.

    SourceError if the source cannot be fine-tuned, MissingExtraError if torch is not installed.
    """
    begun, manifest = perf_counter(), learned.model.manifest
    pool = replace(parts.fit, splits=None)
    reader = Reader(source, pool, pool, options, wanted.augmentation, seed)
    chooser = Chooser(reader, wanted, readings=_readings(manifest))
    finetuner = Finetuner(reader, chooser, finetune, options.progress, skips_perfect=True)
    everyone = np.arange(len(pool))
    decision = finetuner.decide(everyone, seed)
    if not decision.accepted:
        return Attempt(learned, decision)
    finetuned = finetuner.finetuned(everyone, seed)
    finetuned = replace(finetuned, made=(replace(finetuned.source, seen=source.seen), finetuned.head))
    note = {
        "augmentation": augmentation_for(source.input, dataset.classes, finetune).parts(),
        **finetune.settings,
    }
    made = _model(dataset, parts, finetuned, note, seed, decision)
    seconds = learned.seconds + perf_counter() - begun
    timed = {**made.model.manifest.timing, "learning_s": round(seconds, 3)}
    model = replace(made.model, manifest=replace(made.model.manifest, timing=timed))
    return Attempt(replace(made, model=model, seconds=seconds, choice=learned.choice, parts=parts), decision)


def _readings(manifest: Manifest) -> tuple[Reading, ...]:
    """Where the heads of a model read, and their names."""
    source, head = manifest.source, manifest.head
    if "heads" not in head:
        return (Reading((source["tap"], source["pooling"]), head["name"]),)
    return tuple(Reading((one["tap"], one["pooling"]), one["name"]) for one in head["heads"])


def _model(
    dataset: Dataset,
    parts: TrainingParts,
    finetuned: FineTuned,
    note: Mapping[str, Any],
    seed: int,
    decision: Decision,
) -> LearnedModel:
    """The fine-tuned network as a model, its probabilities calibrated on the images that decided."""
    place = finetuned.place
    rows = extract(parts.fit, finetuned.source, layer=place[0], pooling=place[1])
    codes, head, held, scores = parts.fit.codes(dataset.classes), finetuned.head, None, {}
    probs, best = None, decision.best
    if best is not None and best.logits is not None and decision.truth is not None:
        head = _calibrated(head, best.logits, decision.truth)
    if parts.held is not None:
        watched = extract(parts.held, finetuned.source, layer=place[0], pooling=place[1])
        held_codes = parts.held.codes(dataset.classes)
        probs = head.probabilities(watched)
        held = (probs, held_codes)
        scores["val_accuracy"] = float((probs.argmax(axis=1) == held_codes).mean())
    settings = {
        "opened_parts": finetuned.n_unfrozen,
        "parts": finetuned.n_parts,
        "epochs": len(finetuned.history),
        "alpha": finetuned.alpha,
        **note,
    }
    heads = Mixture.even([FittedHead(head, place, rows)])
    made = Fitted(heads, scores, settings, codes, np.arange(len(rows)), held)
    model = probe_model(finetuned.source, made, dataset, parts, seed, 0.0, strategy="finetune")
    curve = epoch_curve(f"fine-tuning on {dataset.name}", finetuned.history, finetuned.best_epoch)
    return LearnedModel(model, curve, 0.0, None, probs)


def _calibrated(head: TrainedHead, logits: Array, codes: Codes) -> TrainedHead:
    factor = np.float32(fit_temperature(logits, codes))
    return TrainedHead(head.weight_ * factor, head.bias_ * factor, head.classes_)


def depth_table(decision: Decision) -> PlainTable:
    """The probe and every depth that was tried, on the same held-out images."""
    tried = (*((decision.probe,) if decision.probe else ()), *decision.trials)
    return PlainTable(
        "Depths of fine-tuning",
        f"Every depth is evaluated on the same {decision.n_held:,} held-out images. The most "
        f"accurate depth replaces the probe by this rule: {decision.rule}. Its metrics are "
        "slightly optimistic, because they selected it.",
        ("unfrozen", "accuracy, %", "loss, nats", "epochs"),
        tuple(
            (
                "nothing: the probe" if one.depth == "probe" else one.depth,
                f"{100 * one.accuracy:.2f}",
                f"{one.loss:.4f}",
                str(one.epochs) if one.epochs else "",
            )
            for one in tried
        ),
    )
