"""Size, coverage and power of a study's verdict, protocol by protocol, where the truth is known.

Two procedures classify images: each image has a difficulty that both share in part, each group too, each training set
makes a model a little better or worse, and single predictions vary; all normal on one latent scale, so that the true
accuracies are known exactly. The rows, intervals and verdicts are those of `run_table`, as a study prints them.

alarms      how often a verdict is helps or hurts where both procedures are equally accurate
coverage    how often the interval of the difference, and that of an accuracy, hold the truth
power       how often the verdict is helps where one is 4, 6 or 10 points more accurate than the other

With all labels and a test set the target is these models on new images, else the procedure on new labels and images.

    python benchmarks/verdicts.py            (about half an hour)
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from machine import facts, told
from scipy.special import ndtr, ndtri

from headstart.data.dataset import Dataset
from headstart.evaluation.records import Difference, Score
from headstart.strategies.fits import Strategy
from headstart.workflows.comparison.protocol import Protocol, decide
from headstart.workflows.comparison.table import run_table

_BASE, _RHO = 0.86, 0.8
_PROTOCOLS = {
    "holdout, all labels": ("external", None, 0),
    "holdout, 20 draws": ("external", 5, 0),
    "folds, all labels": ("folds", None, 0),
    "folds, few labels": ("folds", 5, 0),
    "leave-one-out": ("leave-one-out", None, 0),
    "5 groups, all labels": ("grouped", None, 5),
    "10 groups, all labels": ("grouped", None, 10),
    "30 groups, all labels": ("grouped", None, 30),
    "30 groups, few labels": ("grouped", 5, 30),
    "10 groups, external, 20 draws": ("external", 5, 10),
}
"""Kind, labels per class or all, number of groups."""
_SIZES = (30, 60, 100, 200, 1_000)
_GAINS = (0.04, 0.06, 0.10)


@dataclass(frozen=True)
class World:
    """Standard deviations on the latent scale: of training sets, images, single predictions and groups."""

    training: float
    images: float
    predictions: float
    groups: float

    @property
    def total(self) -> float:
        """Of all together."""
        return float(np.sqrt(self.training**2 + self.images**2 + self.predictions**2 + self.groups**2))


class Study:
    """Images with difficulties, and two procedures whose predictions are right as often as said."""

    def __init__(self, world: World, n: int, n_groups: int, accuracies: Sequence[float], seed: int) -> None:
        self.world, self.n, self.accuracies, self.seed = world, n, accuracies, seed
        rng = np.random.default_rng([seed, 1])
        self.codes = np.arange(n) % 2
        self.groups = None if not n_groups else (np.arange(n) // 2 % n_groups)
        shared, own = np.sqrt(_RHO), np.sqrt(1 - _RHO)
        self.images = world.images * (shared * rng.normal(size=n) + own * rng.normal(size=(2, n)))
        if self.groups is not None:
            common, each = rng.normal(size=n_groups), rng.normal(size=(2, n_groups))
            self.images += world.groups * (shared * common + own * each)[:, self.groups]

    def training_effect(self, which: int, train: np.ndarray) -> float:
        """How much better or worse than usual a model is for its training set; in part for both procedures alike."""
        key = int.from_bytes(hashlib.blake2b(train.tobytes(), digest_size=6).digest(), "big")
        both = np.random.default_rng([self.seed, 2, key]).normal()
        alone = np.random.default_rng([self.seed, 3, which, key]).normal()
        return float(self.world.training * (np.sqrt(_RHO) * both + np.sqrt(1 - _RHO) * alone))

    def strategy(self, which: int) -> Strategy:
        """The procedure as a strategy: probability 0.9 for the class that it predicts."""

        def predict(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
            key = int.from_bytes(hashlib.blake2b(train.tobytes(), digest_size=6).digest(), "big")
            noise = np.random.default_rng([self.seed, 4, which, key]).normal(size=self.n)[test]
            level = ndtri(self.accuracies[which]) * self.world.total + self.training_effect(which, train)
            right = level + self.images[which, test] + self.world.predictions * noise > 0
            found = np.full((len(test), 2), 0.1, np.float32)
            found[np.arange(len(test)), np.where(right, self.codes[test], 1 - self.codes[test])] = 0.9
            return found

        return predict

    def truths(self, train: np.ndarray | None) -> list[float]:
        """The true accuracies: of the models of a training set, else of the procedures."""
        if train is None:
            return list(self.accuracies)
        rest = np.sqrt(self.world.total**2 - self.world.training**2)
        return [
            float(ndtr((ndtri(p) * self.world.total + self.training_effect(which, train)) / rest))
            for which, p in enumerate(self.accuracies)
        ]


def dataset(study: Study, name: str) -> Dataset:
    """Images of one pixel each; only labels and groups play a part."""
    pixels = np.arange(study.n, dtype=np.uint16).view(np.uint8).reshape(study.n, 1, 2, 1)
    labels = np.array(["a", "b"])[study.codes]
    groups = None if study.groups is None else study.groups.astype(str)
    return Dataset(name, pixels, labels, ("a", "b"), groups)  # type: ignore[arg-type]


def holds(found: Score | Difference, truth: float) -> bool:
    """Whether an interval holds the truth."""
    return found.low - 1e-12 <= truth <= found.high + 1e-12


def once(kind: str, labels: int | None, study: Study) -> tuple[str, bool, bool, float]:
    """Verdict, coverage of the difference and of an accuracy, and the width of the interval."""
    data = dataset(study, "images")
    budgets = () if labels is None else (labels,)
    protocol = Protocol(budgets, 20, study.seed, labels is None, margin=0.0)
    external = None
    if kind == "external":
        external = data
        pool = np.tile(np.arange(20), 1)
        data = replace(data.subset(pool), groups=None)
    setup = decide(data, external, kind=kind, protocol=protocol)
    strategies = {"probe": study.strategy(0), "HOG": study.strategy(1)}
    table = run_table(strategies, setup.pool, setup.test, setup.protocol)
    single = kind == "external" and labels is None
    truths = study.truths(np.arange(len(setup.pool)) if single else None)
    (comparison,) = table.comparisons
    rows = {row.strategy: row.accuracy for row in table.rows}
    difference = comparison.difference
    return (
        comparison.verdict,
        holds(difference, truths[0] - truths[1]),
        holds(rows["probe"], truths[0]),
        difference.high - difference.low,
    )


def measured(name: str, n: int, n_studies: int, gains: Sequence[float]) -> dict[str, object]:
    """Alarms, coverage and power of one protocol at one number of images."""
    kind, labels, n_groups = _PROTOCOLS[name]
    # with all labels and a test set the target is two models, which differ truly if their training does
    training = 0.3 if labels else 0.0 if kind == "external" else 0.1
    world = World(training, 1.0, 0.6 if labels else 0.35, 0.5 if n_groups else 0.0)
    line: dict[str, object] = {"protocol": name, "n": n}
    held_d: list[bool] = []
    held_a: list[bool] = []
    for gain in (0.0, *gains):
        many = n_studies if not gain else n_studies // 2
        said = []
        for number in range(many):
            accuracies = (_BASE + gain / 2, _BASE - gain / 2)
            word, of_difference, of_accuracy, _ = once(
                kind, labels, Study(world, n, n_groups, accuracies, number)
            )
            said.append(word)
            held_d.append(of_difference)
            held_a.append(of_accuracy)
        if gain:
            line[f"power_{100 * gain:g}"] = round(100 * said.count("helps") / many, 1)
        else:
            line["alarms"] = round(100 * (said.count("helps") + said.count("hurts")) / many, 1)
    line["difference_held"] = round(100 * float(np.mean(held_d)), 1)
    line["accuracy_held"] = round(100 * float(np.mean(held_a)), 1)
    return line


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--only", default="", help="part of the name of a protocol")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(_SIZES))
    options = parser.parse_args(given)
    about, lines = facts("numpy", "scipy"), []
    for name in _PROTOCOLS:
        for n in options.sizes:
            if (
                options.only not in name
                or n < 2 * _PROTOCOLS[name][2]
                or (name == "leave-one-out" and n > 200)
            ):
                continue
            lines.append(measured(name, n, options.studies, _GAINS))
            print(" ".join(f"{key} {value}" for key, value in lines[-1].items()), flush=True)
    told(about, {}, lines=lines, studies=options.studies)


if __name__ == "__main__":
    main()
