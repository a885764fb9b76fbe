"""Intervals against published numbers, and against the coverage they promise."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.intervals import bootstrap_f1, bootstrap_macro, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_limits_of_newcombe_1998_table_one(successes, n, low, high):
    # Newcombe, Statistics in Medicine 17:857-872 (1998), Table I, method 3
    score = wilson(successes, n)
    assert (round(score.low, 4), round(score.high, 4)) == (low, high)
    assert score.value == successes / n
    assert score.n == n


def test_wilson_mirrors_and_holds_its_estimate_at_the_ends():
    none, every = wilson(0, 50), wilson(50, 50)
    assert (none.low, every.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - every.low)


def test_wilson_takes_a_mean_count_over_draws():
    assert wilson(80, 100).low < wilson(80.5, 100).low < wilson(81, 100).low


def test_wilson_knows_nothing_without_trials():
    score = wilson(0, 0)
    assert (score.value, score.low, score.high, score.n) == (0.0, 0.0, 1.0, 0)


def test_wilson_covers_as_often_as_it_says():
    # exact coverage, averaged over p: Agresti and Coull 1998 report about 0.95 for Wilson at n = 20
    n, shares = 20, np.linspace(0.02, 0.98, 49)
    ends = [wilson(k, n) for k in range(n + 1)]
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    ways = np.exp(logs[n] - logs - logs[::-1])
    covered = [
        sum(ways[k] * p**k * (1 - p) ** (n - k) for k in range(n + 1) if ends[k].low <= p <= ends[k].high)
        for p in shares
    ]
    assert 0.945 < np.mean(covered) < 0.965


@pytest.mark.parametrize(
    ("successes", "n", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (1, -1, 0.95), (1, 2, 95)]
)
def test_wilson_says_what_it_cannot_use(successes, n, level):
    with pytest.raises(SettingError, match=r"is .*, need .*; pass"):
        wilson(successes, n, level)


def test_bootstrap_f1_brackets_the_estimate_and_narrows_with_images():
    small = np.array([[40, 8, 2], [6, 44, 0], [1, 3, 46]])
    few, many = bootstrap_f1(small, 0), bootstrap_f1(small * 100, 0)
    for one, hundred in zip(few, many, strict=True):
        assert one.low < one.value < one.high
        assert hundred.value == pytest.approx(one.value)
        assert (one.high - one.low) / (hundred.high - hundred.low) == pytest.approx(10, rel=0.25)


def test_bootstrap_f1_is_the_seeds_and_nothing_elses():
    counts = np.array([[40, 10], [6, 44]])
    assert bootstrap_f1(counts, 3) == bootstrap_f1(counts, 3)
    assert bootstrap_f1(counts, 3) != bootstrap_f1(counts, 4)


def test_bootstrap_f1_agrees_with_resampling_the_images_themselves():
    counts = np.array([[40, 8, 2], [6, 44, 0], [1, 3, 46]])
    rng, draws = np.random.default_rng(0), []
    rows = [np.repeat(np.arange(3), row) for row in counts]
    for _ in range(1500):
        called = [rng.choice(row, row.size) for row in rows]
        hits = (called[0] == 0).sum()
        draws.append(2 * hits / (rows[0].size + sum((row == 0).sum() for row in called)))
    found = bootstrap_f1(counts, 0)[0]
    assert [found.low, found.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.012)


def test_bootstrap_f1_does_not_claim_certainty_for_a_class_without_a_mistake():
    perfect, never = (
        bootstrap_f1(np.array([[20, 0], [0, 20]]))[0],
        bootstrap_f1(np.array([[0, 9], [0, 20]]))[0],
    )
    assert perfect.value == perfect.high == 1.0
    assert 0.85 < perfect.low < 0.95
    assert never.value == never.low == 0.0
    assert 0.2 < never.high < 0.7


def test_bootstrap_f1_leaves_an_absent_class_open():
    absent = bootstrap_f1(np.array([[5, 0], [0, 0]]))[1]
    assert (absent.value, absent.low, absent.high, absent.n) == (0.0, 0.0, 1.0, 0)


@pytest.mark.parametrize("bad", [np.zeros((2, 3), int), np.zeros((2, 2)), np.array(3), np.array([[-1]])])
def test_bootstrap_f1_wants_square_counts(bad):
    with pytest.raises(ShapeError, match="need \\(n_classes, n_classes\\)"):
        bootstrap_f1(bad)


def test_bootstrap_macro_covers_about_as_often_as_it_says():
    rng, truth = np.random.default_rng(0), np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0, 0.3, 0.7]])
    exact = np.diagonal(truth).mean()
    covered = 0
    for seed in range(200):
        counts = np.stack([rng.multinomial(60, row) for row in truth])
        found = bootstrap_macro(counts, seed)[1]
        covered += found.low <= exact <= found.high
    assert 0.9 <= covered / 200 <= 0.99


def test_bootstrap_macro_does_not_claim_certainty_without_a_mistake():
    precision, recall, f1 = bootstrap_macro(np.array([[20, 0, 0], [0, 30, 0], [0, 0, 0]]))
    for score in (precision, recall, f1):
        assert score.value == score.high == 1 and 0.8 < score.low < 0.95 and score.n == 50


def test_bootstrap_macro_without_images_knows_nothing():
    assert {(one.low, one.high, one.n) for one in bootstrap_macro(np.zeros((2, 2), int))} == {(0, 1, 0)}
