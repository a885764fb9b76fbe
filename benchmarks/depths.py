"""Which layers transfer: accuracy against how far a network is opened, near and far from what it knew.

In: MNIST, Omniglot's small sets. Out: a line for each depth, a picture, all of it as JSON. The network
``best``, trained on Omniglot's characters, learns the ten digits from 10 and from 50 labels a class at every
depth, from nothing (the head alone) to everything; judged by the 10,000 test digits, three draws each.

python benchmarks/depths.py --image docs/images/depths.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts
from thousand_labels import omniglot_source

from headstart.data.readers.load import load
from headstart.strategies.finetune.decide import Decision, DepthTrial, Finetuner
from headstart.strategies.finetune.options import FinetuneOptions
from headstart.strategies.fits import Chooser, Reader
from headstart.strategies.places import Probe
from headstart.workflows.comparison.protocol import Protocol, rounds_of

DEPTHS = ("head", "last", "2", "3", "all")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source-epochs", type=int, default=16)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--image", type=Path)
    asked = parser.parse_args()
    about = facts("headstart", "torch", "openvino")
    print(json.dumps(about), flush=True)
    data, source = load("mnist"), omniglot_source(asked.source_epochs)
    train, test = data.split("train"), data.split("test")
    budgets = tuple(asked.labels)
    rounds = rounds_of(train, len(test), budgets, Protocol(budgets, asked.draws, 0, False))
    found: dict[str, Any] = {}
    for budget in budgets:
        draws = [one[0].train for one in rounds[budget]]
        kept = np.unique(np.concatenate(draws))
        reader = Reader(source, train.subset(kept), test)
        chooser = Chooser(reader, Probe("block4", "flat", "linear"))
        truth, everyone = test.codes(train.classes), np.arange(len(test))
        for depth in DEPTHS:
            tuner, right = Finetuner(reader, chooser, FinetuneOptions(depth)), []
            for number, places in enumerate(draws):
                learn = np.searchsorted(kept, places)
                given = Decision(None, (DepthTrial(depth, 0.0, 0.0),), 0)
                tuner.decisions[learn.tobytes(), number] = given
                answers = tuner.strategy(checked=False)(learn, everyone, number)
                right.append(answers.argmax(axis=1) == truth)
            accuracies = [float(one.mean()) for one in right]
            found[f"{budget} {depth}"] = accuracies
            print(f"{budget} labels per class, opened {depth}: {accuracies}", flush=True)
    if asked.picture:
        draw(found, budgets, asked.picture)
    print(json.dumps({**about, "accuracy": found}))


def draw(found: dict[str, Any], budgets: tuple[int, ...], place: Path) -> None:
    """Accuracy over depth, a line for each number of labels, the range of the draws as a band."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.0), dpi=140)
    for budget, colour in zip(budgets, ("#d9822b", "#0063a8"), strict=False):
        rows = 100 * np.array([found[f"{budget} {depth}"] for depth in DEPTHS])
        axes.fill_between(
            range(len(DEPTHS)), rows.min(axis=1), rows.max(axis=1), color=colour, alpha=0.18, lw=0
        )
        axes.plot(range(len(DEPTHS)), rows.mean(axis=1), "o-", color=colour, lw=2)
        axes.annotate(
            f"{budget} labels per class",
            (len(DEPTHS) - 1, rows.mean(axis=1)[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    axes.set_xticks(range(len(DEPTHS)), ["nothing", "last part", "last two", "last three", "all"])
    axes.set_xlabel("how far the network is opened")
    axes.set_ylabel("accuracy on test digits, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd")
    figure.subplots_adjust(left=0.1, right=0.78, bottom=0.14, top=0.96)
    figure.savefig(place)


if __name__ == "__main__":
    main()
