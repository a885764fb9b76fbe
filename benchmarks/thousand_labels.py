"""A thousand labelled digits: the best strategy by images held out, judged by the whole test set.

In: MNIST, Omniglot's small sets, a folder with a MobileNet of timm's. Out: a line for each strategy and draw,
their means, and all of it as JSON. Five draws of 100 labels a class. In each, a fifth of the labels is held
out; every strategy learns from the rest and is judged by them, then learns from all thousand and answers the
10,000 test digits. "Best by validation" is the test accuracy of whichever did best on the fifth held out. The
source on Omniglot is the network ``best``, trained on the 242 characters of its small sets in MNIST's frame.

python benchmarks/thousand_labels.py --mobilenet weights/mobilenetv1_100...
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np
from machine import facts

from headstart.cache import default_cache
from headstart.controls import Chooser, Reader
from headstart.data.dataset import Dataset
from headstart.data.readers import load
from headstart.data.splits import holdout
from headstart.evaluation.intervals import wilson
from headstart.features import Extraction
from headstart.finetune import Finetuner
from headstart.graph.build import network_graph
from headstart.imaging.augment import parse_augmentation
from headstart.imaging.prepare import prepare
from headstart.networks.architectures import architecture, training_for
from headstart.networks.registry import make_network
from headstart.networks.training import fit
from headstart.opening import Opening, settings_for
from headstart.protocol import Protocol, rounds_of
from headstart.records import InputSpec, Source
from headstart.sources import open_source, spec_source
from headstart.strategies import Probe, training_views

DIGITS, PER_CLASS = InputSpec(28, 28, 1), 100
HANDWRITING = parse_augmentation("handwriting", 1)


@dataclass(frozen=True)
class Tried:
    """One strategy on one draw: accuracy on the fifth held out and on the test digits, seconds."""

    name: str
    held: float
    test: float
    seconds: float


def omniglot_source(epochs: int) -> Source:
    """The network ``best`` trained on Omniglot's characters, brought into MNIST's frame."""
    data, frame = load("omniglot-small"), replace(DIGITS, policy="ink")
    begun, spec = perf_counter(), architecture("best", frame, len(data.classes))
    network, settings = make_network(spec, "torch", 0), training_for("best")[0]
    settings = replace(settings, epochs=epochs, prune=0.0)
    history = fit(network, prepare(data, frame), data.codes(), settings, views=training_views(HANDWRITING, 0))
    print(f"source: {perf_counter() - begun:.0f} s, training accuracy {history[-1].train_accuracy:.4f}")
    source = spec_source("omniglot", spec, network_graph(spec, network.weights()), network.weights())
    return replace(source, input=replace(source.input, policy="squish"))  # MNIST is in that frame already


def from_scratch(pool: Dataset, asked: Dataset, learn: np.ndarray, seed: int) -> Tried:
    """The network ``best`` on the draw alone, in another hand every epoch."""
    begun, images, codes = perf_counter(), prepare(pool, DIGITS), pool.codes()

    def learnt(places: np.ndarray) -> Any:
        network = make_network(architecture("best", DIGITS, 10), "torch", seed)
        settings = settings_for(len(places), DIGITS.height_px, Opening(), seed)
        settings = replace(
            training_for("best")[0],
            prune=0.0,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            seed=seed,
        )
        fit(network, images[places], codes[places], settings, views=training_views(HANDWRITING, seed))
        return network

    def right(network: Any, what: Any, truth: np.ndarray) -> float:
        return float((network.logits(what).argmax(axis=1) == truth).mean())

    rest, held = holdout(pool.labels[learn], 0.2, seed)
    judged = right(learnt(learn[rest]), images[learn[held]], codes[learn[held]])
    test = right(learnt(learn), prepare(asked, DIGITS), asked.codes(pool.classes))
    return Tried("from scratch, augmented", judged, test, perf_counter() - begun)


def from_source(name: str, tuner: Finetuner, learn: np.ndarray, seed: int) -> Iterator[Tried]:
    """The probe and the opened network of one source."""
    pool, asked = tuner.reader.pool, tuner.reader.asked
    codes, everyone = asked.codes(pool.classes), np.arange(len(asked))
    begun = perf_counter()
    decision = tuner.decide(learn, seed)
    assert decision.probe is not None and decision.best is not None, "there are labels to hold out"
    answers = tuner.strategy(checked=False)(learn, everyone, seed)
    opened = float((answers.argmax(axis=1) == codes).mean())
    seconds = perf_counter() - begun
    begun = perf_counter()
    answers = tuner.probe(learn, everyone, seed)
    probed = float((answers.argmax(axis=1) == codes).mean())
    yield Tried(f"{name}, probe", decision.probe.accuracy, probed, perf_counter() - begun)
    yield Tried(f"{name}, fine-tuned", decision.best.accuracy, opened, seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mobilenet", help="folder of the weights; left out, so is the network")
    parser.add_argument("--size", type=int, default=96, help="side of the MobileNet's input in px")
    parser.add_argument("--unfreeze", default="all")
    parser.add_argument("--source-epochs", type=int, default=60)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--dev", action="store_true", help="judge by training digits outside the draw")
    asked = parser.parse_args()
    about = facts("headstart", "torch", "timm", "openvino")
    print(json.dumps(about), flush=True)
    data = load("mnist")
    train, test = data.split("train"), data.split("test")
    if asked.dev:
        order = np.random.default_rng(7).permutation(len(train))
        test, train = train.subset(np.sort(order[:10_000])), train.subset(np.sort(order[10_000:]))
    rounds = rounds_of(train, len(test), (PER_CLASS,), Protocol((PER_CLASS,), asked.draws, 0, False))
    draws = [one[0].learn for one in rounds[PER_CLASS]]
    # only the images of the draws are looked at: features of all would take long
    kept = np.unique(np.concatenate(draws))
    pool = train.subset(kept)
    draws = [np.searchsorted(kept, one) for one in draws]
    options, opening = Extraction(default_cache()), Opening(asked.unfreeze)
    sources = {"Omniglot": omniglot_source(asked.source_epochs)}
    if asked.mobilenet:
        sources["MobileNet"] = open_source(f"timm:local-dir:{asked.mobilenet}", pool, 0, asked.size)
    tuners = {}
    for name, source in sources.items():
        reader = Reader(source, pool, test, options)
        head = Probe("block4", "flat") if name == "Omniglot" else Probe()
        tuners[name] = Finetuner(reader, Chooser(reader, head), opening)
    found: list[list[Tried]] = []
    for number, learn in enumerate(draws):
        each = (from_source(name, tuner, learn, number) for name, tuner in tuners.items())
        tried = []
        for one in chain([from_scratch(pool, test, learn, number)], *each):
            figures = f"held {one.held:.4f} test {one.test:.4f} {one.seconds:.0f} s"
            print(f"draw {number + 1}: {one.name:24} {figures}", flush=True)
            tried.append(one)
        found.append(tried)
    report(found, len(test), about)


def report(found: list[list[Tried]], n_test: int, about: dict[str, Any]) -> None:
    """Means over the draws, and the strategy that validation would have chosen."""
    chosen = [max(tried, key=lambda one: one.held) for tried in found]
    rows = {one.name: [tried[place].test for tried in found] for place, one in enumerate(found[0])}
    rows["best by validation"] = [one.test for one in chosen]
    for name, values in rows.items():
        score = wilson(float(np.mean(values)) * n_test, n_test)
        print(
            f"{name:26} {100 * np.mean(values):.2f} % [{100 * score.low:.2f}, {100 * score.high:.2f}], "
            f"draws {100 * min(values):.2f} to {100 * max(values):.2f}"
        )
    print("chosen:", ", ".join(one.name for one in chosen))
    print(
        json.dumps({**about, "n_draws": len(found), "accuracy": rows, "chosen": [one.name for one in chosen]})
    )


if __name__ == "__main__":
    main()
