"""The cache: found by content, whole or absent, never larger than asked."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from headstart.errors import CacheError, SettingError
from headstart.system.cache import Cache, FolderCache, NullCache, cache_root, default_cache, key_of
from headstart.system.drafts import CacheWarning

PARTS = {"images": "abc", "tap": "conv1"}


def put(cache: Cache, parts: dict[str, Any], array: np.ndarray) -> np.ndarray:
    """Store an array through a draft; a vector becomes a column."""
    rows = array.reshape(len(array), -1).astype(np.float32)
    draft = cache.draft(parts, (len(rows), rows.shape[1]))
    draft.write(0, rows)
    return draft.finish()


@pytest.fixture
def cache(tmp_path: Path) -> FolderCache:
    return FolderCache(tmp_path / "store")


def test_key_depends_on_the_content_and_not_on_its_order() -> None:
    assert key_of({"a": 1, "b": "x"}) == key_of({"b": "x", "a": 1})
    assert len({key_of(parts) for parts in ({"a": 1}, {"a": "1"}, {"a": 2}, {"b": 1}, {})}) == 5


def test_finds_what_was_stored_and_nothing_else(cache: FolderCache) -> None:
    assert cache.get(PARTS) is None
    array = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert np.array_equal(put(cache, PARTS, array), array)
    found = FolderCache(cache.root).get(dict(reversed(PARTS.items())))
    assert found is not None and found.dtype == np.float32 and np.array_equal(found, array)
    assert cache.get({**PARTS, "tap": "conv2"}) is None


def test_what_is_found_cannot_be_changed(cache: FolderCache) -> None:
    put(cache, PARTS, np.zeros(3))
    found = cache.get(PARTS)
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_entries_say_what_is_stored(cache: FolderCache) -> None:
    assert cache.entries() == []
    put(cache, PARTS, np.zeros((4, 2), np.float32))
    (entry,) = cache.entries()
    assert (entry.key, entry.parts, entry.shape) == (key_of(PARTS), PARTS, (4, 2))
    assert entry.size_bytes == (cache.root / f"{entry.key}.npy").stat().st_size >= 32
    assert entry.state == "complete"


def test_clear_empties_the_folder(cache: FolderCache) -> None:
    for number in range(3):
        put(cache, {"n": number}, np.zeros(2))
    assert len(cache.clear()) == 3 and os.listdir(cache.root) == [] and cache.clear() == []


def test_twelve_threads_on_one_entry(cache: FolderCache) -> None:
    """Whoever reads meanwhile sees a whole array or none."""
    arrays = [np.full(20_000, number, np.float32) for number in range(12)]
    start, torn = threading.Barrier(12), []

    def work(array: np.ndarray) -> None:
        start.wait()
        for _ in range(4):
            put(cache, PARTS, array)
            found = cache.get(PARTS)
            if found is None or found.shape != (20_000, 1) or len(np.unique(found)) != 1:
                torn.append(found)

    threads = [threading.Thread(target=work, args=(array,)) for array in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn
    assert os.listdir(cache.root) == [f"{key_of(PARTS)}.npy"]


def test_limit_removes_what_was_used_longest_ago(tmp_path: Path) -> None:
    each = np.zeros(1_000, np.float32)  # 4,204 bytes on disk
    cache = FolderCache(tmp_path, limit_bytes=3 * 4_500)
    for number in range(3):
        put(cache, {"n": number}, each)
        os.utime(tmp_path / f"{key_of({'n': number})}.npy", (number + 1_000, number + 1_000))
    assert cache.get({"n": 0}) is not None  # used just now, though written first
    put(cache, {"n": 3}, each)
    assert [cache.get({"n": number}) is not None for number in range(4)] == [True, False, True, True]
    assert len(os.listdir(tmp_path)) == 3


def test_the_folder_is_looked_at_once_for_many_small_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look opens every file: of a thousand arrays the last would take as long as hundreds of them."""
    cache, looks = FolderCache(tmp_path), []
    listed = cache._listed
    monkeypatch.setattr(cache, "_listed", lambda: looks.append(1) or listed())
    for number in range(20):
        put(cache, {"n": number}, np.zeros(10))
    assert len(looks) == 1
    full, looks[:] = FolderCache(tmp_path / "full", limit_bytes=100_000), []
    listed_full = full._listed
    monkeypatch.setattr(full, "_listed", lambda: looks.append(1) or listed_full())
    for number in range(1_000):
        put(full, {"n": number}, np.zeros(10))
    assert len(looks) < 200 and sum(one.size_bytes for one in full.entries()) <= 100_000
    monkeypatch.setattr("headstart.system.cache._LOOK_S", 0.0)
    again = FolderCache(tmp_path, limit_bytes=1)
    put(again, {"n": 20}, np.zeros(10))
    assert [one.parts for one in again.entries()] == [{"n": 20}]


