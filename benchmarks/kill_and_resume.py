"""Kill a training at random moments and go on: the final weights are the same to the bit, or not.

The same training runs once undisturbed; then again and again, killed (kill -9) at a moment drawn anew and
gone on with by --resume, until it has been killed so often; after every kill the output must be a model
that opens, or nothing. Prints what it saw; status 1 if anything differs.

    python benchmarks/kill_and_resume.py --times 20
    python benchmarks/kill_and_resume.py --times 20 -- digits --network best --epochs 4 --mixup 0.2
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headstart.errors import HeadstartError
from headstart.models.model import open_model

TRAINING = ("digits", "--network", "cnn", "--epochs", "6", "--augment", "handwriting", "--patience", "4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="kills")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    parser.add_argument("training", nargs="*", default=TRAINING, help="words after headstart train")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        process = begin(home / "whole", asked.training)
        wait_for_training(process, home / "whole")
        begun = time.monotonic()
        if process.wait() != 0:
            sys.exit(f"the undisturbed training failed: {(home / 'whole.said').read_text()}")
        whole_s = time.monotonic() - begun
        wanted = digest(home / "whole")
        print(f"undisturbed: {whole_s:.1f} s from the first step, weights {wanted[:16]}", flush=True)
        n_kills = n_runs = n_unreadable = n_other = n_from_start = 0
        while n_kills < asked.times:
            n_runs += 1
            output = home / f"run{n_runs}"
            kills, remarks = run_killed(output, asked.training, rng, whole_s, asked.times - n_kills)
            n_kills += len(kills)
            whole_s *= 1.0 if kills else 0.5  # the machine was busier when it was measured
            n_unreadable += sum(not readable for _, readable in kills)
            same = digest(output) == wanted
            n_other += not same
            n_from_start += remarks.count("started from the beginning")
            moments = ", ".join(f"{moment:.1f}" for moment, _ in kills)
            found = "the same" if same else "DIFFER"
            print(f"run {n_runs}: killed {moments} s after the first step; weights {found}", flush=True)
    print(
        f"{n_kills} kills in {n_runs} runs: {n_runs - n_other} of {n_runs} ended with the same weights; "
        f"{n_unreadable} of {n_kills} left a folder that could not be read; {n_from_start} resumes found no "
        "checkpoint, as the model was saved already or none was kept yet, and started from the beginning"
    )
    sys.exit(bool(n_other or n_unreadable))


def begin(output: Path, training: list[str], *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "headstart", "train", *training, "-o", str(output), *more]
    return subprocess.Popen(
        command, env=os.environ, stdout=subprocess.DEVNULL, stderr=output.with_suffix(".said").open("ab")
    )


def run_killed(
    output: Path, training: list[str], rng: random.Random, whole_s: float, most: int
) -> tuple[list[tuple[float, bool]], str]:
    """One training to its end; moments at which it was killed, and whether what lay there could be read."""
    kills: list[tuple[float, bool]] = []
    while True:
        going_on = ["--resume"] if output.with_name(f"{output.name}.checkpoints").exists() or kills else []
        process = begin(output, training, "--checkpoint-every", "0.05s", *going_on)
        moment = rng.uniform(0, 1) * whole_s
        try:
            if len(kills) < min(most, 4):
                wait_for_training(process, output)
            process.wait(moment if len(kills) < min(most, 4) else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills.append((moment, readable(output)))
            continue
        if process.returncode != 0:
            sys.exit(f"a resume failed: {output.with_suffix('.said').read_text()}")
        return kills, output.with_suffix(".said").read_text()


def wait_for_training(process: subprocess.Popen[bytes], output: Path) -> None:
    """Until the log is written to, which is at the first step."""
    log, begun = output.with_name(f"{output.name}.log") / "training.jsonl", time.time()
    while process.poll() is None and not (log.exists() and log.stat().st_mtime >= begun):
        time.sleep(0.01)


def readable(output: Path) -> bool:
    """Whether a model opens, or none is there."""
    if not output.exists():
        return True
    try:
        open_model(output)
    except HeadstartError:
        return False
    return True


def digest(output: Path) -> str:
    return hashlib.sha256((output / "weights.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
