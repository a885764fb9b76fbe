"""Does the figure that ``transfer`` prints hold? Coin-toss labels, real labels, and every head on few digits.

    python benchmarks/honest_transfer.py --data DATA --weights FOLDER_OF_A_PHOTO_NETWORK

Coin-toss labels of photos: nothing can be learned, so the truth is 50 %; how often does the printed interval
exclude it? Real labels: the printed figure of 80 photos against the saved model's accuracy on all others.
USPS: 100 labels, each head; printed minus delivered on the test digits, mean over draws.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from machine import facts

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.data.splits import nested_subsets
from headstart.evaluation.records import Score
from headstart.heads.registry import HEADS
from headstart.records import Source
from headstart.sources.features import Extraction
from headstart.sources.registry import open_source
from headstart.strategies.places import CHOSEN, Probe
from headstart.system.cache import FolderCache
from headstart.workflows.transfer.run import run_transfer


def printed(
    source: Source, pool: Dataset, probe: Probe, seed: int, options: Extraction
) -> tuple[Score, object]:
    """The accuracy that the command prints, and the model that it saves."""
    done = run_transfer(source, pool, probe, seed=seed, options=options)
    ours = next(row.accuracy for row in done.result.rows if row.strategy == "probe")
    return ours, done.learned.model


def coin_tosses(
    source: Source, photos: Dataset, n_photos: int, n_runs: int, options: Extraction
) -> dict[str, object]:
    """Random labels: how often 50 % lies outside the printed interval."""
    outside, values = 0, []
    for run in range(n_runs):
        rng = np.random.default_rng([run, n_photos])
        some = np.sort(rng.permutation(len(photos))[:n_photos])
        labels = np.array(["a", "b"])[rng.integers(0, 2, n_photos)]
        pool = replace(photos.subset(some), labels=labels, classes=("a", "b"), splits=None)
        found, _ = printed(source, pool, CHOSEN, run, options)
        outside += not found.low <= 0.5 <= found.high
        values.append(found.value)
        print(f"coin toss {n_photos} photos, run {run}: {said(found)}", flush=True)
    return {"photos": n_photos, "runs": n_runs, "outside": outside, "mean": float(np.mean(values))}


def real_labels(
    source: Source, photos: Dataset, n_photos: int, n_runs: int, options: Extraction
) -> dict[str, object]:
    """Real labels: the printed figure against the saved model's accuracy on all other photos."""
    outside, gaps = 0, []
    for run in range(n_runs):
        some = nested_subsets(photos.labels, (n_photos // 2,), seed=run)[n_photos // 2]
        rest = replace(photos.subset(np.setdiff1d(np.arange(len(photos)), some)), splits=None)
        found, model = printed(source, replace(photos.subset(some), splits=None), CHOSEN, run, options)
        truth = float((model.predict(rest, refuse=False) == rest.labels).mean())  # type: ignore[attr-defined]
        outside += not found.low <= truth <= found.high
        gaps.append(found.value - truth)
        print(f"real labels {n_photos} photos, run {run}: {said(found)}, delivered {truth:.2%}", flush=True)
    return {"photos": n_photos, "runs": n_runs, "outside": outside, "printed_minus_delivered": mean(gaps)}


def digits(n_draws: int, options: Extraction) -> Iterator[dict[str, object]]:
    """USPS, 100 labels: what each head prints, and what its model does on the test digits."""
    everything = load("usps")
    train, test = everything.split("train"), replace(everything.split("test"), splits=None)
    source = open_source("pixels", train)
    for head in sorted(HEADS):
        figures, truths = [], []
        for draw in range(n_draws):
            some = nested_subsets(train.labels, (10,), seed=draw)[10]
            pool = replace(train.subset(some), splits=None)
            found, model = printed(source, pool, Probe(head=head), draw, options)
            truth = (model.predict(test, refuse=False) == test.labels).mean()  # type: ignore[attr-defined]
            figures.append(found.value)
            truths.append(float(truth))
        line = {
            "head": head,
            "draws": n_draws,
            "printed": mean(figures),
            "delivered": mean(truths),
            "difference": mean(figures) - mean(truths),
        }
        print(line, flush=True)
        yield line


def mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 4)


def said(score: Score) -> str:
    return f"{score.value:.2%} [{score.low:.2%}, {score.high:.2%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with hymenoptera and usps")
    parser.add_argument("--weights", required=True, help="folder of a photo network, as timm saves it")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--draws", type=int, default=12)
    given = parser.parse_args()
    print(facts("openvino"))
    with tempfile.TemporaryDirectory() as folder:
        options = Extraction(FolderCache(folder))
        photos = load(f"{given.data}/hymenoptera")
        source = open_source(f"timm:local-dir:{given.weights}", photos)
        found = {
            "coin_tosses": [coin_tosses(source, photos, n, given.runs, options) for n in (80, 397)],
            "real_labels": real_labels(source, photos, 80, given.runs, options),
            "digits": list(digits(given.draws, options)),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
