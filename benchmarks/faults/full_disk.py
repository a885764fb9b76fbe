"""Run every command that writes on a disk that is full: one sentence that names the file, and the old result stays.

    python benchmarks/faults/full_disk.py            (a small file system in memory, where this user can mount one)
    python benchmarks/faults/full_disk.py --limit    (a limit on the size of files, RLIMIT_FSIZE)

With a file system, its free space is 4 KiB to 1 MiB less than a run needs; with a limit, no file may be larger than
that. Each command must end with status 1 and one line on standard error that starts with "headstart: error:" and
names a file, or with status 0 where it fitted. An older result at the same place stays as it was, and no temporary
file is left.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from campaign import Outcome, contents, digits_folder, environment, keep, made_model

_ERROR = "headstart: error: "
_LIMITS = (0, 100, 4_096, 30_000, 100_000, 400_000)
COMMANDS: dict[str, tuple[str, ...]] = {
    "transfer": ("transfer", "drawings", "DATA", "-o", "OUT/result"),
    "train": ("train", "DATA", "-o", "OUT/result", "--epochs", "2", "--checkpoint-every", "0s"),
    "study": ("study", "drawings", "DATA", "-o", "OUT/result", "--labels", "2", "--draws", "2"),
    "tune": ("tune", "drawings", "DATA", "-o", "OUT/result", "--policies", "ink", "--augments", "none"),
    "predict --csv": ("predict", "MODEL", "DATA", "--csv", "OUT/result.csv"),
    "export onnx": ("export", "MODEL", "--to", "onnx", "-o", "OUT/result.onnx"),
    "export openvino": ("export", "MODEL", "--to", "openvino", "-o", "OUT/result"),
    "export folder": ("export", "MODEL", "--to", "folder", "-o", "OUT/result"),
}


def limited(size: int) -> Callable[[], None]:
    """In the child: no file larger than this."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def run(words: list[str], home: Path, size: int | None) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "headstart", *words],
        cwd=home,
        env=environment(home, MPLCONFIGDIR=str(home / "matplotlib")),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        preexec_fn=None if size is None else limited(size),
    )
    return done.returncode, done.stdout, done.stderr


def judge(outcome: Outcome, name: str, size: int, done: tuple[int, str, str]) -> str:
    """Whether what was said is one sentence that names a file."""
    status, _, said = done
    errors = [line for line in said.splitlines() if line.startswith(_ERROR)]
    others = [line for line in said.splitlines() if "Traceback" in line or "Error:" in line]
    if status == 0:
        return "fitted"
    if status != 1 or len(errors) != 1 or others or "bug of headstart" in said:
        outcome.fault(f"{name} with {size:,} bytes: status {status}, {said.strip()[-400:]!r}")
    elif (
        "'" not in errors[0]
        or "'a file'" in errors[0]
        or not any(
            word in errors[0] for word in ("cannot be written", "cannot be used", "No space", "too large")
        )
    ):
        outcome.fault(f"{name} with {size:,} bytes: no file is named: {errors[0]}")
    return "one sentence"


def left_in(out: Path) -> list[str]:
    """Temporary files and folders, which a failed command must not leave; rows to continue from are wanted."""
    return [str(one) for one in out.rglob("*") if one.name.startswith(".")]


def one_command(
    outcome: Outcome, name: str, home: Path, out: Path, make_full: Callable[[int], int | None]
) -> None:
    words = [
        one.replace("DATA", str(home / "digits"))
        .replace("MODEL", str(home / "model"))
        .replace("OUT", str(out))
        for one in COMMANDS[name]
    ]
    status, _, said = run(words, home, None)
    if status:
        outcome.fault(f"{name} with free space: {said.strip()[-300:]}")
        return
    found = []
    for size in _LIMITS:
        before = {key: value for key, value in contents(out).items()}
        shutil.rmtree(home / "cache", ignore_errors=True)
        again = [*words] if name != "train" else words
        limit = make_full(size)
        done = run(again, home, limit)
        make_full(-1)
        verdict = judge(outcome, name, size, done)
        found.append(f"{size:,}: {verdict}")
        after = contents(out)
        lost = [key for key, value in before.items() if key not in after]
        if verdict != "fitted" and lost:
            outcome.fault(f"{name} with {size:,} bytes lost {lost}")
        if verdict != "fitted" and name.startswith(("transfer", "export")) and before != after:
            outcome.fault(f"{name} with {size:,} bytes changed the older result")
        if left := left_in(out):
            outcome.fault(f"{name} with {size:,} bytes left {left}")
        for extra in ("result.checkpoints",):
            shutil.rmtree(out / extra, ignore_errors=True)
        for part in (*out.glob("*.part"), *out.glob("*.part.json")):
            part.unlink()
    outcome.say(f"{name:16} {'; '.join(found)}")


def mounted(place: Path, size: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "headstart-full-disk", str(place)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def as_limit(size: int) -> int | None:
    """The size as a limit; -1 is none."""
    return None if size < 0 else size


def filler(out: Path) -> Callable[[int], int | None]:
    """Fill the file system but for some bytes; -1 frees it."""

    def fill(free: int) -> int | None:
        place = out / "filling"
        place.unlink(missing_ok=True)
        if free >= 0:
            with place.open("wb", buffering=0) as file:
                try:
                    while file.write(b"\0" * 65_536):
                        pass
                except OSError:
                    pass
                size = os.fstat(file.fileno()).st_size
                file.truncate(max(0, size - free))
        return None

    return fill


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--limit", action="store_true", help="a limit on the size of files in place of a full disk"
    )
    parser.add_argument("--only", default="", help="commands that contain this")
    parser.add_argument("--model", type=Path, help="a model folder to use; default: one is made")
    words = parser.parse_args()
    outcome = Outcome("full_disk_limit" if words.limit else "full_disk")
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        digits_folder(home / "digits", 12)
        made_model(home, home / "digits", "model", words.model)
        out = home / "full"
        out.mkdir()
        if not words.limit and not mounted(out, 24 * 2**20):
            sys.exit("this user cannot mount a file system in memory; try --limit")
        make_full = as_limit if words.limit else filler(out)
        try:
            for name in COMMANDS:
                if words.only in name:
                    inside = out / name.replace(" ", "-")
                    inside.mkdir()
                    one_command(outcome, name, home, inside, make_full)
                    shutil.rmtree(inside)
        finally:
            if not words.limit:
                subprocess.run(["umount", str(out)], check=True)
    keep(outcome)


if __name__ == "__main__":
    main()
