"""The cache: found by content, whole or absent, never larger than asked."""

from __future__ import annotations

import inspect
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.errors import CacheError, SettingError
from headstart.system.cache import Cache, FolderCache, NullCache, cache_root, default_cache, key_of

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


def test_clear_empties_the_folder(cache: FolderCache) -> None:
    for number in range(3):
        put(cache, {"n": number}, np.zeros(2))
    assert cache.clear() == 3 and os.listdir(cache.root) == [] and cache.clear() == 0


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
    assert sorted(os.listdir(cache.root)) == [f"{key_of(PARTS)}.json", f"{key_of(PARTS)}.npy"]


def test_limit_removes_what_was_used_longest_ago(tmp_path: Path) -> None:
    each = np.zeros(1_000, np.float32)  # 4,128 bytes on disk
    cache = FolderCache(tmp_path, limit_bytes=3 * 4_200)
    for number in range(3):
        put(cache, {"n": number}, each)
        os.utime(tmp_path / f"{key_of({'n': number})}.npy", (number + 1_000, number + 1_000))
    assert cache.get({"n": 0}) is not None  # used just now, though written first
    put(cache, {"n": 3}, each)
    assert [cache.get({"n": number}) is not None for number in range(4)] == [True, False, True, True]
    assert len(os.listdir(tmp_path)) == 6


def test_an_array_larger_than_the_limit_is_kept_alone(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, limit_bytes=100)
    put(cache, {"n": 0}, np.zeros(100))
    put(cache, {"n": 1}, np.zeros(100))
    assert cache.get({"n": 0}) is None and cache.get({"n": 1}) is not None


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "pickle"])
def test_a_damaged_entry_counts_as_absent(cache: FolderCache, damage: str) -> None:
    put(cache, PARTS, np.arange(1_000, dtype=np.float32))
    path = cache.root / f"{key_of(PARTS)}.npy"
    whole = path.read_bytes()
    if damage == "pickle":
        np.save(path, np.array([{"code": 1}], object), allow_pickle=True)
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[damage])
    assert cache.get(PARTS) is None
    put(cache, PARTS, np.arange(2.0))
    found = cache.get(PARTS)
    assert found is not None and found.tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("note", ["{", "[]", "{}", '{"parts": {}}', ""])
def test_a_damaged_note_harms_neither_list_nor_store(cache: FolderCache, note: str) -> None:
    put(cache, PARTS, np.zeros(3))
    (cache.root / f"{key_of(PARTS)}.json").write_text(note)
    assert cache.entries() == []
    put(cache, {"n": 1}, np.zeros(3))
    assert len(cache.entries()) == 1


def test_null_cache_has_the_same_methods_and_stores_nothing() -> None:
    methods = [name for name in vars(Cache) if not name.startswith("_")]
    assert methods == ["get", "draft"]
    for name in methods:
        signatures = [inspect.signature(getattr(kind, name)) for kind in (Cache, NullCache, FolderCache)]
        assert signatures[0] == signatures[1] == signatures[2]
    null, array = NullCache(), np.zeros(3)
    assert np.array_equal(put(null, PARTS, array)[:, 0], array) and null.get(PARTS) is None


@pytest.mark.parametrize("obstacle", ["root is a file", "parent is a file", "disk is full"])
def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    (tmp_path / "file").write_text("x")
    root = {"root is a file": tmp_path / "file", "parent is a file": tmp_path / "file" / "below"}.get(
        obstacle, tmp_path / "store"
    )
    if obstacle == "disk is full":

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CacheError, match=r"^cache '.*' cannot be written \(.+\), expected space and permission; .*"
    ):
        put(FolderCache(root), PARTS, np.zeros(3))
    assert FolderCache(root).get(PARTS) is None


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
    first.write(0, rows[:2])
    first.close()
    (draft,) = cache.root.glob("*.draft")
    draft.write_bytes(draft.read_bytes()[:-5])
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
    assert one.finish().tolist() == [[1.0], [1.0]] and two.finish().tolist() == [[2.0], [2.0]]


def test_an_unfinished_draft_is_never_found(cache: FolderCache) -> None:
    draft = cache.draft(PARTS, (2, 1))
    draft.write(0, np.ones((1, 1), np.float32))
    with pytest.raises(AssertionError, match="1 rows of 2 were written"):
        draft.finish()
    draft.close()
    assert cache.get(PARTS) is None and cache.clear() == 0 and os.listdir(cache.root) == []


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
