"""Mutate small images of every format and count what goes wrong where they are read.

    python benchmarks/faults/images.py                     (2,000 images, about 15 minutes)
    python benchmarks/faults/images.py --images 200
    python benchmarks/faults/images.py --only serve teach

Bits are flipped, bytes overwritten, removed, repeated, cut off or exchanged between files. Each file is decoded
twice, by processes of their own. Then `headstart inspect`, `headstart predict --csv`, a real `headstart serve` and
the classroom of `headstart teach` get the files. A fault is: a process that ends by a signal, a traceback or an
error that is not ours; a line on stderr; two decodings that differ; more than 10 s of processor time or 1.5 GB for
one file of a few KB; a file that `inspect` neither uses nor names; a file without a row in the CSV; an answer of
the server that is neither 200 nor 4xx, or no answer.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import facts, told

_SIDE_PX = 40
_LIMIT_S, _LIMIT_BYTES = 10.0, 1_500_000_000
_BATCH = 100
READERS = ("decode", "inspect", "predict", "serve", "teach")
_TIFF = ("raw", "group4", "group3", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")

DECODE = """
import hashlib, json, resource, sys, time
from pathlib import Path
from headstart.data.images.decode import decode_bytes, examined
from headstart.errors import BrokenDataError
for name in sys.argv[1:]:
    data, outcomes = Path(name).read_bytes(), []
    begun = time.process_time()
    for _ in range(2):
        try:
            outcomes.append(hashlib.sha256(decode_bytes(data, "x").tobytes()).hexdigest())
        except BrokenDataError as error:
            outcomes.append(str(error))
    refused = isinstance(examined(data), str)
    used = time.process_time() - begun
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([name, outcomes, refused, used, peak]), flush=True)
"""
TEACH = """
import sys
from pathlib import Path
from headstart.errors import DataError
from headstart.interfaces.teach.classroom import Classroom
from headstart.interfaces.teach.live_source import LiveSource
from headstart.sources.registry import open_source
room = Classroom(LiveSource(open_source("drawings"), None))
room.add_class("a")
for name in sys.stdin.read().splitlines():
    try:
        room.predict(Path(name).read_bytes(), Path(name).name)
        room.remove(room.add("a", Path(name).read_bytes(), Path(name).name).number)
        print("taught")
    except DataError:
        print("refused")
