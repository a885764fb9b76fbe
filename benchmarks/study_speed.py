"""A full study on 1,000 cached features: probe, four controls, learning curve with 20 draws, verdict, report.

Beside it the selection alone: three heads at every place of the source that selection tries, on the same features.

The first run computes and keeps the features of the source and of networks with random weights; the
runs after it are timed, each from process start to the written report. Alone on the machine:

    python benchmarks/study_speed.py --data DATA --weights FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import facts, parser, run, spread

HEADS = ("ridge", "kernel", "neighbours")


def child(weights: str, folder: str) -> None:
    """The study, as the command line runs it, on 1,000 digits."""
    from time import perf_counter

    from headstart.data.readers.load import from_arrays, load
    from headstart.report.page import render
    from headstart.sources.features import Extraction, extract_all
    from headstart.sources.registry import open_source
    from headstart.strategies.select import choose
    from headstart.system.cache import default_cache
    from headstart.workflows.study.request import StudyRequest
    from headstart.workflows.study.run import run_study

    begun = perf_counter()
    mnist = load("mnist").split("train")
    some = mnist.subset(np.random.default_rng(0).choice(len(mnist), 1_000, replace=False))
    digits = from_arrays(some.images.pixels, some.labels)  # type: ignore[attr-defined]
    source = open_source(f"timm:local-dir:{weights}", digits, 0, 112)
    controls = ("majority", "raw pixels", "random frozen", "scratch")
    found = run_study(source, digits, StudyRequest(controls=controls), options=Extraction(default_cache()))
    (Path(folder) / "report.html").write_text(render(found), encoding="utf-8")
    study_s = perf_counter() - begun
    cells = {f"{row.strategy}, {row.labels_per_class or 'all'}": round(row.seconds, 3) for row in found.rows}
    rows = extract_all(digits, source, source.candidates, options=Extraction(default_cache()))
    begun = perf_counter()
    features = dict(zip(source.candidates, rows, strict=True))
    chosen = choose(features, digits.codes(), heads=HEADS, default=source.candidates[-1], averaged=True)
    selection = {"selection_s": perf_counter() - begun, "places": len(features), "candidates": chosen.n_tried}
    print(json.dumps({"study_s": study_s, "verdict": found.verdict, "cells": cells, **selection}))


def main() -> None:
    """Time the study with everything cached."""
    given = parser()
    given.add_argument("--weights", required=True, help="folder of a timm network")
    chosen = given.parse_args()
    about = facts("headstart", "numpy", "openvino", "scikit-learn", "torch")
    print(about)
    with tempfile.TemporaryDirectory() as home:
        cache = os.environ.get("HEADSTART_CACHE", f"{home}/cache")
        command = [sys.executable, __file__, "--child", chosen.weights, home]
        runs = [
            run(command, HEADSTART_CACHE=cache, HEADSTART_DATA=chosen.data) for _ in range(chosen.repeats + 1)
        ]
        size = (Path(home) / "report.html").stat().st_size
    print("nothing cached:", round(runs[0]["wall_s"], 1), "s")
    print("features cached:", spread([one["wall_s"] for one in runs[1:]]))
    print("report:", size, "bytes;", runs[-1]["verdict"])
    print("median seconds of a draw:", runs[-1]["cells"])
    cached = spread([one["wall_s"] for one in runs[1:]])
    selection = spread([one["selection_s"] for one in runs[1:]])
    print("selection:", selection, f"{runs[-1]['places']} places, {runs[-1]['candidates']} candidates")
    found = {"nothing_cached_s": runs[0]["wall_s"], "features_cached_s": cached, "selection_s": selection}
    print(json.dumps({**about, **found, "cells": runs[-1]["cells"]}))


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(*sys.argv[2:])
    else:
        main()
