"""Large matrices are read in parts, and joined or selected in files that leave nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import UnwritableError
from headstart.system import mapped
from headstart.system.mapped import in_floats, joined, parts_of, taken


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)


def test_parts_cover_all_rows_once_and_read_the_same_again(tmp_path: Path, rows: np.ndarray) -> None:
    np.save(tmp_path / "rows.npy", rows)
    for mode in ("r", "c", "r+"):
        read = np.asarray(np.load(tmp_path / "rows.npy", mmap_mode=mode))
        if mode == "c":
            read[0, 0] = 7.0
        for _ in range(2):
            assert sum(
                float(read[here].sum(dtype=np.float64)) for here in parts_of(read, 999)
            ) == pytest.approx(float(read.sum(dtype=np.float64)))
        assert mode != "c" or read[0, 0] == 7.0, "changes of a private copy stay"
    assert list(parts_of(rows[:0], 10)) == []


def test_small_ones_are_joined_in_memory(rows: np.ndarray) -> None:
    assert joined([rows]) is rows
    both = joined([rows, rows[:5]])
    assert not isinstance(both, np.memmap) and (both == np.concatenate([rows, rows[:5]])).all()


def test_large_ones_are_joined_in_a_file_that_leaves_nothing(
    rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "LARGE_VALUES", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    both = joined([rows, rows[::-1], rows[:1]])
    assert isinstance(both, np.memmap) and (both == np.concatenate([rows, rows[::-1], rows[:1]])).all()
    indices = np.random.default_rng(1).permutation(len(rows))[:15_000]
    some = taken(both, indices)
    assert isinstance(some, np.memmap) and (some == rows[indices]).all()
    with pytest.raises(ValueError, match="read-only"):
        some[0] = 0
    assert list(tmp_path.iterdir()) == []


def test_other_numbers_become_floats(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_floats(rows) is rows
    halves = rows.astype(np.float16)
    assert not isinstance(in_floats(halves), np.memmap) and in_floats(halves).dtype == np.float32
    monkeypatch.setattr(mapped, "LARGE_VALUES", 100)
    assert in_floats(rows) is rows
    found = in_floats(halves)
    assert isinstance(found, np.memmap) and (found == halves.astype(np.float32)).all()


def test_all_rows_in_order_are_the_matrix_itself(rows: np.ndarray) -> None:
    assert taken(rows, np.arange(len(rows))) is rows
    assert (taken(rows, np.arange(len(rows))[::-1]) == rows[::-1]).all()
    assert (taken(rows, np.array([3, 3])) == rows[[3, 3]]).all()


def test_a_full_disk_is_one_sentence(
    rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "LARGE_VALUES", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UnwritableError, match="cannot be written"):
        joined([rows, rows])
