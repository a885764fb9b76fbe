"""Intervals against published numbers, and against the coverage they promise."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import SettingError
from headstart.evaluation.intervals import wilson


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
    with pytest.raises(SettingError, match=r"is .*, expected .*; pass"):
        wilson(successes, n, level)
