"""What the campaigns share: real processes of the command line, and a result that is printed and kept."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.data.readers.load import load

__all__ = ["Outcome", "contents", "digits_folder", "environment", "headstart", "keep", "made_model"]

RESULTS = Path(__file__).parent.parent / "results"
_VERSIONS = ("headstart", "numpy", "onnx", "openvino", "onnxruntime")


class Outcome:
    """Lines of a result; a fault is a line, too, and decides the status of the process."""

    def __init__(self, name: str) -> None:
        self.name, self.lines, self.n_faults = name, [], 0
        models = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
        self.say(
            f"# python benchmarks/faults/{name}.py {' '.join(sys.argv[1:])}".rstrip()
            + f"\ndate {datetime.now(UTC).date().isoformat()}, cpu {models[0] if models else platform.machine()}, "
            f"cores {os.cpu_count()}, load before {os.getloadavg()[0]:.1f}, {platform.system()} "
            f"{platform.release()}, python {platform.python_version()}, "
            + ", ".join(f"{one} {version(one)}" for one in _VERSIONS)
        )

    def say(self, line: str) -> None:
        """Print and keep a line."""
        self.lines.append(line)
        print(line, flush=True)

    def fault(self, line: str) -> None:
        """Something that must not happen."""
        self.n_faults += 1
        self.say(f"FAULT: {line}")


def keep(outcome: Outcome) -> None:
    """Write the result beside the others, and end with status 1 if there was a fault."""
    outcome.say(f"faults: {outcome.n_faults}")
    (RESULTS / f"faults_{outcome.name}.txt").write_text("\n".join(outcome.lines) + "\n")
    sys.exit(bool(outcome.n_faults))


def _cpuinfo() -> list[str]:
    place = Path("/proc/cpuinfo")
    return place.read_text().splitlines() if place.exists() else []


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a process with a cache of its own and one thread."""
    return {**os.environ, "HEADSTART_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1", **more}


def headstart(words: Sequence[object], home: Path, **more: str) -> subprocess.Popen[str]:
    """Start a command; its output is read by ``communicate``."""
    return subprocess.Popen(
        [sys.executable, "-m", "headstart", *map(str, words)],
        cwd=home,
        env=environment(home, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def made_model(home: Path, data: Path, name: str, given: Path | None) -> Path:
    """A model of the data in a folder, or a copy of one that is given."""
    if given is not None:
        return Path(shutil.copytree(given, home / name))
    process = headstart(["transfer", "drawings", data, "-o", name], home)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return home / name


def digits_folder(home: Path, n_per_class: int, classes: Sequence[str] = ("0", "1", "2")) -> Path:
    """Some digits as a folder of class folders with PNG files."""
    digits = load("digits")
    labels = np.asarray(digits.classes)[digits.codes(digits.classes)]
    for name in classes:
        (home / name).mkdir(parents=True)
        for place in np.flatnonzero(labels == name)[:n_per_class].tolist():
            pixels = digits.images.image(place)[..., 0]
            Image.fromarray(pixels).resize((32, 32)).save(home / name / f"{place:04}.png")
    return home


def contents(place: Path, but: Mapping[str, object] | Sequence[str] = ()) -> dict[str, str]:
    """Digests of all files below a path, by relative name; of those named in ``but`` only that they exist."""
    files = [place] if place.is_file() else sorted(one for one in place.rglob("*") if one.is_file())
    return {
        str(one.relative_to(place.parent)): "there"
        if one.name in but
        else hashlib.sha256(one.read_bytes()).hexdigest()
        for one in files
    }
