"""Splits: stratified, whole groups, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data import folds, holdout, nested_subsets
from headstart.errors import DataError, SettingError, ShapeError

LABELS = np.repeat(["a", "b", "c"], [50, 30, 20])
GROUPS = np.arange(100) % 12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=60).filter(lambda x: max(x.count(v) for v in x) > 1),
    st.floats(0.05, 0.95),
    st.integers(0, 9),
)
def test_holdout_keeps_its_promises(labels: list[int], share: float, seed: int) -> None:
    rest, held = holdout(labels, share, seed)
    assert sorted([*rest, *held]) == list(range(len(labels)))
    assert np.all(np.diff(rest) > 0) and np.all(np.diff(held) > 0)
    for value in set(labels):
        n_held = sum(labels[i] == value for i in held)
        n = labels.count(value)
        assert n_held == 0 if n == 1 else 1 <= n_held <= n - 1
        assert n == 1 or abs(n_held - share * n) <= 1


def test_holdout_meets_the_share_as_a_whole() -> None:
    """Rounding class by class would hold out 27 or 54 of 108: 27 classes of 4 at 0.4."""
    _, held = holdout(np.repeat(np.arange(27), 4), 0.4, seed=0)
    assert len(held) == 43


def test_draws_depend_on_the_seed_only() -> None:
    np.random.seed(0)  # the global generator must not matter
    first = holdout(LABELS, 0.2, 3)
    np.random.seed(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, holdout(LABELS, 0.2, 3), strict=True))
    assert not np.array_equal(first[1], holdout(LABELS, 0.2, 4)[1])
    rng = np.random.default_rng(0)
    assert not np.array_equal(holdout(LABELS, 0.2, rng)[1], holdout(LABELS, 0.2, rng)[1])
    assert np.array_equal(folds(LABELS, 3, 1, GROUPS)[0][1], folds(LABELS, 3, 1, GROUPS)[0][1])
    assert not np.array_equal(folds(LABELS, 3, 1)[0][1], folds(LABELS, 3, 2)[0][1])


@pytest.mark.parametrize("seed", range(5))
def test_holdout_keeps_groups_whole(seed: int) -> None:
    rest, held = holdout(LABELS, 0.25, seed, GROUPS)
    assert not set(GROUPS[rest]) & set(GROUPS[held])
    assert set(LABELS[rest]) == set(LABELS[held]) == {"a", "b", "c"}
    assert 15 <= len(held) <= 35


def test_holdout_finds_the_groups_that_reach_every_class() -> None:
    """Ten groups of one class each: held out must be groups of both classes."""
    labels = np.repeat(["a", "b"], [80, 20])
    groups = np.repeat(np.arange(10), 10)
    for seed in range(20):
        rest, held = holdout(labels, 0.2, seed, groups)
        assert set(labels[rest]) == set(labels[held]) == {"a", "b"}


def test_a_class_in_one_group_is_learnt_from() -> None:
    labels, groups = ["a", "a", "a", "a", "b", "b"], [0, 1, 2, 3, 4, 4]
    for seed in range(10):
        assert 4 not in np.asarray(groups)[holdout(labels, 0.3, seed, groups)[1]]


def test_groups_that_cannot_be_parted() -> None:
    with pytest.raises(
        DataError, match=r"^groups has 1 group, expected at least 2 to split them; leave groups out$"
    ):
        holdout(["a", "b"], 0.5, 0, ["g", "g"])
    with pytest.raises(
        DataError, match=r"^class '[ab]' would be held out with all its groups, expected some to learn fro"
    ):
        holdout(["a", "a", "b", "b"], 0.5, 0, ["g", "g", "h", "h"])


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(
        SettingError, match=rf"^share is {share}, expected a number between 0 and 1; 0.2 holds out a fifth$"
    ):
        holdout(LABELS, share, 0)


def test_nothing_to_hold_out() -> None:
    with pytest.raises(
        DataError, match=r"^labels has no class with 2 images, expected at least one such class; add images$"
    ):
        holdout(["a", "b"], 0.5, 0)


def test_columns_of_another_shape() -> None:
    with pytest.raises(
        ShapeError, match=r"^labels has shape \(0,\), expected \(n_images,\) with at least 1; pass one per"
    ):
        holdout([], 0.5, 0)
    with pytest.raises(
        ShapeError, match=r"^groups has shape \(1,\), expected \(100,\) to match labels; pass one per image$"
    ):
        folds(LABELS, 2, 0, [1])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=5), st.integers(2, 6), st.integers(0, 9))
def test_folds_keep_their_promises(sizes: list[int], k: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    k = min(k, len(labels))
    parted = folds(labels, k, seed)
    assert sorted(np.concatenate([val for _, val in parted])) == list(range(len(labels)))
    assert max(len(val) for _, val in parted) - min(len(val) for _, val in parted) <= 1
    for train, val in parted:
        assert not set(train) & set(val)
        assert len(train) + len(val) == len(labels)
        assert set(labels[train]) == set(labels)
        for code, size in enumerate(sizes):
            assert abs((labels[val] == code).sum() - size / k) < 1


def test_leave_one_out() -> None:
    assert [len(val) for _, val in folds(["a"] * 3 + ["b"] * 2, 5, 0)] == [1] * 5


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_groups_whole(seed: int) -> None:
    for train, val in folds(LABELS, 4, seed, GROUPS):
        assert not set(GROUPS[train]) & set(GROUPS[val])
        assert set(LABELS[val]) == set(LABELS[train]) == {"a", "b", "c"}
        assert 20 <= len(val) <= 30


def test_as_many_folds_as_groups() -> None:
    parted = folds(LABELS, 12, 0, GROUPS)
    assert sorted(GROUPS[val][0] for _, val in parted) == list(range(12))


def test_groups_of_one_class_each_are_spread_as_well() -> None:
    labels, groups = np.repeat(["a", "b"], 8), np.repeat(np.arange(8), 2)
    for seed in range(5):
        assert [len(val) for _, val in folds(labels, 8, seed, groups)] == [2] * 8
        assert [len(val) for _, val in folds(labels, 4, seed, groups)] == [4] * 4
        for _, val in folds(labels, 8, seed, np.arange(16)):
            assert labels[val].tolist() == ["a", "b"]


@pytest.mark.parametrize("k", [1, 0, 101])
def test_folds_out_of_range(k: int) -> None:
    with pytest.raises(
        SettingError, match=rf"^k is {k}, expected 2 to 100, the number of images; choose fewer folds$"
    ):
        folds(LABELS, k, 0)
    with pytest.raises(SettingError, match=r"^k is 13, expected 2 to 12, the number of groups"):
        folds(LABELS, 13, 0, GROUPS)


def test_a_class_that_no_fold_could_learn() -> None:
    with pytest.raises(
        DataError, match=r"^labels has only 1 image of class 'b', expected at least 2, one for training and"
    ):
        folds(["a", "a", "b"], 2, 0)
    with pytest.raises(DataError, match=r"^labels has only 1 group of classes 'a', 'b', expected at least 2"):
        folds(["a", "a", "b", "b"], 2, 0, [0, 0, 1, 1])


def test_subsets_lie_within_each_other() -> None:
    drawn = nested_subsets(LABELS, (1, 5, 20), seed=0)
    assert list(drawn) == [1, 5, 20]
    assert set(drawn[1]) < set(drawn[5]) < set(drawn[20])
    for size, indices in drawn.items():
        assert np.unique(LABELS[indices], return_counts=True)[1].tolist() == [size] * 3
        assert np.all(np.diff(indices) > 0)
    assert np.array_equal(nested_subsets(LABELS, (5,), seed=0)[5], drawn[5])
    assert not np.array_equal(nested_subsets(LABELS, (5,), seed=1)[5], drawn[5])


def test_subsets_that_cannot_be() -> None:
    with pytest.raises(
        DataError,
        match=r"^labels has 20 images at the least of classes 'b', 'c', expected 40 of each; choose",
    ):
        nested_subsets(LABELS, (1, 40), seed=0)
    with pytest.raises(
        SettingError, match=r"^per_class is \(0, 5\), expected sizes of at least 1; such as \(1, 5, 10\)$"
    ):
        nested_subsets(LABELS, (0, 5), seed=0)


def test_folds_that_an_even_deal_does_not_find_are_found() -> None:
    """Drawers who each drew some letters: two folds exist in which every letter is in both."""
    labels = ["a", "a", "b", "b", "c", "c", "d", "d"]
    drawers = ["x", "y", "x", "y", "y", "z", "z", "w"]
    for seed in range(30):
        for _, held in folds(labels, 2, seed, drawers):
            assert sorted(np.asarray(labels)[held]) == ["a", "b", "c", "d"]
