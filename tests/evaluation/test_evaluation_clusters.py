"""Grouped images: against linear algebra, a published example, and the coverage that is promised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.clusters import (
    accuracy_score,
    cluster_remark,
    clustered_difference,
    clustered_score,
)
from headstart.evaluation.compare import paired_difference
from headstart.evaluation.intervals import wilson

GROUPINGS = [(10, 9), (20, 5), (5, 20)]


def _chances(rng, n_groups, accuracy, correlation):
    """Accuracy of each group, beta-distributed so that predictions of one group correlate as given."""
    if correlation == 0:
        return np.full(n_groups, accuracy)
    total = 1 / correlation - 1
    return rng.beta(accuracy * total, (1 - accuracy) * total, n_groups)


def _answers(rng, n_groups, size, accuracy, correlation):
    return rng.random(n_groups * size) < np.repeat(_chances(rng, n_groups, accuracy, correlation), size)


def test_groups_of_one_image_are_wilson():
    right = np.arange(200) % 5 > 0
    found, plain = clustered_score(right, np.arange(200)), wilson(160, 200)
    assert (found.value, found.low, found.high, found.n) == pytest.approx(
        (plain.value, plain.low, plain.high, plain.n)
    )


def test_score_agrees_with_a_published_interval():
    # Liang, Qaqish and Zeger, JRSS B 54:3-40 (1992): 60 of 203 siblings with impaired lungs in 100
    # families. Saha, Miller and Wang, Int. J. Biostatistics 12 (2016), doi:10.1515/ijb-2015-0024, and
    # Short et al., Stat. Methods Med. Res. 29:111-121 (2020): correlation 0.1855 by analysis of
    # variance, design effect 1.349, Wilson's interval on it 0.2285 to 0.3728 (as the manual of R's
    # ratesci::clusterpci prints them).
    hits = np.concatenate(
        [
            np.repeat([0, 1], [36, 12]),
            np.repeat([0, 1, 2], [15, 7, 1]),
            np.repeat([0, 1, 2, 3], [5, 7, 3, 2]),
            np.repeat([0, 1, 2], [3, 3, 1]),
            [0, 2, 3, 4, 6],
        ]
    )
    sizes = np.repeat([1, 2, 3, 4, 6], [48, 23, 17, 7, 5])
    groups = np.repeat(np.arange(100), sizes)
    sick = np.concatenate([np.arange(size) < hit for hit, size in zip(hits, sizes, strict=True)])
    found = clustered_score(sick, groups)
    assert found.value == pytest.approx(60 / 203)
    # here the variance between families is used as it is (1.50 instead of 1.35), with 99 degrees of freedom
    assert (found.low, found.high) == pytest.approx((0.2285, 0.3728), abs=0.008)
    assert found.low < 0.2285
    assert found.high > 0.3728


def test_score_is_korn_and_graubards_where_mistakes_are_many():
    # n / deff (t[n - 1] / t[groups - 1])^2, Survey Methodology 24:193-201 (1998)
    rng = np.random.default_rng(3)
    sizes = rng.integers(5, 40, 12)
    groups = np.repeat(np.arange(12), sizes)
    right = rng.random(len(groups)) < np.repeat(_chances(rng, 12, 0.6, 0.3), sizes)
    share, n = right.mean(), len(right)
    totals = np.array([(right[groups == one] - share).sum() for one in range(12)])
    deff = (12 / 11 * (totals**2).sum() / n**2) / (share * (1 - share) / (n - 1))
    counted = int(n / deff * (t.ppf(0.975, n - 1) / t.ppf(0.975, 11)) ** 2)
    found, wanted = clustered_score(right, groups), wilson(share * counted, counted)
    assert deff > 2
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_score_is_never_narrower_than_for_independent_images():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 10)
    for accuracy in (0.5, 0.9, 0.99):
        right = rng.random(80) < accuracy
        found, plain = clustered_score(right, groups), wilson(int(right.sum()), 80)
        assert found.low <= plain.low
        assert found.high >= plain.high


def test_a_faultless_test_set_is_no_certainty_and_a_mistake_never_helps():
    groups, lows = np.repeat(np.arange(10), 9), []
    for mistakes in range(20):
        right = np.ones(90, bool)
        right[(np.arange(mistakes) * 9 + np.arange(mistakes) // 10) % 90] = False
        lows.append(clustered_score(right, groups).low)
    assert 0.8 < lows[0] < 0.9
    assert lows[0] < wilson(90, 90).low - 0.05
    assert (np.diff(lows) <= 0.001).all()
    none = clustered_score(np.zeros(90, bool), groups)
    assert (none.low, none.high) == pytest.approx((0.0, 1 - lows[0]))


def test_few_groups_are_few_however_many_images():
    right = np.tile([True, True, True, False], 500)
    two, many = clustered_score(right, np.arange(2000) // 1000), clustered_score(right, np.arange(2000) // 10)
    assert two.high - two.low > 0.35
    assert many.high - many.low < 0.05
    assert two.value == many.value == 0.75


def test_draws_are_averaged_first():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 9)
    right = _answers(rng, 10, 9, 0.8, 0.2)
    assert clustered_score(np.stack([right, right, right]), groups) == clustered_score(right, groups)
    assert clustered_score(right[None], groups) == clustered_score(right, groups)


def test_names_of_groups_and_their_order_do_not_matter():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(10), 9)
    right, other = _answers(rng, 10, 9, 0.8, 0.2), _answers(rng, 10, 9, 0.7, 0.2)
    order = rng.permutation(90)
    names = np.array([f"writer {9 - one}" for one in groups])[order]
    one, two = clustered_score(right, groups), clustered_score(right[order], names)
    assert (one.low, one.high) == pytest.approx((two.low, two.high))
    was, now = (
        clustered_difference(right, other, groups),
        clustered_difference(right[order], other[order], names),
    )
    assert (was.low, was.high, was.p_value) == pytest.approx((now.low, now.high, now.p_value))


@pytest.mark.parametrize(("n_groups", "size"), GROUPINGS)
def test_score_covers_at_least_as_often_as_it_says(n_groups, size):
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(n_groups), size)
    for accuracy in (0.7, 0.9, 0.97):
        for correlation in (0.0, 0.1, 0.3):
            covered = 0
            for _ in range(250):
                found = clustered_score(_answers(rng, n_groups, size, accuracy, correlation), groups)
                covered += found.low <= accuracy <= found.high
            # 93 % less two standard errors of so few repeats
            assert covered / 250 > 0.93 - 0.03, (accuracy, correlation)


def test_images_taken_for_independent_cover_far_less():
    # shows that the test above can fail
    rng, covered = np.random.default_rng(0), 0
    for _ in range(250):
        found = wilson(int(_answers(rng, 5, 20, 0.7, 0.3).sum()), 100)
        covered += found.low <= 0.7 <= found.high
    assert covered / 250 < 0.75


def _brute_force(gain, groups):
    """CR2 error and Bell-McCaffrey degrees of freedom of a mean, by the matrices they are defined with."""
    n = len(gain)
    annihilator = np.eye(n) - np.full((n, n), 1 / n)
    columns = []
    for one in np.unique(groups):
        rows = np.flatnonzero(groups == one)
        values, vectors = np.linalg.eigh(annihilator[np.ix_(rows, rows)])
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        columns.append(annihilator[rows].T @ root @ np.full(len(rows), 1 / n))
    stacked = np.stack(columns)
    inner = stacked @ stacked.T
    return np.sqrt(((stacked @ gain) ** 2).sum()), np.trace(inner) ** 2 / (inner**2).sum()


def test_difference_is_cr2_with_bell_and_mccaffreys_degrees_of_freedom():
    # Imbens and Kolesar (2016), doi:10.1162/REST_a_00552, equations for CR2 and K_BM
    rng = np.random.default_rng(0)
    sizes = np.array([40, 12, 9, 25, 3, 7, 30])
    groups = np.repeat(np.arange(7), sizes)
    a = rng.random(126) < np.repeat(_chances(rng, 7, 0.8, 0.4), sizes)
    b = rng.random(126) < np.repeat(_chances(rng, 7, 0.6, 0.4), sizes)
    found = clustered_difference(a, b, groups)
    error, freedom = _brute_force(a.astype(float) - b, groups)
    assert freedom < 5.5
    assert found.p_value == pytest.approx(2 * t.sf(abs(found.value) / error, freedom))
    assert found.value - found.low == pytest.approx(error * t.ppf(0.975, freedom))


def test_draws_add_their_variance_and_satterthwaites_degrees_of_freedom():
    rng, groups = np.random.default_rng(3), np.repeat(np.arange(6), 15)
    chances = [np.repeat(_chances(rng, 6, accuracy, 0.5), 15) for accuracy in (0.8, 0.5)]
    days = rng.normal(0, 0.1, (4, 1))
    a, b = rng.random((4, 90)) < chances[0] + days, rng.random((4, 90)) < chances[1]
    gain = a.astype(float) - b
    # analysis of variance of the totals of groups, crossed with draws
    totals = gain.reshape(4, 6, 15).mean(axis=2)
    rest = totals - totals.mean(axis=1, keepdims=True) - totals.mean(axis=0) + totals.mean()
    noise = (rest**2).sum() / (3 * 5)
    draws, people = 6 * totals.mean(axis=1).var(ddof=1), 4 * totals.mean(axis=0).var(ddof=1)
    assert min(draws, people) > noise
    variance = (draws + people - noise) / 24
    freedom = (draws + people - noise) ** 2 / (draws**2 / 3 + people**2 / 5 + noise**2 / 15)
    found = clustered_difference(a, b, groups)
    assert found.p_value == pytest.approx(2 * t.sf(abs(gain.mean()) / np.sqrt(variance), freedom))
    assert found.p_value > paired_difference(a, b).p_value


@pytest.mark.parametrize(
    ("sizes", "least_power"), [([20] * 5, 0.5), ([10] * 10, 0.5), ([60, 10, 10, 10, 10], 0.0)]
)
def test_few_groups_raise_few_false_alarms_and_find_a_large_difference(sizes, least_power):
    """Widening by an assumed correlation within groups found one in ten of these differences."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)

    def found(gain: float) -> float:
        said = []
        for _ in range(300):
            easy = rng.normal(size=len(groups)) + 0.5 * rng.normal(size=len(sizes))[groups]
            right = [easy + 0.6 * rng.normal(size=len(groups)) + level > 0 for level in (1.2 + gain, 1.2)]
            difference = clustered_difference(*right, groups)
            said.append(difference.low > 0 or (gain == 0 and difference.high < 0))
        return float(np.mean(said))

    assert found(0.0) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert found(0.9) >= least_power


