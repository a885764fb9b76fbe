"""Metrics of one model on one test set: accuracy, loss, confusion, and precision, recall and F1 by class.

`ratios` has the intervals of precision, recall and F1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.clusters import accuracy_score
from headstart.evaluation.ratios import averages, class_scores
from headstart.evaluation.records import ClassScore, Evaluation
from headstart.records import Codes

__all__ = ["confusion", "cross_entropy", "evaluate"]

_FLOOR = 1e-7
"""Least probability in a loss: a float32 softmax does not resolve smaller ones."""
_SUM_TOLERANCE = 1e-3
"""Rows of bf16 softmax outputs sum to 1 within this."""


def confusion(labels: Codes, predicted: Codes, n_classes: int) -> NDArray[np.int64]:
    """Counts, (n_classes, n_classes) int64: entry ``[i, j]`` is the images of class i predicted as class j.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    true, columns = _codes("labels", labels, n_classes), _codes("predicted", predicted, n_classes)
    if len(true) != len(columns):
        raise ShapeError(
            f"predicted has {len(columns)} entries, expected {len(true)} to match labels; pass one per image"
        )
    cells = np.bincount(true * n_classes + columns, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def cross_entropy(probs: NDArray[np.floating], labels: Codes) -> float:
    """Mean negative log-probability of the true classes, in nats per image; probabilities are at least 1e-7.

    The floor bounds the result to [0, 16.12], so one certain mistake cannot make the mean infinite.

    >>> round(cross_entropy(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([0, 1])), 4)
    0.3466
    """
    table = _probs(probs)
    codes = _codes("labels", labels, table.shape[1])
    _check_rows(table, codes)
    return float(-np.log(np.clip(table[np.arange(len(codes)), codes], _FLOOR, 1.0)).mean()) + 0.0


def evaluate(
    title: str,
    probs: NDArray[np.floating],
    labels: Codes,
    classes: Sequence[str],
    clusters: NDArray[np.generic] | None = None,
    *,
    crossed: bool = False,
) -> Evaluation:
    """Score class probabilities against true classes, with a 95 % interval on every score.

    Parameters
    ----------
    title : str
        What was evaluated on what, for the reader of the report.
    probs : ndarray of shape (n_images, n_classes), float
        Class probabilities; rows sum to 1 within 1e-3. The first highest column is the predicted class.
    labels : ndarray of shape (n_images,), int
        True class of each image, in ``[0, n_classes)``.
    classes : sequence of str
        Names of the columns of ``probs``.
    clusters : ndarray of shape (n_images,), str or int, optional
        Images with the same entry depend on each other: copies, or images of one group. Every interval
        takes this into account. Default: all images are independent.
    crossed : bool, default=False
        Whether the probabilities come from the models of a cross-validation, which share training images.

    Returns
    -------
    Evaluation
        Accuracy, precision, recall and F1 with their intervals, the mean loss in nats, and the confusion
        counts. Where a ratio has no denominator (a class that is never predicted has no precision, one
        that never occurs no recall) its value is 0.0 by convention, its ``n`` 0 and its interval
        ``[0, 1]``. ``macro`` averages over the classes that have images.

    Raises
    ------
    ShapeError
        If ``probs`` is not 2-D, is empty, or does not match ``labels`` or ``classes``.
    SettingError
        If ``probs`` holds anything but rows of probabilities, or a label has no column.

    Examples
    --------
    >>> probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    >>> found = evaluate("toy", probs, np.array([0, 0, 1, 1]), ("even", "odd"))
    >>> found.accuracy.value, found.confusion
    (0.75, ((2, 0), (1, 1)))
    """
    table = _probs(probs)
    if table.shape[1] != len(classes):
        raise ShapeError(
            f"probs has shape {table.shape}, expected (n_images, {len(classes)}) to match classes; "
            "name every column once"
        )
    loss = cross_entropy(table, labels)
    true, predicted = np.asarray(labels), table.argmax(axis=1)
    counts = confusion(labels, predicted, len(classes))
    rows = [
        ClassScore(str(name), *scores)
        for name, scores in zip(
            classes, class_scores(true, predicted, len(classes), clusters, crossed=crossed), strict=True
        )
    ]
    macro = ClassScore("macro", *averages(true, predicted, rows, clusters, crossed=crossed))
    cells = tuple(tuple(int(cell) for cell in row) for row in counts)
    return Evaluation(
        title,
        tuple(map(str, classes)),
        accuracy_score(predicted == true, clusters, crossed=crossed),
        loss,
        cells,
        tuple(rows),
        macro,
    )


def _codes(name: str, codes: Codes, n_classes: int) -> Codes:
    """Codes as a checked 1-D int64 array."""
    array = np.asarray(codes)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ShapeError(
            f"{name} has shape {array.shape} and dtype {array.dtype}, expected (n_images,) of integer codes; "
            "pass one code per image"
        )
    if array.size and not (array.min() >= 0 and array.max() < n_classes):
        raise SettingError(
            f"{name} holds codes from {array.min()} to {array.max()}, expected 0 to {n_classes - 1}; "
            "pass the codes that index the classes"
        )
    return array.astype(np.int64)


def _probs(probs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities as a checked, non-empty 2-D float64 array."""
    table = np.asarray(probs, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ShapeError(
            f"probs has shape {table.shape}, expected (n_images, n_classes), both 1 or more; "
            "pass one row per image"
        )
    # written so that NaN fails too
    if not (table.min() >= 0 and np.abs(table.sum(axis=1) - 1).max() <= _SUM_TOLERANCE):
        raise SettingError(
            "probs holds rows that are no probabilities, expected entries of 0 or more that sum to 1; "
            "pass them through softmax first"
        )
    return table


def _check_rows(table: NDArray[np.float64], codes: Codes) -> None:
    """Raise ShapeError unless there is one row of probabilities per code."""
    if len(table) != len(codes):
        raise ShapeError(
            f"probs has shape {table.shape}, expected ({len(codes)}, n_classes) to match labels; "
            "pass one row per image"
        )
