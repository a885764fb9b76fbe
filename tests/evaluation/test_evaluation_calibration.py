"""Calibration against hand counts and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.calibration import reliability
from headstart.evaluation.intervals import wilson


def _guess(n_images=600, n_classes=5, seed=0, sharpness=1.0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n_images, n_classes))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = (rng.random(n_images)[:, None] > probs.cumsum(axis=1)).sum(axis=1).clip(max=n_classes - 1)
    sharp = probs**sharpness
    return sharp / sharp.sum(axis=1, keepdims=True), codes


def test_hand_counts():
    probs = np.array(
        [[0.95, 0.05, 0.0], [0.91, 0.0, 0.09], [0.2, 0.6, 0.2], [0.2, 0.55, 0.25], [0.4, 0.3, 0.3]]
    )
    found = reliability("by hand", probs, np.array([0, 1, 1, 2, 0]))
    assert [(one.low, one.high, one.accuracy.n) for one in found.bins] == [
        (0.3, 0.4, 1),
        (0.5, 0.6, 2),
        (0.9, 1.0, 2),
    ]
    assert [one.confidence for one in found.bins] == pytest.approx([0.4, 0.575, 0.93])
    assert [one.accuracy.value for one in found.bins] == [1.0, 0.5, 0.5]
    # (1 * 0.6 + 2 * 0.075 + 2 * 0.43) / 5
    assert found.ece == pytest.approx(0.322)
    # 0.05^2 * 2 and 0.91^2 + 1 + 0.09^2 and 0.4^2 + 0.2^2 * 2 and 0.2^2 + 0.55^2 + 0.75^2
    # and 0.6^2 + 0.3^2 * 2
    assert found.brier == pytest.approx((0.005 + 1.8362 + 0.24 + 0.905 + 0.54) / 5)
    assert (found.title, found.n) == ("by hand", 5)


def test_it_agrees_with_scikit_learn():
    probs, codes = _guess()
    found = reliability("t", probs, codes, n_bins=12)
    assert found.brier == pytest.approx(brier_score_loss(codes, probs, scale_by_half=False))
    assert found.nll == pytest.approx(log_loss(codes, probs))
    # no confidence lies on an edge here, where theirs goes to the bin above
    shares, means = calibration_curve(probs.argmax(axis=1) == codes, probs.max(axis=1), n_bins=12)
    assert [one.accuracy.value for one in found.bins] == pytest.approx(shares)
    assert [one.confidence for one in found.bins] == pytest.approx(means)


def test_brier_of_two_classes_is_the_published_one():
    # Brier, Monthly Weather Review 78:1-3 (1950), table 1: ten forecasts of rain and what came; 0.19
    rain = np.array([0.7, 0.9, 0.8, 0.4, 0.2, 0.0, 0.0, 0.0, 0.0, 0.1])
    came = np.array([0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    found = reliability("rain", np.column_stack([1 - rain, rain]), came)
    assert round(found.brier, 2) == 0.19


def test_bins_are_closed_above_and_hold_every_image():
    tenths = np.arange(5, 11) / 10
    found = reliability("t", np.column_stack([tenths, 1 - tenths]), np.zeros(6, int))
    assert [(one.low, one.high) for one in found.bins] == [(low / 10, (low + 1) / 10) for low in range(4, 10)]
    assert all(one.accuracy.n == 1 and one.low < one.confidence <= one.high for one in found.bins)
    # softmax in half precision can sum to a little more than 1
    over = reliability("t", np.array([[1.0005, 0.0]]), np.array([0]))
    assert over.bins[0].confidence == over.bins[0].high == 1.0


def test_each_bin_has_wilsons_interval():
    probs, codes = _guess()
    for one in reliability("t", probs, codes).bins:
        assert one.accuracy == wilson(round(one.accuracy.value * one.accuracy.n), one.accuracy.n)
    assert sum(one.accuracy.n for one in reliability("t", probs, codes, 7).bins) == 600


def test_the_error_finds_too_sure_and_too_shy():
    honest = reliability("t", *_guess(20_000))
    sure, shy = (
        reliability("t", *_guess(20_000, sharpness=3)),
        reliability("t", *_guess(20_000, sharpness=0.4)),
    )
    assert honest.ece < 0.015
    assert min(sure.ece, shy.ece) > 0.1
    assert all(one.accuracy.high < one.confidence for one in sure.bins if one.confidence > 0.6)
    assert all(one.accuracy.low > one.confidence for one in shy.bins if one.accuracy.n > 500)
    assert honest.nll < min(sure.nll, shy.nll)
    assert honest.brier < min(sure.brier, shy.brier)


def test_the_error_of_an_honest_model_is_as_large_as_the_notes_say():
    found = [reliability("t", *_guess(200, seed=seed)) for seed in range(60)]
    expected = [
        np.sqrt(2 / np.pi)
        * sum(np.sqrt(b.accuracy.n * b.confidence * (1 - b.confidence)) for b in one.bins)
        / one.n
        for one in found
    ]
    assert np.mean([one.ece for one in found]) == pytest.approx(np.mean(expected), rel=0.1)


def test_certain_and_right_is_nothing_and_certain_and_wrong_is_all():
    sure = np.eye(3)[[0, 1, 2]]
    right, wrong = reliability("t", sure, np.array([0, 1, 2])), reliability("t", sure, np.array([1, 2, 0]))
    assert (right.ece, right.brier, right.nll) == (0.0, 0.0, 0.0)
    assert (wrong.ece, wrong.brier) == (1.0, 2.0)
    assert wrong.nll == pytest.approx(-np.log(1e-7))


@pytest.mark.parametrize(
    ("probs", "codes", "n_bins", "error", "word"),
    [
        (np.ones(3), np.zeros(3, int), 10, ShapeError, "probs has shape"),
        (np.full((2, 2), 0.5), np.zeros(3, int), 10, ShapeError, "to match labels"),
        (np.full((2, 2), 0.5), np.array([0, 2]), 10, SettingError, "codes from 0 to 2, expected 0 to 1"),
        (np.full((2, 2), 0.9), np.zeros(2, int), 10, SettingError, "no probabilities"),
        (np.full((2, 2), 0.5), np.zeros(2, int), 0, SettingError, "n_bins is 0, expected 1 or more"),
    ],
)
def test_it_says_what_it_cannot_use(probs, codes, n_bins, error, word):
    with pytest.raises(error, match=word):
        reliability("t", probs, codes, n_bins)
