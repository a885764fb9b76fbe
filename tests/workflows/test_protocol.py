"""Protocols: the rule by size, training and test images, what stays together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headstart.data.clusters import with_clusters
from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays
from headstart.errors import DataError, SettingError
from headstart.workflows.comparison.protocol import (
    EvaluationSetup,
    Protocol,
    TrainTest,
    decide,
    rounds_of,
    smallest_class,
)


def blank(n_images: int, *, groups: int = 0, n_test: int = 0) -> Dataset:
    """Images of ``a`` and ``b`` in turn, by so many groups, the last of them a test split."""
    labels = np.array(["a", "b"] * n_images)[:n_images]
    whose = np.arange(n_images) // 2 % groups if groups else None
    splits = ["train"] * (n_images - n_test) + ["test"] * n_test if n_test else None
    return from_arrays(np.zeros((n_images, 8, 8), np.uint8), labels, groups=whose, splits=splits)


def splits_of_round(
    setup: EvaluationSetup, budgets: tuple[int, ...] = ()
) -> dict[int | None, list[list[TrainTest]]]:
    return rounds_of(setup.pool, len(setup.test), budgets, setup.protocol)


@pytest.mark.parametrize(
    ("dataset", "kind", "said"),
    [
        (blank(27), "folds", "10 folds, 3 times"),
        (blank(14), "folds", "7 folds, 3 times"),
        (blank(999), "folds", "a t-test over images"),
        (blank(1_000), "holdout", "tested on 200 others (a stratified 20%, held out at random)"),
        (blank(700, n_test=200), "holdout", "tested on 200 others (the dataset's own test split)"),
        (blank(700, n_test=199), "folds", "its splits pooled"),
        (blank(90, groups=9), "grouped", "9 folds of whole groups"),
        (blank(90, groups=3), "grouped", "3 folds of whole groups"),
        (
            blank(700, groups=9, n_test=199),
            "grouped",
            "splits pooled, were split into 9 folds of whole groups",
        ),
        (
            blank(700, groups=9, n_test=200),
            "holdout",
            "(the dataset's own test split), which were used once",
        ),
    ],
)
def test_the_rule_depends_on_size_and_is_stated(dataset: Dataset, kind: str, said: str) -> None:
    setup = decide(dataset)
    assert setup.protocol.kind == kind and said in setup.sentence


def test_a_test_split_of_new_groups_is_stated() -> None:
    splits = np.where(np.arange(480) // 2 % 12 < 6, "train", "test")
    setup = decide(replace(blank(480, groups=12), splits=splits))
    assert setup.protocol.kind == "holdout"
    assert "(the dataset's own test split; 6 groups, none of them in the training images)" in setup.sentence


def test_an_external_test_set_is_used_whatever_its_size() -> None:
    setup = decide(blank(40, n_test=10), blank(20, groups=5))
    assert setup.protocol.kind == "external" and setup.judged_on == "external test"
    assert (len(setup.pool), len(setup.test)) == (30, 20)  # its own test split is not learnt from
    assert "20 images by 5 groups" in setup.sentence and "robust to clusters" in setup.sentence


def test_every_image_is_tested_once_a_round_and_never_trained_on() -> None:
    for dataset in (blank(60), blank(27), blank(90, groups=9)):
        setup = decide(dataset, protocol=Protocol(draws=3))
        for budget, rounds in splits_of_round(setup, (2,)).items():
            for each in rounds:
                test = np.concatenate([one.test for one in each])
                assert sorted(test.tolist()) == list(range(len(dataset)))
                assert not any(set(one.train) & set(one.test) for one in each)
                if budget is not None:
                    assert {len(one.train) for one in each} == {2 * budget}


def test_rounds_are_as_many_as_repeats_and_budgets_draw_in_every_fold() -> None:
    folded = splits_of_round(decide(blank(60), protocol=Protocol(draws=4)), (2, 5))
    assert {budget: len(rounds) for budget, rounds in folded.items()} == {2: 1, 5: 1, None: 3}
    assert len({tuple(one.train) for one in folded[2][0]}) == 20 and len(folded[None][0]) == 10
    assert sorted(np.concatenate([one.test for one in folded[2][0]])) == list(range(60))
    for few, more in zip(folded[2][0], folded[5][0], strict=True):
        assert set(few.train) <= set(more.train)
    once = splits_of_round(decide(blank(27), kind="leave-one-out", protocol=Protocol(draws=4)))
    assert len(once[None]) == 1 and len(once[None][0]) == 27
    held = splits_of_round(decide(blank(1_000), protocol=Protocol(draws=4)), (5,))
    assert {budget: len(rounds) for budget, rounds in held.items()} == {5: 4, None: 1}


def test_groups_and_copies_stay_together() -> None:
    grouped = decide(blank(90, groups=9))
    for each in splits_of_round(grouped)[None]:
        for one in each:
            assert grouped.pool.groups is not None
            assert not set(grouped.pool.groups[one.train]) & set(grouped.pool.groups[one.test])
    copied = with_clusters(blank(60), [(0, 40)])
    for each in splits_of_round(decide(copied))[None]:
        assert all((0 in one.test) == (40 in one.test) for one in each)


def test_the_seed_decides_the_folds() -> None:
    def folds(seed: int) -> list[list[int]]:
        found = splits_of_round(decide(blank(60), protocol=Protocol(seed=seed, draws=1)))
        return [one.test.tolist() for one in found[None][0]]

    assert folds(0) == folds(0) != folds(1)


def test_the_smallest_class_is_counted_in_training_images() -> None:
    setup = decide(blank(60))
    assert smallest_class(setup.pool, setup.protocol) == 27
    assert smallest_class(setup.pool, replace(setup.protocol, n_folds=0, kind="holdout")) == 30


@pytest.mark.parametrize(
    ("dataset", "external", "kind", "sentence"),
    [
        (blank(60), None, "foldz", r"expected one of holdout, folds.*nearest.*folds"),
        (blank(60), None, "external", "expected a test set; name one with --test"),
        (blank(60), blank(20), "folds", "expected 'external' with one"),
        (blank(60), None, "grouped", "has no groups, expected a column group or writer"),
    ],
)
def test_protocols_that_do_not_fit_are_refused(
    dataset: Dataset, external: Dataset | None, kind: str, sentence: str
) -> None:
    with pytest.raises(SettingError, match=sentence):
        decide(dataset, external, kind=kind)


def test_a_class_of_one_group_is_refused() -> None:
    dataset = replace(
        blank(20), groups=np.where(np.arange(20) % 2, "ann", np.arange(20) % 3 // 1).astype(str)
    )
    with pytest.raises(DataError, match=r"class 'b'.*comes from one group"):
        decide(dataset)
