"""None of these: whether a picture of no class is told apart, and better than by the largest probability.

The digits' model (a small CNN trained on MNIST) against Omniglot's letters, brought into MNIST's own frame
by ``ink`` so that neither colour nor size gives them away, the same as they are, and two kinds of noise;
the model of the Greek letters against other letters by the same strangers. At 5 % false rejection, with
intervals.

    python benchmarks/none_of_these.py --data DATA --greek runs/greek-greek/model
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from machine import facts


def noise(n: int, side: int, smooth: float) -> np.ndarray:
    """Grey values drawn at random, or smooth blobs."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    if not smooth:
        return rng.integers(0, 256, (n, side, side), np.uint8)
    blobs = gaussian_filter(rng.normal(size=(n, side, side)), (0, smooth, smooth))
    return np.clip(blobs * 800, 0, 255).astype(np.uint8)


def main() -> None:
    """Train, judge, print."""
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--data", required=True, help="folder of the data sets")
    given.add_argument("--greek", help="model folder that `headstart run greek` left")
    given.add_argument("--digits", help="model folder of the digits; default: trained now")
    chosen = given.parse_args()
    os.environ["HEADSTART_DATA"] = chosen.data

    from headstart.data.images.prepare import prepare
    from headstart.data.readers.load import from_arrays, load
    from headstart.evaluation.detection import detection
    from headstart.interfaces.cli.tables import detection_table
    from headstart.models.model import open_model
    from headstart.records import InputSpec
    from headstart.strategies.scratch import learn_network

    about, judged = facts("headstart", "numpy", "openvino", "torch"), []
    print(about)
    if chosen.digits:
        model = open_model(chosen.digits)
    else:
        with tempfile.TemporaryDirectory() as home:
            model = open_model(learn_network(load("mnist")).model.save(Path(home) / "digits"))
    known = model.prediction(load("mnist").split("test"))
    letters = load("omniglot-small")
    framed = prepare(letters, InputSpec(28, 28, 1, policy="ink"))
    novel = {
        "Omniglot's letters in MNIST's frame": from_arrays(framed, letters.labels),
        "Omniglot's letters as they are": letters,
        "noise": from_arrays(noise(1_000, 28, 0), ["noise"] * 1_000),
        "smooth blobs": from_arrays(noise(1_000, 28, 2), ["noise"] * 1_000),
    }
    for name, images in novel.items():
        judged.append(detection(f"digits against {name}", known, model.prediction(images)))
        print(f"\n{detection_table(judged[-1])}")
    if chosen.greek:
        taught = open_model(chosen.greek)
        others = load(str(Path(chosen.data) / "greek/other_letters"))
        photos = taught.prediction(load("greek-photos"))
        judged.append(detection("strangers' Greek letters", photos, taught.prediction(others)))
        print(f"\n{detection_table(judged[-1])}")
    print(json.dumps({**about, "judged": [asdict(one) for one in judged]}))


if __name__ == "__main__":
    main()
