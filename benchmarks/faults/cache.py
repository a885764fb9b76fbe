"""Damage the cache in every way and count what is used: flipped bits, kills, no permission, full disks.

    python benchmarks/faults/cache.py                                     (about 20 minutes)
    python benchmarks/faults/cache.py --flips 60 --kills 3

Flips: one bit of one file of a kind of entry (features, unfinished features with their checksums, a trained
network, an exported network, a downloaded and an extracted data file), half of them in the first or last 128
bytes. What is read afterwards must be what it was, computed again; a file that is read as if nothing had happened
counts as used. Kills: kill -9 in the middle of an extraction; the next run must give the same file to the
byte. No permission and full disks: ``headstart transfer`` must end with status 0, the same weights, and one line
on stderr where something could not be stored. On Linux; as root, disks are file systems in memory, else a limit
on the size of files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.data.readers.download import Remote, extract_archive, find
from headstart.data.readers.load import load
from headstart.errors import MissingExtraError
from headstart.networks.specs import architecture
from headstart.records import InputSpec, TrainSettings
from headstart.sources.features import Extraction, extract
from headstart.sources.random_network import random_source
from headstart.sources.timm.store import find_network
from headstart.system.cache import FolderCache
from headstart.system.drafts import CacheWarning
from headstart.workflows.train.store import trained_network

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import facts, told

_EDGE = 128  # bytes: a header of .npy, the checksums at the end


@dataclass
class Kind:
    """A kind of entry: its files, and how to read it: (whether it was computed again, what was read)."""

    name: str
    files: list[Path]
    read: Callable[[], tuple[bool, bytes]]


def feature_kinds(home: Path) -> Iterator[Kind]:
    data = load("digits").subset(np.arange(80))
    source = random_source(architecture("cnn", InputSpec(28, 28, 1), 10), 0)

    def rows(cache: FolderCache) -> bytes:
        return np.asarray(extract(data, source, layer="block2", options=Extraction(cache))).tobytes()

    complete, partial = FolderCache(home / "features"), FolderCache(home / "unfinished")
    whole = rows(complete)
    (entry,) = complete.root.glob("*.npy")

    def read() -> tuple[bool, bytes]:
        before = entry.stat().st_ino
        found = rows(complete)
        return entry.stat().st_ino != before, found

    yield Kind("features", [entry], read)
    (about,) = complete.entries()
    shape = (80, about.shape[1])
    values = np.frombuffer(whole, np.float32).reshape(shape)
    draft = partial.draft(
        about.parts, shape
    )  # what an interrupted run leaves: 64 of 80 rows, in eight writes
    for first in range(0, 64, 8):
        draft.write(first, values[first : first + 8])
    draft.close()

    def resume() -> tuple[bool, bytes]:
        """Rows that were not taken from the damaged files are computed again."""
        draft = partial.draft(about.parts, shape)
        n_done = draft.n_done
        draft.close()
        found = rows(partial)
        for path in partial.root.glob("*.npy"):
            path.unlink()
        return n_done < 64, found

    yield Kind("unfinished features", sorted(partial.root.iterdir()), resume)


def network_kinds(home: Path) -> Iterator[Kind]:
    data = load("digits:0-1")
    settings = TrainSettings(epochs=1, batch_size=64)

    def read() -> tuple[bool, bytes]:
        found = trained_network(data, network="mlp", engine="scratch", settings=settings)
        return found.parts is not None, found.model.graph

    read()
    files = sorted(path for path in (home / "networks").rglob("*") if path.is_file())
    yield Kind("trained network", files, read)


def export_kinds(home: Path) -> Iterator[Kind]:
    def read() -> tuple[bool, bytes]:
        before = {path: path.stat().st_ino for path in (home / "graphs").glob("*")}
        graph = find_network("test_resnet", pretrained=False)
        after = {path: path.stat().st_ino for path in (home / "graphs").glob("*")}
        return before != after, graph.graph + json.dumps(dict(graph.about)).encode()

    try:
        read()
    except MissingExtraError as error:
        print(f"exported network: left out, {error}", file=sys.stderr)
        return
    yield Kind("exported network", sorted((home / "graphs").iterdir()), read)


def data_kinds(home: Path) -> Iterator[Kind]:
    content = random.Random(0).randbytes(5_000)
    remote = Remote("X/x.gz", (), hashlib.md5(content).hexdigest())
    downloaded = home / "data" / remote.place
    downloaded.parent.mkdir(parents=True)
    downloaded.write_bytes(content)

    def fetched() -> tuple[bool, bytes]:
        path = find([remote.place], remote)
        if path is None:  # a server would give it again
            downloaded.write_bytes(content)
        return path is None, downloaded.read_bytes()

    yield Kind("downloaded file", [downloaded], fetched)
    with zipfile.ZipFile(home / "box.zip", "w") as box:
        box.writestr("x", content)

    def extracted() -> tuple[bool, bytes]:
        path = find(["X/member"])
        return path is None, (path or extract_archive(home / "box.zip", "x", "X/member")).read_bytes()

    extracted()
    yield Kind("extracted file", [home / "data/X/member", home / "data/X/member.md5"], extracted)


def flips(n_flips: int, rng: random.Random, home: Path) -> dict[str, dict[str, int]]:
    """Flip bits in every kind of entry; counts of what became of them."""
    os.environ["HEADSTART_CACHE"] = str(home)
    makers = (feature_kinds, network_kinds, export_kinds, data_kinds)
    kinds = [kind for maker in makers for kind in maker(home)]
    truths = []
    for kind in kinds:
        with kept(kind):
            again, truth = kind.read()
        truths.append(truth)
        if again:
            raise SystemExit(f"{kind.name}: an undamaged entry was not used")
    outcomes = ("flips", "computed again", "used", "wrong", "errors")
    counts = {kind.name: dict.fromkeys(outcomes, 0) for kind in kinds}
    for number in range(n_flips):
        place = number % len(kinds)
        path = kinds[place].files[number // len(kinds) % len(kinds[place].files)]
        outcome = flipped(kinds[place], path, truths[place], rng)
        counts[kinds[place].name]["flips"] += 1
        counts[kinds[place].name][outcome] += 1
        if (number + 1) % 50 == 0:
            print(f"{number + 1} flips: {counts}", file=sys.stderr, flush=True)
    return counts


@contextmanager
def kept(kind: Kind) -> Iterator[None]:
    """Put the files of an entry back in the end."""
    whole = {path: path.read_bytes() for path in kind.files}
    try:
        yield
    finally:
        for path, content in whole.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def flipped(kind: Kind, path: Path, truth: bytes, rng: random.Random) -> str:
    """Flip a bit of a file, and read the entry."""
    with kept(kind), warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        content = bytearray(path.read_bytes())
        places = range(len(content))
        if rng.random() < 0.5:  # headers and checksums
            places = [*places[:_EDGE], *places[-_EDGE:]]
        place = rng.choice(places)
        content[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            again, found = kind.read()
            outcome = "computed again" if again and found == truth else "wrong" if again else "used"
        except Exception as error:  # whatever it is, the user would see it
            outcome = "errors"
            print(f"{kind.name}: {type(error).__name__} {error}", file=sys.stderr)
    if outcome in ("used", "wrong"):
        print(f"{kind.name}: byte {place} of {path.name}: {outcome}", file=sys.stderr)
    return outcome


EXTRACT = """
import sys
from headstart.data.readers.load import load
from headstart.sources.features import Extraction, extract_all
from headstart.sources.registry import open_source
from headstart.system.cache import FolderCache
data = load("omniglot-greek")
source = open_source("drawings", data)
extract_all(data, source, [("block1", "flat"), ("block3", "flat")], options=Extraction(FolderCache(sys.argv[1])))
"""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def kills(n_kills: int, rng: random.Random, home: Path) -> dict[str, int]:
    """Kill an extraction again and again until it ends; the files must be those of an undisturbed run."""
    command = [sys.executable, "-c", EXTRACT]
    subprocess.run([*command, str(home / "whole")], check=True)
    wanted = contents(home / "whole")
    seconds = writing_s(command, home / "timed")
    found = {"kills": 0, "in the middle": 0, "different files": 0, "leftovers": 0}
    number = 0
    while found["kills"] < n_kills:
        number += 1
        folder = home / f"run{number}"
        for _ in range(3):
            process = subprocess.Popen([*command, str(folder)])
            begin = wait_for_draft(process, folder)
            moment = rng.uniform(0, seconds)
            try:
                process.wait(max(0.001, begin + moment - time.monotonic()))
                break  # it ended before
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                found["kills"] += 1
                states = {entry.state for entry in FolderCache(folder).entries()}
                found["in the middle"] += "unfinished" in states
                assert "being written" not in states
        subprocess.run([*command, str(folder)], check=True)
        after = contents(folder)
        found["leftovers"] += len(after.keys() - wanted.keys())
        found["different files"] += sum(after.get(name) != one for name, one in wanted.items())
        print(f"run {number}: {found}", file=sys.stderr, flush=True)
    return found


def wait_for_draft(process: subprocess.Popen[bytes], folder: Path) -> float:
    while process.poll() is None and not any(folder.glob("*.sums")):
        time.sleep(0.002)
    return time.monotonic()


def writing_s(command: list[str], folder: Path) -> float:
    """Seconds from the first row to the end."""
    process = subprocess.Popen([*command, str(folder)])
    begin = wait_for_draft(process, folder)
    process.wait()
    return time.monotonic() - begin


def transfer(output: Path, cache: Path, prepare: Callable[[], None] | None = None) -> tuple[int, list[str]]:
    """Status and lines on stderr of a transfer."""
    place = ("--layer", "block3", "--pooling", "avg", "--head", "ridge")
    command = ["transfer", "drawings", "digits:0-1", *place, "-o", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "headstart", *command],
        env={**os.environ, "HEADSTART_CACHE": str(cache), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=prepare,
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr.splitlines()


def weights(folder: Path) -> str:
    path = folder / "weights.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def obstacles(sizes_kib: list[int], home: Path) -> dict[str, dict[str, int]]:
    """Caches that can only be read, or are on a disk that fills up."""
    status, lines = transfer(home / "truth", home / "cache")
    truth = weights(home / "truth")
    if status or lines:
        raise SystemExit(f"the undisturbed transfer: {status} {lines}")
    found: dict[str, dict[str, int]] = {}

    def judge(name: str, output: Path, done: tuple[int, list[str]], n_lines: int) -> None:
        count = found.setdefault(name, {"runs": 0, "faults": 0})
        count["runs"] += 1
        said = [line for line in done[1] if line.startswith("headstart: cache '")]
        if done[0] or weights(output) != truth or len(said) > n_lines or said != done[1]:
            count["faults"] += 1
            print(f"{name}: {done}", file=sys.stderr)

    (home / "empty").mkdir()
    (home / "out").mkdir()
    for name, n_lines in (("cache", 0), ("empty", 1)):
        with read_only(home, home / name) as prepare:
            judge(
                f"read-only, {name}",
                home / "out" / name,
                transfer(home / "out" / name, home / name, prepare),
                n_lines,
            )
    for size in sizes_kib:
        with full_disk(home / f"disk{size}", size) as (folder, prepare):
            output = home / "out" / f"full{size}"
            judge("full disk", output, transfer(output, folder / "cache", prepare), 1)
            states = [entry.state for entry in FolderCache(folder / "cache" / "features").entries()]
            found["full disk"]["faults"] += any(state != "complete" for state in states)
    return found


@contextmanager
def read_only(home: Path, folder: Path) -> Iterator[Callable[[], None] | None]:
    """A folder that the child cannot write to."""
    if os.geteuid():
        paths = [folder, *folder.rglob("*")]
        modes = {path: path.stat().st_mode for path in paths}
        for path in paths:
            path.chmod(path.stat().st_mode & ~0o222)
        yield None
        for path, mode in modes.items():
            path.chmod(mode)
    else:
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield None
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def full_disk(folder: Path, size_kib: int) -> Iterator[tuple[Path, Callable[[], None] | None]]:
    """A folder on a file system of this size, or no file larger than it."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)]
    if os.geteuid() == 0 and not subprocess.run(command, check=False).returncode:
        yield folder, None
        subprocess.run(["umount", str(folder)], check=True)
    else:
        size = 1024 * size_kib
        yield folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--disks", default="4,60,180,184,240,280,700,1400", help="sizes in KiB")
    parser.add_argument("--seed", type=int, default=0, help="draws the bits and the moments")
    options = parser.parse_args()
    rng, about = random.Random(options.seed), facts("numpy", "openvino")
    with tempfile.TemporaryDirectory(prefix="cache-") as place:
        home = Path(place)
        for name in ("flips", "kills", "obstacles"):
            (home / name).mkdir()
        flip_counts = flips(options.flips, rng, home / "flips")
        kill_counts = kills(options.kills, rng, home / "kills")
        sizes = [int(size) for size in options.disks.split(",") if size]
        obstacle_counts = obstacles(sizes, home / "obstacles")
    for name, count in {**flip_counts, "extraction": kill_counts, **obstacle_counts}.items():
        print(f"{name:24}" + ", ".join(f"{number} {what}" for what, number in count.items()))
    faults = sum(count["used"] + count["wrong"] + count["errors"] for count in flip_counts.values())
    faults += kill_counts["different files"] + kill_counts["leftovers"]
    faults += sum(count["faults"] for count in obstacle_counts.values())
    told(about, {}, flips=flip_counts, kills=kill_counts, obstacles=obstacle_counts, faults=faults)
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