def test_groups_without_any_disagreement_leave_a_narrow_interval():
    groups = np.repeat(np.arange(6), 8)
    found = clustered_difference(np.ones(48, bool), np.ones(48, bool), groups, crossed=True)
    assert found.value == 0.0 and found.p_value == 1.0
    assert 0.08 < found.high < 0.35


def test_all_groups_alike_are_no_more_than_coins():
    """Each of the groups says the same: five are not enough to be sure, ten are."""
    for n_groups, sure in ((3, False), (5, False), (10, True)):
        better, worse = np.ones(4 * n_groups, bool), np.arange(4 * n_groups) % 4 > 0
        found = clustered_difference(better, worse, np.arange(4 * n_groups) // 4)
        assert (found.low > 0) is sure
        assert (found.p_value < 0.05) is sure


def test_the_difference_turns_with_its_arguments():
    rng, groups = np.random.default_rng(2), np.repeat(np.arange(10), 9)
    a, b = _answers(rng, 10, 9, 0.9, 0.1), _answers(rng, 10, 9, 0.8, 0.1)
    one, other = clustered_difference(a, b, groups), clustered_difference(b, a, groups)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)
    few = np.ones(90, bool)
    few[:30:9] = False
    one, other = clustered_difference(~few, few, groups), clustered_difference(few, ~few, groups)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    one, other = clustered_difference(few | True, few, groups), clustered_difference(few, few | True, groups)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_agreement_and_victory_everywhere_are_no_certainty():
    groups, right = np.repeat(np.arange(5), 20), np.ones(100, bool)
    same, plain = clustered_difference(right, right, groups), paired_difference(right, right)
    assert (same.value, same.p_value) == (0.0, 1.0)
    assert same.low < 2 * plain.low < 0 < 2 * plain.high < same.high
    won = clustered_difference(right, ~right, groups)
    assert won.value == won.high == 1.0
    assert won.low < paired_difference(right, ~right).low
    assert won.p_value == pytest.approx(1 / 2**5)


