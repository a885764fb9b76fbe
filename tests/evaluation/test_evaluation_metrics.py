"""Metrics against hand counts and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.metrics import confusion, cross_entropy, evaluate


def _guess(n_images=600, n_classes=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_images)
    logits = rng.normal(size=(n_images, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probs, labels


def test_confusion_counts_true_by_row_and_called_by_column():
    assert confusion(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2]), 3).tolist() == [
        [1, 0, 1],
        [0, 1, 0],
        [0, 0, 1],
    ]


def test_evaluate_agrees_with_scikit_learn():
    probs, labels = _guess()
    found = evaluate("t", probs, labels, list("abcde"))
    predicted = probs.argmax(axis=1)
    assert np.array(found.confusion).tolist() == confusion_matrix(labels, predicted).tolist()
    assert found.loss == pytest.approx(log_loss(labels, probs))
    wanted = np.array(precision_recall_fscore_support(labels, predicted)[:3])
    ours = np.array(
        [[getattr(row, key).value for row in found.per_class] for key in ("precision", "recall", "f1")]
    )
    assert ours == pytest.approx(wanted)
    assert found.accuracy.value == np.mean(predicted == labels)
    assert found.accuracy.n == 600


def test_every_score_lies_in_its_interval():
    probs, labels = _guess(n_images=40)
    found = evaluate("t", probs, labels, list("abcde"))
    for row in found.per_class:
        for score in (row.precision, row.recall, row.f1):
            assert 0 <= score.low <= score.value <= score.high <= 1


def test_a_class_never_called_and_never_there_scores_zero_and_knows_nothing():
    probs = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    last = evaluate("t", probs, np.array([0, 1]), ("a", "b", "c")).per_class[2]
    for score in (last.precision, last.recall, last.f1):
        assert (score.value, score.low, score.high, score.n) == (0.0, 0.0, 1.0, 0)


def test_a_certain_mistake_costs_a_finite_loss():
    assert cross_entropy(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(-np.log(1e-7))
    assert str(cross_entropy(np.array([[1.0, 0.0]]), np.array([0]))) == "0.0"


def test_evaluate_is_the_same_for_the_same_seed():
    probs, labels = _guess(n_images=100)
    assert evaluate("t", probs, labels, list("abcde")) == evaluate("t", probs, labels, list("abcde"))


@pytest.mark.parametrize(
    ("probs", "labels", "classes", "error", "word"),
    [
        (np.ones(3), np.zeros(3, int), "a", ShapeError, "probs has shape"),
        (np.ones((0, 1)), np.zeros(0, int), "a", ShapeError, "both 1 or more"),
        (np.full((2, 2), 0.5), np.zeros(3, int), "ab", ShapeError, "to match labels"),
        (np.full((2, 2), 0.5), np.zeros(2, int), "abc", ShapeError, "to match classes"),
        (np.full((2, 2), 0.5), np.zeros(2), "ab", ShapeError, "integer codes"),
        (np.full((2, 2), 0.5), np.array([0, 2]), "ab", SettingError, "codes from 0 to 2, expected 0 to 1"),
        (np.full((2, 2), 0.9), np.zeros(2, int), "ab", SettingError, "no probabilities"),
        (np.full((2, 2), np.nan), np.zeros(2, int), "ab", SettingError, "no probabilities"),
    ],
)
def test_evaluate_says_what_it_cannot_use(probs, labels, classes, error, word):
    with pytest.raises(error, match=word) as caught:
        evaluate("t", probs, labels, tuple(classes))
    assert ", expected " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_confusion_wants_one_call_per_image():
    with pytest.raises(ShapeError, match="predicted has 1 entries, expected 2"):
        confusion(np.array([0, 1]), np.array([0]), 2)


@pytest.mark.parametrize("seed", range(3))
def test_averages_are_over_the_classes_that_have_images(seed):
    rng = np.random.default_rng(seed)
    labels, probs = rng.integers(0, 4, 200), rng.dirichlet(np.ones(6), 200)  # nothing is of class 4 or 5
    found = evaluate("toy", probs, labels, [f"c{code}" for code in range(6)])
    assert found.absent == ("c4", "c5")
    predicted = probs.argmax(axis=1)
    expected = precision_recall_fscore_support(labels, predicted, labels=range(4), average="macro")
    scores = (found.macro.precision, found.macro.recall, found.macro.f1)
    for score, value in zip(scores, expected, strict=False):
        assert score.value == pytest.approx(value)
        assert score.low <= score.value <= score.high and score.n == 200


def test_groups_widen_the_intervals_and_move_no_value():
    rng = np.random.default_rng(0)
    labels, groups = np.repeat([0, 1], 100), np.array([f"g{place // 20}" for place in range(200)])
    right = np.repeat(rng.random(10) < 0.7, 20)  # a group is right or wrong as one
    predicted = np.where(right, labels, 1 - labels)
    probs = np.where(predicted[:, None] == np.arange(2), 0.9, 0.1)
    plain, grouped = (
        evaluate("toy", probs, labels, "ab"),
        evaluate("toy", probs, labels, "ab", clusters=groups),
    )
    pairs = [(plain.accuracy, grouped.accuracy)]
    pairs += [(one.recall, two.recall) for one, two in zip(plain.per_class, grouped.per_class, strict=True)]
    for one, two in pairs:
        assert one.value == two.value and two.high - two.low > one.high - one.low
    assert plain.macro is not None and grouped.macro is not None
    assert grouped.macro.f1.low < plain.macro.f1.low and plain.confusion == grouped.confusion


def test_a_model_that_answers_one_class_has_intervals_with_a_width():
    found = evaluate("toy", np.tile([0.1, 0.9], (40, 1)), np.repeat([0, 1], 20), "ab")
    for score in (found.per_class[1].f1, found.macro.precision, found.macro.recall, found.macro.f1):
        assert score.low < score.value < score.high


def test_one_cluster_for_a_class_says_nothing_of_others():
    probs, labels = np.repeat(np.eye(2), 30, axis=0), np.repeat([0, 1], 30)
    for row in evaluate("toy", probs, labels, "ab", labels).per_class:
        assert {(one.low, one.high) for one in (row.precision, row.recall, row.f1)} == {(0.0, 1.0)}
