"""Answer sets: how often the true class is in them, and how many classes they hold, on other images.

The whole procedure of `headstart transfer` (layer, pooling and heads selected again in every fold) on many draws of
few labels; coverage is counted on images that no draw uses. Beside the rule that is built in stand others on the same
left-out probabilities: the threshold on the probability whatever the number of labels, sets by cumulated probability
(APS: Romano, Sesia, Candes. NeurIPS 2020, arXiv:2006.02544), and thresholds for each class (Vovk 2012,
arXiv:1209.2673).

    python benchmarks/answer_sets.py --data DATA --pairs drawings,usps hog,mnist train:mlp,mnist
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts

from headstart.data.checks.refuse import checked
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.evaluation.conformal import conformal_threshold, left_out_quantiles
from headstart.models.answer_sets import RULES as SCORES
from headstart.models.answer_sets import answer_sets, answer_sets_note
from headstart.models.model import Model
from headstart.records import Source
from headstart.sources.features import Extraction
from headstart.sources.fitting import with_fitting_policy
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.system.cache import default_cache
from headstart.workflows.train.request import TrainingFiles, TrainingRequest
from headstart.workflows.train.run import run_training
from headstart.workflows.transfer import judge

TRAINED = "train:"  # before the name of a network that is trained from scratch instead
EPOCHS = 30
RULES = ("built in", "probability", "margin", "cumulated", "each class")

Made = tuple[Model, Any, np.ndarray, np.ndarray]
"""A model, its entry for answer sets, left-out probabilities and their classes."""


def covered(sets: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Coverage and mean size of sets, a boolean array (n_images, n_classes)."""
    return float(sets[np.arange(len(codes)), codes].mean()), float(sets.sum(axis=1).mean())


def cumulated(probs: np.ndarray) -> np.ndarray:
    """The probability of each class and of all more probable ones, (n_images, n_classes)."""
    order = np.argsort(-probs, axis=1, kind="stable")
    found = np.empty_like(probs)
    np.put_along_axis(found, order, np.take_along_axis(probs, order, axis=1).cumsum(axis=1), axis=1)
    return found


def other_rules(
    left: np.ndarray, left_codes: np.ndarray, new: np.ndarray, level: float
) -> dict[str, np.ndarray]:
    """The sets of the other rules, from left-out probabilities and those of new images."""
    rows = np.arange(len(left_codes))
    top = np.eye(new.shape[1], dtype=bool)[new.argmax(axis=1)]
    threshold = conformal_threshold(left_out_quantiles(cumulated(left)[rows, left_codes]), level)
    missing = 1 - left[rows, left_codes]
    plain = conformal_threshold(left_out_quantiles(missing), level)
    each = [
        conformal_threshold(left_out_quantiles(missing[left_codes == code]), level)
        for code in range(new.shape[1])
    ]
    margins = conformal_threshold(left_out_quantiles(SCORES["margin"](left)[rows, left_codes]), level)
    return {
        "probability": top | (1 - new <= plain),
        "margin": top | (SCORES["margin"](new) <= margins),
        "cumulated": top | (cumulated(new) <= threshold),
        "each class": top | (1 - new <= each),
    }


