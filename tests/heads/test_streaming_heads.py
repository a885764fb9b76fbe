"""Heads that learn block by block are those that learn in memory, within stated bounds, in bounded memory."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from operator import add
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.errors import DataError, SettingError, ShapeError, UnknownClassError
from headstart.heads import folded_least_squares, novelty, row_blocks, statistics
from headstart.heads.base import Head
from headstart.heads.folded_least_squares import FoldedLeastSquares
from headstart.heads.kernel import KernelHead
from headstart.heads.least_squares import LeastSquares, spectrum
from headstart.heads.linear import LinearHead
from headstart.heads.moments import Moments, total
from headstart.heads.novelty import fit_novelty
from headstart.heads.registry import make_head
from headstart.heads.ridge import RidgeHead
from headstart.heads.row_blocks import N_FOLDS, TrainingBlocks, is_large
from headstart.heads.statistics import RowStatistics, row_statistics
from headstart.heads.training import Training, class_weights, one_hot, shares_of_classes
from headstart.records import Array

Labels = NDArray[np.str_]
STRENGTHS = (1e-6, 1e-3, 0.1)
BOUND = 1e-6
"""Of the largest coefficient: coefficients of the two methods differ by less. Standardised rows in memory are rounded
to float32, 6e-8, and divided by eigenvalues of 1e-3 of the largest; sums by blocks are in float64."""


@pytest.fixture(scope="module")
def digits_rows(digits: Dataset) -> tuple[Array, Labels]:
    """All digits, rectified projections of their pixels to 60 features."""
    pixels = digits.images.pixels
    assert pixels is not None
    rows = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
    projection = np.random.default_rng(1).normal(size=(rows.shape[1], 60)).astype(np.float32)
    return np.maximum(rows @ projection, 0.0), np.asarray(digits.labels)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every matrix counts as large, and blocks have few rows."""
    monkeypatch.setattr(row_blocks, "LARGE_VALUES", 1)
    monkeypatch.setattr(row_blocks, "BLOCK_VALUES", 60 * 100)
    return monkeypatch


def both(
    head: str | Head, rows: Array, labels: Labels, monkeypatch: pytest.MonkeyPatch, **how: object
) -> list[Head]:
    """The head fitted in memory, and block by block."""
    found = []
    for values in (2**60, 1):
        monkeypatch.setattr(row_blocks, "LARGE_VALUES", values)
        made = make_head(head) if isinstance(head, str) else pickle.loads(pickle.dumps(head))
        found.append(made.fit(rows, labels, **how))
    return found


def differ(one: Head, other: Head) -> float:
    """Largest difference of the coefficients before the temperature, in units of the largest."""
    found = []
    for head in (one, other):
        assert isinstance(head, RidgeHead)
        found.append(np.vstack([head.weight_, head.bias_]) / head.chosen_["temperature"])
    return float(np.abs(found[0] - found[1]).max() / np.abs(found[0]).max())


def in_blocks(rows: Array, labels: Labels, size: int) -> list[tuple[Array, Labels]]:
    return [(rows[i : i + size], labels[i : i + size]) for i in range(0, len(rows), size)]


def training_of(rows: Array, labels: Labels, *, weights: Array | None = None, copies: int = 0) -> Training:
    """A training set; with copies, each image has that many more rows."""
    codes = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    images = np.tile(np.arange(len(codes)), copies + 1)
    noise = np.random.default_rng(3).normal(size=(copies * len(rows), rows.shape[1])).astype(np.float32)
    many = np.concatenate([rows, np.tile(rows, (copies, 1)) + noise])
    wide = np.ones(len(images), np.float32) if weights is None else weights[images]
    return Training(many, codes[images], wide, images, 5)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(
    "how", [{}, {"balance": True}, {"shares": range(1, 11)}], ids=["plain", "balanced", "shares"]
)
def test_ridge_has_the_coefficients_of_the_fit_in_memory(
    digits_rows: tuple[Array, Labels],
    small_blocks: pytest.MonkeyPatch,
    strength: float,
    how: dict[str, object],
) -> None:
    rows, labels = digits_rows
    one, other = both(RidgeHead((strength,)), rows, labels, small_blocks, **how)
    assert differ(one, other) < BOUND
    assert (one.predict(rows) == other.predict(rows)).all()
    assert other.chosen_["temperature"] == pytest.approx(one.chosen_["temperature"], rel=0.05)
    wrong = RidgeHead((strength * 2,)).fit(rows, labels, **how)
    assert differ(one, wrong) > BOUND, "a comparison that sees another strength"


