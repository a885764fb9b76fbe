"""Size, coverage and power of a study's verdict, protocol by protocol, where the truth is known.

Two procedures classify images: each image has a difficulty that both share in part, each group too, and single
predictions vary; every training image makes a model a little better or worse, so that models with training images in
common resemble each other. All is normal on one latent scale, so that the true accuracies are known. The rows,
intervals and verdicts are those of `run_table`, as a study prints them.

alarms      how often a verdict is helps or hurts where both procedures are equally accurate
coverage    how often the interval of the difference, and that of an accuracy, hold the truth
power       how often the verdict is helps where one is 4, 6 or 10 points more accurate than the other
rivals      alarms and power of other tests of the same predictions (benchmarks/rivals.py). A rival is valid if its
            alarms are at most 5 % + 2 standard errors at every number of images. *Known error* reads the same mean
            with its true standard deviation, which nobody has: a bound.

With all labels and a test set the target is these models on new images, else the procedure on new labels and images.

    python benchmarks/verdicts.py            (about an hour)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import rivals
from machine import facts, told
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from headstart.data.dataset import Dataset
from headstart.evaluation.records import Difference, Score
from headstart.strategies.fits import Strategy
from headstart.workflows.comparison.protocol import Protocol, decide
from headstart.workflows.comparison.table import run_table

_BASE, _RHO = 0.86, 0.8
_POOL = 60
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
"""Kind, labels per class or all, number of groups. Labels for a test set are drawn from a pool of 60 images."""
_SIZES = (30, 60, 100, 200, 1_000)
_GAINS = (0.04, 0.06, 0.10)


@dataclass(frozen=True)
class World:
    """Standard deviations on the latent scale: of images, single predictions, groups and one training image.

    A model is better or worse than usual by the mean of what its training images do, and so the less, the more there
    are; ``trained_on`` is their usual number.
    """

    images: float
    predictions: float
    groups: float
    influence: float
    trained_on: int

    @property
    def rest(self) -> float:
        """Of all but training images."""
        return float(np.sqrt(self.images**2 + self.predictions**2 + self.groups**2))

    @property
    def total(self) -> float:
        """Of all together."""
        return float(np.hypot(self.rest, self.influence / np.sqrt(self.trained_on)))


class Study:
    """Images with difficulties, and two procedures whose predictions are right as often as said."""

    def __init__(self, world: World, n: int, n_groups: int, accuracies: Sequence[float], seed: int) -> None:
        self.world, self.n, self.accuracies, self.seed = world, n, accuracies, seed
        rng = np.random.default_rng([seed, 1])
        self.codes = np.arange(n) % 2
        self.groups = None if not n_groups else (np.arange(n) // 2 % n_groups)
        self.images = world.images * _correlated(rng, n)
        if self.groups is not None:
            self.images += world.groups * _correlated(rng, n_groups)[:, self.groups]
        # how much each training image helps or harms: models that share images share that
        self.influences = _correlated(rng, max(n, _POOL))
        self.calls: list[list[tuple[NDArray[np.intp], NDArray[np.bool_]]]] = [[], []]

    def training_effect(self, which: int, train: NDArray[np.intp]) -> float:
        """How much better or worse than usual a model is for its training images."""
        return float(self.world.influence * self.influences[which, train].mean())

    def strategy(self, which: int, salt: int = 0) -> Strategy:
        """The procedure as a strategy: probability 0.9 for the class that it predicts."""
        rng = np.random.default_rng([self.seed, 4, which, salt])

        def predict(train: NDArray[np.intp], test: NDArray[np.intp], seed: int) -> NDArray[np.float32]:
            level = ndtri(self.accuracies[which]) * self.world.total + self.training_effect(which, train)
            latent = level + self.images[which, test] + self.world.predictions * rng.normal(size=len(test))
            self.calls[which].append((test, latent > 0))
            found = np.full((len(test), 2), 0.1, np.float32)
            found[np.arange(len(test)), np.where(latent > 0, self.codes[test], 1 - self.codes[test])] = 0.9
            return found

        return predict

    def gains(self) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """What was predicted: gains of the first procedure and folds, both (n_rounds, n)."""
        found: list[NDArray[np.float64]] = []
        codes: list[NDArray[np.intp]] = []
        filled = self.n
        for (test, first), (_, second) in zip(*self.calls, strict=True):
            if filled == self.n:
                found, codes, filled = [*found, np.zeros(self.n)], [*codes, np.zeros(self.n, np.intp)], 0
            found[-1][test] = first.astype(np.float64) - second
            codes[-1][test] = codes[-1].max() + 1
            filled += len(test)
        return np.array(found), np.array(codes)

    def truths(self, train: NDArray[np.intp] | None) -> list[float]:
        """The true accuracies: of the models of a training set, else of the procedures."""
        if train is None:
            return list(self.accuracies)
        return [
            float(ndtr((ndtri(p) * self.world.total + self.training_effect(which, train)) / self.world.rest))
            for which, p in enumerate(self.accuracies)
        ]


def _correlated(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Standard normal numbers of two procedures, (2, n), that resemble each other."""
    return np.sqrt(_RHO) * rng.normal(size=n) + np.sqrt(1 - _RHO) * rng.normal(size=(2, n))


