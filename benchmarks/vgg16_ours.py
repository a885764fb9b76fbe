"""Our side of ``vgg16_vs_keras``: the whole job in one process, times and accuracies as JSON.

VGG16 with random weights (for time only): 1,000 images read three times (as they are, and as two augmented copies
with shear, zoom and flip), 200 test images, a dense head with dropout, from process start to the accuracies.
"""

from __future__ import annotations

import time

BEGUN = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402

import numpy as np  # noqa: E402

from headstart.data import load  # noqa: E402
from headstart.data.images.augment import parse_augmentation  # noqa: E402
from headstart.heads.registry import make_head  # noqa: E402
from headstart.sources.features import Extraction, extract  # noqa: E402
from headstart.sources.precision import precise  # noqa: E402
from headstart.sources.registry import open_source  # noqa: E402
from headstart.strategies.probe import training_rows  # noqa: E402
from headstart.system.cache import default_cache  # noqa: E402


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--copies", type=int, default=2, help="beside the images themselves")
    arguments.add_argument("--images", type=int, default=1_000)
    arguments.add_argument("--precision", help="int8, or fp32, which is the default")
    args = arguments.parse_args()
    mnist = load("mnist")
    train = mnist.split("train").subset(np.arange(args.images))
    test = mnist.split("test").subset(np.arange(200))
    source = open_source("random:timm:vgg16", train)
    place = ([layer for layer, shape in source.layers.items() if len(shape) > 1][-1], "avg")
    begun = time.perf_counter()
    ready = precise(source, lambda: train, Extraction(default_cache(), precision=args.precision))
    source, options = ready.source, ready.options
    copies = parse_augmentation("textbook", args.copies) if args.copies else None
    (rows,), labels, images = training_rows(source, train, [place], copies, 0, options)
    asked = extract(test, source, layer=place[0], pooling=place[1], options=options)
    extracted = time.perf_counter() - begun
    head = make_head("mlp").fit(rows, labels, images=images)
    accuracies = [
        float((head.predict(x) == y).mean())
        for x, y in ((rows[: len(train)], train.labels), (asked, test.labels))
    ]
    found = {
        "images_per_s": (len(rows) + len(asked)) / extracted,
        "extraction_s": extracted,
        "train_accuracy": accuracies[0],
        "test_accuracy": accuracies[1],
        "total_s": time.perf_counter() - BEGUN,
    }
    print(json.dumps(found))


main()
