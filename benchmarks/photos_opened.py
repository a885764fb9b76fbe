"""Ants and bees: a network of timm's frozen under a head, and opened, on the same photos; five seeds.

In: the folder hymenoptera, folders of weights. Out: per seed the accuracies on the photos held out and on the
153 test photos, the time, and a paired verdict; all of it as JSON. The 244 training photos are learnt
from (in three folds they also decide whether the opened network is taken), the 153 others judge and decide
nothing.

python benchmarks/photos_opened.py --data data/hymenoptera --weights weights/mobilenetv2... weights/...
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from machine import facts

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.evaluation.compare import paired_difference, verdict
from headstart.sources.features import Extraction
from headstart.sources.registry import open_source
from headstart.strategies.finetune.decide import Finetuner
from headstart.strategies.finetune.options import FinetuneOptions
from headstart.strategies.fits import Chooser, Reader
from headstart.strategies.places import CHOSEN
from headstart.system.cache import default_cache


def judged(weights: str, train: Dataset, test: Dataset, asked: argparse.Namespace) -> dict[str, Any]:
    """One network: probe and opened network by seed, and what may be said of the difference."""
    source = open_source(f"timm:local-dir:{weights}", train, 0, asked.size)
    reader = Reader(source, train, test, Extraction(default_cache()))
    everyone, photos, truth = np.arange(len(train)), np.arange(len(test)), test.codes(train.classes)
    right: dict[str, list[np.ndarray]] = {"probe": [], "finetune": [], "finetune, unchecked": []}
    held, accepted = [], []
    for seed in range(asked.seeds):
        begun = perf_counter()
        tuner = Finetuner(reader, Chooser(reader, CHOSEN), FinetuneOptions(asked.unfreeze))
        answers = {
            "probe": tuner.probe_probabilities(everyone, photos, seed),
            "finetune": tuner.strategy()(everyone, photos, seed),
            "finetune, unchecked": tuner.strategy(checked=False)(everyone, photos, seed),
        }
        decision = tuner.decide(everyone, seed)
        assert decision.probe is not None and decision.best is not None, "there are photos to hold out"
        taken = decision.best if decision.accepted else decision.probe
        assert taken.accuracy >= decision.probe.accuracy, "never below the probe on photos held out"
        best = decision.best
        held.append((decision.probe.accuracy, best.accuracy, best.gain, best.error))
        accepted.append(decision.accepted)
        for name, probs in answers.items():
            right[name].append(probs.argmax(axis=1) == truth)
        figures = ", ".join(f"{name} {right[name][-1].mean():.4f}" for name in right)
        print(
            f"{Path(weights).name} seed {seed}: held out {held[-1][0]:.4f} against {held[-1][1]:.4f} "
            f"(loss lower by {best.gain:.3f}, error {best.error:.3f}), "
            f"{'taken' if accepted[-1] else 'probe kept'}; test: {figures}; "
            f"{perf_counter() - begun:.0f} s",
            flush=True,
        )
    found: dict[str, Any] = {"held_out": held, "accepted": accepted}
    for name in ("finetune", "finetune, unchecked"):
        difference = paired_difference(np.stack(right[name]), np.stack(right["probe"]))
        word = verdict(difference, difference.p_value)
        found[name] = {"accuracy": [float(one.mean()) for one in right[name]], "verdict": word}
        found[name] |= {key: getattr(difference, key) for key in ("value", "low", "high", "p_value")}
        print(
            f"{Path(weights).name}: {name} {word}: {100 * difference.value:+.2f} points "
            f"[{100 * difference.low:+.2f}, {100 * difference.high:+.2f}], p {difference.p_value:.3f}",
            flush=True,
        )
    found["probe"] = [float(one.mean()) for one in right["probe"]]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", nargs="+", required=True)
    parser.add_argument("--size", type=int, help="side of the input in px; default: the network's own")
    parser.add_argument("--unfreeze", default="all")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    about = facts("headstart", "torch", "timm", "openvino")
    print(json.dumps(about), flush=True)
    data = load(asked.data)
    assert data.splits is not None, "the folder has train and val"
    train, test = (replace(data.subset(data.splits == name), splits=None) for name in ("train", "val"))
    found = {Path(one).name: judged(one, train, test, asked) for one in asked.weights}
    print(json.dumps({**about, "unfreeze": asked.unfreeze, "size_px": asked.size, **found}))


if __name__ == "__main__":
    main()
