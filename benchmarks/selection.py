"""What selection of layer and head is worth for every source: before, now, and the best single candidate.

In every draw some labels per class are taken; everything is selected on them, and judged on up to 3,000 other
images. ``before`` is what transfer did until November 2026: the default layer with a linear head (sources without
candidates then), or the candidate with the lowest held-out loss among ridge, kernel and neighbours (photos).
``one`` is the selected place and head, ``now`` the mean of the three best from 40 images on, as it is shipped.
``best`` is the one pair of place and head with the highest mean accuracy over all draws, known only afterwards.
``HOG`` and ``pixels`` are the controls of a study (kernel ridge); ``HOG SVM`` and ``pixel SVM`` support vector
machines by scikit-learn (RBF, C = 10, gamma scaled) on the same rows.

    HEADSTART_DATA=... python benchmarks/selection.py            (about half an hour)
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts, told
from sklearn.svm import SVC

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.models.model import Model
from headstart.records import Source, TrainSettings
from headstart.sources.features import extract
from headstart.sources.fitting import fitting_policy
from headstart.sources.hog import hog_source
from headstart.sources.pixels import pixel_source
from headstart.sources.registry import open_source
from headstart.strategies.fits import Chooser, Reader, averaged, fitted
from headstart.strategies.places import CHOSEN
from headstart.strategies.scratch import learn_network
from headstart.strategies.select import choose
from headstart.workflows.comparison.baselines import gradient_histograms, preparations_for, raw_pixels

_LABELS = (1, 2, 5, 10, 50, 100)
_MOST_IMAGES, _MOST_TEST = 5_000, 3_000
_JOBS = (
    ("drawings", "usps"), ("drawings", "mnist"), ("drawings", "omniglot-greek"),
    ("network of MNIST", "usps"), ("network of MNIST", "omniglot-greek"), ("network of MNIST", "omniglot-small"),
    ("photos", "hymenoptera"), ("photos", "usps"), ("photos", "mnist"), ("photos-large", "hymenoptera"),
)  # fmt: skip


def pooled(name: str, most: int) -> Dataset:
    """All images of a dataset without splits, or a sample."""
    place = Path(os.environ["HEADSTART_DATA"]) / name
    data = replace(load(str(place) if name == "hymenoptera" else name), splits=None)
    chosen = np.sort(np.random.default_rng(1).permutation(len(data))[:most])
    return data.subset(chosen)


def opened(name: str, data: Dataset, network: Model) -> Source:
    """The source, with the policy that the commands would take."""
    source = network.source("network of MNIST") if name == "network of MNIST" else open_source(name, data)
    policy = fitting_policy(source, data)
    return source if policy is None else replace(source, input=replace(source.input, policy=policy))


def earlier(reader: Reader, train: np.ndarray, seed: int) -> tuple[tuple[str, str], str]:
    """Place and head as they were selected before."""
    source, codes = reader.source, reader.pool.codes()[train]
    if source.kind != "photos":
        return (source.default_layer, "flat"), "linear"
    if np.bincount(codes).min() < 2:
        return ("logits", "flat"), "ridge"
    features = {place: reader.rows(place)[train] for place in source.candidates}
    best = choose(features, codes, heads=("ridge", "kernel", "neighbours"), seed=seed).best
    return (best.layer, best.pooling), best.head


def job(name: str, data_name: str, network: Model, n_draws: int, most: int) -> list[dict[str, Any]]:
    """Accuracy in % by labels per class."""
    data = pooled(data_name, most)
    source = opened(name, data, network)
    reader, codes = Reader(source, data, data), data.codes()
    reader.read(source.candidates)
    chooser = Chooser(reader, CHOSEN)
    controls = {"HOG": gradient_histograms(reader), "pixels": raw_pixels(reader)}
    native = preparations_for(data, source.input)[0]
    machines = {
        "HOG SVM": extract(data, hog_source(native)),
        "pixel SVM": extract(data, pixel_source(native)),
    }
    lines = []
    for n in _LABELS:
        if n > 0.6 * np.bincount(codes).min():
            continue
        found: dict[Any, list[float]] = {}
        for draw in range(n_draws):
            rng = np.random.default_rng([draw, n])
            members = [rng.permutation(np.flatnonzero(codes == code)) for code in range(len(data.classes))]
            train = np.sort(np.concatenate([one[:n] for one in members]))
            test = np.sort(rng.permutation(np.setdiff1d(np.arange(len(data)), train))[:_MOST_TEST])
            made: dict[Any, float] = {}

            def accuracy(
                place: tuple[str, str], head: str, *, train: Any = train, test: Any = test, made: Any = made
            ) -> float:
                if (place, head) not in made:
                    fit = fitted(reader, place, head, train, 0, balance=False)
                    hits = fit.probabilities(reader.test_rows(place)[test]).argmax(axis=1) == codes[test]
                    made[place, head] = 100 * float(hits.mean())
                return made[place, head]

            found.setdefault("before", []).append(accuracy(*earlier(reader, train, draw)))
            readings = chooser(train, draw)
            found.setdefault("one", []).append(accuracy(*readings[0]))
            probs = averaged(reader, readings, train, test, 0, balance=False)
            found.setdefault("now", []).append(100 * float((probs.argmax(axis=1) == codes[test]).mean()))
            for title, rows in machines.items():
                fit = SVC(C=10).fit(rows[train], codes[train])
                found.setdefault(title, []).append(100 * float(fit.score(rows[test], codes[test])))
            for title, control in controls.items():
                hits = control(train, test, draw).argmax(axis=1) == codes[test]
                found.setdefault(title, []).append(100 * float(hits.mean()))
            for place in source.candidates:
                for head in ("ridge", "kernel"):
                    found.setdefault((place, head), []).append(accuracy(place, head))
        singles = {key: float(np.mean(values)) for key, values in found.items() if isinstance(key, tuple)}
        best = max(singles, key=lambda key: singles[key])
        line = {"source": name, "data": data_name, "labels": n, "draws": n_draws}
        line |= {
            key: round(float(np.mean(values)), 1) for key, values in found.items() if isinstance(key, str)
        }
        lines.append(line | {"best": round(singles[best], 1), "at": f"{best[1]}, {best[0][0]} {best[0][1]}"})
        print(" ".join(f"{key} {value}" for key, value in lines[-1].items()), flush=True)
    return lines


def trained_on_mnist() -> Model:
    """A small network of MNIST's ten digits."""
    digits = load("mnist").split("train").subset(np.arange(20_000))
    return learn_network(replace(digits, splits=None), settings=TrainSettings(epochs=3)).model


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--most", type=int, default=_MOST_IMAGES, help="images of a dataset, at most")
    parser.add_argument("--only", default="", help="part of SOURCE DATA")
    options = parser.parse_args(given)
    about = facts("numpy", "openvino", "scikit-learn")
    network = trained_on_mnist()
    lines = [
        line
        for name, data in _JOBS
        if options.only in f"{name} {data}"
        for line in job(name, data, network, options.draws, options.most)
    ]
    lower, higher = (
        [line for line in lines if line["labels"] <= 2],
        [line for line in lines if line["labels"] > 2],
    )
    gaps = [float(np.mean([line["best"] - line["now"] for line in some])) for some in (lines, lower, higher)]
    gain = float(np.mean([line["now"] - line["before"] for line in lines]))
    averaging = float(np.mean([line["now"] - line["one"] for line in lines]))
    told(
        about,
        {},
        lines=lines,
        mean_gap_to_best=round(gaps[0], 2),
        gap_at_1_and_2_labels=round(gaps[1], 2),
        gap_from_5_labels=round(gaps[2], 2),
        mean_gain=round(gain, 2),
        mean_gain_of_averaging=round(averaging, 2),
    )


if __name__ == "__main__":
    main()