def test_draws_that_disagree_cannot_tell_apart():
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(20), 20)
    a = rng.random((3, 400)) < np.array([[0.95], [0.6], [0.75]])
    b = rng.random((3, 400)) < 0.6
    assert clustered_difference(a, b, groups).p_value > 0.1
    assert clustered_difference(a[0], b[0], groups).p_value < 1e-3


def _versus(rng, n_groups, size, accuracies, correlation):
    return [_answers(rng, n_groups, size, accuracy, correlation) for accuracy in accuracies]


@pytest.mark.parametrize(("n_groups", "size"), GROUPINGS)
def test_difference_covers_and_seldom_calls_falsely(n_groups, size):
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(n_groups), size)
    for accuracy in (0.7, 0.9, 0.97):
        covered = significant = 0
        for repeat in range(300):
            a, b = _versus(rng, n_groups, size, (accuracy, accuracy), (0.0, 0.1, 0.3)[repeat % 3])
            found = clustered_difference(a, b, groups)
            covered += found.low <= 0 <= found.high
            significant += found.p_value < 0.05
        # 5 % and two standard errors of so few repeats
        assert significant / 300 < 0.075, accuracy
        assert covered / 300 > 0.925, accuracy


def test_unclustered_differences_call_falsely():
    # shows that the test above can fail
    rng, significant = np.random.default_rng(0), 0
    for _ in range(200):
        significant += paired_difference(*_versus(rng, 5, 20, (0.7, 0.7), 0.3)).p_value < 0.05
    assert significant / 200 > 0.2


