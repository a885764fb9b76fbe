"""Test-set sizes against published ones, and against the power they promise."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import SettingError
from headstart.evaluation.compare import mcnemar, mean_difference
from headstart.evaluation.power import MOST_IMAGES, images_for_spread, images_to_settle
from headstart.evaluation.spread import of_draws


@pytest.mark.parametrize(
    ("only_a", "only_b", "power", "wanted"),
    [
        # powerandsamplesize.com, "Compare Paired Proportions: McNemar's Z-test, 2-Sided Equality",
        # which gives Connor, Biometrics 43:207-211 (1987), page 209, as its source: 23
        (5, 45, 0.8, 23),
        # clinicaltrials-tools.vercel.app, "McNemar's Test (Connor 1987)": difference 0.150,
        # discordant 0.450: 155
        (30, 15, 0.8, 155),
        # by hand: (1.959964 sqrt(0.15) + 1.281552 sqrt(0.1475))^2 / 0.05^2 = 626.6
        (10, 5, 0.9, 627),
    ],
)
def test_it_gives_the_published_size(only_a, only_b, power, wanted):
    assert images_to_settle(only_a, only_b, 100, power=power) == wanted


def _found(rng, n_images, share_a, share_b, n_repeats):
    """Share of studies of this size in which McNemar's mid-p is below 0.05."""
    calls = 0
    for only_a, only_b, _ in rng.multinomial(n_images, [share_a, share_b, 1 - share_a - share_b], n_repeats):
        a = np.arange(only_a + only_b + 1) < only_a
        b = ~a
        b[-1] = a[-1]
        calls += mcnemar(a, b) < 0.05
    return calls / n_repeats


@pytest.mark.parametrize(("share_a", "share_b"), [(0.1, 0.05), (0.01, 0.04), (0.3, 0.15), (0.02, 0.0)])
def test_so_many_images_find_the_difference_four_times_in_five(share_a, share_b):
    rng = np.random.default_rng(0)
    needed = images_to_settle(1000 * share_a, 1000 * share_b, 1000)
    assert needed is not None
    # 79 to 89 %; two standard errors of 2000 repeats are 2 %
    assert 0.77 < _found(rng, needed, share_a, share_b, 2000) < 0.9
    assert _found(rng, needed // 2, share_a, share_b, 2000) < 0.6


def test_it_asks_more_for_less():
    sizes = [images_to_settle(10, only_b, 100) for only_b in (0, 3, 6, 9)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4
    assert images_to_settle(10, 5, 100) < images_to_settle(10, 5, 100, power=0.9)
    assert images_to_settle(10, 5, 100) < images_to_settle(10, 5, 100, alpha=0.01)


def test_only_shares_and_the_size_of_the_gap_count():
    assert images_to_settle(10, 5, 100) == images_to_settle(5, 10, 100) == images_to_settle(100, 50, 1000)
    assert images_to_settle(9.5, 5, 100) > images_to_settle(10, 5, 100)


def test_it_never_advises_fewer_than_the_test_could_ever_use():
    # four images all for one side are p = 0.0625
    assert images_to_settle(10, 0, 10) == 5
    assert mcnemar(np.ones(5, bool), np.zeros(5, bool)) < 0.05 < mcnemar(np.ones(4, bool), np.zeros(4, bool))
    assert images_to_settle(10, 0, 10, alpha=0.01) == 7


@pytest.mark.parametrize(("training", "n_draws"), [(0.3, 20), (0.1, 20)])
def test_so_many_images_find_the_difference_over_several_draws(training, n_draws):
    """The promise holds where draws of labels are samples, too."""
    rng = np.random.default_rng(0)

    def gain(n):
        images, labels = rng.normal(size=(2, n)), training * rng.normal(size=(2, n_draws, 1))
        shared, both = rng.normal(size=n), training * rng.normal(size=(n_draws, 1))
        noise = 0.5 * rng.normal(size=(2, n_draws, n))
        level = np.array([1.25, 1.0])[:, None, None]
        right = level + 0.9 * shared + 0.4 * images[:, None] + both + 0.5 * labels + noise > 0
        return right[0].astype(float) - right[1]

    seen = gain(4_000)
    needed = images_for_spread(of_draws(seen), float(seen.mean()), 4_000)
    assert needed is not None
    found = [mean_difference(one, of_draws(one)).p_value < 0.05 for one in (gain(needed) for _ in range(400))]
    assert 0.7 < np.mean(found) < 0.9


def test_more_images_do_not_make_up_for_few_draws():
    rng = np.random.default_rng(0)
    gain = np.clip(rng.normal(0, 0.1, (5, 1)) + 0.02 + rng.normal(0, 0.3, (5, 400)), -1, 1)
    assert images_for_spread(of_draws(gain), float(gain.mean()), 400) is None


def test_no_difference_needs_no_number():
    assert images_to_settle(0, 0, 100) is None
    assert images_to_settle(7, 7, 100) is None
    assert images_to_settle(0.1 + 0.2, 0.3, 100) is None
    assert images_to_settle(4000, 4001, 10_000) is None
    near = images_to_settle(5000, 5100, 100_000)
    assert near is not None
    assert 10**5 < near < MOST_IMAGES


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ((1, 1, 0), "n_images is 0, expected 1 or more"),
        ((-1, 1, 10), "only_a and only_b are -1 and 1, expected 0 or more"),
        ((8, 8, 10), "expected 0 or more and n_images = 10 together at most"),
        ((float("nan"), 1, 10), "only_a and only_b are nan"),
    ],
)
def test_wrong_counts_get_one_sentence(call, words):
    with pytest.raises(SettingError, match=words):
        images_to_settle(*call)


@pytest.mark.parametrize("name", ["alpha", "power"])
def test_wrong_chances_get_one_sentence(name):
    with pytest.raises(SettingError, match=f"{name} is 5, expected a number between 0 and 1"):
        images_to_settle(2, 1, 10, **{name: 5})
