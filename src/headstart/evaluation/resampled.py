"""Paired comparison by repeated cross-validation, whose folds share most of their training images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

from headstart.errors import SettingError, ShapeError
from headstart.evaluation.intervals import wilson
from headstart.evaluation.records import Difference

__all__ = ["resampled_difference"]

_LEVEL = 0.95


def resampled_difference(
    gains: NDArray[np.floating],
    n_train: int,
    n_test: int,
    n_images: int,
    sizes: Sequence[int] | None = None,
) -> Difference:
    """Accuracy of a minus accuracy of b over the folds of a repeated cross-validation.

    ``gains`` (n_folds,) holds the difference on each fold of each repeat, in [-1, 1]; a fold has ``n_train``
    training and ``n_test`` test images, and all folds together ``n_images`` different test images. ``sizes`` are the
    test images of each fold where folds differ: then the value is the mean over images, as accuracies are.

    >>> gains = np.array([0.05, 0.00, 0.10, 0.05, 0.00, 0.05, 0.10, 0.00, 0.05, 0.10])
    >>> found = resampled_difference(gains, n_train=180, n_test=20, n_images=200)
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3), round(found.p_value, 3)
    (0.05, 0.008, 0.092, 0.026)
    """
    fold_gains = np.asarray(gains, dtype=np.float64)
    if fold_gains.ndim != 1 or len(fold_gains) < 2:
        raise ShapeError(
            f"gains has shape {fold_gains.shape}, expected (n_folds,) with 2 folds or more; "
            "pass one difference per fold of every repeat"
        )
    # written so that NaN fails too
    if not (fold_gains.min() >= -1 and fold_gains.max() <= 1):
        raise SettingError(
            f"gains holds numbers from {fold_gains.min()} to {fold_gains.max()}, expected -1 to 1; "
            "pass differences of accuracies, not of per cent"
        )
    for name, count in (("n_train", n_train), ("n_test", n_test), ("n_images", n_images)):
        if count < 1:
            raise SettingError(f"{name} is {count!r}, expected 1 or more; pass a number of images")
    # Nadeau and Bengio. Inference for the Generalization Error. Machine Learning 52, 2003,
    # doi:10.1023/A:1024068626366 (the corrected resampled t-test). Bouckaert and Frank. Evaluating the
    # Replicability of Significance Tests for Comparing Learning Algorithms. PAKDD 2004,
    # doi:10.1007/978-3-540-24775-3_3 (over the folds of all repeats).
    #
    # Folds share images, so their gains vary together and the plain t-test finds differences that do not exist.
    # The variance of the mean is (1 / n_folds + n_test / n_train) times that of the gains, with Student's t and
    # n_folds - 1 degrees of freedom; more repeats cannot bring it below n_test / n_train times. The correction is
    # a heuristic without a proof, and the one that keeps false positives near their nominal rate. The result is
    # about the procedure on data like these.
    #
    # Single predictions vary, so the error is at least sqrt(g (1 - g) / n_images), with g the size of the mean
    # gain. Where gains are equal in all folds, most often 0, it is that of Wilson's interval for a share of g
    # among n_images, which has a width at 0 and 1, too.
    n_folds, value = len(fold_gains), float(np.average(fold_gains, weights=sizes))
    spread = float(fold_gains.var(ddof=1)) * (1 / n_folds + n_test / n_train)
    if np.ptp(fold_gains) == 0:
        error = _wilson_error(abs(value), n_images)
    else:
        error = float(np.sqrt(max(spread, abs(value) * (1 - abs(value)) / n_images)))
    half = error * float(stdtrit(n_folds - 1, 0.5 + _LEVEL / 2))
    p_value = float(2 * stdtr(n_folds - 1, -abs(value) / error))
    return Difference(value, max(value - half, -1.0), min(value + half, 1.0), p_value, n_images)


def _wilson_error(share: float, n_images: int) -> float:
    """Standard error of a share of images that is never 0: from the longer arm of Wilson's interval."""
    score = wilson(share * n_images, n_images, _LEVEL)
    return max(share - score.low, score.high - share) / float(ndtri(0.5 + _LEVEL / 2))
