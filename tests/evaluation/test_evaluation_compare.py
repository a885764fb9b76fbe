"""Comparisons against published examples, and against the coverage they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.compare import mcnemar, paired_difference, verdict
from headstart.evaluation.records import Difference


def _pair(both, only_a, only_b, neither):
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


@pytest.mark.parametrize(
    ("table", "p_value"),
    # Fagerland, Lydersen, Laake, BMC Medical Research Methodology 13:91 (2013): mid-p test
    # on Bentur et al. 2009 (airway hyper-responsiveness); Cavo et al. 2012 (complete response)
    [((1, 1, 7, 12), 0.0391), ((59, 6, 16, 80), 0.0347)],
)
def test_mcnemar_gives_the_published_mid_p(table, p_value):
    assert round(mcnemar(*_pair(*table)), 4) == p_value


def test_mcnemar_is_a_fair_coin_over_the_disagreements():
    for only_a, only_b in [(0, 1), (3, 12), (40, 20)]:
        flips = only_a + only_b
        wanted = binomtest(only_a, flips).pvalue - binom.pmf(only_a, flips, 0.5)
        assert mcnemar(*_pair(30, only_a, only_b, 7)) == pytest.approx(wanted)
    assert mcnemar(*_pair(30, 5, 5, 7)) == 1.0
    assert mcnemar(*_pair(10, 0, 0, 3)) == 1.0


@pytest.mark.parametrize(
    ("table", "low", "high"),
    # Newcombe, Statistics in Medicine 17:2635-2650 (1998), Table III, method 10
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((35, 14, 0, 1), 0.1461, 0.4175),
        ((2, 97, 1, 0), 0.8721, 0.9854),
        ((0, 30, 0, 0), 0.8395, 1.0),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((28, 0, 0, 26), -0.0352, 0.0352),
    ],
)
def test_one_draw_gives_the_limits_of_newcombe_1998_table_three(table, low, high):
    found = paired_difference(*_pair(*table))
    assert found.value == pytest.approx((table[1] - table[2]) / sum(table))
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
    assert found.n == sum(table)


def test_the_difference_turns_with_its_arguments():
    a, b = _pair(50, 20, 8, 22)
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p_value == other.p_value


def test_one_row_is_one_draw():
    a, b = _pair(50, 20, 8, 22)
    assert paired_difference(a[None], b[None]) == paired_difference(a, b)


def test_one_draw_covers_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(600):
        cells = rng.multinomial(100, [0.7, 0.15, 0.05, 0.1])
        found = paired_difference(*_pair(*cells))
        covered += found.low <= 0.1 <= found.high
    assert 0.925 < covered / 600 <= 1


def _draws(rng, n_draws, n_images, gap):
    easy = rng.uniform(-0.2, 0.2, n_images)
    day = np.clip(rng.normal(0, 0.03, (2, n_draws, 1)), -0.1, 0.1)
    noise = rng.random((2, n_draws, n_images))
    return noise[0] < 0.6 + gap + easy + day[0], noise[1] < 0.6 + easy + day[1]


def test_several_draws_cover_at_least_as_often_as_they_say():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        found = paired_difference(*_draws(rng, 4, 300, 0.05))
        covered += found.low <= 0.05 <= found.high
    assert covered / 300 > 0.93


def test_several_draws_do_not_pass_off_repeats_as_new_images():
    # the same answers ten times over are no more evidence than the images they are about
    a, b = _pair(500, 60, 20, 420)
    found, one = paired_difference(np.tile(a, (10, 1)), np.tile(b, (10, 1))), paired_difference(a, b)
    assert found.value == pytest.approx(one.value)
    assert found.high - found.low > 0.95 * (one.high - one.low)


def test_draws_that_disagree_cannot_tell_apart():
    rng = np.random.default_rng(0)
    a = rng.random((3, 1000)) < np.array([[0.9], [0.6], [0.75]])
    found = paired_difference(a, rng.random((3, 1000)) < 0.7)
    assert found.p_value > 0.2
    assert paired_difference(a[0], a[1]).p_value < 1e-6


def test_equal_means_by_accident_are_not_certainty():
    cross = np.array([[True, False], [False, True]])
    found = paired_difference(cross, np.zeros((2, 2), bool))
    assert found.value == 0.5
    assert found.p_value > 0.1


def test_nothing_varying_falls_back_to_one_draw():
    a, b = np.ones((3, 20), bool), np.zeros((3, 20), bool)
    assert paired_difference(a, b) == paired_difference(a[0], b[0])
    same = paired_difference(a, a)
    assert (same.value, same.p_value) == (0.0, 1.0)
    assert same.low < 0 < same.high


def test_verdict_is_read_off_the_interval():
    up, down = Difference(0.1, 0.02, 0.2, 0.01, 99), Difference(-0.1, -0.2, -0.02, 0.01, 99)
    assert (verdict(up), verdict(down)) == ("helps", "hurts")
    open_, small = Difference(0.1, 0.0, 0.2, 0.05, 99), Difference(0.001, -0.004, 0.006, 0.7, 9_000)
    assert verdict(open_, 0.1) == "cannot tell apart"
    assert verdict(small) == "cannot tell apart"
    assert verdict(small, 0.006) == "practically equal"
    assert verdict(small, 0.005) == "cannot tell apart"
    assert verdict(Difference(0.004, 0.001, 0.007, 0.01, 9_000), 0.01) == "helps"


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_interval_and_p_never_contradict_each_other(level):
    rng = np.random.default_rng(0)
    for shape in ((30,), (200,), (6, 60)):
        for _ in range(200):
            difficulty = rng.normal(size=shape[-1])
            a, b = (difficulty + rng.normal(0.3, 1, shape) > -0.8 for _ in range(2))
            found = paired_difference(a, b | (rng.random(shape) < 0.15), level)
            assert (found.low > 0 or found.high < 0) == (found.p_value < 1 - level)


def test_a_higher_level_is_a_wider_interval():
    a, b = np.arange(100) < 90, np.arange(100) % 10 < 8
    few, many = paired_difference(a, b, 0.9), paired_difference(a, b, 0.99)
    assert many.low < few.low < few.high < many.high


def test_wrong_input_gets_one_sentence():
    right = np.ones(3, bool)
    with pytest.raises(ShapeError, match=r"correct_b has shape \(2,\), expected \(3,\)"):
        paired_difference(right, right[:2])
    with pytest.raises(ShapeError, match=r"dtype int64, expected .* of bool"):
        mcnemar(right.astype(np.int64), right)
    with pytest.raises(ShapeError, match=r"correct_a has shape \(1, 3\)"):
        mcnemar(right[None], right[None])
    with pytest.raises(SettingError, match=r"margin is 1\.5, expected a share"):
        verdict(Difference(0.1, 0, 0.2, 0.01, 9), 1.5)
    with pytest.raises(SettingError, match=r"level is 1\.0, expected a number between 0 and 1"):
        paired_difference(right, right, 1.0)
