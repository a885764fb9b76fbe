"""Conformal thresholds hold their level, with and without clusters, and from few stored numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headstart.errors import ShapeError
from headstart.evaluation.conformal import conformal_threshold, highest_level, left_out_quantiles


@pytest.mark.parametrize(("n", "most"), [(19, 399), (60, 399), (60, 25), (1_000, 199)])
def test_a_new_score_is_below_the_threshold_as_often_as_the_level_says(n: int, most: int) -> None:
    rng, held = np.random.default_rng(0), []
    for _ in range(3_000):
        scores = rng.exponential(size=n + 1)
        held.append(scores[-1] <= conformal_threshold(left_out_quantiles(scores[:-1], most=most), 0.9))
    error = 3 * math.sqrt(0.09 / 3_000)
    assert 0.9 - error <= np.mean(held) <= 0.9 + 1 / (min(n, most) + 1) + error


def test_all_scores_are_kept_where_there_are_few() -> None:
    scores = np.random.default_rng(0).normal(size=50)
    found = left_out_quantiles(scores)
    assert found == tuple(np.sort(scores))
    assert left_out_quantiles(scores, np.arange(50)) == found


def test_a_threshold_is_infinite_where_too_few_were_left_out() -> None:
    eighteen, nineteen = (left_out_quantiles(np.arange(float(n))) for n in (18, 19))
    assert conformal_threshold(eighteen, 0.95) == math.inf and highest_level(eighteen) < 0.95
    assert conformal_threshold(nineteen, 0.95) == 18 and highest_level(nineteen) == 0.95
    assert conformal_threshold((), 0.5) == math.inf and left_out_quantiles(np.empty(0)) == ()


def test_an_image_of_a_new_group_is_held_as_often_as_the_level_says() -> None:
    rng, held = np.random.default_rng(1), []
    for _ in range(2_000):
        sizes = rng.integers(1, 12, 31)
        groups = np.repeat(np.arange(31), sizes)
        scores = rng.normal(size=31)[groups] + 0.5 * rng.normal(size=len(groups))
        old = groups < 30
        threshold = conformal_threshold(left_out_quantiles(scores[old], groups[old]), 0.9)
        held.append((scores[~old] <= threshold).mean())
    assert 0.9 - 3 * np.std(held) / math.sqrt(2_000) <= np.mean(held) < 0.96


def test_copies_of_an_image_count_once() -> None:
    scores = np.array([0.0] * 50 + [1.0, 2.0, 3.0])
    clusters = np.array([0] * 50 + [1, 2, 3])
    assert left_out_quantiles(scores, clusters) == (0.0, 1.0, 2.0, 3.0)


def test_other_shapes_are_an_error() -> None:
    with pytest.raises(ShapeError, match="expected one score, and one cluster, for each image"):
        left_out_quantiles(np.zeros(3), np.zeros(2))
