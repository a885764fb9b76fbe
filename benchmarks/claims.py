"""What a study promises beyond one comparison, where the truth is known; the images are those of verdicts.py.

claims     how often a whole study says helps or hurts: several controls, one or two headline numbers of labels
networks   how often the probe differs from random networks, where the source is one more random network
settling   how often a study of as many images as advised finds a difference that is there: 80 % are promised

    python benchmarks/claims.py            (about ten minutes)
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from machine import facts, told
from scipy.special import ndtr, ndtri
from verdicts import _BASE, _POOL, _RHO, Study, World, dataset, training_pool, world_of

from headstart.evaluation.power import MOST_IMAGES
from headstart.strategies.fits import Strategy
from headstart.workflows.comparison.protocol import EvaluationSetup, Protocol, decide
from headstart.workflows.comparison.table import Table, run_table

_NETWORKS = 0.2
"""Standard deviation of random networks on the latent scale: about 4 points at 86 %."""
_CONTROLS = ("HOG", "raw pixels", "scratch", "majority")
_SETTLED = {
    "holdout, all labels": ("external", None, 0, 200),
    "holdout, 20 draws": ("external", 5, 0, 200),
    "folds, all labels": ("folds", None, 0, 200),
    "folds, few labels": ("folds", 5, 0, 200),
    "groups of 20, all labels": ("grouped", None, 20, 400),
}
"""Kind, labels per class or all, images per group, images of the studies that advise."""
_PILOTS = 101  # as many advise: the advice of a single study varies with the difference that it observes
_TOO_MANY = 20_000


class Several(Study):
    """As many procedures as there are accuracies."""

    def __init__(self, world: World, n: int, n_groups: int, accuracies: Sequence[float], seed: int) -> None:
        super().__init__(world, n, n_groups, accuracies, seed)
        rng = np.random.default_rng([seed, 7])
        self.images = world.images * _similar(rng, len(accuracies), n)
        self.influences = _similar(rng, len(accuracies), max(n, _POOL))
        self.calls = [[] for _ in accuracies]


def _similar(rng: np.random.Generator, n_procedures: int, n: int) -> np.ndarray:
    """Standard normal numbers of several procedures that resemble each other, (n_procedures, n)."""
    return np.sqrt(_RHO) * rng.normal(size=n) + np.sqrt(1 - _RHO) * rng.normal(size=(n_procedures, n))


class Networks(Study):
    """The source is one random network, the control another in every round."""

    def strategy(self, which: int) -> Strategy:
        """Procedure 0 with the same random network in every round, procedure 1 with others."""
        calls = itertools.count()

        def predict(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
            key = [self.seed, 5, which, seed if which else 0]
            effect = _NETWORKS * np.random.default_rng(key).normal()
            share = float(ndtri(_BASE) * self.world.total + effect) / self.world.total
            one = Study(self.world, self.n, 0, self.accuracies, self.seed)
            one.accuracies = [float(ndtr(share))] * 2
            return one.strategy(which, next(calls))(train, test, seed)

        return predict


def setup_of(kind: str, study: Study, protocol: Protocol) -> EvaluationSetup:
    """The protocol of a study."""
    data = dataset(study, "images")
    pool, external = (training_pool(), data) if kind == "external" else (data, None)
    return decide(pool, external, kind=kind, protocol=protocol)


def table_of(setup: EvaluationSetup, study: Study, names: Sequence[str]) -> Table:
    """The result table of the procedures under these names."""
    strategies = {name: study.strategy(which) for which, name in enumerate(names)}
    return run_table(strategies, setup.pool, setup.test, setup.protocol)


def claims(kind: str, n: int, n_studies: int, gain: float, labels: int | None) -> dict[str, object]:
    """Whole studies: the probe and four controls, at 5 labels, and at all where cross-validated."""
    said: list[tuple[bool, bool, bool]] = []
    for number in range(n_studies):
        accuracies = [_BASE + gain / 2, *[_BASE - gain / 2] * len(_CONTROLS)]
        study = Several(world_of(kind, labels, 0, n), n, 0, accuracies, number)
        setup = setup_of(kind, study, Protocol((5,), 20, number, kind != "external", margin=0.0))
        table = table_of(setup, study, ("probe", *_CONTROLS))
        budgets = dict.fromkeys(one.labels_per_class for one in table.comparisons)
        words = [
            [one.verdict for one in table.comparisons if one.labels_per_class == budget] for budget in budgets
        ]
        helps = "transfer helps" in table.verdict
        beaten = any(all(word == "helps" for word in here) for here in words)
        said.append((helps, beaten, any("hurts" in here for here in words)))
    helps, beaten, hurts = (round(100 * float(np.mean(one)), 1) for one in zip(*said, strict=True))
    return {
        "what": "claims",
        "protocol": kind,
        "n": n,
        "gain": gain,
        "helps": helps,
        "all_beaten": beaten,
        "hurts": hurts,
    }


def networks(kind: str, n: int, n_studies: int, labels: int | None) -> dict[str, object]:
    """The probe's source is one of many random networks: how often a study says that it differs from them."""
    said = []
    for number in range(n_studies):
        study = Networks(world_of(kind, labels, 0, n), n, 0, (_BASE, _BASE), number)
        budgets = () if labels is None else (labels,)
        protocol = Protocol(budgets, 20, number, labels is None, margin=0.0, redrawn=("random frozen",))
        table = table_of(setup_of(kind, study, protocol), study, ("probe", "random frozen"))
        said.append(table.comparisons[0].verdict in ("helps", "hurts"))
        if number == 0:
            rounds = next(row.draws for row in table.rows if row.strategy == "random frozen")
    share = round(100 * float(np.mean(said)), 1)
    return {
        "what": "networks",
        "protocol": kind,
        "labels": labels or "all",
        "n": n,
        "networks": rounds,
        "alarms": share,
    }


