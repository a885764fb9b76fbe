"""What unlabelled images are worth: the probe alone, with propagated labels, and as the gate decides.

In every draw some labels per class are taken, up to 2,000 other images without labels, and up to 3,000 more to test
on. ``kind`` says what the unlabelled images are: ``same`` of the same classes, ``few`` 15 per class, ``half`` of half
of the classes only, ``uneven`` one class 20 times as rare. The strategy is that of `headstart study --unlabelled`.

    HEADSTART_DATA=... python benchmarks/unlabelled.py            (about ten minutes)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from machine import facts, told
from selection import opened, pooled, trained_on_mnist

from headstart.data.dataset import Dataset
from headstart.data.readers.unlabelled import load_unlabelled
from headstart.models.model import Model
from headstart.strategies.fits import Chooser, Reader, chosen_probe
from headstart.strategies.places import CHOSEN
from headstart.strategies.unlabelled import Unlabelled, unlabelled_probe

_LABELS = (1, 2, 5, 10, 20)
_MOST_IMAGES, _MOST_OTHERS, _MOST_TEST = 6_000, 2_000, 3_000
_JOBS = (
    ("photos", "hymenoptera", "same"), ("photos", "hymenoptera", "uneven"), ("photos", "mnist", "same"),
    ("drawings", "mnist", "same"), ("drawings", "mnist", "few"), ("drawings", "mnist", "half"),
    ("drawings", "mnist", "uneven"), ("drawings", "usps", "same"), ("drawings", "omniglot-greek", "same"),
    ("network of MNIST", "usps", "same"), ("pixels", "mnist", "same"),
)  # fmt: skip


def others_of(kind: str, rest: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The unlabelled images among those that are neither labelled nor tested on."""
    n_classes = int(codes.max()) + 1
    if kind == "few":
        return np.concatenate([rest[codes[rest] == code][:15] for code in range(n_classes)])
    if kind == "half":
        return rest[codes[rest] < n_classes // 2]
    if kind == "uneven":
        return rest[(codes[rest] > 0) | (rng.random(len(rest)) < 0.05)]
    return rest


def job(name: str, data_name: str, kind: str, network: Model, n_draws: int) -> list[dict[str, Any]]:
    """Accuracy in % by labels per class."""
    data = pooled(data_name, _MOST_IMAGES)
    source = opened(name, data, network)
    reader, codes = Reader(source, data, data), data.codes()
    reader.read(source.candidates)
    probe = chosen_probe(reader, CHOSEN, Chooser(reader, CHOSEN))
    lines = []
    for n in _LABELS:
        if n > 0.3 * np.bincount(codes).min():
            continue
        found: dict[str, list[float]] = {"probe": [], "unlabelled": [], "used": []}
        for draw in range(n_draws):
            rng = np.random.default_rng([draw, n])
            members = [rng.permutation(np.flatnonzero(codes == code)) for code in range(len(data.classes))]
            train = np.sort(np.concatenate([one[:n] for one in members]))
            rest = rng.permutation(np.setdiff1d(np.arange(len(data)), train))
            test, rest = np.sort(rest[: len(rest) // 2]), rest[len(rest) // 2 :]
            others = np.sort(others_of(kind, rest, codes, rng)[:_MOST_OTHERS])
            plain, both = (
                one(train, test[:_MOST_TEST], draw)
                for one in (probe, unlabelled_probe(reader, _known(reader, data, others), CHOSEN))
            )
            truth = codes[test[:_MOST_TEST]]
            for title, probs in (("probe", plain), ("unlabelled", both)):
                found[title].append(100 * float((probs.argmax(axis=1) == truth).mean()))
            found["used"].append(float(not np.array_equal(plain, both)))
        line = {"source": name, "data": data_name, "kind": kind, "labels": n, "draws": n_draws}
        line |= {key: round(float(np.mean(values)), 2) for key, values in found.items()}
        lines.append(line | {"gain": round(line["unlabelled"] - line["probe"], 1)})
        print(" ".join(f"{key} {value}" for key, value in lines[-1].items()), flush=True)
    return lines


def _known(reader: Reader, data: Dataset, others: np.ndarray) -> Unlabelled:
    """Unlabelled images whose features are rows of the pool's, so that nothing is computed again."""
    kept = {place: rows[others] for (place, copy), rows in reader._kept.items() if copy == 0}
    images = load_unlabelled(replace(data.subset(others), splits=None))
    return Unlabelled(reader.source, images, reader.options, kept)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--only", default="", help="part of SOURCE DATA KIND")
    options = parser.parse_args(given)
    about = facts("numpy", "openvino", "scipy")
    network = trained_on_mnist()
    lines = [
        line
        for name, data, kind in _JOBS
        if options.only in f"{name} {data} {kind}"
        for line in job(name, data, kind, network, options.draws)
    ]
    gains = {
        f"mean_gain_at_{n}": round(
            float(np.mean([one["gain"] for one in lines if one["labels"] == n and one["kind"] == "same"])), 1
        )
        for n in _LABELS
    }
    checked = [one["gain"] for one in lines if one["labels"] > 1]
    told(about, {}, lines=lines, **gains, worst_where_it_is_checked=min(checked))


if __name__ == "__main__":
    main()
