"""Each control's accuracy on the bundled digits stays above a floor: a change that weakens a control fails.

Floors are the values of 2026-11-29 less two points; where a control gets better, raise its floor.
"""

from __future__ import annotations

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.splits import holdout, nested_subsets
from headstart.networks.specs import architecture
from headstart.sources.networks import native_input
from headstart.sources.random_network import random_source
from headstart.sources.registry import open_source
from headstart.strategies.fits import Reader, Strategy, redrawn_probe
from headstart.strategies.places import Probe
from headstart.workflows.comparison.baselines import network_from_scratch, preparations_for, raw_pixels
from headstart.workflows.study.request import StudyRequest

BUDGETS = (1, 3, 10)
FLOORS = {
    "raw pixels": (0.642, 0.804, 0.905),
    "random frozen": (0.606, 0.752, 0.860),
    "scratch": (0.596, 0.763, 0.863),
}


@pytest.fixture(scope="module")
def parts(digits: Dataset) -> tuple[Dataset, Dataset]:
    rest, held = holdout(digits.labels, 0.3, 0)
    return digits.subset(rest), digits.subset(held)


def control(name: str, pool: Dataset, asked: Dataset) -> Strategy:
    spec = architecture("mlp", native_input(pool), 10)
    if name == "raw pixels":
        return raw_pixels(Reader(open_source("random:mlp", pool), pool, asked))
    if name == "random frozen":
        probe = Probe("hidden1", "flat", "ridge")
        return redrawn_probe(lambda seed: Reader(random_source(spec, seed), pool, asked), probe)
    settings = StudyRequest().scratch
    return network_from_scratch(spec, "scratch", settings, pool, asked, preparations=preparations_for(pool))


@pytest.mark.parametrize("name", FLOORS)
def test_no_control_falls_below_its_floor(parts: tuple[Dataset, Dataset], name: str) -> None:
    pool, asked = parts
    strategy, codes, everyone = control(name, pool, asked), asked.codes(), np.arange(len(asked))
    found = []
    for budget in BUDGETS:
        right = []
        for seed in range(5):
            learn = nested_subsets(pool.labels, (budget,), seed=seed)[budget]
            right.append((strategy(learn, everyone, seed).argmax(axis=1) == codes).mean())
        found.append(float(np.mean(right)))
    assert all(one >= floor for one, floor in zip(found, FLOORS[name], strict=True)), (name, found)
