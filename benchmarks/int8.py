"""Networks in int8, bf16 and fp32: images per second in turns, and the accuracy of the same probe on the same images.

Accuracy is on the validation images of ants and bees (hymenoptera), calibrated on its training images. Another row is
calibrated on the validation images themselves: what that changes is what calibration on tested images may give away,
as in a cross-validation. One row compares the predictions in two runtimes. Alone on the machine:

    python benchmarks/int8.py --data DATA --weights WEIGHTS
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from machine import facts, parser, spread, told

from headstart.data.dataset import Dataset
from headstart.data.images.prepare import prepare
from headstart.data.readers.load import load
from headstart.evaluation.compare import paired_difference
from headstart.graph.run import compile_graph, resolve_precision
from headstart.records import Array, Source
from headstart.sources.features import Extraction, Place, feature_graph
from headstart.sources.precision import in_int8
from headstart.sources.registry import open_source
from headstart.strategies.probe import learn_head
from headstart.system.cache import NullCache

PRECISIONS = ("fp32", "bf16", "int8")
NETWORKS = ("photos", "mobilenetv1_100.keras_075_zeropad_in1k", "mobilenetv2_100.tf2_ptq_int8_bncal_in1k")
SPEED_ONLY = "random:timm:resnet50"
OPTIONS = Extraction(NullCache(), precision="fp32")
N_IMAGES = 200


def images_per_second(
    sources: Mapping[str, Source], data: Dataset, place: Place, repeats: int
) -> dict[str, Any]:
    """Images per second and CPU milliseconds per image of the network alone, the precisions taking turns."""
    pixels = prepare(data.subset(np.arange(min(N_IMAGES, len(data)))), sources["fp32"].input)
    ready = {
        name: compile_graph(
            feature_graph(one, [place]),
            precision="bf16" if name == "bf16" else one.precision,
            batch_size=one.batch_size,
        )
        for name, one in sources.items()
    }
    for one in ready.values():
        one.run([pixels[:32]], min(32, len(pixels)))  # the first run prepares
    wall: dict[str, list[float]] = {name: [] for name in ready}
    cpu: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(repeats):
        for name, one in ready.items():
            begun, used = perf_counter(), process_time()
            one.run([pixels], len(pixels))
            wall[name].append(len(pixels) / (perf_counter() - begun))
            cpu[name].append(1e3 * (process_time() - used) / len(pixels))
    ratios = {
        f"int8 against {name}": spread(np.divide(wall["int8"], wall[name]).tolist())
        for name in ready
        if name != "int8"
    }
    rates = {f"{name}, images per s": spread(values) for name, values in wall.items()}
    return {**rates, **{f"{name}, CPU ms": spread(values) for name, values in cpu.items()}, **ratios}


def accuracies(plain: Source, data: Dataset) -> dict[str, str]:
    """Accuracy of the probe on validation images, and the paired difference of int8 from fp32."""
    train, val = data.split("train"), data.split("val")
    codes = val.codes(data.classes)
    sources = {
        "fp32": plain,
        "int8": in_int8(plain, train, OPTIONS),
        "int8, calibrated on the tested images": in_int8(plain, val, OPTIONS),
    }
    right, found = {}, {}
    for name, source in sources.items():
        model = learn_head(source, data, options=OPTIONS).model
        pixels = prepare(val, source.input)
        probabilities = model.predict_prepared([pixels]).probabilities
        right[name] = probabilities.argmax(axis=1) == codes
        found[name] = f"{100 * right[name].mean():.2f} % of {len(codes)}"
        if name == "int8":
            found["int8 in ONNX Runtime"] = other_runtime(
                probabilities, model.predict_prepared([pixels], runtime_name="onnxruntime").probabilities
            )
        if name != "fp32":
            one = paired_difference(right[name], right["fp32"])
            found[name] += (
                f", {100 * one.value:+.2f} points [{100 * one.low:+.2f}, {100 * one.high:+.2f}] from fp32"
            )
    return found


def other_runtime(ours: Array, theirs: Array) -> str:
    """How the probabilities of two runtimes differ."""
    off = np.abs(ours - theirs).max(axis=1)
    changed = int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())
    return (
        f"probabilities differ by up to {off.max():.3f} (median {np.median(off):.4f}), {changed} names differ"
    )


def main() -> None:
    """Every network."""
    given = parser(repeats=5)
    given.add_argument("--weights", required=True, help="folder with the folders of timm's networks")
    given.add_argument("--networks", default=",".join((*NETWORKS, SPEED_ONLY)), help="separated by commas")
    chosen = given.parse_args()
    about = facts("headstart", "openvino", "onnxruntime", "onnx")
    about["bf16"] = resolve_precision("auto", "openvino") == "bf16"
    data = load(str(Path(chosen.data) / "hymenoptera"))
    table, answers = {}, {}
    for name in chosen.networks.split(","):
        folder = Path(chosen.weights) / name
        plain = open_source(f"timm:local-dir:{folder}" if folder.is_dir() else name, data)
        begun = perf_counter()
        sources = {"fp32": plain, "int8": in_int8(plain, data.split("train"), OPTIONS)}
        calibrated_s = perf_counter() - begun
        if about["bf16"]:
            sources["bf16"] = plain
        table[name] = images_per_second(sources, data, (plain.default_layer, "avg"), chosen.repeats)
        table[name]["calibration, s"] = spread([calibrated_s])
        if name != SPEED_ONLY:
            answers[name] = accuracies(plain, data)
    for name, rows in answers.items():
        for precision, text in rows.items():
            print(f"{name:44} {precision:40} {text}")
    told(about, table, accuracy=answers)


if __name__ == "__main__":
    main()