@pytest.mark.parametrize("copies", [0, 2])
@pytest.mark.parametrize("balanced", [False, True])
def test_errors_of_held_out_folds_are_those_of_the_rows(
    digits_rows: tuple[Array, Labels], small_blocks: pytest.MonkeyPatch, copies: int, balanced: bool
) -> None:
    rows, labels = digits_rows
    codes = np.unique(labels, return_inverse=True)[1]
    training = training_of(rows, labels, weights=class_weights(codes) if balanced else None, copies=copies)
    statistics = RowStatistics.collected(TrainingBlocks(training), 10)
    folded = FoldedLeastSquares(statistics, lambda moments: moments)
    left_out = refitted(training)[:, training.originals]
    squares = ((left_out - one_hot(codes, 10)) ** 2).sum(axis=2)
    expected = np.average(squares, axis=1, weights=training.weights[training.originals])
    assert folded.errors(STRENGTHS) == pytest.approx(expected, rel=1e-5)
    scores = folded.left_out(statistics.sample, statistics.sample.rows, 0.1)
    order = np.argsort(statistics.sample.draws)
    assert len(order) == len(rows), "the sample has room for every image, and no copy"
    assert np.sort(scores, axis=0) == pytest.approx(np.sort(left_out[2], axis=0), abs=1e-5)


def refitted(training: Training) -> NDArray[np.float64]:
    """Scores of every row by fits without its fold, (n_strengths, n_rows, 10)."""
    folds, exact = training.dealt(N_FOLDS), training.features.astype(np.float64)
    scores = np.zeros((len(STRENGTHS), len(exact), 10))
    for fold in range(N_FOLDS):
        rest, held = folds != fold, folds == fold
        fitted = LeastSquares(exact[rest], one_hot(training.codes[rest], 10), training.weights[rest])
        for number, strength in enumerate(STRENGTHS):
            weight, bias = fitted.solution(strength)
            scores[number, held] = exact[held] @ weight + bias
    return scores


@pytest.mark.parametrize("copies", [0, 1])
def test_of_many_wide_rows_three_folds_are_held_out(
    digits_rows: tuple[Array, Labels], small_blocks: pytest.MonkeyPatch, copies: int
) -> None:
    """100,000 rows of 5,120 features cost eleven decompositions of 10 s, and ten matrices of 200 MiB."""
    rows, labels = digits_rows
    training = training_of(rows, labels, copies=copies)
    ten = RowStatistics.collected(TrainingBlocks(training), 10)
    small_blocks.setattr(statistics, "_WIDE", 59)
    small_blocks.setattr(statistics, "_MANY", 1_500)
    few = RowStatistics.collected(TrainingBlocks(training), 10)
    assert [one is not None for one in few.judged] == [True] * 3 + [False] * 7
    assert few.always is not None and few.whole().n_rows == len(training.codes)
    assert few.whole().products == pytest.approx(ten.whole().products, rel=1e-9, abs=1e-6)
    folded = FoldedLeastSquares(few, lambda moments: moments)
    images = training.originals
    here = images[np.isin(training.dealt(N_FOLDS)[images], folded.folds)]
    squares = ((refitted(training)[:, here] - one_hot(training.codes[here], 10)) ** 2).sum(axis=2)
    assert folded.errors(STRENGTHS) == pytest.approx(squares.mean(axis=1), rel=1e-5)
    done = []
    small_blocks.setattr(folded_least_squares, "spectrum", lambda gram: done.append(1) or spectrum(gram))
    found = RidgeHead().fit(rows, labels)
    assert len(done) == 4
    small_blocks.setattr(statistics, "_MANY", 2_000)
    as_ever = RidgeHead().fit(rows, labels)
    assert abs(np.log10(found.chosen_["strength"] / as_ever.chosen_["strength"])) <= 1.0
    assert found.chosen_["temperature"] == pytest.approx(as_ever.chosen_["temperature"], rel=0.1)
    assert (found.predict(rows) == as_ever.predict(rows)).mean() > 0.99


