"""Graphs and networks count with the features: in the limit, in the list, and when the cache is cleared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import CacheError
from headstart.system.cache import FolderCache, default_cache, key_of
from headstart.system.checked import write_checked
from headstart.system.leftovers import new_file, new_folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    return tmp_path


def graph(root: Path, number: int, size: int = 1_000) -> Path:
    place = root / "graphs" / key_of({"graph": number})
    place.parent.mkdir(exist_ok=True)
    place.with_suffix(".onnx").write_bytes(bytes(size))
    write_checked(place.with_suffix(".json"), {"name": f"net{number}"})
    return place.with_suffix(".json")


def network(root: Path, number: int, size: int = 1_000) -> Path:
    home = root / "networks" / key_of({"network": number})[:32]
    (home / "model").mkdir(parents=True)
    (home / "model" / "model.onnx").write_bytes(bytes(size))
    (home / "curve.json").write_text("{}")
    return home


def features(cache: FolderCache, number: int) -> Path:
    draft = cache.draft({"n": number}, (100, 10))
    draft.write(0, np.zeros((100, 10), np.float32))
    draft.finish()
    return cache.root / f"{key_of({'n': number})}.npy"


def states(cache: FolderCache) -> list[tuple[str, str]]:
    return sorted((one.kind, one.state) for one in cache.entries())


def test_all_kinds_are_listed_and_cleared(root: Path) -> None:
    cache = default_cache()
    features(cache, 0), graph(root, 0), network(root, 0)
    (root / "data").mkdir()
    (root / "data" / "mnist").write_text("downloaded")
    (root / "graphs" / "mine.txt").write_text("not ours")
    assert states(cache) == [("features", "complete"), ("graph", "complete"), ("network", "complete")]
    sizes = {one.kind: one.size_bytes for one in cache.entries()}
    assert sizes["graph"] > 1_000 and sizes["network"] == 1_002
    assert len(cache.clear()) == 3 and cache.entries() == []
    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == ["mine.txt", "mnist"]


def test_the_limit_is_for_all_kinds_together(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE_LIMIT_GB", str(8_400 / 2**30))  # four of about 4,000 do not fit
    cache = default_cache()
    old, newer = graph(root, 0, 4_000), network(root, 1, 3_000)
    os.utime(old, (1, 1)), os.utime(old.with_suffix(".onnx"), (1, 1)), os.utime(newer / "curve.json", (2, 2))
    features(cache, 0)
    assert not old.exists() and not old.with_suffix(".onnx").exists() and newer.exists()
    os.utime(cache.root / f"{key_of({'n': 0})}.npy", (3, 3))
    last = graph(root, 1, 3_500)
    default_cache().keep_limit(last)
    assert not newer.exists() and last.exists()
    assert states(cache) == [("features", "complete"), ("graph", "complete")]
    huge = graph(root, 2, 10_000)
    default_cache().keep_limit(huge)
    assert states(cache) == [("graph", "complete")], "what was just made stays, whatever its size"


def test_leftovers_are_listed_and_removed_and_what_is_written_now_is_spared(root: Path) -> None:
    cache = default_cache()
    cut = graph(root, 0).with_suffix(".onnx")
    cut.with_suffix(".json").unlink()  # killed between the two files, a minute ago
    os.utime(cut, (1, 1))
    (network(root, 0) / "curve.json").unlink()  # as older versions left them
    damaged = graph(root, 1)
    damaged.write_text(damaged.read_text().replace("net1", "net2"))
    for dead in (graph(root, 2), root / "networks" / ("ab" * 16)):
        left = dead.with_name(f".{dead.name}.{'0' * 32}.part")
        left.mkdir() if dead.suffix == "" else left.write_bytes(b"cut")
    fresh = root / "graphs" / f"{key_of({'graph': 3})}.onnx"
    with new_file(fresh) as one, new_folder(root / "networks" / ("cd" * 16)) as other:
        assert states(cache) == [
            ("graph", "being written"),
            ("graph", "complete"),
            *[("graph", "unusable")] * 3,
            ("network", "being written"),
            *[("network", "unusable")] * 2,
        ]
        cache.keep_limit(root / "none")
        assert one.exists() and other.exists()
        assert states(cache) == [
            ("graph", "being written"),
            ("graph", "complete"),
            ("network", "being written"),
        ]
        cache.clear()
        assert one.exists() and other.exists() and len(cache.entries()) == 2
    assert cache.entries() == []


def test_the_moment_between_the_two_files_of_a_graph_is_no_leftover(root: Path) -> None:
    path = graph(root, 0)
    path.unlink()
    assert states(default_cache()) == [("graph", "being written")]
    assert default_cache().clear() == [] and path.with_suffix(".onnx").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may delete everything")
def test_what_cannot_be_deleted_is_one_sentence(root: Path) -> None:
    path = graph(root, 0)
    path.parent.chmod(0o500)
    with pytest.raises(CacheError, match="expected permission to delete"):
        default_cache().clear()
    path.parent.chmod(0o700)


@pytest.mark.slow
def test_the_command_covers_all_kinds(root: Path) -> None:
    graph(root, 0), network(root, 0)

    def said(*words: str) -> str:
        command = [sys.executable, "-m", "headstart", "cache", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert said("list").splitlines()[-1] == "0 arrays, 1 graph and 1 network, 0.0 MiB"
    assert said("path").strip() == str(root)
    assert said("clear") == "removed 0 arrays, 1 graph and 1 network, 0.0 MiB\n"
    assert said("list") == "0 arrays, 0.0 MiB\n"
