"""The bootstrap against intervals that are known, and against what it must draw."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.bootstrap import bootstrap, macro_f1
from headstart.evaluation.intervals import wilson


def test_a_mean_gets_the_interval_of_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap(lambda images: float(values[images].mean()), 400, n_draws=4000)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
    assert found.n == 400


def test_accuracy_gets_nearly_wilsons_interval():
    right = np.arange(500) % 5 > 0
    found, plain = bootstrap(lambda images: float(right[images].mean()), 500), wilson(400, 500)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.006)


def test_plain_draws_are_of_all_images_and_as_many():
    seen = []
    bootstrap(lambda images: float(len(seen.append(images) or images)), 50, n_draws=100)
    assert all(images.dtype == np.intp and images.shape == (50,) for images in seen)
    assert np.array_equal(seen[0], np.arange(50))
    assert np.bincount(np.concatenate(seen[1:]), minlength=50).min() > 60
    assert len({images.tobytes() for images in seen}) == 101


def test_strata_keep_their_sizes():
    codes, seen = np.array([2, 0, 1, 0, 2, 2, 0, 0, 1, 2]), []
    bootstrap(lambda images: float(len(seen.append(images) or images)), 10, strata=codes, n_draws=100)
    assert {tuple(np.bincount(codes[images])) for images in seen} == {(4, 2, 4)}
    assert len({images.tobytes() for images in seen}) > 90


def test_groups_come_whole():
    groups, seen = np.repeat(["ann", "bob", "cy", "di"], [1, 2, 3, 4]), []
    bootstrap(lambda images: float(len(seen.append(images) or images)), 10, groups=groups, n_draws=200)
    for images in seen:
        times = np.bincount(images, minlength=10)
        for name in "ann", "bob", "cy", "di":
            assert len(set(times[groups == name])) == 1
        assert sum(times[[0, 1, 3, 6]]) == 4
    assert {len(images) for images in seen} > {6, 10, 14}


def test_strata_narrow_what_depends_on_the_classes_and_groups_widen():
    easy = np.repeat([True, False], 100)
    plain = bootstrap(lambda images: float(easy[images].mean()), 200)
    by_class = bootstrap(lambda images: float(easy[images].mean()), 200, strata=easy)
    by_writer = bootstrap(lambda images: float(easy[images].mean()), 200, groups=np.arange(200) // 20)
    assert by_class.high - by_class.low == 0
    assert by_writer.high - by_writer.low > 3 * (plain.high - plain.low)


def test_the_seed_and_the_level_decide():
    values = np.random.default_rng(0).normal(size=100)

    def mean(images):
        return float(values[images].mean())

    assert bootstrap(mean, 100, seed=3) == bootstrap(mean, 100, seed=3) != bootstrap(mean, 100, seed=4)
    narrow, wide = bootstrap(mean, 100, level=0.5), bootstrap(mean, 100, level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_the_interval_holds_its_estimate():
    # the least of a sample is never below the least of all, and mostly above
    values = np.random.default_rng(0).normal(size=8)
    found = bootstrap(lambda images: float(values[images].min() + (len(set(images)) < 8)), 8)
    assert found.low == found.value < found.high


def test_macro_f1_covers_about_as_often_as_it_says():
    rng, codes = np.random.default_rng(0), np.repeat([0, 1, 2], [80, 60, 60])
    chances = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.0, 0.3, 0.7]])
    many = np.repeat([0, 1, 2], [80_000, 60_000, 60_000])
    draw = lambda true: (rng.random(len(true))[:, None] > chances[true].cumsum(axis=1)).sum(axis=1)  # noqa: E731
    truth, covered = macro_f1(many, draw(many), 3), 0
    for seed in range(100):
        called = draw(codes)
        found = bootstrap(
            lambda images, called=called: macro_f1(codes[images], called[images], 3),
            200,
            strata=codes,
            n_draws=300,
            seed=seed,
        )
        covered += found.low <= truth <= found.high
    assert 0.88 <= covered / 100 <= 1


@pytest.mark.parametrize("n_classes", [2, 5, 9])
def test_macro_f1_is_scikit_learns(n_classes):
    rng = np.random.default_rng(n_classes)
    codes, called = rng.integers(0, n_classes, (2, 60))
    assert macro_f1(codes, called, n_classes) == pytest.approx(f1_score(codes, called, average="macro"))


def test_macro_f1_leaves_out_what_is_not_there():
    codes, called = np.array([0, 0, 4]), np.array([0, 2, 4])
    assert macro_f1(codes, called, 9) == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert macro_f1(codes[:0], called[:0], 3) == 0.0


def test_wrong_input_gets_one_sentence():
    codes = np.zeros(4, int)
    with pytest.raises(
        SettingError, match=r"strata and groups are both given, need one of them.*; pass groups"
    ):
        bootstrap(len, 4, strata=codes, groups=codes)
    with pytest.raises(ShapeError, match=r"strata has shape \(3,\), need \(4,\); pass"):
        bootstrap(len, 4, strata=codes[:3])
    with pytest.raises(SettingError, match="groups holds 1 group, need 2 or more"):
        bootstrap(len, 4, groups=codes)
    with pytest.raises(SettingError, match="n_images is 0, need 1 or more"):
        bootstrap(len, 0)
    with pytest.raises(SettingError, match="n_draws is 10, need 100 or more"):
        bootstrap(len, 4, n_draws=10)
    with pytest.raises(SettingError, match="level is 95, need"):
        bootstrap(len, 4, level=95)
    with pytest.raises(SettingError, match=r"statistic is nan for [1-9][0-9]* of 2000 resamples, need"):
        bootstrap(lambda images: float("nan") if 0 in images else 1.0, 4)
    with pytest.raises(ShapeError, match="need 4 to match"):
        macro_f1(codes, codes[:2], 1)
