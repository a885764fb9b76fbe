"""Differences over folds: the formulas, certainty from repeats, false calls, and input that is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from headstart.errors import ShapeError
from headstart.evaluation.resampled import fold_draws_difference, folds_difference


def _gain(n, only_a, only_b, rounds=1):
    gain = np.zeros(n)
    gain[:only_a], gain[only_a : only_a + only_b] = 1, -1
    return np.tile(gain, (rounds, 1))


def test_all_labels_are_read_on_the_means_of_images_over_the_rounds():
    # and a quarter more, because the models of all folds learn from nearly the same images
    rng = np.random.default_rng(0)
    gain = np.stack([rng.permutation(_gain(120, 14, 5)[0]) for _ in range(3)])
    found = folds_difference(gain)
    error = np.sqrt(1.25 * gain.mean(axis=0).var(ddof=1) / 120)
    low, high = t.interval(0.95, 119, gain.mean(), error)
    assert (found.value, found.low, found.high) == pytest.approx((gain.mean(), low, high))


def test_repeats_of_the_same_folds_do_not_make_certainty():
    once, often = folds_difference(_gain(100, 12, 4)), folds_difference(_gain(100, 12, 4, rounds=50))
    assert (once.low, once.high, once.p_value) == pytest.approx((often.low, often.high, often.p_value))


def test_of_few_images_the_error_is_larger():
    few, many = folds_difference(_gain(50, 6, 2)), folds_difference(_gain(52, 6, 2))
    assert few.high - few.low > 1.15 * (many.high - many.low)


def test_few_labels_are_read_on_the_folds():
    rng = np.random.default_rng(0)
    gain, folds = rng.permutation(_gain(200, 30, 10)[0]), np.arange(200) % 20
    means = np.array([gain[folds == fold].mean() for fold in range(20)])
    found = fold_draws_difference(gain, folds)
    assert found.value == pytest.approx(gain.mean())
    assert found.p_value == pytest.approx(2 * t.sf(means.mean() / (means.std(ddof=1) / np.sqrt(20)), 19))


def test_folds_of_unequal_size_count_by_their_images():
    gain, folds = np.array([1.0, 0, 0, 0, 0]), np.array([0, 1, 1, 2, 2])
    assert fold_draws_difference(gain, folds).value == pytest.approx(1 / 5)


def test_no_difference_on_any_image_is_not_known_to_the_last_image():
    for n in (100, 10_000):
        found = folds_difference(np.zeros((3, n)))
        assert (found.value, found.p_value) == (0.0, 1.0)
        assert 0.9 < found.high / (3.84 / (n + 3.84)) < 1.1 and found.low == -found.high


def test_victory_on_every_image_is_not_certain():
    every = folds_difference(np.ones((2, 100)))
    assert 0 < every.p_value < 1e-6 and 0.9 < every.low < every.high == 1.0


def test_the_difference_turns_with_its_sign():
    gain, folds = _gain(90, 11, 4), np.arange(90) % 18
    for one, other in (
        (folds_difference(gain), folds_difference(-gain)),
        (fold_draws_difference(gain[0], folds), fold_draws_difference(-gain[0], folds)),
    ):
        assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
        assert one.p_value == pytest.approx(other.p_value)


def test_false_calls_are_as_rare_as_promised_and_were_not_over_predictions():
    """Two thresholds learned from halves of the features, equally good, in three rounds of five folds."""
    called, naive, rng, n_studies = 0, 0, np.random.default_rng(0), 400
    for _ in range(n_studies):
        labels = rng.integers(0, 2, 60)
        features = rng.normal(size=(60, 2)) + labels[:, None]
        gain = np.zeros((3, 60))
        for one in gain:
            order = rng.permutation(60).reshape(5, 12)
            for fold in range(5):
                held, train = order[fold], np.delete(order, fold, axis=0).ravel()
                middle = sum(features[train][labels[train] == code].mean(axis=0) for code in (0, 1)) / 2
                right = (features[held] > middle) == labels[held][:, None].astype(bool)
                one[held] = right[:, 0].astype(float) - right[:, 1]
        called += folds_difference(gain).p_value < 0.05
        spread = gain.std(ddof=1) / np.sqrt(gain.size)  # as if the 180 predictions were of 180 images
        naive += abs(gain.mean()) / spread > 1.96
    assert called / n_studies < 0.07 and naive / n_studies > 0.15


@pytest.mark.parametrize("gain", [np.zeros(5), np.zeros((2, 1)), np.zeros((2, 3, 4))])
def test_wrong_rounds_are_refused(gain):
    with pytest.raises(ShapeError, match="gain has shape"):
        folds_difference(gain)


@pytest.mark.parametrize(("gain", "folds"), [((5,), (4,)), ((2, 5), (2, 5)), ((5,), (5,))])
def test_wrong_folds_are_refused(gain, folds):
    with pytest.raises(ShapeError, match="gain and folds have shapes"):
        fold_draws_difference(np.zeros(gain), np.zeros(folds, int))
