"""How often a study says helps or hurts where nothing does, and how often its intervals hold the truth.

Whole studies on real digits, run by the code that users run, where the truth is known:

posing    a source with random weights poses as trained; its control is the same network with other random
          weights. Nothing distinguishes them, so every helps or hurts is a false alarm.
permuted  labels are permuted, so that nobody can learn anything; every control stands beside the probe.
coverage  models of known accuracy answer n images, alone or by writers who differ; how often does the 95 %
          interval hold the known accuracy, and that of a difference the known difference?

    HEADSTART_DATA=... python benchmarks/false_alarms.py --studies 80
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from time import perf_counter

import numpy as np
from machine import facts

from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays, load
from headstart.evaluation.clusters import clustered_score
from headstart.evaluation.compare import paired_difference
from headstart.evaluation.intervals import wilson
from headstart.networks.specs import architecture
from headstart.records import InputSpec
from headstart.sources.random_network import random_source
from headstart.sources.registry import open_source
from headstart.strategies.fits import Reader, Strategy, chosen_probe, redrawn_probe
from headstart.strategies.places import Probe
from headstart.workflows.comparison.controls import majority
from headstart.workflows.comparison.protocol import Protocol, decide
from headstart.workflows.comparison.table import run_table

_SPEC = architecture("mlp", InputSpec(28, 28, 1), 10)
_PROBE = Probe("hidden2", "flat", "ridge")
_KINDS = {
    "holdout": (120, 200, (5, 10)),
    "folds": (120, 0, (5,)),
    "leave-one-out": (45, 0, ()),
    "grouped": (120, 0, (5,)),
    "external": (60, 200, (5,)),
}
"""Images learnt from, images in the test set, budgets beside all labels."""


def drawn(digits: Dataset, kind: str, rng: np.random.Generator) -> tuple[Dataset, Dataset | None]:
    """Odd and even digits: some to learn from, some to be judged by where the kind has such."""
    n_learn, n_test, _ = _KINDS[kind]
    places = rng.choice(len(digits), n_learn + n_test, replace=False)
    pixels = digits.images.pixels[places]  # type: ignore[attr-defined]
    labels = digits.labels[places]
    groups = rng.integers(0, 12, len(places)).astype(str) if kind in ("grouped", "external") else None
    whole = from_arrays(pixels, labels, groups=groups)
    first, second = whole.subset(np.arange(n_learn)), None
    if kind == "external":
        return replace(first, groups=None), whole.subset(np.arange(n_learn, len(places)))
    if kind == "holdout":
        return replace(whole, splits=np.repeat(["train", "test"], [n_learn, n_test])), None
    return first, second


def permuted(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    """The same images and label counts, the labels dealt out at random."""
    return replace(dataset, labels=rng.permutation(dataset.labels))


def studied(dataset: Dataset, external: Dataset | None, kind: str, number: int, everyone: bool) -> list[str]:
    """The verdicts of one study."""
    protocol = Protocol(_KINDS[kind][2], 5, number, redrawn=("random frozen",))
    setup = decide(dataset, external, kind=kind, protocol=protocol)
    reader = Reader(random_source(_SPEC, 10_000 + number), setup.pool, setup.test)

    def other(seed: int) -> Reader:
        return replace(reader, source=random_source(_SPEC, 100_000 + 100 * number + seed), _kept={})

    strategies: dict[str, Strategy] = {"probe": chosen_probe(reader, _PROBE)}
    strategies["random frozen"] = redrawn_probe(other, _PROBE)
    if everyone:
        raw = Reader(open_source("pixels", setup.pool), setup.pool, setup.test)
        strategies |= {
            "raw pixels": chosen_probe(raw, Probe(head="kernel")),
            "majority": majority(setup.pool, whole=setup.protocol.crossed),
        }
    table = run_table(strategies, setup.pool, setup.test, setup.protocol)
    return [one.verdict for one in table.comparisons]


def alarms(n_studies: int, kinds: list[str]) -> list[dict[str, object]]:
    """Share of studies in which any comparison says helps or hurts."""
    lines: list[dict[str, object]] = []
    digits = load("mnist:parity").split("train")
    print(f"{'truth':10} {'protocol':14} {'studies':>8} {'alarms':>7}   rate, 95 % interval   seconds each")
    for truth in ("posing", "permuted"):
        for kind in kinds:
            begun, found = perf_counter(), 0
            for number in range(n_studies):
                rng = np.random.default_rng([number, 77])
                dataset, external = drawn(digits, kind, rng)
                if truth == "permuted":
                    dataset = permuted(dataset, rng)
                    external = None if external is None else permuted(external, rng)
                said = studied(dataset, external, kind, number, truth == "permuted")
                found += any(word != "cannot tell apart" for word in said)
            rate, each = wilson(found, n_studies), (perf_counter() - begun) / n_studies
            print(
                f"{truth:10} {kind:14} {n_studies:8} {found:7}   {rate.value:6.2%} [{rate.low:.2%}, "
                f"{rate.high:.2%}]   {each:.2f}",
                flush=True,
            )
            lines.append({"truth": truth, "protocol": kind, "studies": n_studies, "alarms": found})
    return lines


def coverage(n_draws: int) -> list[dict[str, object]]:
    """How often intervals hold what is true."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, object]] = []

    def tell(name: str, n: int, truth: float, held: list[bool]) -> float:
        share = float(np.mean(held))
        print(f"{name:34} {n:5} {truth:6.2f}   {share:.2%}")
        lines.append({"interval": name, "n": n, "truth": truth, "held": share})
        return share

    print(f"\n{'interval of':34} {'n':>5} {'truth':>6}   holds it in, of {n_draws:,}")
    for n in (50, 200, 1_000):
        shares: list[float] = []
        for truth in (0.6, 0.7, 0.8, 0.9, 0.95):
            held = [truth_in(wilson(int(rng.binomial(n, truth)), n), truth) for _ in range(n_draws)]
            shares.append(tell("an accuracy (Wilson)", n, truth, held))
        print(f"{'... on average':34} {n:5} {'':6}   {np.mean(shares):.2%}")
        for truth in (0.0, 0.05, 0.15):
            held = [truth_in(paired_difference(*pair(rng, n, truth)), truth) for _ in range(n_draws)]
            tell("a paired difference (Newcombe)", n, truth, held)
        for truth in (0.7, 0.9):
            held = [truth_in(clustered_score(*by_writers(rng, n, truth)), truth) for _ in range(n_draws // 4)]
            tell("an accuracy by 10 writers", n, truth, held)
    return lines


def truth_in(score: object, truth: float) -> bool:
    """Whether an interval holds the truth."""
    return bool(score.low <= truth <= score.high)  # type: ignore[attr-defined]


def pair(rng: np.random.Generator, n: int, truth: float) -> tuple[np.ndarray, np.ndarray]:
    """Two models on the same images, alike in most: a is right more often by ``truth``."""
    kinds = rng.choice(4, n, p=[0.7, 0.1 + truth / 2, 0.1 - truth / 2, 0.1])
    return (kinds == 0) | (kinds == 1), (kinds == 0) | (kinds == 2)


def by_writers(rng: np.random.Generator, n: int, truth: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers whose chance of being right differs between ten writers."""
    spread = 12.0  # of a beta distribution: writers differ by about 0.1
    chances = rng.beta(truth * spread, (1 - truth) * spread, 10)
    groups = np.repeat(np.arange(10), -(-n // 10))[:n]
    return rng.random(n) < chances[groups], groups.astype(str)


def main() -> None:
    """Print the tables."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--studies", type=int, default=400)
    given.add_argument("--draws", type=int, default=4_000)
    given.add_argument("--kinds", nargs="*", default=list(_KINDS))
    chosen = given.parse_args()
    about, begun = facts("headstart", "numpy", "scipy"), perf_counter()
    print(about)
    studies = alarms(chosen.studies, chosen.kinds) if chosen.studies else []
    intervals = coverage(chosen.draws) if chosen.draws else []
    print(f"{perf_counter() - begun:.0f} s")
    print(json.dumps({**about, "studies": studies, "intervals": intervals}))


if __name__ == "__main__":
    main()
