"""Where the time of ``headstart transfer`` goes: seconds of each part, on photos made from real ones.

The parts are timed in the process of the command, each without the parts inside it; what one file costs is measured
apart, file by file in one thread. Several numbers of photos show how time and memory grow. On a quiet machine:

    python benchmarks/parts.py --data DATA --photos 20000 --repeats 3 [--before CHECKOUT]
    python benchmarks/parts.py --data DATA --photos 10000 30000 100000 --width 256 --height 192 --repeats 1
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from machine import facts, parser, run, spread, told
from made_photos import make_photos

NOW, BEFORE = "now", "before"
PARTS = {
    "find the files": ("headstart.data.readers.folders", "find_layout"),
    "read, hash, check, prepare": ("headstart.data.readers.folders", "read_files"),
    "open the source": ("headstart.sources.fitting", "open_source"),
    "look for copies": ("headstart.workflows.transfer.run", "checked"),
    "run the network": ("headstart.sources.features", "_computed"),
    "select and fit": ("headstart.workflows.transfer.run", "learn_head"),
    "record what was seen": ("headstart.strategies.assemble", "record"),
    "evaluate": ("headstart.workflows.transfer.run", "judged"),
    "examples and galleries": ("headstart.workflows.transfer.run", "_galleries"),
    "report and model": ("headstart.interfaces.cli.transfer", "_save"),
}
OTHER = "imports and all else"


class Clock:
    """Seconds by part; a part that runs inside another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack, self._since = [OTHER], time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a block for a part."""
        self.turn()
        self._stack.append(name)
        try:
            yield
        finally:
            self.turn()
            self._stack.pop()

    def turn(self) -> None:
        """Count what has passed for the part that runs."""
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now


def timed(clock: Clock, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a part."""

    @functools.wraps(function)
    def inner(*arguments: Any, **options: Any) -> Any:
        with clock.part(name):
            return function(*arguments, **options)

    return inner


def child(photos: str, output: str, precision: str) -> None:
    """Run the command in this process, and print the seconds of its parts."""
    clock = Clock()
    from headstart.interfaces.cli.main import main as command

    for name, (module, attribute) in PARTS.items():
        with suppress(ImportError, AttributeError):  # another version has other functions
            owner = import_module(module)
            setattr(owner, attribute, timed(clock, name, getattr(owner, attribute)))
    asked = ["--precision", precision] if precision != "fp32" else []
    sys.argv = ["headstart", "transfer", "photos", photos, "-o", output, "--json", *asked]
    stdout, sys.stdout = sys.stdout, open(os.devnull, "w")  # until the process ends
    try:
        command()
    except SystemExit as ended:
        if ended.code:
            raise
    clock.turn()
    status = Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []
    peak = next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")), 0.0)
    print(json.dumps({"seconds": clock.seconds, "peak_mib": peak}), file=stdout)


def one_by_one(files: list[Path]) -> dict[str, float]:
    """Milliseconds of a file in one thread: reading, hashing, decoding for the checks, and for the network."""
    from headstart.data.checks.duplicates import THUMB_PX
    from headstart.data.checks.looks import look_at
    from headstart.data.images.decode import examined
    from headstart.data.images.fit import fit_again, fit_bytes
    from headstart.sources.photos.kind import photos_input

    spent: dict[str, float] = defaultdict(float)

    def noted(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        begun = time.perf_counter()
        result = function(*arguments)
        spent[name] += time.perf_counter() - begun
        return result

    for path in files:
        data = noted("read", path.read_bytes)
        noted("hash", lambda some: hashlib.sha256(some).digest(), data)
        read = noted("decode for the checks", examined, data, THUMB_PX)
        noted("keep a look", look_at, read.header, read.pixels)
        noted("prepare for the network", fit_again, read, data, path.name, photos_input())
        noted("prepare for the network, at full size", fit_bytes, data, path.name, whole(photos_input()))
    return {f"ms a file: {name}": 1e3 * seconds / len(files) for name, seconds in spent.items()}


def whole(spec: Any) -> Any:
    """The first version of the preparation, which decodes at full size."""
    from dataclasses import replace

    return replace(spec, version=1)


def measured(home: Path, args: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Medians and ranges over the repeats of the command on a folder of photos, of each version in turn."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    files = sorted(home.rglob("*.jpg"))
    for _ in range(args.repeats):
        for version, checkout in ((NOW, Path(__file__).parents[1]), (BEFORE, args.before)):
            if checkout is None:
                continue
            with tempfile.TemporaryDirectory() as place:
                command = [sys.executable, __file__, "--child", str(home), f"{place}/model", args.precision]
                one = run(command, HEADSTART_CACHE=f"{place}/cache", PYTHONPATH=f"{checkout}/src")
            for part, seconds in one["seconds"].items():
                found[version][f"{part}, s"].append(seconds)
            found[version]["whole process, s"].append(one["wall_s"])
            found[version]["peak memory, MiB"].append(one["peak_mib"])
        for part, ms in one_by_one(files[:: max(1, len(files) // 40)]).items():
            found[NOW][part].append(ms)
    return {
        version: {name: spread(values) for name, values in each.items()} for version, each in found.items()
    }


def main() -> None:
    arguments = parser()
    arguments.add_argument("--photos", type=int, nargs="+", default=[1_000])
    arguments.add_argument("--width", type=int, default=500)
    arguments.add_argument("--height", type=int, default=375)
    arguments.add_argument("--before", help="a checkout of an older version")
    arguments.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    args = arguments.parse_args()
    about = facts("headstart", "numpy", "pillow", "openvino")
    size, table, megabytes = (args.width, args.height), {}, []
    for n_photos in args.photos:
        with tempfile.TemporaryDirectory() as folder:
            n_bytes = make_photos(Path(args.data) / "hymenoptera", Path(folder), n_photos, size)
            megabytes.append(round(n_bytes / 1e6))
            for version, each in measured(Path(folder), args).items():
                table[f"{n_photos} photos, {version}"] = each
    photos = {
        "photos": args.photos,
        "size_px": f"{args.width} x {args.height}",
        "megabytes": megabytes,
        "precision": args.precision,
    }
    told({**about, **photos}, table)


if __name__ == "__main__":
    child(*sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main()
