"""Result tables, with made-up strategies whose correct predictions are known."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays
from headstart.errors import DataError
from headstart.evaluation.records import Difference, Score
from headstart.report.records import Comparison, Row
from headstart.strategies.fits import Strategy
from headstart.workflows.comparison import table as comparison_table
from headstart.workflows.comparison.protocol import Protocol
from headstart.workflows.comparison.table import Table, run_table
from headstart.workflows.comparison.verdict import sentences

ALL = Protocol(())


def blank(*counts: int) -> Dataset:
    """So many images of ``a``, ``b``, ...: what they show does not matter here."""
    labels = np.repeat(list("abcdef")[: len(counts)], counts)
    return from_arrays(np.zeros((len(labels), 8, 8), np.uint8), labels)


def right_on(test: Dataset, number: int) -> Strategy:
    """Right on the first so many test images, wrong on the others."""
    codes = test.codes()
    said = np.where(np.arange(len(test)) < number, codes, (codes + 1) % len(test.classes))
    probs = np.eye(len(test.classes), dtype=np.float32)[said]
    return lambda learn, asked, seed: probs[asked]


def table(train: Dataset, test: Dataset, protocol: Protocol = ALL, **right: int) -> Table:
    strategies = {name.replace("_", " "): right_on(test, number) for name, number in right.items()}
    return run_table(strategies, train, test, protocol)


# --- rows


def test_a_row_has_the_published_wilson_interval() -> None:
    (row,) = table(blank(10, 10), blank(132, 131), probe=81).rows
    assert (row.strategy, row.labels_per_class, row.draws, row.spread) == ("probe", None, 1, 0.0)
    score = row.accuracy  # Newcombe (1998), table I
    assert score.n == 263 and score.value == 81 / 263
    assert (round(score.low, 4), round(score.high, 4)) == (0.2553, 0.3662)


def test_rows_are_every_strategy_at_every_budget_the_smallest_first() -> None:
    found = table(blank(20, 20), blank(5, 5), Protocol((1, 5), draws=3), probe=9, other=8)
    cells = [(row.strategy, row.labels_per_class, row.draws) for row in found.rows]
    assert cells == [
        ("probe", 1, 3),
        ("other", 1, 3),
        ("probe", 5, 3),
        ("other", 5, 3),
        ("probe", None, 1),
        ("other", None, 1),
    ]
    assert {(one.strategy, one.control, one.labels_per_class) for one in found.comparisons} == {
        ("probe", "other", budget) for budget in (1, 5, None)
    }


def test_accuracy_is_the_mean_over_draws_and_spread_their_deviation() -> None:
    test = blank(5, 5)
    by_seed = {7: right_on(test, 4), 8: right_on(test, 6), 9: right_on(test, 8)}

    def strategy(learn: NDArray[np.intp], asked: NDArray[np.intp], seed: int) -> Any:
        return by_seed[seed](learn, asked, seed)

    rows = run_table({"probe": strategy}, blank(9, 9), test, Protocol((2,), draws=3, seed=7)).rows
    assert rows[0].accuracy.value == pytest.approx(0.6) and rows[0].accuracy.n == 10
    assert rows[0].spread == pytest.approx(0.2)
    assert rows[1].accuracy.value == 0.4  # all labels: one draw, of the first seed


# --- draws


def drawn(protocol: Protocol, train: Dataset, name: str = "probe") -> list[NDArray[np.intp]]:
    """The indices that a strategy was given, in order."""
    seen: dict[str, list[NDArray[np.intp]]] = {"probe": [], "other": []}
    test = blank(2, 2)

    def spy(who: str) -> Strategy:
        def strategy(learn: NDArray[np.intp], asked: NDArray[np.intp], seed: int) -> Any:
            seen[who].append(learn)
            return right_on(test, 2)(learn, asked, seed)

        return strategy

    run_table({who: spy(who) for who in seen}, train, test, protocol)
    return seen[name]


def test_draws_are_balanced_and_nested() -> None:
    train = blank(30, 20)
    found = drawn(Protocol((1, 5, 10), draws=4, seed=3), train)
    assert len(found) == 13 and found[12].tolist() == list(range(50))
    ones, fives, tens = found[:4], found[4:8], found[8:12]
    for size, draws in ((1, ones), (5, fives), (10, tens)):
        for indices in draws:
            labels, counts = np.unique(train.labels[indices], return_counts=True)
            assert labels.tolist() == ["a", "b"] and counts.tolist() == [size, size]
            assert len(set(indices.tolist())) == 2 * size
    for small, middle, large in zip(ones, fives, tens, strict=True):
        assert set(small) <= set(middle) <= set(large)
    assert len({tuple(indices) for indices in fives}) == 4


def test_every_strategy_gets_the_same_draws_and_the_seed_decides_them() -> None:
    def lists(*args: Any, **kwargs: Any) -> list[list[int]]:
        return [indices.tolist() for indices in drawn(*args, **kwargs)]

    protocol, train = Protocol((1, 5), draws=3), blank(30, 20)
    assert lists(protocol, train) == lists(protocol, train, "other") == lists(protocol, train)
    assert lists(protocol, train) != lists(replace(protocol, seed=1), train)


def test_budgets_that_the_smallest_class_cannot_fill_are_left_out_and_named() -> None:
    found = table(blank(40, 7), blank(5, 5), Protocol((5, 7, 10), draws=2), probe=9, other=5)
    assert [row.labels_per_class for row in found.rows] == [5, 5, None, None]
    left = [remark for remark in found.remarks if "left out" in remark]
    assert [remark.split()[0] for remark in left] == ["7", "10"]
    assert "the smallest class has no more" in left[0] and "has 7 training images" in left[1]


# --- comparisons and the verdict


@pytest.mark.parametrize(
    ("probe_right", "rival_right", "verdict", "sentence"),
    [
        (
            90,
            60,
            "helps",
            r"^With all 20 labels, transfer helps by 30\.00 points \[.*\] over its .* \(rival\)\.$",
        ),
        (
            60,
            90,
            "hurts",
            r"^With all 20 labels, transfer hurts by 30\.00 points \[.*\]: rival does better\.$",
        ),
        (
            80,
            80,
            "cannot tell apart",
            r"^With all 20 labels, .* \(rival\) do not differ significantly: \+0\.00 points",
        ),
        (80, 79, "cannot tell apart", r"do not differ significantly: \+1\.00 points"),
    ],
)
def test_the_verdict_says_what_was_found(
    probe_right: int, rival_right: int, verdict: str, sentence: str
) -> None:
    found = table(blank(10, 10), blank(50, 50), probe=probe_right, rival=rival_right)
    (comparison,) = found.comparisons
    assert comparison.verdict == verdict and re.search(sentence, found.verdict)
    assert comparison.difference.value == pytest.approx((probe_right - rival_right) / 100)
    assert comparison.difference.low <= comparison.difference.value <= comparison.difference.high
    assert comparison.difference.n == 100


def test_helps_needs_every_control_beaten_and_is_not_corrected_for_their_number() -> None:
    # six images apart: McNemar's mid-p is 1 / 2 ** 6
    alone = table(blank(10, 10), blank(50, 50), probe=80, one=74)
    assert alone.comparisons[0].difference.p_value == alone.comparisons[0].p_adjusted == 1 / 2**6
    several = table(blank(10, 10), blank(50, 50), probe=80, one=74, two=74, three=74, four=74)
    assert [one.p_adjusted for one in several.comparisons] == [1 / 2**6] * 4
    assert [one.verdict for one in several.comparisons] == ["helps"] * 4
    assert several.verdict.startswith("With all 20 labels, transfer helps by 6.00 points")


def test_hurts_is_corrected_for_the_number_of_controls() -> None:
    # six images apart is 1 / 2 ** 6 once, and four times as much among four
    alone = table(blank(10, 10), blank(50, 50), probe=80, one=86)
    assert alone.comparisons[0].verdict == "hurts"
    several = table(blank(10, 10), blank(50, 50), probe=80, one=86, two=86, three=86, four=86)
    assert [one.p_adjusted for one in several.comparisons] == [4 / 2**6] * 4
    assert [one.verdict for one in several.comparisons] == ["cannot tell apart"] * 4
    assert all(one.difference.high >= 0 for one in several.comparisons), "the interval says the same"


def test_two_headlines_are_two_claims_and_other_budgets_are_for_exploration() -> None:
    found = table(blank(30, 30), blank(50, 50), Protocol((1, 5, 10), draws=12), probe=80, rival=74)
    assert {(one.labels_per_class, one.claim) for one in found.comparisons} == {
        (1, False), (5, True), (10, False), (None, True),
    }  # fmt: skip
    by_budget = {one.labels_per_class: one for one in found.comparisons}
    assert by_budget[None].p_adjusted == 2 / 2**6  # twice 1 / 2 ** 6, for two claims
    widths = {budget: one.difference.high - one.difference.low for budget, one in by_budget.items()}
    assert widths[5] > widths[1] == widths[10]


def test_a_difference_inside_the_margin_is_practically_none() -> None:
    test = blank(20_000, 20_000)
    ways = {name: right_on(test, 36_000) for name in ("probe", "rival")}
    found = run_table(ways, blank(10, 10), test, Protocol((), margin=0.01))
    assert found.comparisons[0].verdict == "practically equal"
    assert "are practically equal: they differ by +0.00 points" in found.verdict
    assert run_table(ways, blank(10, 10), test, Protocol((), margin=0.0)).comparisons[0].verdict == (
        "cannot tell apart"
    )


def test_interval_and_verdict_agree_in_every_comparison() -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        n = int(rng.integers(25, 60))
        counts = {name: int(rng.integers(n, 2 * n)) for name in ("probe", "one", "two", "three")}
        found = table(blank(10, 10), blank(n, n), **counts)
        for one in found.comparisons:
            said = {"helps": one.difference.low > 0, "hurts": one.difference.high < 0}
            assert said.get(one.verdict, one.difference.low <= 0 <= one.difference.high), (number, one)


def test_the_verdict_is_against_the_strongest_control() -> None:
    found = table(blank(10, 10), blank(50, 50), probe=70, weak=20, strong=95)
    assert [one.verdict for one in found.comparisons] == ["helps", "hurts"]
    assert "hurts" in found.verdict and "strong does better" in found.verdict


def test_the_verdict_is_about_few_labels_and_about_all() -> None:
    found = table(blank(30, 30), blank(50, 50), Protocol((1, 5, 10), draws=12), probe=90, rival=60)
    assert found.verdict.startswith("With 5 labels per class, transfer helps")
    assert "With all 60 labels, transfer helps" in found.verdict
    worth, *others = found.remarks
    assert worth == (
        "To be as accurate as transfer with 5 labels per class (90.0%), rival needs more than 10 labels per class."
    )
    begin = "Exploratory, not corrected for several comparisons: with"
    assert [remark.partition(", transfer")[0] for remark in others] == [
        f"{begin} 1 label per class",
        f"{begin} 10 labels per class",
    ]


def test_collapse_has_its_own_sentence() -> None:
    found = table(blank(10, 10), blank(50, 50), probe=70, strong=40, collapse=95)
    assert found.verdict.startswith("With all 20 labels, transfer helps by 30.00 points")
    assert "over its strongest control (strong). But no new head is needed: collapse" in found.verdict
    assert "does better by 25.00 points [+" in found.verdict
    worse = table(blank(10, 10), blank(50, 50), probe=70, strong=40, collapse=50)
    assert "collapse" not in worse.verdict


def test_rounds_with_random_networks_allow_for_another_draw() -> None:
    test = blank(100, 100)
    lucky = {seed: right_on(test, number) for seed, number in enumerate((90, 110, 130, 150, 170))}
    ways: dict[str, Strategy] = {
        "probe": right_on(test, 150),
        "random frozen": lambda learn, asked, seed: lucky[seed](learn, asked, seed),
    }
    fixed = run_table(ways, blank(10, 10), test, Protocol(()))
    drawn = run_table(ways, blank(10, 10), test, Protocol((), redrawn=("random frozen",)))
    assert fixed.comparisons[0].verdict == "helps" and drawn.rows[1].draws == 5
    assert drawn.comparisons[0].verdict == "cannot tell apart"  # one of the five did better
    width = [one.comparisons[0].difference.high - one.comparisons[0].difference.low for one in (fixed, drawn)]
    assert width[1] > 2 * width[0]


def test_labels_that_are_hard_for_both_do_not_widen_the_interval() -> None:
    test = blank(100, 100)
    probe = {seed: right_on(test, number) for seed, number in enumerate((120, 150, 135, 170, 185))}
    drawn = {seed: right_on(test, number) for seed, number in enumerate((100, 132, 113, 150, 166))}
    ways: dict[str, Strategy] = {
        "probe": lambda learn, asked, seed: probe[seed](learn, asked, seed),
        "random frozen": lambda learn, asked, seed: drawn[seed](learn, asked, seed),
    }
    protocol = Protocol((1,), draws=5, with_all=False, redrawn=("random frozen",))
    (found,) = run_table(ways, blank(10, 10), test, protocol).comparisons
    assert abs(found.difference.value - 0.0990) < 1e-4
    assert found.verdict == "helps"  # by 9 to 11 points with each draw of the labels, whichever network


def test_groups_of_test_images_widen_intervals() -> None:
    test = blank(50, 50)
    by_people = replace(test, groups=(np.arange(100) // 10).astype(str))
    alone, grouped = (
        run_table({"probe": right_on(test, 80), "rival": right_on(test, 60)}, blank(9, 9), one, ALL)
        for one in (test, by_people)
    )
    for first, second in zip(alone.rows, grouped.rows, strict=True):
        assert first.accuracy.value == second.accuracy.value
        assert second.accuracy.high - second.accuracy.low > first.accuracy.high - first.accuracy.low
    assert alone.comparisons[0].verdict == "helps"
    assert grouped.comparisons[0].p_adjusted > alone.comparisons[0].p_adjusted


def test_folds_are_compared_image_by_image() -> None:
    pool = blank(30, 30)
    protocol = Protocol((), draws=3, kind="folds", n_folds=5)
    seen: list[tuple[int, int]] = []

    def spy(learn: NDArray[np.intp], asked: NDArray[np.intp], seed: int) -> Any:
        seen.append((len(learn), len(asked)))
        return right_on(pool, 50)(learn, asked, seed)

    found = run_table({"probe": spy, "rival": right_on(pool, 35)}, pool, pool, protocol)
    assert seen == [(48, 12)] * 15 and found.rows[0].draws == 3
    assert found.rows[0].accuracy.value == pytest.approx(50 / 60) and found.rows[0].accuracy.n == 60
    assert (
        found.probabilities is not None and (found.probabilities.argmax(axis=1) == pool.codes()).sum() == 50
    )
    ours, gain = found.comparisons[0].difference, np.r_[np.ones(15), np.zeros(45)]
    assert ours.value == pytest.approx(0.25)
    assert ours.high - ours.value == pytest.approx(np.sqrt(1.25 * gain.var(ddof=1) / 60) * 2.001, rel=1e-3)


def test_groups_widen_intervals_whatever_the_protocol() -> None:
    pool = blank(50, 50)
    by_people = replace(pool, groups=np.tile(np.arange(10).repeat(5), 2).astype(str))
    for protocol in (Protocol((), draws=2, kind="folds", n_folds=5), Protocol((), kind="leave-one-out")):
        tables = []
        for one in (pool, by_people):
            hits = np.arange(100) % 50 < 40  # the last two people of each class are read wrongly

            def answer(
                learn: NDArray[np.intp], asked: NDArray[np.intp], seed: int, hits: NDArray[np.bool_] = hits
            ) -> Any:
                codes = np.where(hits[asked], pool.codes()[asked], 1 - pool.codes()[asked])
                return np.eye(2, dtype=np.float32)[codes]

            tables.append(run_table({"probe": answer}, one, one, protocol))
        alone, grouped = (found.rows[0].accuracy for found in tables)
        assert alone.value == grouped.value == 0.8
        assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_without_controls_there_is_no_verdict() -> None:
    found = table(blank(10, 10), blank(50, 50), probe=90)
    assert found.comparisons == ()
    assert found.verdict.startswith("The probe gets 90.0% right [82.6, 94.5]")
    assert found.verdict.endswith("no control was run, so the benefit of transfer is unknown.")


def test_the_probe_is_found_by_name() -> None:
    found = table(blank(10, 10), blank(50, 50), rival=60, probe=90)
    assert [(one.strategy, one.control, one.verdict) for one in found.comparisons] == [
        ("probe", "rival", "helps")
    ]


def test_without_a_probe_there_is_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="strategies are rival, expected one called 'probe'"):
        table(blank(5, 5), blank(5, 5), rival=5)


@pytest.mark.parametrize(
    ("smallest", "said"), [(10, "labels per class are 20, 50, expected at most 9"), (1, "expected all")]
)
def test_only_numbers_of_labels_that_no_class_has_are_an_error(smallest: int, said: str) -> None:
    """It was an IndexError."""
    with pytest.raises(DataError, match=said):
        table(blank(smallest, 10), blank(50, 50), Protocol((20, 50), with_all=False), probe=70, rival=60)


def test_a_test_class_without_training_images_is_an_error() -> None:
    with pytest.raises(DataError, match="'c'"):
        table(blank(5, 5), blank(5, 5, 5), probe=5)


def test_labels_that_a_control_needs_have_a_range() -> None:
    """Where the control's value, and the ends of its intervals, reach the probe's 80 % at 5 labels."""
    ours = {1: 0.6, 5: 0.8, 50: 0.9}
    theirs = {1: (0.3, 0.2, 0.4), 5: (0.6, 0.5, 0.7), 50: (0.9, 0.85, 0.95)}
    rows = [
        Row("probe", labels, Score(value, value, value, 100), 1, 0.0, 0.0) for labels, value in ours.items()
    ]
    rows += [
        Row("rival", labels, Score(value, low, high, 100), 1, 0.0, 0.0)
        for labels, (value, low, high) in theirs.items()
    ]
    difference = Difference(0.2, 0.1, 0.3, 0.001, 100)
    comparisons = [Comparison("probe", "rival", labels, difference, 0.001, "helps") for labels in ours]
    said = " ".join(sentences(rows, comparisons, 500, 0.01))
    # 5 * 10 ** (2 / 3) = 23.2; 5 * 10 ** (1 / 2.5) = 12.6; 5 * 10 ** (3 / 3.5) = 36
    assert "with 5 labels per class (80.0%), rival needs about 23 labels per class (13 to 36)." in said


def worth_of(**rivals: dict[int, tuple[float, float, float]]) -> str:
    """The sentence on labels needed, for a probe of 80 % at 1 label and 90 % at 2."""
    curves = {"probe": {1: (0.8, 0.8, 0.8), 2: (0.9, 0.9, 0.9)}, **rivals}
    rows = [
        Row(name, labels, Score(*values, 100), 1, 0.0, 0.0)
        for name, curve in curves.items()
        for labels, values in curve.items()
    ]
    difference = Difference(0.2, 0.1, 0.3, 0.001, 100)
    comparisons = [
        Comparison("probe", name, labels, difference, 0.001, "helps") for name in rivals for labels in (1, 2)
    ]
    return sentences(rows, comparisons, 500, 0.01)[1]


def test_a_range_of_labels_without_an_end_is_said_in_words() -> None:
    """It was "HOG with 2 (2 to more than 2), raw pixels with more than 2"."""
    said = worth_of(
        HOG={1: (0.6, 0.5, 0.7), 2: (0.81, 0.7, 0.9)},
        near={1: (0.6, 0.5, 0.7), 2: (0.79, 0.7, 0.9)},
        scratch={1: (0.3, 0.2, 0.4), 2: (0.5, 0.4, 0.6)},
        pixels={1: (0.4, 0.3, 0.5), 2: (0.6, 0.5, 0.7)},
        unknown={1: (0.6, 0.1, 0.9), 2: (0.7, 0.1, 1.0)},
    )
    assert said == (
        "To be as accurate as transfer with 1 label per class (80.0%), HOG and near need at least 2 labels per "
        "class; scratch and pixels need more than 2 labels per class."
    )


def test_the_advised_number_of_images_is_the_one_of_the_page_and_names_groups() -> None:
    difference = Difference(0.04, -0.01, 0.09, 0.1, 360)
    rows = [Row(name, None, Score(0.9, 0.8, 0.95, 360), 1, 0.0, 0.0) for name in ("probe", "rival")]

    def said(n_groups: int, number: int | None, value: float = 0.04) -> str:
        one = Comparison(
            "probe", "rival", None, replace(difference, value=value), 0.1, "cannot tell apart", number
        )
        return sentences(rows, [one], 120, 0.01, n_groups)[0]

    assert said(0, 785).endswith(
        " A test on about 790 images would show a difference of this size in 4 of 5 cases."
    )
    assert "about 790 images of 33 groups would" in said(15, 785)
    assert said(0, None).endswith(
        "No practical number of test images alone would show a difference of this size."
    )
    assert said(0, None, 0.0).endswith("[-1.00, +9.00].") and said(0, 300).endswith("[-1.00, +9.00].")


def test_hurts_is_told_from_the_side_of_the_control() -> None:
    found = table(blank(10, 10), blank(50, 50), probe=70, strong=95)
    one = found.comparisons[0].difference
    assert (
        f"transfer hurts by 25.00 points [{-100 * one.high:+.2f}, {-100 * one.low:+.2f}]: strong"
        in found.verdict
    )


def test_equal_levels_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[float] = []
    plain = comparison_table.difference_of

    def counted(*given: Any, **named: Any) -> Difference:
        levels.append(named["level"])
        return plain(*given, **named)

    monkeypatch.setattr(comparison_table, "difference_of", counted)
    table(blank(10, 10), blank(50, 50), probe=70, rival=60)
    assert levels == [0.95]
    table(blank(10, 10), blank(50, 50), probe=70, one=60, two=65)
    assert levels == [0.95, *([0.95, 0.975] * 2)]


def test_where_the_interval_is_wider_more_images_are_advised() -> None:
    """91 images by ten people, on few of which the two disagree: the interval reaches 0, so 91 were too few."""
    people = (np.arange(91) % 10).astype(str)
    test = replace(blank(46, 45), groups=people)
    found = run_table(
        {"probe": right_on(test, 91), "rival": right_on(test, 87)}, blank(10, 10), test, Protocol(())
    )
    one = found.comparisons[0]
    assert one.verdict == "cannot tell apart" and one.difference.low < -0.004
    assert one.n_to_settle is None or one.n_to_settle > 180


def test_slow_strategies_have_one_round_of_a_cross_validation_and_few_draws() -> None:
    pool, asked = blank(30, 30), []

    def slow(learn: NDArray[np.intp], test: NDArray[np.intp], seed: int) -> Any:
        asked.append(len(test))
        return right_on(pool, 40)(learn, test, seed)

    ways: dict[str, Strategy] = {"probe": right_on(pool, 50), "rival": slow}
    crossed = Protocol((), draws=20, kind="folds", n_folds=5, slow=("rival",))
    found = run_table(ways, pool, pool, crossed)
    assert asked == [12] * 5 and [row.draws for row in found.rows] == [3, 1]
    assert found.comparisons[0].difference.value == pytest.approx(10 / 60)
    asked.clear()
    drawn = run_table(ways, pool, pool, Protocol((5,), draws=20, with_all=False, slow=("rival",)))
    assert len(asked) == 5 and [row.draws for row in drawn.rows] == [20, 5]
