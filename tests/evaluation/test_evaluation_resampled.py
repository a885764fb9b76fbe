"""The corrected resampled t-test against a published example, the formula, and false calls."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t
from sklearn.datasets import make_moons
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.svm import SVC

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.resampled import resampled_difference


def test_it_gives_the_published_p():
    # scikit-learn's example "Statistical comparison of models using grid search" (1.7, section
    # "Comparing two models: frequentist approach"): rbf against linear kernel, area under the curve,
    # 10 times 10 folds of 100 points: corrected t 0.750, one-sided p 0.227
    points, labels = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel), points, labels, cv=folds, scoring="roc_auc")
        for kernel in ("rbf", "linear")
    )
    found = resampled_difference(rbf - linear, n_train=90, n_test=10, n_images=100)
    assert round(found.p_value / 2, 3) == 0.227
    assert round(t.isf(found.p_value / 2, 99), 3) == 0.750
    assert found.low < 0 < found.value < found.high


def test_it_is_the_formula_of_nadeau_and_bengio():
    # Machine TrainingParts 52 (2003), doi:10.1023/A:1024068626366: (1 / J + n2 / n1) s^2 on J - 1 degrees
    gains = np.random.default_rng(0).normal(0.03, 0.05, 15)
    found = resampled_difference(gains, n_train=160, n_test=40, n_images=200)
    error = np.sqrt((1 / 15 + 40 / 160) * gains.var(ddof=1))
    low, high = t.interval(0.95, 14, gains.mean(), error)
    assert (found.value, found.low, found.high) == pytest.approx((gains.mean(), low, high))
    assert found.p_value == pytest.approx(2 * t.sf(abs(gains.mean()) / error, 14))
    assert found.n == 200


def test_repeats_do_not_make_certainty():
    gains = np.array([0.1, 0.0, 0.05, 0.0, 0.05])
    once = resampled_difference(gains, 80, 20, 1000)
    often = resampled_difference(np.tile(gains, 1000), 80, 20, 1000)
    # 1/4 of the variance stays, of 1/5 + 1/4; the quantile goes from 2.776 to 1.960
    # the spread itself loses the one degree of freedom of one repeat
    shrunk = np.sqrt(0.25 / 0.45 * 0.8) * 1.960 / 2.776
    assert (often.high - often.low) / (once.high - once.low) == pytest.approx(shrunk, rel=0.01)


def test_the_difference_turns_with_its_sign():
    gains = np.random.default_rng(0).normal(0.03, 0.05, 10)
    one, other = resampled_difference(gains, 90, 10, 100), resampled_difference(-gains, 90, 10, 100)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p_value == other.p_value


def test_no_difference_in_any_fold_is_not_known_to_the_last_image():
    found = resampled_difference(np.zeros(10), 90, 10, 100)
    assert (found.value, found.p_value) == (0.0, 1.0)
    # 3.7 of 100 by Wilson, and Student's quantile for Gauss's
    assert found.high == pytest.approx(0.037 * 2.262 / 1.960, abs=0.001)
    assert found.low == -found.high
    assert resampled_difference(np.zeros(10), 90, 10, 10_000).high < 0.001


def test_the_same_difference_in_every_fold_is_not_certain():
    found = resampled_difference(np.full(10, 0.1), 18, 2, 20)
    assert 0.05 < found.p_value < 1
    assert found.low < 0 < found.high
    every = resampled_difference(np.ones(10), 90, 10, 100)
    assert 0 < every.p_value < 1e-6
    assert 0.9 < every.low < every.high == 1.0


def test_single_answers_vary_however_even_the_folds():
    gains = np.tile([0.1, 0.1001], 5)
    found = resampled_difference(gains, 90, 10, 100)
    half = np.sqrt(0.10005 * 0.89995 / 100) * t.ppf(0.975, 9)
    assert found.high - found.value == pytest.approx(half)


def _false_calls(test, n_repeats):
    """How often two thresholds learned from halves of the features, equally good, are found different."""
    significant, rng = 0, np.random.default_rng(0)
    for _ in range(n_repeats):
        labels = rng.integers(0, 2, 60)
        features = rng.normal(size=(60, 2)) + labels[:, None]
        gains = []
        for _ in range(3):
            order = rng.permutation(60).reshape(5, 12)
            for fold in range(5):
                held, train = order[fold], np.delete(order, fold, axis=0).ravel()
                middle = sum(features[train][labels[train] == one].mean(axis=0) for one in (0, 1)) / 2
                right = (features[held] > middle) == labels[held][:, None].astype(bool)
                gains.append(right[:, 0].mean() - right[:, 1].mean())
        significant += test(np.array(gains)) < 0.05
    return significant / n_repeats


def test_false_calls_are_as_rare_as_promised_and_were_not_without_the_correction():
    corrected = _false_calls(lambda gains: resampled_difference(gains, 48, 12, 60).p_value, 300)
    plain = _false_calls(lambda gains: resampled_difference(gains, 10**9, 12, 10**9).p_value, 300)
    assert corrected < 0.075
    assert plain > 0.15


@pytest.mark.parametrize(
    ("gains", "counts", "error", "words"),
    [
        (np.zeros(1), (9, 1, 10), ShapeError, r"gains has shape \(1,\), expected \(n_folds,\) with 2"),
        (np.zeros((2, 5)), (9, 1, 10), ShapeError, r"gains has shape \(2, 5\)"),
        (np.array([5.0, 0.0]), (9, 1, 10), SettingError, "from 0.0 to 5.0, expected -1 to 1; pass"),
        (np.array([-5.0, 0.0]), (9, 1, 10), SettingError, "from -5.0 to 0.0, expected -1 to 1"),
        (np.array([np.nan, 0.0]), (9, 1, 10), SettingError, "expected -1 to 1"),
        (np.zeros(2), (0, 1, 10), SettingError, "n_train is 0, expected 1 or more"),
        (np.zeros(2), (9, 0, 10), SettingError, "n_test is 0, expected 1 or more"),
        (np.zeros(2), (9, 1, 0), SettingError, "n_images is 0, expected 1 or more"),
    ],
)
def test_wrong_input_gets_one_sentence(gains, counts, error, words):
    with pytest.raises(error, match=words):
        resampled_difference(gains, *counts)


def test_folds_of_unequal_size_count_by_their_images() -> None:
    found = resampled_difference(np.array([1.0, 0.0, 0.0]), 4, 2, 5, [1, 2, 2])
    assert found.value == pytest.approx(1 / 5)