def test_an_array_larger_than_the_limit_is_kept_alone(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, limit_bytes=100)
    put(cache, {"n": 0}, np.zeros(100))
    put(cache, {"n": 1}, np.zeros(100))
    assert cache.get({"n": 0}) is None and cache.get({"n": 1}) is not None


@pytest.mark.parametrize("damage", ["truncated", "longer", "empty", "text", "pickle", "of another name"])
def test_a_damaged_entry_counts_as_absent(cache: FolderCache, damage: str) -> None:
    put(cache, PARTS, np.arange(1_000, dtype=np.float32))
    path = cache.root / f"{key_of(PARTS)}.npy"
    whole = path.read_bytes()
    if damage == "pickle":
        np.save(path, np.array([{"code": 1}], object), allow_pickle=True)
    elif damage == "of another name":
        put(cache, {"n": 1}, np.arange(1_000, dtype=np.float32))
        (cache.root / f"{key_of({'n': 1})}.npy").replace(path)
    else:
        halves = whole[: len(whole) // 2], whole + b"\0"
        contents = {"truncated": halves[0], "longer": halves[1], "empty": b"", "text": b"hello"}
        path.write_bytes(contents[damage])
    with pytest.warns(
        CacheWarning, match=rf"^features in '{path}' are damaged \(.+\): they are computed again$"
    ):
        assert cache.get(PARTS) is None
    assert [one.state for one in cache.entries()] == ["unusable"]
    put(cache, PARTS, np.arange(2.0))
    found = cache.get(PARTS)
    assert found is not None and found.tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("n_columns", [1, 7])
def test_no_flipped_bit_is_read(cache: FolderCache, n_columns: int) -> None:
    """Header, rows and checksums: one bit in every third byte."""
    put(cache, PARTS, np.random.default_rng(0).normal(size=(9, n_columns)))
    path = cache.root / f"{key_of(PARTS)}.npy"
    whole = path.read_bytes()
    for place in range(n_columns % 3, len(whole), 3):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.warns(CacheWarning, match="are damaged"):
            assert cache.get(PARTS) is None, place
    path.write_bytes(whole)
    assert cache.get(PARTS) is not None


def test_no_flipped_bit_of_a_draft_is_read(cache: FolderCache) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)

    def half() -> list[Path]:
        draft = cache.draft(PARTS, (6, 2))
        for first in (0, 2):
            draft.write(first, rows[first : first + 2])
        draft.close()
        return sorted(cache.root.glob(f"{key_of(PARTS)}.*"))

    wholes = {path: path.read_bytes() for path in half()}
    assert [path.suffix for path in wholes] == [".draft", ".sums"]
    for path, whole in wholes.items():
        for place in range(0, len(whole), 5):
            for other, content in wholes.items():
                other.write_bytes(content)
            flipped = bytearray(whole)
            flipped[place] ^= 1 << place % 8
            path.write_bytes(flipped)
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                draft = cache.draft(PARTS, (6, 2))
            assert draft.n_done < 4, (path, place)
            draft.write(draft.n_done, rows[draft.n_done :])
            assert np.array_equal(draft.finish(), rows)


