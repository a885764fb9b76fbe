"""Features by workers of a real cluster: the bits of one process, whatever dies on the way."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.readers.load import load
from headstart.data.reading import reading
from headstart.errors import BrokenDataError
from headstart.sources import features
from headstart.sources.features import AugmentedCopy, Extraction, extract, extract_all
from headstart.sources.registry import open_source
from headstart.system.cache import FolderCache
from headstart.system.runners import Runner, runner_named
from ray_cluster import ray_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(1, 1) as made:
        yield made


@pytest.fixture(scope="module")
def ray(cluster: Any) -> Iterator[Runner]:
    with runner_named(f"ray:{cluster.address}") as runner:
        yield runner


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,797 digits as files."""
    home, digits = tmp_path_factory.mktemp("digits"), load("digits")
    for number, (pixels, label) in enumerate(zip(digits.images.pixels, digits.labels, strict=True)):  # type: ignore[arg-type]
        (home / label).mkdir(exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(home / label / f"{number:05}.png")
    return home


def layers(dataset: Dataset) -> list[tuple[str, str]]:
    source = open_source("drawings", dataset)
    layer = next(name for name, shape in source.layers.items() if len(shape) == 3)
    return [(layer, "avg"), (source.default_layer, "flat")]


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_features_are_those_of_one_process_to_the_bit(kind: str, files: Path, ray: Runner) -> None:
    data = load(str(files)) if kind == "files" else load("digits")
    source, places = open_source("drawings", data), layers(data)
    here = extract_all(data, source, places)
    there = extract_all(data, source, places, options=Extraction(runner=ray))
    for one, other in zip(here, there, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.slow
def test_augmented_copies_too(ray: Runner) -> None:
    pytest.importorskip("kornia", reason="needs kornia")
    data = load("digits").subset(np.arange(300))
    source, copy = open_source("drawings", data), AugmentedCopy(parse_augmentation("handwriting", 1), 3, 0)
    here = extract(data, source, copy=copy)
    assert np.array_equal(here, extract(data, source, copy=copy, options=Extraction(runner=ray)))


def test_a_complete_array_is_kept_and_no_shard_beside_it(ray: Runner, tmp_path: Path) -> None:
    data, cache = load("digits"), FolderCache(tmp_path)
    source = open_source("drawings", data)
    found = extract(data, source, options=Extraction(cache, runner=ray))
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]
    assert np.array_equal(found, extract(data, source, options=Extraction(cache)))


def test_a_worker_that_is_killed_changes_no_bit(
    ray: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits")
    source, real, mark = open_source("drawings", data), features.Recipe, tmp_path / "killed"

    class Deadly:
        """The real recipe; the first worker that comes to the middle is killed there."""

        def __init__(self, *given: Any) -> None:
            self.recipe = real(*given)

        def __call__(self) -> Any:
            compute = self.recipe()

            def work(task: Any) -> Any:
                if task[0] >= 800 and not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return compute(task)

            return work

    monkeypatch.setattr(features, "Recipe", Deadly)
    found = extract(data, source, options=Extraction(runner=ray))
    assert mark.exists() and np.array_equal(found, extract(data, source))


DRIVER = """
import sys, time
from pathlib import Path
from headstart.data.readers.load import load
from headstart.sources import features
from headstart.sources.registry import open_source
from headstart.system.cache import FolderCache
from headstart.system.runners import runner_named

address, home = sys.argv[1], Path(sys.argv[2])
real = features.Recipe

class Slow:
    def __init__(self, *given):
        self.recipe, self.home = real(*given), home
    def __call__(self):
        compute = self.recipe()
        def work(task):
            time.sleep(0.15)
            found = compute(task)
            with (self.home / f"{task[0]}").open("a") as file:
                file.write("computed\\n")
            return found
        return work

features.Recipe = Slow
data = load("digits")
with runner_named(address) as runner:
    options = features.Extraction(FolderCache(home / "cache"), runner=runner)
    features.extract(data, open_source("drawings", data), options=options)
"""


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_and_only_what_was_in_flight_is_computed_twice(
    cluster: Any, ray: Runner, tmp_path: Path
) -> None:
    ray.close_workers()  # type: ignore[attr-defined]  # they hold all cores
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, str(script), f"ray:{cluster.address}", str(home)]
    with subprocess.Popen(command) as first:
        while len([one for one in home.iterdir() if one.name.isdigit()]) < 7:
            assert first.poll() is None
            time.sleep(0.02)
        first.kill()
    assert subprocess.run(command, check=False).returncode == 0
    data = load("digits")
    source = open_source("drawings", data)
    kept = FolderCache(home / "cache")
    found = extract(data, source, options=Extraction(kept))
    assert np.array_equal(found, extract(data, source))
    computed = {int(one.name): one.read_text().splitlines() for one in home.iterdir() if one.name.isdigit()}
    assert sorted(computed) == list(range(0, 1797, 128))  # the second run has the shards of the first
    times = [len(lines) for lines in computed.values()]
    assert set(times) <= {1, 2}
    assert sum(one == 2 for one in times) <= 4  # two workers: one that each computes, one that was on its way


def test_workers_read_and_check_files_as_one_process_does(files: Path, ray: Runner, tmp_path: Path) -> None:
    home = tmp_path / "digits"
    shutil.copytree(files, home)
    broken = sorted(home.rglob("*.png"))[700]
    broken.write_bytes(broken.read_bytes()[:50])
    (home / "0" / "notes.txt").write_text("x")
    here = load(str(home))
    with reading(runner=ray):
        there = load(str(home))
    assert there.fingerprint == here.fingerprint and there.skipped == here.skipped and len(there.skipped) == 2
    assert pickle.dumps(there.images.look(900)) == pickle.dumps(here.images.look(900))
    with pytest.raises(BrokenDataError, match="cannot be used"), reading(runner=ray):
        load(str(home), strict=True)


def test_python_works_on_a_cluster_within_a_block(
    cluster: Any, ray: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.close_workers()  # type: ignore[attr-defined]  # they hold all cores
    seen = []
    real = features.shard_rows
    monkeypatch.setattr(features, "shard_rows", lambda *given, **more: seen.append(1) or real(*given, **more))
    plain = hs.transfer("drawings", "digits:0-3", seed=1)
    with hs.runner(f"ray:{cluster.address}"):
        model = hs.transfer("drawings", "digits:0-3", seed=1)
    assert not seen  # the cache has them
    monkeypatch.setenv("HEADSTART_CACHE", os.environ["HEADSTART_CACHE"] + "-other")
    with hs.runner(f"ray:{cluster.address}"):
        again = hs.transfer("drawings", "digits:0-3", seed=1)
    assert seen and model.graph == plain.graph == again.graph
    assert again.manifest.scores == plain.manifest.scores


class OutOfOrder:
    """A runner that gives the last results first, and stops after some."""

    name, remote, n_workers = "out of order", True, 2

    def __init__(self, most: int | None = None) -> None:
        self.most, self.done = most, 0

    def map(self, start: Any, tasks: Any, *, threads: int = 1) -> Iterator[tuple[int, Any]]:
        work = start()
        for number, task in reversed(list(enumerate(tasks))):
            if self.done == self.most:
                raise KeyboardInterrupt
            self.done += 1
            yield number, work(task)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("most", [1, 5, 14])
def test_shards_that_came_early_are_not_computed_again(most: int, tmp_path: Path) -> None:
    data, cache = load("digits"), FolderCache(tmp_path)
    source, first, second = open_source("drawings", data), OutOfOrder(most), OutOfOrder()
    with pytest.raises(KeyboardInterrupt):
        extract(data, source, options=Extraction(cache, runner=first))
    found = extract(data, source, options=Extraction(cache, runner=second))
    assert (first.done, second.done) == (most, 15 - most)
    assert np.array_equal(found, extract(data, source))
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]  # and none of them is left