def test_one_group_says_nothing_of_others():
    right, one = np.ones(6, bool), np.zeros(6, int)
    for score in (clustered_score(right, one), accuracy_score(right, one)):
        assert (score.value, score.low, score.high) == (1.0, 0.0, 1.0)
    found = clustered_difference(right, ~right, one)
    assert (found.low, found.high, found.p_value) == (-1.0, 1.0, 1.0)
    labels = np.array(list("aabbcd"))
    assert "all images are of one group" in (cluster_remark(one, labels) or "")
    assert "class 'a' are" in (cluster_remark(np.array([0, 0, 1, 2, 3, 4]), labels) or "")
    assert cluster_remark(np.arange(6), labels) is None


def test_wrong_input_gets_one_sentence():
    right, groups = np.ones(4, bool), np.array([0, 0, 1, 1])
    with pytest.raises(
        ShapeError, match=r"clusters has shape \(3,\), expected \(4,\) to match correct; pass"
    ):
        clustered_score(right, groups[:3])
    with pytest.raises(ShapeError, match=r"correct has shape .* dtype int64, expected .* of bool"):
        clustered_score(right.astype(np.int64), groups)
    with pytest.raises(ShapeError, match=r"correct_b has shape .*, expected"):
        clustered_difference(right, right[:0], groups)
    with pytest.raises(ShapeError, match="to match"):
        clustered_difference(right, np.ones((2, 4), bool), groups)
    with pytest.raises(SettingError, match="level is 95, expected"):
        clustered_score(right, groups, 95)


def test_copies_do_not_narrow_the_interval_of_the_mean_over_draws() -> None:
    """Several splits into folds, with independent results, over images that are listed twice each."""
    rng = np.random.default_rng(0)
    once = rng.random((3, 300)) < 0.55
    twice, groups = np.concatenate([once, once], axis=1), np.tile(np.arange(300), 2)
    found, alone = clustered_score(twice, groups), wilson(once.mean() * 300, 300)
    assert found.value == pytest.approx(once.mean())
    assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_few_groups_are_warned_about_and_a_class_of_one_group_first():
    groups, labels = np.repeat([0, 1, 2], 6), np.tile(["a", "b"], 9)
    assert "the images are of 3 groups, or copies of 3 images, only" in (cluster_remark(groups, labels) or "")
    lonely = np.where(groups == 0, "a", "b")
    assert "class 'a' are of one group" in (cluster_remark(groups, lonely) or "")
    assert cluster_remark(np.repeat(np.arange(5), 4), np.tile(["a", "b"], 10)) is None


def test_a_row_of_several_networks_in_folds_is_about_all_of_them():
    """The first network is right everywhere; the interval must not be hers around the mean of all."""
    correct = np.ones((5, 100), bool)
    correct[1:, ::2] = False
    folds = np.arange(100) // 5
    found, first = accuracy_score(correct, folds=folds), accuracy_score(correct[:1], folds=folds)
    assert found.value == pytest.approx(0.6) and found.low < 0.6 < found.high and first.value == 1.0
    swapped = accuracy_score(correct[::-1], folds=folds)
    assert (found.low, found.high) == pytest.approx((swapped.low, swapped.high)), "whichever comes first"