def test_entries_of_older_versions_are_ignored_and_removed(cache: FolderCache) -> None:
    """They have no checksum, and a note beside each array."""
    cache.root.mkdir()
    key = key_of(PARTS)
    np.save(cache.root / f"{key}.npy", np.ones((3, 1), np.float32))
    (cache.root / f"{key}.json").write_text('{"parts": {}, "shape": [3, 1]}')
    (cache.root / f".{key}.json.{'0' * 32}.part").write_text("{")
    (cache.root / f"{key_of({'n': 1})}.draft").write_bytes(b"\0" * 99)
    assert cache.get(PARTS) is None  # and no warning: nothing is damaged
    assert [one.state for one in cache.entries()] == ["unusable"] * 4
    put(cache, {"n": 2}, np.zeros(3))
    assert os.listdir(cache.root) == [f"{key_of({'n': 2})}.npy"]


def test_files_of_others_are_left_alone(cache: FolderCache) -> None:
    cache.root.mkdir()
    for name in ("notes.json", "mine.npy", "a.draft", f"{key_of(PARTS)}.npy.bak"):
        (cache.root / name).write_text("x")
    put(FolderCache(cache.root, limit_bytes=1), PARTS, np.zeros(3))
    assert len(cache.clear()) == 1 and len(os.listdir(cache.root)) == 4


def test_null_cache_has_the_same_methods_and_stores_nothing() -> None:
    methods = [name for name in vars(Cache) if not name.startswith("_")]
    assert methods == ["get", "draft", "discard"]
    for name in methods:
        signatures = [inspect.signature(getattr(kind, name)) for kind in (Cache, NullCache, FolderCache)]
        assert signatures[0] == signatures[1] == signatures[2]
    null, array = NullCache(), np.zeros(3)
    assert np.array_equal(put(null, PARTS, array)[:, 0], array) and null.get(PARTS) is None


@contextmanager
def read_only(*paths: Path) -> Iterator[None]:
    """No permission to write, for root neither."""
    for path in paths:
        path.chmod(0o555)
    user = os.geteuid()
    if not user:
        os.seteuid(65534)
    try:
        yield
    finally:
        if not user:
            os.seteuid(0)
        for path in paths:
            path.chmod(0o755)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can read, too; pytest's own are for one user."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_cache_that_can_only_be_read_serves_what_it_holds(open_folder: Path) -> None:
    cache, rows = FolderCache(open_folder), np.arange(6, dtype=np.float32).reshape(3, 2)
    put(cache, PARTS, rows)
    with read_only(cache.root, *cache.root.iterdir()):
        found = cache.get(PARTS)
        assert found is not None and np.array_equal(found, rows)
        with pytest.warns(CacheWarning, match=r"^cache '.*' cannot be written \(Permission denied\): .*"):
            other = put(cache, {"n": 1}, rows)
        assert np.array_equal(other, rows) and cache.get({"n": 1}) is None
        with pytest.raises(
            CacheError, match=r"^cache '.*' cannot be cleared \(Permission denied\), expected .*"
        ):
            cache.clear()


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_entered_is_a_warning(open_folder: Path) -> None:
    cache = FolderCache(open_folder / "private" / "features")
    cache.root.mkdir(parents=True)
    cache.root.parent.chmod(0o700)
    with read_only(cache.root):
        with pytest.warns(CacheWarning, match=r"cannot be read \(Permission denied\)"):
            assert cache.get(PARTS) is None
        with pytest.warns(CacheWarning, match=r"cannot be written \(Permission denied\)"):
            assert put(cache, PARTS, np.zeros(1)).tolist() == [[0]]


