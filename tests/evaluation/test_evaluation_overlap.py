"""Draws of labels from a small pool share images, and say less about new labels than independent draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.errors import SettingError
from headstart.evaluation import paired_difference
from headstart.evaluation.spread import of_draws, of_fold_draws
from headstart.workflows.comparison.protocol import Protocol, rounds_of, shared_labels


def of_pool(n_images: int) -> Dataset:
    pixels = np.arange(n_images, dtype=np.uint16).view(np.uint8).reshape(n_images, 1, 2, 1)
    return Dataset("pool", pixels, np.array(["a", "b"])[np.arange(n_images) % 2], ("a", "b"))


def test_draws_share_as_many_images_as_their_share_of_the_pool():
    for n_images, expected in ((24, 5 / 12), (400, 5 / 200)):
        rounds = rounds_of(of_pool(n_images), 10, [5], Protocol((5,), 20))[5]
        assert shared_labels(rounds) == pytest.approx(expected, abs=0.03)
    assert shared_labels(rounds[:1] * 5) == 0.0  # the same draw for several networks


def test_folds_share_labels_too():
    protocol = replace(Protocol((5,), 20), kind="folds", n_folds=10)
    rounds = rounds_of(of_pool(60), 60, [5], protocol)[5]
    assert shared_labels(rounds) == pytest.approx(5 / 28.5, abs=0.03)


def test_the_interval_holds_the_truth_of_new_labels_where_draws_share_many():
    """The value of a draw is the mean of what its images contribute; the truth is 0."""
    held = {0.0: 0, 5 / 12: 0}
    rng, n_studies = np.random.default_rng(0), 300
    for _ in range(n_studies):
        pool = rng.normal(size=12)
        draws = np.array([pool[rng.permutation(12)[:5]].mean() for _ in range(20)])
        values = draws[:, None] + 0.2 * rng.normal(size=60) + 0.1 * rng.normal(size=(20, 60))
        for overlap in held:
            spread = of_draws(values, overlap=overlap)
            held[overlap] += abs(values.mean()) <= spread.half_width(0.95)
    assert held[0.0] / n_studies < 0.75
    assert 0.91 < held[5 / 12] / n_studies <= 1.0


def test_draws_that_differ_no_more_than_noise_does_leave_a_finite_interval():
    """Five draws of 5 of 8 labels: degrees of freedom fell to 0.06, and the interval was -100 to 100 points."""
    values = np.random.default_rng(0).normal(size=(5, 300)) * 0.4
    spread = of_draws(values, overlap=5 / 8)
    assert spread.fixed == 0.0 and spread.freedom >= 4.0
    assert spread.half_width(0.95) < 0.1


def test_folds_with_shared_labels_are_less_certain():
    rng, folds = np.random.default_rng(0), np.repeat(np.arange(10), 10)
    values = 0.5 * rng.normal(size=10)[folds] + rng.normal(size=100)
    apart, shared = of_fold_draws(values, folds), of_fold_draws(values, folds, 0.2)
    assert shared.variance == pytest.approx(apart.variance + apart.fixed * 10 * 0.2 / 0.8)
    assert shared.fixed > apart.fixed > 0


@pytest.mark.parametrize("overlap", [-0.1, 1.0, float("nan")])
def test_a_wrong_share_is_refused(overlap):
    right = np.ones((2, 4), bool)
    with pytest.raises(SettingError, match=r"overlap is .*, expected a share of at least 0 and below 1"):
        paired_difference(right, right, overlap=overlap)
