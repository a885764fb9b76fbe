"""How much longer commands take beside one busy process, alternating with the quiet machine.

    python benchmarks/neighbour.py --data DATA [--repeats 3] [--commands transfer study parity]

Each command runs with an empty feature cache. The busy process is a loop in Python at normal priority. Alone on the
machine.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from machine import facts, parser, run, spread, told

_COMMANDS = {
    "transfer": ["transfer", "photos", "{data}/hymenoptera", "--output", "{home}/model"],
    "study": ["study", "drawings", "omniglot-greek", "--labels", "1,2,all", "--output", "{home}/study"],
    "parity": ["run", "parity", "--output", "{home}/parity"],
}


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """One busy process, or none."""
    one = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        time.sleep(0.5)
        yield
    finally:
        if one is not None:
            one.kill()
            one.wait()


def main() -> None:
    """Time every command quiet and beside a busy process."""
    given = parser()
    given.add_argument("--commands", nargs="*", choices=tuple(_COMMANDS), default=list(_COMMANDS))
    chosen = given.parse_args()
    about, lines = facts("headstart", "numpy", "openvino", "torch"), {}
    for name in chosen.commands:
        walls: dict[str, list[float]] = {"quiet": [], "busy": []}
        for _ in range(chosen.repeats):
            for kind, found_before in walls.items():
                with tempfile.TemporaryDirectory() as home, busy(kind == "busy"):
                    command = [part.format(data=chosen.data, home=home) for part in _COMMANDS[name]]
                    found = run(
                        [sys.executable, "-m", "headstart", *command, "--json"],
                        HEADSTART_CACHE=f"{home}/cache",
                        HEADSTART_DATA=chosen.data,
                    )
                found_before.append(found["wall_s"])
        lines[name] = {kind: spread(values) for kind, values in walls.items()}
        lines[name]["ratio"] = round(lines[name]["busy"]["median"] / lines[name]["quiet"]["median"], 2)
        print(name, lines[name], flush=True)
    told(about, {}, **lines)


if __name__ == "__main__":
    main()