@pytest.mark.parametrize("obstacle", ["root is a file", "parent is a file"])
def test_where_the_folder_cannot_be_made_arrays_stay_in_memory(tmp_path: Path, obstacle: str) -> None:
    (tmp_path / "file").write_text("x")
    cache = FolderCache(tmp_path / "file" / ("below" if obstacle == "parent is a file" else ""))
    assert cache.get(PARTS) is None and cache.entries() == [] and cache.clear() == []
    with pytest.warns(
        CacheWarning, match=r"^cache '.*' cannot be written \(.+\): new features are kept in memory"
    ):
        assert put(cache, PARTS, np.arange(3)).tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("full_after", [0, 100, 128, 140, 4_000, 4_128, 4_150])
def test_on_a_full_disk_the_array_goes_on_in_memory(cache: FolderCache, full_after: int) -> None:
    """The limit on the size of files ends writes as a full disk does: before, in and after the rows."""
    resource = pytest.importorskip("resource")
    rows = np.random.default_rng(0).normal(size=(100, 10)).astype(np.float32)  # 4,128 bytes and the note
    put(cache, {"n": 0}, rows)
    kept = os.listdir(cache.root)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (full_after, before[1]))
    try:
        with pytest.warns(CacheWarning, match=r"cannot be written \(File too large\)") as caught:
            draft = cache.draft(PARTS, rows.shape)
            for first in range(0, 100, 7):
                draft.write(first, rows[first : first + 7])
            found = draft.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert np.array_equal(found, rows) and len(caught) == 1
    assert os.listdir(cache.root) == kept, "nothing is left to fill the disk"