@dataclass(frozen=True)
class Draws:
    """Where labels are drawn from, and the images on which coverage is counted."""

    source: Source | str
    rest: Dataset
    test: Dataset

    @classmethod
    def of(cls, name: str, data: str, n_test: int) -> Draws:
        """Of a source and a dataset."""
        dataset = replace(load(data), splits=None, holdout=None)
        shuffled = np.random.default_rng(1).permutation(len(dataset))
        n_test = min(n_test, len(dataset) // 2)
        if name.startswith(TRAINED):
            source: Source | str = name.removeprefix(TRAINED)
        else:
            source = with_fitting_policy(open_source(name, dataset), dataset)
        return cls(source, dataset.subset(shuffled[n_test:]), dataset.subset(shuffled[:n_test]))

    def pool(self, n_labels: int, draw: int) -> Dataset:
        """So many images of each class."""
        rng, codes = np.random.default_rng([draw, n_labels]), self.rest.codes(self.rest.classes)
        each = [rng.permutation(np.flatnonzero(codes == code))[:n_labels] for code in np.unique(codes)]
        return checked(self.rest.subset(np.sort(np.concatenate(each))))[0]

    def counted(self, n_labels: int, draw: int, level: float) -> dict[str, Any] | None:
        """Coverage and size of the sets of every rule, after one draw; None where nothing can be left out."""
        pool = self.pool(n_labels, draw)
        made = self.trained(pool, draw) if isinstance(self.source, str) else self.transferred(pool, draw)
        if made is None:
            return None
        model, note, left, left_codes = made
        rule = answer_sets(replace(model.manifest, answer_sets=note), level)
        probs, truth = model.probabilities(self.test), self.test.codes(pool.classes)
        ours = np.zeros(probs.shape, bool)
        for row, one in enumerate(rule.codes(probs)):
            ours[row, one] = True
        sets = {"built in": ours, **other_rules(left, left_codes, probs, level)}
        return {
            "accuracy": float((probs.argmax(axis=1) == truth).mean()),
            "n_left_out": len(left_codes),
            "all_classes": rule.remark is not None,
            "by": note["rule"],
            **{key: covered(one, truth) for key, one in sets.items()},
        }

    def transferred(self, pool: Dataset, draw: int) -> Made | None:
        """A head on the frozen source."""
        options = Extraction(default_cache(), precision="fp32")
        learned = learn_head(self.source, pool, Probe(), seed=draw, options=options)
        assert learned.parts is not None
        found = judge.judged(
            self.source, learned, learned, learned.parts, Probe(), seed=draw, options=options
        )
        if found is None:
            return None
        left, clusters = found.probabilities, found.images.cluster_codes
        codes = found.images.codes(pool.classes)
        note = answer_sets_note(left, codes, clusters, found.judged_on, crossed=found.crossed)
        return learned.model, note, left, codes

    def trained(self, pool: Dataset, draw: int) -> Made | None:
        """A network from scratch, by `headstart train`."""
        settings = {"seed": draw, "epochs": EPOCHS}
        request = TrainingRequest(self.source, "scratch", settings=settings)
        with tempfile.TemporaryDirectory() as folder:
            learned = run_training(pool, request, TrainingFiles(Path(folder) / "model")).learned
        found, manifest = learned.predictions, learned.model.manifest
        if found is None:
            return None
        return learned.model, manifest.answer_sets, found.probabilities, found.images.codes(pool.classes)


def summary(draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the draws, with the standard error of coverage."""
    found: dict[str, Any] = {
        "draws": len(draws),
        "by": draws[0]["by"],
        **{
            key: float(np.mean([one[key] for one in draws]))
            for key in ("accuracy", "n_left_out", "all_classes")
        },
    }
    for rule in RULES:
        coverage, size = np.array([one[rule] for one in draws]).T
        error = coverage.std() / max(len(draws) - 1, 1) ** 0.5
        found[rule] = {"coverage": coverage.mean(), "error": float(error), "size": size.mean()}
    return found


def main() -> None:
    """Draw, train, count, print."""
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--data", required=True, help="folder of the data sets")
    given.add_argument("--pairs", nargs="+", required=True, metavar="SOURCE,DATA")
    given.add_argument("--labels", nargs="+", type=int, default=[2, 5, 10, 50])
    given.add_argument("--draws", nargs="+", type=int, default=[40, 20, 10, 20], help="for each of --labels")
    given.add_argument("--level", type=float, default=0.95)
    given.add_argument("--test", type=int, default=1_000, help="images on which coverage is counted")
    chosen = given.parse_args()
    os.environ["HEADSTART_DATA"] = chosen.data
    judge._controls = lambda *_, **__: {}  # only the model itself matters here
    about, found = facts("headstart", "numpy", "openvino"), []
    print(about, flush=True)
    for pair in chosen.pairs:
        draws = Draws.of(*pair.split(","), chosen.test)
        for n_labels, n_draws in zip(chosen.labels, chosen.draws, strict=True):
            if n_labels > min(draws.rest.counts().values()):
                continue
            counted = [draws.counted(n_labels, draw, chosen.level) for draw in range(n_draws)]
            if not (some := [one for one in counted if one is not None]):
                continue
            one = {"pair": pair, "labels": n_labels, **summary(some)}
            found.append(one)
            rules = "  ".join(
                f"{rule} {one[rule]['coverage']:.3f} +- {one[rule]['error']:.3f} ({one[rule]['size']:.2f})"
                for rule in RULES
            )
            print(
                f"{pair}, {n_labels} labels per class, {one['draws']} draws, accuracy {one['accuracy']:.3f}, "
                f"{one['n_left_out']:.0f} left out, by {one['by']}, all classes in {one['all_classes']:.0%}: {rules}",
                flush=True,
            )
    print(json.dumps({**about, "level": chosen.level, "found": found}))


if __name__ == "__main__":
    main()
