"""Predict folders of 2,000 and 20,000 MNIST images to CSV: images per second, peak memory, kill -9.

Each count runs in a process of its own. Afterwards the largest folder is predicted by a process that is
killed at random moments until one gets through; its file must be the same to the byte. On Linux:

    python benchmarks/predict_folder.py --data FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flat_memory import peak_mib
from machine import facts, run

_PER_FOLDER = 5_000


def make(home: Path, n_images: int) -> None:
    """Pictures of MNIST, over again where it has too few."""
    from PIL import Image

    from headstart.data.readers.load import load

    pixels = load("mnist").images.pixels
    for index in range(n_images):
        path = home / f"{index // _PER_FOLDER:03}" / f"{index:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[index % len(pixels), ..., 0]).save(path)


def learn(folder: str) -> None:
    """A small network, so that finding, reading and writing are what is measured."""
    import numpy as np

    from headstart.data.readers.load import load
    from headstart.records import TrainSettings
    from headstart.strategies.scratch import learn_network

    few = load("mnist").subset(np.arange(2000))
    learn_network(few, network="cnn", engine="scratch", settings=TrainSettings(epochs=1)).model.save(folder)


def child(model: str, folder: str, out: str) -> None:
    """Predict one folder and say how much memory and time that took."""
    from headstart.models.predict_csv import predict_to_file
    from headstart.models.predict_job import PredictRequest

    done = predict_to_file(PredictRequest(model, (folder,)), out)
    print(
        json.dumps(
            {
                "n_images": done.n_images,
                "n_kept": done.n_kept,
                "peak_rss_mib": round(peak_mib(), 1),
                "csv_mib": round(Path(out).stat().st_size / 2**20, 2),
                "images_per_s": round((done.n_images - done.n_kept) / done.seconds),
                "seconds": round(done.seconds, 2),
            }
        )
    )


def killed(command: list[str], out: Path, wall_s: float) -> int:
    """Kill it at random moments until it gets through once; how many times it was."""
    rng = random.Random(0)
    for times in range(1000):
        with subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL) as process:
            try:
                process.wait(rng.uniform(0.15, 0.5) * wall_s)
            except subprocess.TimeoutExpired:
                process.kill()
        if out.exists():
            return times
        time.sleep(0.1)
    raise SystemExit("it never got through")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="folder with MNIST")
    parser.add_argument("--child", nargs=3, metavar=("MODEL", "FOLDER", "OUT"))
    parser.add_argument("--counts", type=int, nargs="+", default=[2_000, 20_000])
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    if args.data is None:
        parser.error("--data is needed: a folder with MNIST")
    os.environ["HEADSTART_DATA"] = args.data
    print(json.dumps(facts("headstart", "numpy", "openvino", "pillow")))
    with tempfile.TemporaryDirectory() as home:
        place = Path(home)
        learn(f"{home}/model")
        wall_s: dict[int, float] = {}
        for n_images in args.counts:
            make(place / str(n_images), n_images)
            command = [sys.executable, __file__, "--child", f"{home}/model", f"{home}/{n_images}"]
            found = run([*command, f"{home}/{n_images}.csv"])
            wall_s[n_images] = found["wall_s"]
            print(json.dumps(found), flush=True)
        most = max(args.counts)
        command = [sys.executable, __file__, "--child", f"{home}/model", f"{home}/{most}"]
        times = killed(command, place / "killed.csv", wall_s[most])
        same = (place / "killed.csv").read_bytes() == (place / f"{most}.csv").read_bytes()
        print(json.dumps({"n_images": most, "kills": times, "same_bytes": same}))
        if not same:
            raise SystemExit("the interrupted run's file differs")


if __name__ == "__main__":
    main()
