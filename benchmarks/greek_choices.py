"""How the greek recipe's settings were chosen: on digits alone, never on the photos it is judged by.

The stand-in: a network learns seven digits; the other three are taught from nine images each, as the
Greek letters are, and judged by a thousand other people's of each. To stand in for photographs, the test
digits are also drawn large, thinned or thickened, put on unevenly lit, noisy paper and brought back by
``ink``. Needs MNIST and the extra train. Prints a line for each way: the mean over triples and draws.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from headstart.data.images.augment import parse_augmentation
from headstart.data.images.ink import ink
from headstart.data.readers.load import from_arrays, load
from headstart.records import TrainSettings
from headstart.sources.features import Extraction
from headstart.strategies.fits import Reader, fitted
from headstart.strategies.scratch import learn_network
from headstart.system.cache import default_cache

TRIPLES = ((2, 5, 8), (3, 6, 9), (1, 4, 7))


def photographed(digits: np.ndarray, seed: int) -> np.ndarray:
    """Digits as pictures of paper, then through ``ink``: (n, 28, 28, 1)."""
    rng = np.random.default_rng(seed)
    pages = []
    for digit in digits[..., 0]:
        large = gaussian_filter(zoom(digit / 255.0, 5, order=1), 2.5)
        width = rng.uniform(0.25, 0.6)  # where the stroke ends: thin to thick
        stroke = np.clip((large - width) / 0.15 + 0.5, 0, 1)
        page = np.pad(stroke, rng.integers(5, 40, (2, 2)))
        h, w = page.shape
        yy, xx = np.mgrid[0:h, 0:w] / max(h, w)
        light = 200 + 40 * rng.uniform(-1, 1) * xx + 40 * rng.uniform(-1, 1) * yy
        darkness = rng.uniform(0.35, 0.9)
        picture = light * (1 - darkness * page) + rng.normal(0, rng.uniform(0, 8), (h, w))
        pages.append(ink(np.clip(picture, 0, 255).astype(np.uint8)[None, ..., None], 28, 28)[0])
    return np.stack(pages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", nargs="*", default=["none", "handwriting"])
    parser.add_argument("--copies", nargs="*", type=int, default=[0, 20])
    parser.add_argument("--augments", nargs="*", default=["handwriting"])
    parser.add_argument("--layers", nargs="*", default=["block2", "block3", "hidden1"])
    parser.add_argument("--heads", nargs="*", default=["ridge", "kernel", "linear"])
    parser.add_argument("--network", default="cnn")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--triples", type=int, default=3)
    given = parser.parse_args()
    mnist = load("mnist")
    train, test = mnist.split("train"), mnist.split("test")
    options = Extraction(default_cache())
    scores: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for triple in TRIPLES[: given.triples]:
        names = [str(digit) for digit in triple]
        rest = train.subset(~np.isin(train.labels, names))
        rest = from_arrays(rest.images.pixels, rest.labels)
        asked = test.subset(np.isin(test.labels, names)).subset(np.arange(0, 2700, 3))
        clean = from_arrays(asked.images.pixels, asked.labels)
        photos = from_arrays(photographed(asked.images.pixels, 0), asked.labels)
        for how in given.sources:
            augmentation = None if how == "none" else parse_augmentation(how, 1)
            model = learn_network(
                rest,
                network=given.network,
                settings=TrainSettings(epochs=given.epochs, learning_rate=6e-3, schedule="one-cycle"),
                augmentation=augmentation,
            ).model
            source = model.source()
            for draw in range(given.draws):
                rng = np.random.default_rng(draw)
                places = [rng.choice(np.flatnonzero(train.labels == one), 9, replace=False) for one in names]
                few = train.subset(np.concatenate(places))
                few = from_arrays(few.images.pixels, few.labels)
                for augment, copies in product(given.augments, given.copies):
                    if not copies and augment != given.augments[0]:
                        continue
                    chosen = parse_augmentation(augment, copies) if copies else None
                    readers = [Reader(source, few, one, options, chosen, draw) for one in (clean, photos)]
                    for layer, head in product(given.layers, given.heads):
                        place = (layer, "flat")
                        learnt = fitted(readers[0], place, head, np.arange(len(few)), draw, balance=False)
                        right = [
                            float((learnt.predict(one.test_rows(place)) == one.test.labels).mean())
                            for one in readers
                        ]
                        key = (how, augment if copies else "-", copies, layer, head)
                        scores.setdefault(key, []).append((right[0], right[1]))
            print(f"{triple} {how}: done", file=sys.stderr, flush=True)
    print("source's augmentation, augmentation, copies, layer, head: clean, photographed (%)")
    for key, pairs in sorted(scores.items(), key=lambda item: -np.mean(item[1], axis=0)[1]):
        clean_mean, photo_mean = 100 * np.mean(pairs, axis=0)
        print(f"{', '.join(map(str, key)):60} {clean_mean:6.2f} {photo_mean:6.2f}   n {len(pairs)}")
    names = ("source_augmentation", "augmentation", "copies", "layer", "head")
    lines = [
        dict(zip(names, key, strict=True))
        | dict(zip(("clean", "photographed"), np.mean(pairs, axis=0).tolist(), strict=True))
        | {"draws": len(pairs)}
        for key, pairs in scores.items()
    ]
    print(json.dumps({"triples": TRIPLES[: given.triples], "draws": given.draws, "lines": lines}))


if __name__ == "__main__":
    main()