"""


def seeds(rng: np.random.Generator) -> dict[str, bytes]:
    """Small images of every format and many kinds of it, by file name."""
    drawn = rng.integers(0, 256, (_SIDE_PX, _SIDE_PX, 3)).astype(np.uint8)
    drawn[8:30, 8:30] = 255
    colour = Image.fromarray(drawn)
    grey, bits = colour.convert("L"), colour.convert("1")
    clear = colour.convert("RGBA")
    clear.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 16)
    frames = {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a drawing"
    made = {
        "rgb.png": _saved(colour, "PNG", exif=exif),
        "rgba.png": _saved(clear, "PNG"),
        "palette.png": _saved(colour.quantize(16), "PNG", transparency=3),
        "deep.png": _saved(deep, "PNG"),
        "frames.apng": _saved(colour, "PNG", **frames),
        "rgb.jpg": _saved(colour, "JPEG", exif=exif),
        "progressive.jpg": _saved(colour, "JPEG", progressive=True),
        "cmyk.jpg": _saved(colour.convert("CMYK"), "JPEG"),
        "two.mpo": _saved(colour, "MPO", **frames),
        "rgb.bmp": _saved(colour, "BMP"),
        "frames.gif": _saved(colour, "GIF", **frames),
        "lossy.webp": _saved(clear, "WEBP", exif=exif),
        "lossless.webp": _saved(colour, "WEBP", lossless=True),
        "frames.webp": _saved(colour, "WEBP", **frames),
        "grey.pgm": _saved(grey, "PPM"),
        "rgb.ppm": _saved(colour, "PPM"),
        "plain.ppm": b"P3 2 2 255\n# c\n" + b" ".join(b"%d" % value for value in range(12)),
        "odd.pgm": b"P5\n20 20\n4095\n" + rng.integers(0, 16, 800).astype(np.uint8).tobytes(),
        "deep.tif": _saved(deep, "TIFF"),
        "pages.tif": _saved(colour, "TIFF", **frames),
    }
    for compression in _TIFF:
        image = bits if compression.startswith("group") else grey if compression == "jpeg" else colour
        made[f"{compression}.tif"] = _saved(image, "TIFF", compression=compression)
    if features.check("avif"):
        made |= {"rgb.avif": _saved(colour, "AVIF"), "frames.avif": _saved(colour, "AVIF", **frames)}
    return made


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    if "append_images" in options:  # copies: some encoders leave their options in an image
        options["append_images"] = [one.copy() for one in options["append_images"]]
    image.copy().save(file, kind, **options)
    return file.getvalue()


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four changes; half of them near the beginning, where the structure is."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        last = max(1, min(len(changed), 64) if rng.random() < 0.5 else len(changed))
        at, length = rng.randrange(last), rng.choice((1, 2, 4, 16, 200))
        how = rng.randrange(7)
        if how == 0:
            changed[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in changed[at : at + 1])
        elif how == 1:
            changed[at : at + length] = rng.randbytes(length)
        elif how == 2:
            changed[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"))
        elif how == 3:
            del changed[at : at + length]
        elif how == 4:
            changed[at:at] = changed[at : at + length] * rng.choice((1, 3))
        elif how == 5:
            start = rng.randrange(len(other))
            changed[at : at + length] = other[start : start + length]
        else:
            del changed[rng.randrange(1, len(changed) + 2) :]
    return bytes(changed)


def write_mutations(folder: Path, n_images: int, seed: int) -> list[Path]:
    """Mutated files in the two class folders of a dataset, with two whole images in each."""
    rng = random.Random(seed)
    whole = seeds(np.random.default_rng(seed))
    names, paths = sorted(whole), []
    for number in range(n_images):
        name = names[number % len(names)]
        path = folder / "ab"[number % 2] / f"{number:05}-{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutated(whole[name], whole[rng.choice(names)], rng))
        paths.append(path)
    for number, label in enumerate("aabb"):
        (folder / label / f"whole{number}.png").write_bytes(whole[("rgb.png", "deep.png")[number % 2]])
    return paths


def decode_all(paths: list[Path], faults: Counter[str]) -> dict[str, float]:
    """Decode every file in processes of their own; the next process continues after a file that ends one."""
    todo, refused, slowest, largest = list(map(str, paths)), 0, 0.0, 0
    while todo:
        batch = todo[:_BATCH]
        done = subprocess.run(
            [sys.executable, "-c", DECODE, *batch], capture_output=True, text=True, check=False, timeout=1800
        )
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        for name, outcomes, is_refused, used, peak in rows:
            refused += is_refused
            slowest, largest = max(slowest, used), max(largest, peak)
            note(faults, "two decodings differ", outcomes[0] != outcomes[1], name)
            note(faults, "more than 10 s", used > _LIMIT_S, name)
            note(faults, "more than 1.5 GB", peak > _LIMIT_BYTES, name)
        note(faults, "a line on stderr", bool(done.stderr), done.stderr[:500])
        if done.returncode:
            note(faults, f"decoding ended with {done.returncode}", True, batch[len(rows)])
        todo = todo[len(rows) + bool(done.returncode) :]
    return {"refused": refused, "slowest_s": round(slowest, 3), "peak_MB": largest // 10**6}


def note(faults: Counter[str], what: str, is_fault: bool, where: str) -> None:
    """Count a fault and print it."""
    if is_fault:
        faults[what] += 1
        print(f"fault: {what}: {where}", file=sys.stderr)


def run_headstart(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headstart", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)


def inspect_all(folder: Path, n_files: int, faults: Counter[str]) -> None:
    """Every file is used or named."""
    done = run_headstart("inspect", str(folder), "--json")
    note(faults, f"inspect ended with {done.returncode}", bool(done.returncode), done.stderr[-500:])
    note(faults, "inspect wrote to stderr", bool(done.stderr), done.stderr[:500])
    found = json.loads(done.stdout)
    n_found = found["n_images"] + len(found.get("skipped", {}))
    note(faults, "inspect lost files", n_found != n_files, f"{n_found} of {n_files}")


def make_model(folder: Path) -> Path:
    """A small model of two kinds of drawings."""
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = np.full((24, 24), 255, np.uint8)
        row, column = rng.integers(4, 18, 2)
        pixels[(row, slice(2, 22)) if number % 2 else (slice(2, 22), column)] = 0
        place = folder / "lines" / ("across", "down")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    done = run_headstart("transfer", "pixels", str(folder / "lines"), "--output", str(folder / "model"))
    if done.returncode:
        raise SystemExit(done.stderr)
    return folder / "model"


def predict_all(model: Path, paths: list[Path], faults: Counter[str]) -> None:
    """Every file that is named gets a row."""
    table = model.parent / "out.csv"
    command = [sys.executable, "-m", "headstart", "predict", str(model), "-", "--csv", str(table)]
    done = subprocess.run(
        command, input="\n".join(map(str, paths)), capture_output=True, text=True, check=False, timeout=3600
    )
    note(faults, f"predict ended with {done.returncode}", done.returncode not in (0, 1), done.stderr[-500:])
    lines = [line for line in done.stderr.splitlines() if not line.startswith("headstart: error: ")]
    note(faults, "predict wrote to stderr", bool(lines), "\n".join(lines[:3]))
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    note(faults, "predict lost files", [row["path"] for row in rows] != list(map(str, paths)), str(len(rows)))
    n_odd = sum(bool(row["name"]) == bool(row["error"]) for row in rows)
    note(faults, "a row with neither or both of prediction and error", n_odd > 0, str(n_odd))


@contextlib.contextmanager
def serving(model: Path) -> Iterator[int]:
    """A server on a free port; stopped at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "headstart", "serve", f"m={model}", "--port", str(port)]
    with (
        (model.parent / "server.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            for _ in range(1200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def serve_all(model: Path, paths: list[Path], faults: Counter[str]) -> dict[int, int]:
    """Every file is answered, with 200 or 4xx, and nothing is logged as a traceback."""
    statuses: Counter[int] = Counter()
    with serving(model) as port:
        for path in paths:
            headers = {"content-type": "image/png"}
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
                connection.request("POST", "/v1/models/m/predict", path.read_bytes(), headers)
                status = connection.getresponse().status
                connection.close()
            except OSError as error:
                note(faults, "no answer of the server", True, f"{path.name}: {error}")
                continue
            statuses[status] += 1
            is_fault = status != 200 and not 400 <= status < 500
            note(faults, f"the server answered {status}", is_fault, path.name)
    text = (model.parent / "server.log").read_text(errors="replace")
    note(faults, "a traceback of the server", "Traceback" in text, text[-500:])
    return dict(sorted(statuses.items()))


def teach_all(paths: list[Path], faults: Counter[str]) -> dict[str, int]:
    """Every file is an example and an image to predict, or refused with our error."""
    done = subprocess.run(
        [sys.executable, "-c", TEACH],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    note(faults, f"teach ended with {done.returncode}", bool(done.returncode), done.stderr[-800:])
    note(faults, "teach wrote to stderr", bool(done.stderr), done.stderr[:500])
    outcomes = Counter(done.stdout.split())
    note(faults, "teach lost files", outcomes.total() != len(paths), str(outcomes))
    return dict(sorted(outcomes.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=READERS, default=READERS, help="readers of the files")
    options = parser.parse_args()
    faults: Counter[str] = Counter()
    os.environ.pop("PYTHONWARNINGS", None)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "mutated"
        paths = write_mutations(folder, options.images, options.seed)
        found: dict[str, Any] = {}
        if "decode" in options.only:
            found["decode"] = decode_all(paths, faults)
        if "inspect" in options.only:
            inspect_all(folder, len(paths) + 4, faults)
        model = make_model(Path(home)) if {"predict", "serve"} & {*options.only} else folder
        if "predict" in options.only:
            predict_all(model, paths, faults)
        if "serve" in options.only:
            found["server"] = serve_all(model, paths, faults)
        if "teach" in options.only:
            found["teach"] = teach_all(paths, faults)
    told(
        facts("pillow", "numpy"),
        {},
        images=options.images,
        readers=options.only,
        **found,
        faults=dict(faults) or 0,
    )
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
