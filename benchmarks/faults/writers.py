"""Two processes save a model to one folder again and again while eight open it: every opening succeeds.

    python benchmarks/faults/writers.py

The two writers save two models with other classes. A reader fails where it sees no folder, half a folder, or
files of both. At the end nothing is left beside the folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from campaign import Outcome, digits_folder, environment, keep, made_model

_WRITER = """
import sys, time
from headstart.models.model import open_model
model, until, n = open_model(sys.argv[1]), time.monotonic() + float(sys.argv[3]), 0
while time.monotonic() < until:
    model.save(sys.argv[2], "<p>" + sys.argv[1])
    n += 1
print(n)
"""
_READER = """
import sys, time
from headstart.errors import HeadstartError
from headstart.models.model import open_model
until, n, classes = time.monotonic() + float(sys.argv[3]), 0, set()
faults = []
while time.monotonic() < until:
    n += 1
    try:
        classes.add(open_model(sys.argv[2]).classes)
    except HeadstartError as error:
        faults.append(str(error))
print(n, len(classes), len(faults), faults[:1])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--model", type=Path, help="a model folder to use; default: one is made")
    words = parser.parse_args()
    outcome = Outcome("writers")
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        for number in range(2):
            data = digits_folder(home / f"digits{number}", 12, ("0", "1") if number else ("2", "3"))
            made_model(home, data, f"made{number}", words.model)
        (home / "shared").mkdir()
        target = home / "shared" / "model"
        subprocess.run(
            [sys.executable, "-c", _WRITER, "made0", target, "0.1"], cwd=home, check=True, stdout=-3
        )
        programs = [(_WRITER, number % 2) for number in range(words.writers)] + [(_READER, 0)] * words.readers
        running = [
            subprocess.Popen(
                [sys.executable, "-c", program, f"made{number}", target, str(words.seconds)],
                cwd=home,
                env=environment(home),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for program, number in programs
        ]
        n_saved = n_opened = n_failed = most = 0
        for (program, _), one in zip(programs, running, strict=True):
            said, wrong = one.communicate()
            if one.returncode:
                outcome.fault(wrong.strip().splitlines()[-1])
            elif program is _WRITER:
                n_saved += int(said)
            else:
                n, n_models, n_faults, first = said.split(maxsplit=3)
                n_opened, n_failed, most = (
                    n_opened + int(n),
                    n_failed + int(n_faults),
                    max(most, int(n_models)),
                )
                if int(n_faults):
                    outcome.fault(f"{n_faults} openings of one reader failed, such as {first.strip()}")
        left = sorted(set(os.listdir(target.parent)) - {"model"})
        if left:
            outcome.fault(f"left beside the folder: {left}")
        outcome.say(
            f"{words.writers} writers, {words.readers} readers, {words.seconds:g} s: saved {n_saved:,} times, opened "
            f"{n_opened:,} times, {n_failed:,} openings failed; one reader saw {most} models; left over {len(left)}"
        )
    keep(outcome)


if __name__ == "__main__":
    main()