def test_parts_are_few_folds_together(
    digits_rows: tuple[Array, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics of parts that are small are those of the whole after they are added."""
    rows, labels = digits_rows
    monkeypatch.setattr(statistics, "_WIDE", 59)
    monkeypatch.setattr(statistics, "_MANY", 1_000)
    classes = sorted(set(labels.tolist()))
    starts = [0, 200, 400, 600, 1_797]
    parts = [row_statistics([(rows[i:j], labels[i:j])], classes, first_row=i) for i, j in pairwise(starts)]
    assert parts[0].always is None and parts[-1].always is not None
    whole = row_statistics([(rows, labels)], classes)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        same(whole, reduce(add, (parts[i] for i in order)))


def test_classes_that_are_one_cluster_each_select_nothing(
    digits_rows: tuple[Array, Labels], small_blocks: pytest.MonkeyPatch
) -> None:
    """Fits without a fold did not know the classes in it, and decided for no features at all: 47 % instead of 96."""
    rows, labels = digits_rows
    codes = np.unique(labels, return_inverse=True)[1]
    for head in (RidgeHead(), KernelHead(n_landmarks=80)):
        one, other = both(head, rows, labels, small_blocks, clusters=codes)
        assert one.chosen_["strength"] == other.chosen_["strength"] == 0.1
        assert (one.predict(rows) == other.predict(rows)).mean() > 0.99
    known = RidgeHead().fit(rows, labels)
    twenty = RidgeHead().fit(rows, labels, clusters=codes * 2 + np.arange(len(codes)) % 2)
    assert abs(np.log10(twenty.chosen_["strength"] / known.chosen_["strength"])) <= 2.0
    assert 0.2 < twenty.chosen_["temperature"] / known.chosen_["temperature"] < 5.0


@pytest.mark.parametrize("seed", range(6))
def test_ten_folds_stay_where_the_first_three_are_not_all_there(
    digits_rows: tuple[Array, Labels], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Few clusters hash to few folds."""
    rows, labels = digits_rows
    clusters = np.arange(len(rows)) % 3
    blocks = [(rows[i::3], labels[i::3], clusters[i::3]) for i in range(3)]
    ten = RidgeHead().fit_blocks(blocks, seed=seed)
    monkeypatch.setattr(statistics, "_WIDE", 59)
    monkeypatch.setattr(statistics, "_MANY", 100)
    few = RidgeHead().fit_blocks(blocks, seed=seed)
    assert few.chosen_ == ten.chosen_


def test_rows_of_rare_classes_are_in_the_sample_of_balanced_rows(
    digits_rows: tuple[Array, Labels], small_blocks: pytest.MonkeyPatch
) -> None:
    """Of 12,000 rows, 12 of a rare class, the sample had one, and the temperature was 60 instead of 1."""
    rows, labels = digits_rows
    names = np.where(labels == "3", "three", "other")
    kept = (labels != "3") | (np.cumsum(labels == "3") <= 40)
    rows, names = rows[kept], names[kept]
    small_blocks.setattr(statistics, "_SAMPLE_VALUES", 60 * 200)
    blocks = in_blocks(rows, names, 100)
    weights = shares_of_classes(np.array([len(names) - 40, 40]))
    found = row_statistics(blocks, ["other", "three"], weights=weights.tolist())
    assert len(found.sample.draws) == 200 and (found.sample.codes == 1).sum() == 40
    represented = np.bincount(found.sample.codes, found.sample.represented)
    assert represented[0] / represented[1] == pytest.approx(1.0, rel=0.1)
    balanced = RidgeHead().fit_blocks(blocks, balance=True)
    small_blocks.setattr(statistics, "_SAMPLE_VALUES", 2**23)
    whole = RidgeHead().fit_blocks(blocks, balance=True)
    assert balanced.chosen_["temperature"] == pytest.approx(whole.chosen_["temperature"], rel=0.3)


def test_rows_are_gathered_before_their_products_are_added(
    digits_rows: tuple[Array, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sum of products of 5,120 features passes over 200 MiB, and a block of them has 82 rows of a fold."""
    rows, labels = digits_rows
    made: list[int] = []
    of = Moments.of
    monkeypatch.setattr(Moments, "of", lambda *given: made.append(len(given[0])) or of(*given))
    row_statistics(in_blocks(rows, labels, 10), sorted(set(labels.tolist())))
    assert sum(made) == len(rows) and len(made) <= len(rows) / 30 + N_FOLDS


def test_ten_folds_choose_a_strength_as_good_as_leaving_one_out(
    digits_rows: tuple[Array, Labels], small_blocks: pytest.MonkeyPatch
) -> None:
    rows, labels = digits_rows
    one, other = both("ridge", rows[:1200], labels[:1200], small_blocks)
    assert abs(np.log10(other.chosen_["strength"] / one.chosen_["strength"])) <= 1.0
    right = [(head.predict(rows[1200:]) == labels[1200:]).mean() for head in (one, other)]
    assert abs(right[0] - right[1]) < 0.01


def test_each_fold_is_decomposed_once_where_its_solutions_are_small(
    digits_rows: tuple[Array, Labels], small_blocks: pytest.MonkeyPatch
) -> None:
    """Ten decompositions of 5,120 inputs take minutes; scores from kept solutions are the same to the bit."""
    done = []
    small_blocks.setattr(folded_least_squares, "spectrum", lambda gram: done.append(1) or spectrum(gram))
    found = RidgeHead().fit(*digits_rows)
    assert len(done) == N_FOLDS + 1
    small_blocks.setattr(folded_least_squares, "_SOLUTIONS_BYTES", 0)
    again = RidgeHead().fit(*digits_rows)
    assert len(done) == 3 * N_FOLDS + 2
    assert np.array_equal(found.weight_, again.weight_) and found.chosen_ == again.chosen_


def test_images_and_clusters_are_held_out_together(
    digits_rows: tuple[Array, Labels], small_blocks: pytest.MonkeyPatch
) -> None:
    rows, labels = digits_rows
    twice, names = np.concatenate([rows[:600]] * 2), np.concatenate([labels[:600]] * 2)
    apart = RidgeHead().fit(twice, names)
    together = RidgeHead().fit(twice, names, clusters=np.tile(np.arange(600), 2))
    as_images = RidgeHead().fit(twice, names, images=np.tile(np.arange(600), 2))
    assert together.chosen_["strength"] > apart.chosen_["strength"], "copies in other folds favour no penalty"
    assert as_images.chosen_["strength"] == pytest.approx(together.chosen_["strength"], rel=10)
    blocks = [(twice[i::7], names[i::7], np.tile(np.arange(600), 2)[i::7]) for i in range(7)]
    given = RidgeHead().fit_blocks(blocks)
    assert given.chosen_["strength"] == pytest.approx(together.chosen_["strength"], rel=10)


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_the_size_of_blocks_does_not_count(digits_rows: tuple[Array, Labels], size: int) -> None:
    rows, labels = digits_rows[0][:500], digits_rows[1][:500]
    whole = row_statistics(in_blocks(rows, labels, 100), sorted(set(labels.tolist())))
    parts = row_statistics(in_blocks(rows, labels, size), sorted(set(labels.tolist())))
    same(whole, parts)
    one, other = (RidgeHead().fit_blocks(in_blocks(rows, labels, each)) for each in (100, size))
    assert differ(one, other) < 1e-6 and one.chosen_["strength"] == other.chosen_["strength"]


def same(one: RowStatistics, other: RowStatistics) -> None:
    """Equal up to the rounding of float64; the sample to the bit."""
    assert (one.counts == other.counts).all()
    for a, b in zip((*one.judged, one.always), (*other.judged, other.always), strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            scale = np.abs(a.products).max()
            assert np.abs(a.products - b.products).max() < 1e-12 * scale
            assert a.sums == pytest.approx(b.sums, abs=1e-9) and a.mean == pytest.approx(b.mean, rel=1e-12)
    for name in ("rows", "codes", "folds", "draws", "clusters"):
        assert (getattr(one.sample, name) == getattr(other.sample, name)).all(), name


def test_parts_add_up_in_any_order_and_can_be_pickled(
    digits_rows: tuple[Array, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_SAMPLE_VALUES", 60 * 200)  # fewer than there are rows
    rows, labels = digits_rows
    classes = sorted(set(labels.tolist()))
    starts = list(range(0, len(rows), 300))
    parts = [
        row_statistics([(rows[i : i + 300], labels[i : i + 300])], classes, seed=3, first_row=i)
        for i in starts
    ]
    whole = row_statistics([(rows, labels)], classes, seed=3)
    assert len(whole.sample.draws) == 200
    for order in ([0, 1, 2, 3, 4, 5], [5, 2, 0, 4, 1, 3]):
        same(whole, reduce(add, (pickle.loads(pickle.dumps(parts[i])) for i in order)))
    left = (parts[0] + parts[1]) + parts[2]
    same(left, parts[0] + (parts[1] + parts[2]))
    with pytest.raises(AssertionError):
        same(whole, parts[0] + parts[1])
    fitted = RidgeHead().fit_statistics(reduce(add, parts), classes)
    assert differ(fitted, RidgeHead().fit_blocks([(rows, labels)], seed=3)) < 1e-6


def test_weights_of_parts_are_those_of_the_whole(digits_rows: tuple[Array, Labels]) -> None:
    rows, labels = digits_rows[0][:800], digits_rows[1][:800]
    classes, counts = np.unique(labels, return_counts=True)
    weights = shares_of_classes(counts).tolist()
    parts = [
        row_statistics(
            [(rows[i : i + 400], labels[i : i + 400])], classes.tolist(), first_row=i, weights=weights
        )
        for i in (0, 400)
    ]
    balanced = RidgeHead().fit_blocks([(rows, labels)], balance=True)
    assert differ(RidgeHead().fit_statistics(parts[0] + parts[1], classes.tolist()), balanced) < 1e-6
    assert differ(RidgeHead().fit_blocks([(rows, labels)]), balanced) > 1e-4


def test_sorted_rows_whose_blocks_lack_classes(digits_rows: tuple[Array, Labels]) -> None:
    order = np.argsort(digits_rows[1], kind="stable")
    rows, labels = digits_rows[0][order], digits_rows[1][order]
    fitted = RidgeHead((0.01,)).fit_blocks(in_blocks(rows, labels, 50))
    assert differ(RidgeHead((0.01,)).fit(rows, labels), fitted) < BOUND
    softmax = LinearHead((0.1,)).fit_blocks(in_blocks(rows, labels, 50))
    assert (softmax.predict(rows) == LinearHead((0.1,)).fit(rows, labels).predict(rows)).mean() > 0.995


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_large_offsets_and_constant_features(small_blocks: pytest.MonkeyPatch, offset: float) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 3000)
    rows = rng.normal(size=(3000, 12)) + rng.normal(size=(3, 12))[codes]
    rows[:, 4] = 2.5
    moved = (rows + offset).astype(np.float32)
    names = np.array(["ant", "bee", "cat"])[codes]
    one, other = both(RidgeHead((1e-4,)), moved, names, small_blocks)
    assert np.isfinite(other.probabilities(moved)).all()
    assert (one.predict(moved) == other.predict(moved)).mean() > 0.999
    # the products themselves, which plain sums of squares would lose: 1e4 squared has 8 digits more than the spread
    training = Training(moved, codes, np.ones(3000, np.float32), np.arange(3000), 0)
    found = total(RowStatistics.collected(TrainingBlocks(training), 3).judged)
    exact = moved.astype(np.longdouble)
    exact = exact - exact.mean(axis=0)
    assert (
        np.abs(found.products - (exact.T @ exact).astype(float)).max() < 1e-10 * np.abs(found.products).max()
    )
    assert found.products[4, 4] == 0.0
    plain = moved.T.astype(np.float32) @ moved - 3000 * np.outer(moved.mean(axis=0), moved.mean(axis=0))
    if offset:
        assert np.abs(found.products - plain).max() > 0.1 * np.abs(found.products).max()


def test_moments_of_mapped_rows(digits_rows: tuple[Array, Labels]) -> None:
    rows, codes = digits_rows[0][:200].astype(np.float64), np.sort(np.arange(200) % 3)
    weights = np.linspace(0.5, 2.0, 200)
    matrix = np.random.default_rng(0).normal(size=(60, 5))
    found = Moments.of(rows, codes, 3, weights).mapped(matrix)
    expected = Moments.of(rows @ matrix, codes, 3, weights)
    assert found.products == pytest.approx(expected.products) and found.sums == pytest.approx(expected.sums)
    scaled = Moments.of(rows, codes, 3, weights).scaled(np.full(60, 0.3), np.full(60, 2.0))
    direct = Moments.of((rows - 0.3) * 2.0, codes, 3, weights)
    assert scaled.products == pytest.approx(direct.products) and scaled.plain_mean == pytest.approx(
        direct.plain_mean
    )
    assert scaled.variance == pytest.approx(direct.variance) and scaled.mean == pytest.approx(direct.mean)


@pytest.mark.parametrize("how", [{}, {"balance": True}], ids=["plain", "balanced"])
def test_linear_is_as_accurate_as_in_memory(
    digits_rows: tuple[Array, Labels], small_blocks: pytest.MonkeyPatch, how: dict[str, object]
) -> None:
    rows, labels = digits_rows
    held = (rows[1200:], labels[1200:])
    one, other = both("linear", rows[:1200], labels[:1200], small_blocks, watch=held, **how)
    assert one.chosen_ == other.chosen_, "the same rows decide the strength"
    losses = []
    for head in (one, other):
        probs = head.probabilities(rows[:1200])
        losses.append(-np.log(probs[np.arange(1200), np.searchsorted(head.classes_, labels[:1200])]).mean())
    assert losses[1] == pytest.approx(losses[0], abs=2e-3)
    assert (one.predict(held[0]) == other.predict(held[0])).mean() > 0.99
    assert other.curve_ is not None and other.curve_.val_accuracy[-1] > 0.85
    given = LinearHead().fit_blocks(in_blocks(rows[:1200], labels[:1200], 300), **how)
    assert (given.predict(held[0]) == one.predict(held[0])).mean() > 0.98


def test_a_class_that_the_sample_lacks(
    small_blocks: pytest.MonkeyPatch, digits_rows: tuple[Array, Labels]
) -> None:
    from headstart.heads import linear

    small_blocks.setattr(linear, "_SAMPLE_VALUES", 60 * 300)
    rows, labels = digits_rows
    names = np.where(np.arange(len(labels)) == 1234, "rare", labels)
    for head in (LinearHead(), RidgeHead()):
        fitted = head.fit_blocks(in_blocks(rows, names, 500))
        assert "rare" in fitted.classes_
        assert np.isfinite(fitted.probabilities(rows)).all()
        assert (fitted.predict(rows) == names).mean() > 0.9


def test_kernel_is_that_of_the_expansion_in_memory(
    small_blocks: pytest.MonkeyPatch, digits_rows: tuple[Array, Labels]
) -> None:
    rows, labels = digits_rows
    one, other = both(KernelHead(n_landmarks=80), rows[:1200], labels[:1200], small_blocks)
    assert one.chosen_["gamma"] == other.chosen_["gamma"]
    found = [head.predict(rows[1200:]) for head in (one, other)]
    assert (found[0] == found[1]).mean() > 0.99
    right = [(one == labels[1200:]).mean() for one in found]
    assert right[1] == pytest.approx(right[0], abs=0.01) and right[1] > 0.85


def test_kernel_reads_wide_rows_block_by_block(
    small_blocks: pytest.MonkeyPatch, digits_rows: tuple[Array, Labels]
) -> None:
    """97,000 images of 12,288 raw pixels took 11 GiB: fewer than 8 rows a pixel, of which there are no products."""
    rows, labels = np.tile(digits_rows[0][:400], (1, 2)), digits_rows[1][:400]  # 3 rows an input
    small_blocks.setattr(
        KernelHead, "_problem", lambda *given: pytest.fail("the rows are copied into memory")
    )
    fitted = KernelHead(n_landmarks=30).fit(rows, labels)
    assert (fitted.predict(rows) == labels).mean() > 0.7
    with pytest.raises(pytest.fail.Exception):
        KernelHead(n_landmarks=100).fit(rows, labels)


def test_what_counts_as_large() -> None:
    assert not is_large(60_000, 2_000) and is_large(70_000, 2_000)
    assert not is_large(20_000, 25_088), "products of so many features would be larger than the rows"


def test_mistakes_in_blocks_are_one_sentence(digits_rows: tuple[Array, Labels]) -> None:
    rows, labels = digits_rows[0][:100], digits_rows[1][:100]
    classes = sorted(set(labels.tolist()))
    wrong, more = rows.copy(), [*classes, "none"]
    wrong[40, 3] = np.nan
    large = rows.astype(np.float64)
    large[40, 3] = 1e39
    cases: list[tuple[type[Exception], str, object, dict[str, object]]] = [
        (DataError, "not finite", [(wrong, labels)], {}),
        (DataError, "not finite", [(large, labels)], {}),
        (DataError, "no rows", [], {"classes": classes}),
        (UnknownClassError, "classes are", [], {}),
        (UnknownClassError, "'none' has no image", [(rows, labels)], {"classes": more}),
        (
            UnknownClassError,
            "'none' has no image",
            [(rows, labels)],
            {"classes": more, "balance": True},
        ),
        (UnknownClassError, "is unknown", [(rows, labels)], {"classes": classes[:4]}),
        (ShapeError, "shape \\(100, 60\\)", [(rows, labels[:99])], {}),
        (ShapeError, "shape \\(100, 59\\)", [(rows, labels), (rows[:, 1:], labels)], {}),
        (ShapeError, "shape \\(6000,\\)", [(rows.ravel(), labels)], {}),
    ]
    cases += [
        (ShapeError, "a block is a ndarray", [rows], {}),
        (ShapeError, "a block is a tuple", [(rows,)], {}),
        (ShapeError, "shape \\(100, 0\\)", [(rows[:, :0], labels)], {}),
        (ShapeError, "expected whole numbers", [(rows, labels, labels)], {}),
        (ShapeError, "shares are 2, expected 10", [(rows, labels)], {"shares": [0.5, 0.5]}),
        (SettingError, "shares are 0 at the least", [(rows, labels)], {"shares": [0, *range(1, 10)]}),
    ]
    for error, text, blocks, how in cases:
        for name in ("ridge", "linear"):
            with pytest.raises(error, match=text):
                make_head(name).fit_blocks(blocks, **how)
    with pytest.raises(SettingError, match="'mlp' cannot learn from blocks"):
        make_head("mlp").fit_blocks([(rows, labels)])
    with pytest.raises(ShapeError, match="expected 10 as in the statistics"):
        RidgeHead().fit_statistics(row_statistics([(rows, labels)], classes), classes[:3])
    with pytest.raises(ShapeError, match="make all of them from one source"):
        row_statistics([(rows, labels)], classes) + row_statistics([(rows[:, 1:], labels)], classes)
    with pytest.raises(ShapeError, match="statistics are of 10 classes, expected 11"):
        row_statistics([(rows, labels)], classes) + row_statistics([(rows, labels)], more)


def test_an_iterator_is_enough_where_one_pass_is(digits_rows: tuple[Array, Labels]) -> None:
    rows, labels = digits_rows
    classes = sorted(set(labels.tolist()))

    def read() -> Iterator[tuple[Array, Labels]]:
        yield from in_blocks(rows, labels, 200)

    once = RidgeHead().fit_blocks(read(), classes=classes)
    assert differ(once, RidgeHead().fit_blocks(read)) < 1e-7, "a function starts again"
    for head, how in ((RidgeHead(), {}), (LinearHead(), {"classes": classes})):
        with pytest.raises(SettingError, match="an iterator, which can be read once"):
            head.fit_blocks(read(), **how)


def test_blocks_that_change_between_passes_are_refused(digits_rows: tuple[Array, Labels]) -> None:
    rows, labels = digits_rows
    once = iter(in_blocks(rows, labels, 200))
    for head in (RidgeHead(), LinearHead()):
        with pytest.raises((DataError, UnknownClassError), match=r"0 rows in a second pass|classes are"):
            head.fit_blocks(lambda: once)
    sizes = iter((1797, 1700, 1600))
    with pytest.raises(DataError, match="1,700 rows in a second pass, expected 1,797"):
        LinearHead().fit_blocks(lambda: in_blocks(rows[: (n := next(sizes))], labels[:n], 500))


def test_odd_blocks(digits_rows: tuple[Array, Labels]) -> None:
    rows, labels = digits_rows[0][:400], digits_rows[1][:400]
    plain = RidgeHead().fit_blocks([(rows, labels)])
    halves = [
        (rows[:0], labels[:0]),
        (rows.astype(np.float16), labels.astype(object)),
        (rows[:0], labels[:0]),
    ]
    assert differ(plain, RidgeHead().fit_blocks(halves)) < 1e-2
    assert differ(plain, RidgeHead().fit_blocks([(rows.tolist(), labels.tolist())])) < 1e-6
    transposed = np.asfortranarray(rows.astype(np.float64))
    assert differ(plain, RidgeHead().fit_blocks([(transposed, labels)])) < 1e-6
    one_cluster = RidgeHead().fit_blocks([(rows, labels, np.full(400, -7))])
    assert one_cluster.chosen_["strength"] == 0.1, "nothing can be held out"


def test_nothing_that_is_not_finite_is_learned_from_a_large_matrix(small_blocks: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    rows[-1, -1] = np.inf
    with pytest.raises(DataError, match="not finite"):
        RidgeHead().fit(rows, np.repeat(["ant", "bee"], 500))


def test_novelty_of_many_rows_is_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6000, 6)).astype(np.float32)
    codes, images = np.tile(np.arange(3000) % 2, 2), np.tile(np.arange(3000), 2)
    rows += 4 * codes[:, None]
    monkeypatch.setattr(novelty, "LARGE_VALUES", 6 * 5000)
    monkeypatch.setattr(novelty, "_SAMPLE_VALUES", 6 * 1500)
    found = fit_novelty(rows, codes, images, groups=np.arange(3000) // 3)
    assert found is not None and found.n_held == 1500
    assert (found.scores(rows[:2000]) > 1).mean() == pytest.approx(0.05, abs=0.025)
    assert (found.scores(rows[:100] + 30) > 1).all()


PROGRAM = """
import sys
import numpy as np
from headstart.heads import linear, row_blocks
from headstart.heads.registry import make_head
from headstart.system import mapped
row_blocks.LARGE_VALUES = int(sys.argv[2])
# the samples and the pages that are kept would else grow up to 131,072 rows
linear._SAMPLE_VALUES, mapped._KEPT_BYTES = 2**20, 2**22
rows = np.load(sys.argv[1], mmap_mode="r")
names = np.array(["ant", "bee", "cat"])[np.arange(len(rows)) % 3]
def kib(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
def forget(): open("/proc/self/clear_refs", "w").write("5")  # the peak so far
make_head(sys.argv[3]).fit(np.array(rows[:4000]), names[:4000])
forget()
before = kib()
make_head(sys.argv[3]).fit(rows, names)
print((kib() - before) / 1024)
"""


def grown_mib(path: Path, values: int, head: str) -> float:
    command = [sys.executable, "-c", PROGRAM, str(path), str(values), head]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux")
@pytest.mark.parametrize("head", ["ridge", "linear"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, head: str) -> None:
    counts = (100_000, 250_000)
    for n_rows in counts:
        file = np.lib.format.open_memmap(tmp_path / f"{n_rows}.npy", "w+", np.float32, (n_rows, 128))
        rng = np.random.default_rng(0)
        for start in range(0, n_rows, 50_000):
            file[start : start + 50_000] = rng.standard_normal((50_000, 128), np.float32)
            file[start : start + 50_000] += (np.arange(start, start + 50_000) % 3)[:, None]
        file.flush()

    def more_mib(values: int) -> float:
        """What the larger matrix takes more than the smaller one."""
        few, many = (grown_mib(tmp_path / f"{n_rows}.npy", values, head) for n_rows in counts)
        return many - few

    more_rows_mib = (counts[1] - counts[0]) * 128 * 4 / 2**20  # 73
    # of names, codes, folds and images there is one of 1 to 12 bytes for each row, and sorted copies
    assert more_mib(2**20) < 0.5 * more_rows_mib
    assert more_mib(2**60) > more_rows_mib, "in memory it would"