def dataset(study: Study, name: str) -> Dataset:
    """Images of one pixel each; only labels and groups play a part."""
    pixels = np.arange(study.n, dtype=np.uint16).view(np.uint8).reshape(study.n, 1, 2, 1)
    labels = np.array(["a", "b"])[study.codes]
    groups = None if study.groups is None else study.groups.astype(str)
    return Dataset(name, pixels, labels, ("a", "b"), groups)  # type: ignore[arg-type]


def training_pool() -> Dataset:
    """The images to learn from, where the test images are a set of their own."""
    pixels = np.arange(_POOL, dtype=np.uint16).view(np.uint8).reshape(_POOL, 1, 2, 1) + 1
    return Dataset("pool", pixels, np.array(["a", "b"])[np.arange(_POOL) % 2], ("a", "b"))


def holds(found: Score | Difference, truth: float) -> bool:
    """Whether an interval holds the truth."""
    return found.low - 1e-12 <= truth <= found.high + 1e-12


@dataclass(frozen=True)
class Found:
    """What one study said, and whether its intervals hold the truth."""

    verdict: str
    difference: bool
    accuracy: bool
    saved_model: bool
    value: float
    p_values: Mapping[str, float]


def once(kind: str, labels: int | None, study: Study) -> Found:
    """One study of the probe and one control, as `run_table` prints it."""
    data = dataset(study, "images")
    protocol = Protocol(() if labels is None else (labels,), 20, study.seed, labels is None, margin=0.0)
    pool, external = (training_pool(), data) if kind == "external" else (data, None)
    setup = decide(pool, external, kind=kind, protocol=protocol)
    strategies = {"probe": study.strategy(0), "HOG": study.strategy(1)}
    table = run_table(strategies, setup.pool, setup.test, setup.protocol)
    of_all = study.truths(np.arange(len(setup.pool)))
    truths = of_all if kind == "external" and labels is None else study.truths(None)
    (comparison,) = table.comparisons
    rows = {row.strategy: row.accuracy for row in table.rows}
    gains, folds = study.gains()
    others = rivals.of(kind, few=labels is not None, grouped=study.groups is not None)
    return Found(
        comparison.verdict,
        holds(comparison.difference, truths[0] - truths[1]),
        holds(rows["probe"], truths[0]),
        holds(rows["probe"], of_all[0]),
        comparison.difference.value,
        {name: test(gains, folds, study.groups) for name, test in others.items()},
    )


