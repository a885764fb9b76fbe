"""Teaching by example, without the page: 27 Greek letters, judged by themselves and by strangers' photos.

In: the folder of the data sets. Out: how long the last example takes until the accuracy is there, the
leave-one-out accuracy, how the 91 photos by other people and 33 other letters are named; the same as JSON on
the last line. Twice: with the bundled source ``drawings``, and with a network that learnt MNIST.

    python benchmarks/teach_letters.py --data DATA
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from machine import facts, spread

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def letters(folder: Path) -> list[tuple[str, Path]]:
    """Label and file of every image in a folder of class folders."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return [(path.parent.name, path) for path in found]


def taught(live: Any, examples: Sequence[tuple[str, Path]]) -> tuple[Any, float]:
    """A classroom with these examples, and the seconds from the last one to the new accuracy."""
    from headstart.interfaces.teach.classroom import Classroom

    room, begun = Classroom(live), 0.0
    for label in dict.fromkeys(label for label, _ in examples):
        room.add_class(label)
    for label, path in examples:
        room.lesson()
        begun = perf_counter()
        room.add(label, path.read_bytes())
    room.lesson()
    return room, perf_counter() - begun


def judged(live: Any, home: Path, repeats: int) -> dict[str, Any]:
    """Everything that is said of one source."""
    from headstart.records import NONE_OF_THESE

    examples, photos = letters(home / "train"), letters(home / "photos")
    rooms = [taught(live, examples) for _ in range(repeats)]
    room = rooms[-1][0]
    answers = [(label, room.predict(path.read_bytes())) for label, path in photos]
    named = [(label, one) for label, one in answers if one.predicted != NONE_OF_THESE]
    others = [room.predict(path.read_bytes()) for _, path in letters(home / "other_letters")]
    likeliest = [label == max(one.probabilities, key=lambda pair: pair[1])[0] for label, one in answers]
    return {
        "seconds": spread([seconds for _, seconds in rooms]),
        "left_out": asdict(room.lesson().accuracy),
        "photos": len(photos),
        "photos_likeliest_right": sum(likeliest),
        "photos_named": len(named),
        "photos_named_right": sum(label == one.predicted for label, one in named),
        "others": len(others),
        "others_refused": sum(one.predicted == NONE_OF_THESE for one in others),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with greek and MNIST")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    os.environ["HEADSTART_DATA"] = asked.data

    from dataclasses import replace

    from headstart.data.readers.load import load
    from headstart.interfaces.teach.live_source import LiveSource, example_augmentation
    from headstart.sources.registry import open_source
    from headstart.strategies.scratch import learn_network

    about = facts("headstart", "numpy", "openvino", "torch")
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    digits = learn_network(load("mnist")).model.source("mnist")
    sources = {
        "drawings": open_source("drawings"),
        "mnist": replace(digits, input=replace(digits.input, policy="ink")),
    }
    found = {}
    for name, source in sources.items():
        live = LiveSource(source, example_augmentation(source))
        found[name] = judged(live, Path(asked.data) / "greek", asked.repeats)
        print(f"{name}: {found[name]}", flush=True)
    print(json.dumps({**about, "sources": found}))


if __name__ == "__main__":
    main()