def test_a_disk_that_fails_at_the_end_loses_nothing(
    cache: FolderCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(CacheWarning, match=r"cannot be written \(No space left on device\)"):
        assert put(cache, PARTS, np.arange(3)).tolist() == [[0], [1], [2]]
    assert cache.get(PARTS) is None and os.listdir(cache.root) == []


def test_rows_that_the_disk_lost_are_an_error(cache: FolderCache) -> None:
    draft = cache.draft(PARTS, (4, 1))
    draft.write(0, np.ones((2, 1), np.float32))
    (path,) = cache.root.glob("*.draft")
    os.truncate(path, 132)
    draft.write(2, np.ones((2, 1), np.float32))
    path.unlink()
    with (
        pytest.warns(CacheWarning, match="cannot be written"),
        pytest.raises(CacheError, match="lost features that were written to it"),
    ):
        draft.finish()


def test_a_folder_deleted_meanwhile_costs_nothing_but_the_cache(cache: FolderCache) -> None:
    draft = cache.draft(PARTS, (4, 1))
    draft.write(0, np.ones((2, 1), np.float32))
    shutil.rmtree(cache.root)
    draft.write(2, np.ones((2, 1), np.float32))
    with pytest.warns(CacheWarning, match=r"cannot be written \(No such file or directory\)"):
        assert draft.finish().tolist() == [[1]] * 4


def test_an_interrupted_draft_goes_on_from_its_last_row(cache: FolderCache) -> None:
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    first = cache.draft(PARTS, (10, 3))
    first.write(0, rows[:4])
    first.close()
    assert cache.get(PARTS) is None
    second = cache.draft(PARTS, (10, 3))
    assert second.n_done == 4
    second.write(2, rows[2:7])  # two of these are there already
    second.write(7, rows[7:])
    assert np.array_equal(second.finish(), rows)
    found = cache.get(PARTS)
    assert found is not None and np.array_equal(found, rows)
    assert not list(cache.root.glob("*.draft"))


def test_half_a_row_is_written_again(cache: FolderCache) -> None:
    """A kill may come within a row."""
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    first = cache.draft(PARTS, (4, 3))
    first.write(0, rows[:1])
    first.close()
    (draft,) = cache.root.glob("*.draft")
    draft.write_bytes(draft.read_bytes() + rows[1].tobytes()[:-5])
    second = cache.draft(PARTS, (4, 3))
    assert second.n_done == 1
    second.write(1, rows[1:])
    assert np.array_equal(second.finish(), rows)


def test_a_draft_of_another_shape_or_of_junk_begins_anew(cache: FolderCache) -> None:
    cache.root.mkdir()
    (cache.root / f"{key_of(PARTS)}.draft").write_bytes(b"junk" * 100)
    draft = cache.draft(PARTS, (2, 1))
    assert draft.n_done == 0
    draft.write(0, np.ones((1, 1), np.float32))
    draft.close()
    other = cache.draft(PARTS, (3, 1))
    assert other.n_done == 0
    other.close()


def test_two_drafts_of_one_array_do_not_meet(cache: FolderCache) -> None:
    one, two = cache.draft(PARTS, (2, 1)), cache.draft(PARTS, (2, 1))
    one.write(0, np.full((2, 1), 1, np.float32))
    two.write(0, np.full((2, 1), 2, np.float32))
    assert [entry.state for entry in cache.entries()] == ["being written"] * 2
    assert cache.clear() == [], "what is being written stays"
    assert one.finish().tolist() == [[1.0], [1.0]] and two.finish().tolist() == [[2.0], [2.0]]
    assert os.listdir(cache.root) == [f"{key_of(PARTS)}.npy"]


def test_a_second_draft_that_ends_early_leaves_nothing(cache: FolderCache) -> None:
    one, two = cache.draft(PARTS, (2, 1)), cache.draft(PARTS, (2, 1))
    two.write(0, np.ones((1, 1), np.float32))
    two.close()
    assert len(list(cache.root.glob("*.draft"))) == 1
    one.close()
    assert os.listdir(cache.root) == [], "nor does one without rows"


def test_an_unfinished_draft_is_never_found(cache: FolderCache) -> None:
    draft = cache.draft(PARTS, (2, 1))
    draft.write(0, np.ones((1, 1), np.float32))
    with pytest.raises(AssertionError, match="1 rows of 2 were written"):
        draft.finish()
    draft.close()
    assert cache.get(PARTS) is None
    (entry,) = cache.entries()
    sizes = [path.stat().st_size for path in cache.root.iterdir()]
    assert (entry.state, entry.size_bytes, len(sizes)) == ("unfinished", sum(sizes), 2)
    assert cache.clear() == [entry] and os.listdir(cache.root) == []


KILLED = """
import sys, time
import numpy as np
from headstart.system.cache import FolderCache
cache = FolderCache(sys.argv[1])
drafts = [cache.draft({"n": 0}, (9, 1)) for _ in range(2)]  # the second has a file of its own
for draft in drafts:
    draft.write(0, np.ones((4, 1), np.float32))
print("written", flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_leaves_counts_and_goes(cache: FolderCache) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(cache.root)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"written\n"
        assert {one.state for one in cache.entries()} == {"being written"}
        process.kill()
    assert sorted(one.state for one in cache.entries()) == ["unfinished", "unusable"]
    put(cache, {"n": 1}, np.zeros(3))
    assert sorted(one.state for one in cache.entries()) == ["complete", "unfinished"], "the other is swept"
    put(FolderCache(cache.root, limit_bytes=300), {"n": 2}, np.zeros(3))
    assert [one.parts for one in cache.entries()] == [{"n": 2}], "unfinished rows count in the limit"


def test_default_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"
    assert default_cache().root == tmp_path / "here" / "features"
    assert default_cache().limit_bytes == 20 * 2**30
    monkeypatch.setenv("HEADSTART_CACHE_LIMIT_GB", "0.5")
    assert default_cache().limit_bytes == 2**29
    monkeypatch.delenv("HEADSTART_CACHE")
    assert cache_root().name == "headstart"
    assert not (tmp_path / "here").exists()  # asking makes nothing


@pytest.mark.parametrize("text", ["0", "-1", "ten", "", "nan", "inf", "1e999"])
def test_a_bad_limit_is_one_sentence(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HEADSTART_CACHE_LIMIT_GB", text)
    with pytest.raises(
        SettingError, match=r"HEADSTART_CACHE_LIMIT_GB is .*, expected a number of gigabytes above 0"
    ):
        default_cache()