def settling(name: str, n_studies: int, gain: float) -> dict[str, object]:
    """The advice of many studies (its median), and the share of studies of that size that say helps."""
    kind, labels, per_group, many = _SETTLED[name]
    protocol = Protocol(() if labels is None else (labels,), 20, 0, labels is None, margin=0.0)

    def comparison(n: int, number: int):
        groups = n // per_group if per_group else 0
        accuracies = (_BASE + gain / 2, _BASE - gain / 2)
        study = Study(world_of(kind, labels, groups, n), n, groups, accuracies, number)
        return table_of(
            setup_of(kind, study, replace(protocol, seed=number)), study, ("probe", "HOG")
        ).comparisons[0]

    pilots = [comparison(many, 10_000 + number).n_to_settle for number in range(_PILOTS)]
    advice = sorted(MOST_IMAGES if one is None else one for one in pilots)[_PILOTS // 2]
    unit = per_group or 2
    if advice > _TOO_MANY:
        return {"what": "settling", "protocol": name, "gain": gain, "advised": advice}
    advised = max(unit * round(advice / unit), 2 * unit)
    found = [comparison(advised, number).verdict == "helps" for number in range(n_studies)]
    return {
        "what": "settling",
        "protocol": name,
        "gain": gain,
        "advised": advised,
        "found": round(100 * float(np.mean(found)), 1),
    }


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=400)
    options = parser.parse_args(given)
    many, fewer = options.studies, options.studies // 2
    about, lines = facts("numpy", "scipy"), []
    todo = [partial(settling, name, fewer, 0.06) for name in _SETTLED]
    todo += [partial(networks, "external", 200, many, labels) for labels in (5, None)]
    todo += [partial(networks, "folds", 100, many, labels) for labels in (5, None)]
    for gain in (0.0, 0.1):
        todo += [
            partial(claims, kind, 200, many if not gain else fewer, gain, 5) for kind in ("external", "folds")
        ]
    for one in todo:
        lines.append(one())
        print(" ".join(f"{key} {value}" for key, value in lines[-1].items()), flush=True)
    told(about, {}, lines=lines, studies=options.studies)


if __name__ == "__main__":
    main()
