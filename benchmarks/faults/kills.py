"""Kill every command that writes (kill -9) at moments drawn at random, and run it again: the result is the same.

    python benchmarks/faults/kills.py
    python benchmarks/faults/kills.py --times 3 --only export

After each kill the output is the older result, the new one, or nothing, and what is there opens; after the same
command has run again to its end, its files are those of an undisturbed run to the bit (the time that a run took
and its date are left out), and no temporary file is left beside or inside them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from campaign import Outcome, contents, digits_folder, environment, keep, made_model

from headstart.errors import HeadstartError
from headstart.models.model import open_model

_SAVE = """
import sys
from headstart.models.model import open_model
model = open_model(sys.argv[1])
for _ in range(40):
    model.save(sys.argv[2], "<p>report")
"""
_MOST_TRIES = 4  # runs for each wanted kill
_TIMED = ("report.html", "manifest.json", "training.jsonl")
"""Files with the time that a run took, or its date."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "save": ("MODEL", "OUT/result"),
    "export": ("export", "MODEL", "--to", "folder", "-o", "OUT/result"),
    "predict --csv": ("predict", "MODEL", "DATA", "--csv", "OUT/result.csv"),
    "transfer": ("transfer", "drawings", "DATA", "-o", "OUT/result"),
    "train": ("train", "DATA", "-o", "OUT/result", "--epochs", "4", "--checkpoint-every", "0s", "--resume"),
    "study": ("study", "drawings", "DATA", "-o", "OUT/result", "--labels", "2", "--draws", "2", "--head", "ridge",
              "--controls", "majority,raw pixels"),
}  # fmt: skip


def start(name: str, home: Path, out: Path) -> subprocess.Popen[str]:
    words = [
        one.replace("DATA", str(home / "digits"))
        .replace("MODEL", str(home / "model"))
        .replace("OUT", str(out))
        for one in COMMANDS[name]
    ]
    program = ["-c", _SAVE] if name == "save" else ["-m", "headstart"]
    return subprocess.Popen(
        [sys.executable, *program, *words],
        cwd=home,
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(name: str, home: Path, out: Path) -> float:
    """Run to the end; the seconds it took."""
    begun = time.monotonic()
    process = start(name, home, out)
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}: {said[-400:]}")
    return time.monotonic() - begun


def lasting(out: Path) -> dict[str, Any]:
    """What must be the same in every run."""
    found: dict[str, Any] = contents(out, _TIMED)
    for name in list(found):
        if (
            name.endswith(("result.json", "card.md"))
            and (out.parent / name).with_name("result.json").exists()
        ):
            found[name] = "there"
    result = out / "result" / "result.json"
    if result.exists():
        document = json.loads(result.read_text())
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in document["rows"]]
        found["rows"] = rows, document["verdict"], document["comparisons"]
    return found


def whole(out: Path) -> str:
    """Why what lies there is not whole; empty if it is, or if there is nothing."""
    place = out / "result"
    if (place / "manifest.json").exists() or (place.is_dir() and (place / "weights.safetensors").exists()):
        try:
            open_model(place)
        except HeadstartError as error:
            return str(error)
    if (place / "model.json").exists() and not (place / "check.json").exists():
        return "the export is incomplete"
    return ""


def left(out: Path) -> list[str]:
    """Temporary files and folders."""
    kinds = (".part", ".old", ".json.part")
    return sorted(
        str(one.relative_to(out))
        for one in out.rglob("*")
        if one.name.startswith(".") or one.name.endswith(kinds) or one.name.endswith(".checkpoints")
    )


def one_command(outcome: Outcome, name: str, home: Path, times: int, rng: random.Random) -> None:
    out = home / name.replace(" ", "-") / "undisturbed"
    out.mkdir(parents=True)
    finished(name, home, out)
    wanted = lasting(out)
    shutil.rmtree(out)
    out.mkdir()
    took = finished(name, home, out)
    if lasting(out) != wanted:
        outcome.fault(f"{name}: two undisturbed runs differ")
    n_killed = n_nothing = n_temporary = 0
    number = -1
    while n_killed < times and number < _MOST_TRIES * times:
        number += 1
        place = home / name.replace(" ", "-") / f"run{number}"
        if number % 2:  # over an older result
            shutil.copytree(out, place)
        else:
            place.mkdir()
        moment, begun = took * rng.uniform(0.3, 1.0), time.monotonic()
        process = start(name, home, place)
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            n_killed += 1
        else:  # without an older result: the machine is less busy than it was
            took = took if number % 2 else time.monotonic() - begun
        n_nothing += not any(place.iterdir())
        n_temporary += bool(left(place))
        if number % 2 and not name.startswith(("predict", "train")) and not (place / "result").exists():
            outcome.fault(f"{name}, killed after {moment:.2f} s: the older result is gone")
        if fault := whole(place):
            outcome.fault(f"{name}, killed after {moment:.2f} s: {fault}")
        finished(name, home, place)
        if (
            lasting(place).items()
            != {key.replace("undisturbed", place.name, 1): one for key, one in wanted.items()}.items()
        ):
            outcome.fault(f"{name}, killed after {moment:.2f} s: the next run gives another result")
        if found := left(place):
            outcome.fault(f"{name}, killed after {moment:.2f} s: left {found}")
        shutil.rmtree(place)
    outcome.say(
        f"{name:14} {n_killed} of {number + 1} runs killed within {took:.1f} s: {n_nothing} left nothing, "
        f"{n_temporary} temporary files, which the next run removed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="kills of each command")
    parser.add_argument("--only", default="", help="commands that contain this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a model folder to use; default: one is made")
    words = parser.parse_args()
    outcome, rng = Outcome("kills"), random.Random(words.seed)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        digits_folder(home / "digits", 16)
        made_model(home, home / "digits", "model", words.model)
        for name in COMMANDS:
            if words.only in name:
                one_command(outcome, name, home, words.times, rng)
        cache = left(home / "cache")
        if cache:
            outcome.fault(f"left in the cache: {cache[:3]} and {max(0, len(cache) - 3)} more")
    keep(outcome)


if __name__ == "__main__":
    main()
