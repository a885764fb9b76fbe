"""How long `headstart --help` and `import headstart` take, and which heavy packages they load (none).

python benchmarks/startup.py --repeats 10
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from machine import facts, spread

HEAVY = ("torch", "timm", "openvino", "onnxruntime", "onnx", "sklearn", "scipy", "matplotlib")
COMMANDS = {
    "headstart --help": [str(Path(sys.executable).with_name("headstart")), "--help"],
    "import headstart": [sys.executable, "-c", "import headstart"],
    "python alone": [sys.executable, "-c", "pass"],
}


def seconds(command: list[str]) -> float:
    """Time one process."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def loaded(code: str) -> list[str]:
    """Say which heavy packages a piece of Python loads, from -X importtime."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], check=True, capture_output=True, text=True
    )
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    return sorted(names & set(HEAVY))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    about = facts("headstart", "typer", "numpy")
    times = {name: spread([seconds(command) for _ in range(repeats)]) for name, command in COMMANDS.items()}
    heavy = {
        "import headstart": loaded("import headstart"),
        "headstart --help": loaded(
            "import sys; sys.argv[1:] = ['--help']\nfrom headstart.interfaces.cli.main import app\n"
            "try: app()\nexcept SystemExit: pass"
        ),
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for name, found in times.items():
        print(
            f"{name:18} median {found['median']:.3f} s ({found['min']:.3f} - {found['max']:.3f})"
            f"  heavy packages loaded: {', '.join(heavy.get(name, [])) or 'none'}"
        )
    print(json.dumps({**about, "times_s": times, "heavy": heavy}))


if __name__ == "__main__":
    main()
