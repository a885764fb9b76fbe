"""Whether a model says the same everywhere: one set of images asked over every way out of the house.

python     Model.answer, what all others are compared with
cli        headstart predict --json, another process
onnx       the exported .onnx in ONNX Runtime
openvino   the exported model.xml in OpenVINO, fp32
example    predict.py of the exported folder: onnxruntime, numpy and Pillow, another process
http       headstart serve, another process, asked over the loopback
javascript predict.mjs of the exported folder: onnxruntime-web, WebAssembly in node

    python benchmarks/agreement.py --case mnist runs/cnn mnist --case greek runs/greek/model letters,photos \
        --node-modules FOLDER/node_modules

Pictures are written as PNG first, so that all read the same pixels (decoders of JPEG differ). ``--odd`` asks
each picture in another size, from a third to three times its own. The export is checked with other
images than those counted here where there are more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import httpx
import numpy as np
from machine import facts
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.images.decode import EXTENSIONS
from headstart.data.images.fit import fit_image
from headstart.data.images.prepare import decode
from headstart.data.readers.load import from_arrays, load
from headstart.data.stores import FileImages
from headstart.graph.files import run_file
from headstart.models.export import export_model
from headstart.models.model import Model, open_model
from headstart.records import Prediction

_HERE = [sys.executable, "-m", "headstart"]


def images(words: str, count: int, odd: bool, folder: Path) -> tuple[list[Path], Dataset]:
    """Write some images as PNG, spread evenly; and those to check the export with."""
    taken: list[np.ndarray] = []
    for word in words.split(","):
        if Path(word).is_dir():
            files = sorted(path for path in Path(word).rglob("*") if path.suffix.lower() in EXTENSIONS)
            taken += [decode(files[place]) for place in spread(len(files), count)]
        else:
            images = load(word).images
            assert not isinstance(images, FileImages)
            taken += [images.pixels[place] for place in spread(len(images), count)]
    taken = [taken[place] for place in spread(len(taken), count)]
    rng, paths = np.random.default_rng(0), []
    for number, pixels in enumerate(taken):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        if odd:
            width, height = (max(1, int(side * 3 ** rng.uniform(-1, 1))) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        paths.append(folder / f"{number:04}.png")
        image.save(paths[-1])
    few = [decode(path) for path in paths[:: max(1, len(paths) // 16)]]
    squares = np.stack([np.asarray(Image.fromarray(colour(one)).resize((200, 200))) for one in few])
    return paths, from_arrays(squares, ["any"] * len(squares))


def spread(n_there: int, n_wanted: int) -> list[int]:
    return np.linspace(0, n_there - 1, min(n_there, n_wanted)).astype(int).tolist()


def colour(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def by_python(model: Model, paths: list[Path]) -> Prediction:
    return model.predict_prepared(
        [np.stack([fit_image(decode(path), model.manifest.input) for path in paths])]
    )


def by_file(graph: Path, paths: list[Path]) -> Prediction:
    run = run_file(graph)
    probabilities, *novelty = zip(*(run(colour(decode(path))) for path in paths), strict=True)
    return Prediction(np.stack(probabilities), np.concatenate(novelty[0]) if novelty else None)


def by_cli(folder: str, model: Model, paths: list[Path]) -> Prediction:
    asked = [*_HERE, "predict", folder, "-", "--json", "--top", str(len(model.classes))]
    words = "\n".join(map(str, paths))
    done = subprocess.run(asked, input=words, check=True, capture_output=True, text=True)
    answers = json.loads(done.stdout)["answers"]
    for answer in answers:
        by_class = dict(zip(answer["classes"], answer["probabilities"], strict=True))
        answer["probabilities"] = [by_class[name] for name in model.classes]
    return collected(answers)


def by_program(command: list[str], folder: Path, paths: list[Path]) -> Prediction:
    done = subprocess.run(
        [*command, "--json", *map(str, paths)], cwd=folder, check=True, capture_output=True, text=True
    )
    return collected([json.loads(line) for line in done.stdout.splitlines()])


def collected(answers: list[dict[str, Any]]) -> Prediction:
    probabilities = np.array([answer["probabilities"] for answer in answers], np.float32)
    if answers[0].get("novelty") is None:
        return Prediction(probabilities)
    return Prediction(probabilities, np.array([answer["novelty"] for answer in answers], np.float32))


def ways(folder: str, model: Model, check: Dataset, home: Path, modules: str | None) -> dict[str, Any]:
    """Every way out, as a function of paths."""
    exported = Path(export_model(model, "folder", home / "folder", check=check).path)
    ir = Path(export_model(model, "openvino", home / "openvino", check=check).path)
    found: dict[str, Callable[[list[Path]], Prediction]] = {
        "python again": lambda paths: by_python(model, paths),
        "cli": lambda paths: by_cli(folder, model, paths),
        "onnx": lambda paths: by_file(exported / "model.onnx", paths),
        "openvino": lambda paths: by_file(ir / "model.xml", paths),
        "example": lambda paths: by_program([sys.executable, "predict.py"], exported, paths),
    }
    if modules:
        (exported / "node_modules").symlink_to(Path(modules).resolve())
        found["javascript"] = lambda paths: by_program(["node", "predict.mjs"], exported, paths)
    found["http"] = lambda paths: by_http(folder, model, paths)
    return found


def by_http(folder: str, model: Model, paths: list[Path]) -> Prediction:
    """A server of its own, asked with eight images a request."""
    server = subprocess.Popen(
        [*_HERE, "serve", f"asked={folder}", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split(" at ")[1].split()[0]
        answers: list[dict[str, Any]] = []
        for start in range(0, len(paths), 8):
            files = [
                ("files", (path.name, path.read_bytes(), "image/png")) for path in paths[start : start + 8]
            ]
            asked = httpx.post(
                f"{address}/v1/models/asked/predict?top={len(model.classes)}", files=files, timeout=120
            )
            answers += asked.raise_for_status().json()["predictions"]
    finally:
        server.terminate()
        server.wait(30)
    for answer in answers:
        by_class = {one["name"]: one["probability"] for one in answer["classes"]}
        answer["probabilities"] = [by_class[name] for name in model.classes]
    return collected(answers)


def compared(name: str, found: Prediction, truth: Prediction, model: Model, seconds: float) -> dict[str, Any]:
    off = np.abs(found.probabilities - truth.probabilities)
    line = {
        "n": len(off),
        "other_names": int((found.names(model.classes) != truth.names(model.classes)).sum()),
        "largest_difference": float(off.max()),
        "above_0.001": int((off.max(axis=1) > 1e-3).sum()),
        "ms_per_picture": round(1000 * seconds / len(off), 1),
    }
    if truth.novelty is not None and found.novelty is not None:
        line["largest_novelty_difference"] = float(np.abs(found.novelty - truth.novelty).max())
    print(f"  {name:14}" + "".join(f"{key} {value:<12.3g}" for key, value in line.items()), flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", nargs=3, action="append", required=True, metavar=("NAME", "MODEL", "DATA"))
    parser.add_argument("--count", type=int, default=240, help="images a case")
    parser.add_argument("--odd", action="store_true", help="in other sizes than their own")
    parser.add_argument("--node-modules", help="where npm put onnxruntime-web, pngjs and jpeg-js")
    asked = parser.parse_args()
    about, table = facts("headstart", "onnxruntime", "openvino", "pillow", "numpy"), {}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for case, folder, words in asked.case:
        with TemporaryDirectory() as temporary:
            home = Path(temporary)
            (home / "images").mkdir()
            paths, check = images(words, asked.count, asked.odd, home / "images")
            model = open_model(folder)
            truth = by_python(model, paths)
            print(f"{case}: {model.manifest.input.policy}, {len(paths)} images, odd sizes: {asked.odd}")
            table[case] = {}
            for way, ask in ways(folder, model, check, home, asked.node_modules).items():
                begun = perf_counter()
                found = ask(paths)
                table[case][way] = compared(way, found, truth, model, perf_counter() - begun)
    print(json.dumps({**about, "odd": asked.odd, "cases": table}))


if __name__ == "__main__":
    main()
