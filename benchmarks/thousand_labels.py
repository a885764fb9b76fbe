"""A thousand labelled digits: the best strategy by images held out, judged by the whole test set.

In: MNIST, Omniglot's small sets, a folder with a MobileNet of timm's. Out: a line for each strategy and draw,
their means, and all of it as JSON. Five draws of 100 labels a class. In each, a fifth of the labels is held
out; every strategy learns from the rest and is judged by them, then learns from all thousand and answers the
10,000 test digits. "Best single one by validation" is the test accuracy of whichever did best on the fifth
held out, of equals the one with less loss: as Headstart takes one depth of several. "Best one for all draws"
is the one strategy that did best on the fifths of all draws together, by the same rule. What the least loss
(its confidence put right) would have chosen stands beside them, and so does the mean of all strategies'
probabilities, which is not among those chosen from. The source on Omniglot is the network
``best``, trained on the 242 characters of its small sets, turned four ways, in MNIST's frame: what
``headstart train omniglot-small:turned --network best --policy ink --augment many-hands`` learns.

python benchmarks/thousand_labels.py --mobilenet weights/mobilenetv1_100... --first 6
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np
from machine import facts

from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.images.prepare import prepare
from headstart.data.readers.load import load
from headstart.data.splits import holdout
from headstart.evaluation.intervals import wilson
from headstart.graph.layers import network_graph
from headstart.heads.base import fit_temperature, log_loss, softmax
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture, training_for
from headstart.networks.training import fit
from headstart.records import InputSpec, Source
from headstart.sources.features import Extraction
from headstart.sources.networks import spec_source
from headstart.sources.registry import open_source
from headstart.strategies.finetune.decide import Finetuner
from headstart.strategies.finetune.options import FinetuneOptions
from headstart.strategies.finetune.rules import settings_for
from headstart.strategies.fits import Chooser, Reader
from headstart.strategies.judge import augmented_training
from headstart.strategies.places import Probe
from headstart.system.cache import default_cache
from headstart.workflows.comparison.protocol import Protocol, rounds_of

DIGITS, PER_CLASS = InputSpec(28, 28, 1), 100
HANDS = parse_augmentation("many-hands", 1)
VIEWS = parse_augmentation("many-hands", 4)  # of every training image, for the probes
TOGETHER = "all of them, mean"


@dataclass(frozen=True)
class Tried:
    """One strategy on one draw: probabilities for the fifth held out and for the test digits, seconds."""

    name: str
    held: np.ndarray
    test: np.ndarray
    seconds: float

    def figures(self, held: np.ndarray, test: np.ndarray) -> tuple[float, float, float]:
        """Accuracy on the held ones, their loss in nats (confidence put right), accuracy on the test."""
        logits = np.log(np.maximum(self.held, 1e-12))
        loss = log_loss(logits * fit_temperature(logits, held), held)
        right = (self.held.argmax(axis=1) == held).mean(), (self.test.argmax(axis=1) == test).mean()
        return float(right[0]), loss, float(right[1])


def omniglot_source(epochs: int) -> Source:
    """The network ``best`` trained on Omniglot's characters, each turned four ways, in MNIST's frame."""
    data, frame = load("omniglot-small:turned"), replace(DIGITS, policy="ink")
    begun, spec = perf_counter(), architecture("best", frame, len(data.classes))
    network, settings = make_network(spec, "torch", 0), training_for("best")[0]
    settings = replace(settings, epochs=epochs, prune=0.0)
    history = fit(network, prepare(data, frame), data.codes(), settings, augment=augmented_training(HANDS, 0))
    print(f"source: {perf_counter() - begun:.0f} s, training accuracy {history[-1].train_accuracy:.4f}")
    source = spec_source("omniglot", spec, network_graph(spec, network.weights()), network.weights())
    return replace(source, input=replace(source.input, policy="squish"))  # MNIST is in that frame already


def from_scratch(pool: Dataset, asked: Dataset, learn: np.ndarray, seed: int) -> Tried:
    """The network ``best`` on the draw alone, in another hand every epoch."""
    begun, images, codes = perf_counter(), prepare(pool, DIGITS), pool.codes()

    def answers(places: np.ndarray, what: np.ndarray) -> np.ndarray:
        network = make_network(architecture("best", DIGITS, 10), "torch", seed)
        settings = settings_for(len(places), DIGITS.height_px, FinetuneOptions(), seed)
        settings = replace(
            training_for("best")[0],
            prune=0.0,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            seed=seed,
        )
        fit(network, images[places], codes[places], settings, augment=augmented_training(HANDS, seed))
        return softmax(network.logits(what))

    rest, held = holdout(pool.labels[learn], 0.2, seed)
    judged = answers(learn[rest], images[learn[held]])
    test = answers(learn, prepare(asked, DIGITS))
    return Tried("from scratch, augmented", judged, test, perf_counter() - begun)


def from_source(name: str, tuner: Finetuner, learn: np.ndarray, seed: int) -> Iterator[Tried]:
    """The probe and the opened network of one source."""
    everyone, begun = np.arange(len(tuner.reader.test)), perf_counter()
    decision = tuner.decide(learn, seed)
    assert decision.probe is not None and decision.best is not None, "there are labels to hold out"
    opened = tuner.strategy(checked=False)(learn, everyone, seed)
    seconds = perf_counter() - begun
    begun = perf_counter()
    probed = tuner.probe_probabilities(learn, everyone, seed)
    yield Tried(f"{name}, probe", softmax(decision.probe.logits), probed, perf_counter() - begun)
    yield Tried(f"{name}, fine-tuned", softmax(decision.best.logits), opened, seconds)


def together(tried: Sequence[Tried]) -> Tried:
    """All strategies asked together: the mean of their probabilities, none left out."""
    held, test = (np.mean([getattr(one, what) for one in tried], axis=0) for what in ("held", "test"))
    return Tried(TOGETHER, held, test, sum(one.seconds for one in tried))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mobilenet", help="folder of the weights; left out, so is the network")
    parser.add_argument("--size", type=int, default=96, help="side of the MobileNet's input in px")
    parser.add_argument("--unfreeze", default="all")
    parser.add_argument("--source-epochs", type=int, default=16)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--first", type=int, default=1, help="number of the first draw that is looked at")
    parser.add_argument("--dev", action="store_true", help="judge by training digits outside the draw")
    asked = parser.parse_args()
    about = facts("headstart", "torch", "timm", "openvino")
    print(json.dumps(about), flush=True)
    data = load("mnist")
    train, test = data.split("train"), data.split("test")
    if asked.dev:
        order = np.random.default_rng(7).permutation(len(train))
        test, train = train.subset(np.sort(order[:10_000])), train.subset(np.sort(order[10_000:]))
    protocol = Protocol((PER_CLASS,), asked.first - 1 + asked.draws, 0, False)
    rounds = rounds_of(train, len(test), (PER_CLASS,), protocol)[PER_CLASS]
    draws = {number: one[0].train for number, one in enumerate(rounds) if number >= asked.first - 1}
    # only the images of the draws are looked at: features of all would take long
    kept = np.unique(np.concatenate(list(draws.values())))
    pool = train.subset(kept)
    draws = {number: np.searchsorted(kept, one) for number, one in draws.items()}
    options, opening = Extraction(default_cache()), FinetuneOptions(asked.unfreeze)
    sources = {"Omniglot": omniglot_source(asked.source_epochs)}
    if asked.mobilenet:
        sources["MobileNet"] = open_source(f"timm:local-dir:{asked.mobilenet}", pool, 0, asked.size)
    tuners = {}
    for name, source in sources.items():
        reader = Reader(source, pool, test, options, VIEWS)
        place = ("block4", "flat") if name == "Omniglot" else (None, None)
        tuners[name] = Finetuner(reader, Chooser(reader, Probe(*place, augmentation=VIEWS)), opening)
    found: list[dict[str, tuple[float, float, float]]] = []
    truth = test.codes(pool.classes)
    for number, learn in draws.items():
        codes, (_, held) = pool.codes()[learn], holdout(pool.labels[learn], 0.2, number)
        tried, figures = [], {}
        each = (from_source(name, tuner, learn, number) for name, tuner in tuners.items())
        for one in chain([from_scratch(pool, test, learn, number)], *each):
            tried.append(one)
            figures[one.name] = told(one, codes[held], truth, number)
        mean = together(tried)
        figures[mean.name] = told(mean, codes[held], truth, number)
        found.append(figures)
    report(found, len(test), about)


def told(one: Tried, held: np.ndarray, test: np.ndarray, number: int) -> tuple[float, float, float]:
    """Its figures, printed."""
    figures = one.figures(held, test)
    judged = f"held {figures[0]:.4f} ({figures[1]:.4f} nats) test {figures[2]:.4f}"
    print(f"draw {number + 1}: {one.name:28} {judged} {one.seconds:.0f} s", flush=True)
    return figures


def best_of(tried: Mapping[str, Sequence[float]]) -> str:
    """The most accurate on images held out, of equals that with the least loss there."""
    return max(tried, key=lambda name: (tried[name][0], -tried[name][1]))


def report(found: list[dict[str, tuple[float, float, float]]], n_test: int, about: dict[str, Any]) -> None:
    """Means over the draws, and the strategy that validation would have chosen."""
    single = [{name: figures for name, figures in tried.items() if name != TOGETHER} for tried in found]
    rows = {name: [tried[name][2] for tried in found] for name in found[0]}
    overall = {name: np.mean([tried[name] for tried in single], axis=0) for name in single[0]}
    chosen = {
        "best one for all draws": [best_of(overall)] * len(found),
        "best single one by validation": [best_of(tried) for tried in single],
        "the one with the least loss": [min(tried, key=lambda name: tried[name][1]) for tried in single],
    }
    for rule, picked in chosen.items():
        rows[rule] = [tried[name][2] for tried, name in zip(found, picked, strict=True)]
    for name, values in rows.items():
        score = wilson(float(np.mean(values)) * n_test, n_test)
        print(
            f"{name:31} {100 * np.mean(values):.2f} % [{100 * score.low:.2f}, {100 * score.high:.2f}], "
            f"draws {100 * min(values):.2f} to {100 * max(values):.2f}"
        )
    for rule, picked in chosen.items():
        print(f"{rule}: {'; '.join(picked)}")
    print(json.dumps({**about, "n_draws": len(found), "accuracy": rows, "chosen": chosen}))


if __name__ == "__main__":
    main()