def world_of(kind: str, labels: int | None, n_groups: int, n: int) -> World:
    """Few labels make models that differ more; two given models are what they are."""
    trained_on = 2 * labels if labels else n if kind == "leave-one-out" else int(0.9 * n)
    given = kind == "external" and labels is None
    return World(1.0, 0.6 if labels else 0.35, 0.5 if n_groups else 0.0, 0.0 if given else 0.95, trained_on)


def measured(name: str, n: int, n_studies: int, gains: Sequence[float]) -> dict[str, object]:
    """Alarms, coverage and power of one protocol at one number of images, in %; those of the rivals."""
    kind, labels, n_groups = _PROTOCOLS[name]
    world, everything, deviation = world_of(kind, labels, n_groups, n), [], 0.0
    line: dict[str, object] = {"protocol": name, "n": n}
    others: dict[str, dict[str, float]] = {}
    for gain in (0.0, *gains):
        accuracies = (_BASE + gain / 2, _BASE - gain / 2)
        many = n_studies if not gain else n_studies // 2
        found = [once(kind, labels, Study(world, n, n_groups, accuracies, number)) for number in range(many)]
        everything += found
        said, values = [one.verdict for one in found], np.array([one.value for one in found])
        if not gain:
            line["alarms"] = percent([word in ("helps", "hurts") for word in said])
            deviation = float(np.sqrt(np.mean(values**2)))
        else:
            line[f"power_{100 * gain:g}"] = percent([word == "helps" for word in said])
        cell = "alarms" if not gain else f"power_{100 * gain:g}"
        for rival in found[0].p_values:
            low = [one.p_values[rival] < 0.05 and (not gain or one.value > 0) for one in found]
            others.setdefault(rival, {})[cell] = percent(low)
        if gain:
            others.setdefault("known error", {})[cell] = percent(values > 1.96 * deviation)
    line["difference_held"] = percent([one.difference for one in everything])
    line["accuracy_held"] = percent([one.accuracy for one in everything])
    if kind != "external" and labels is None:
        line["saved_model_held"] = percent([one.saved_model for one in everything])
    return line | {"rivals": others}


def percent(yes: Sequence[bool] | NDArray[np.bool_]) -> float:
    """The share of yes, in %."""
    return round(100 * float(np.mean(yes)), 1)


def compared(lines: Sequence[dict], n_studies: int) -> list[str]:
    """For each protocol: our power at all sizes and gains over that of the most powerful valid rival."""
    allowed, found = 5 + 200 * float(np.sqrt(0.05 * 0.95 / n_studies)), []
    for name in dict.fromkeys(line["protocol"] for line in lines):
        own = [line for line in lines if line["protocol"] == name]
        cells = [key for key in own[0] if key.startswith("power_")]
        for rival in own[0]["rivals"]:
            sizes = [line["rivals"][rival].get("alarms", 0.0) for line in own]
            power = np.mean([line["rivals"][rival][cell] for line in own for cell in cells])
            ours = np.mean([line[cell] for line in own for cell in cells])
            kind = "bound" if rival == "known error" else "valid" if max(sizes) <= allowed else "not valid"
            found.append(
                f"{name}: ours {ours:.1f} %, {rival} {power:.1f} % ({kind}, alarms up to {max(sizes):.1f} %), "
                f"ratio {ours / max(power, 0.1):.2f}"
            )
    return found


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--only", default="", help="part of the name of a protocol")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(_SIZES))
    options = parser.parse_args(given)
    about, lines = facts("numpy", "scipy"), []
    for name in _PROTOCOLS:
        for n in options.sizes:
            if options.only not in name or n < 2 * _PROTOCOLS[name][2]:
                continue
            lines.append(measured(name, n, options.studies, _GAINS))
            print(" ".join(f"{key} {value}" for key, value in lines[-1].items()), flush=True)
    told(about, {}, lines=lines, studies=options.studies, power=compared(lines, options.studies))


if __name__ == "__main__":
    main()
