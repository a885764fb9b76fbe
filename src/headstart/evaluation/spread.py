"""How far a mean over images may be from the truth: one function for each way of splitting.

A mean is of values per round and image, (n_rounds, n_images): 0 or 1 for an accuracy, -1, 0 or 1 for a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

__all__ = ["Spread", "of_draws", "of_fold_draws", "of_folds", "with_networks"]

Values = NDArray[np.float64]
Codes = NDArray[np.intp]

_FEW_IMAGES = (
    50  # up to which means vary more than the images show; the factors on the error are from simulations
)
_FEW_FOLDS_FACTOR, _FEW_DRAWS_FACTOR = 1.25, 1.1
_SAME_TRAINING = 0.25


@dataclass(frozen=True)
class Spread:
    """The variance of a mean, to be read on Student's t with ``freedom`` degrees of freedom.

    ``fixed`` is the part that more images would not reduce, that of draws of labels or of random networks, with its
    own degrees of freedom.
    """

    variance: float
    freedom: float
    fixed: float = 0.0
    fixed_freedom: float = 1.0

    def with_images(self, times: float) -> Spread:
        """The spread to be expected with so many times the images."""
        by_images = max(self.variance - self.fixed, 0.0) / times
        total = self.fixed + by_images
        if self.fixed <= 0:
            return Spread(total, self.freedom * times)
        return replace(self, variance=total, freedom=total**2 / (self.fixed**2 / self.fixed_freedom))

    def half_width(self, level: float) -> float:
        """Half the width of the interval at this confidence level."""
        return float(np.sqrt(self.variance) * stdtrit(self.freedom, 0.5 + level / 2))

    def p_value(self, value: float) -> float:
        """Two-sided chance of a mean at least this far from 0."""
        if self.variance <= 0:
            return 1.0 if value == 0 else 0.0
        return float(2 * stdtr(self.freedom, -abs(value) / np.sqrt(self.variance)))


def of_draws(values: Values, clusters: Codes | None = None, overlap: float = 0.0) -> Spread:
    """Rounds with labels drawn anew and the same images, which are both samples; or one round.

    Crossed random effects by analysis of variance, with Satterthwaite's degrees of freedom (An Approximate
    Distribution of Estimates of Variance Components. Biometrics Bulletin 2, 1946, doi:10.2307/3002019): the target is
    the procedure on new labels and new images. Images of one cluster are one unit (CR2: Bell and McCaffrey. Bias
    Reduction in Standard Errors for Linear Regression with Multi-Stage Samples. Survey Methodology 28, 2002).

    ``overlap`` is the share of training images that two rounds have in common, from 0 to below 1. Rounds that share
    images show only ``1 - overlap`` of the variance between training sets, and do not average out the rest (Nadeau,
    Bengio. Inference for the Generalization Error. Machine Learning 52, 2003, doi:10.1023/A:1024068626366).
    """
    units, unit_freedom = _units(values, clusters)
    n_rounds, n_units = units.shape
    if n_rounds == 1:
        squares = float(((units - values.mean()) ** 2).sum())
        return Spread(squares / max(n_units * (n_units - 1), 1), unit_freedom)
    if n_units == 1:
        return Spread(float(units.var(ddof=1)) / n_rounds, n_rounds - 1.0)
    mean, by_round, by_unit = units.mean(), units.mean(axis=1), units.mean(axis=0)
    rest = units - by_round[:, None] - by_unit + mean
    noise = float((rest**2).sum()) / ((n_rounds - 1) * (n_units - 1))
    rounds = max(n_units * float(by_round.var(ddof=1)), noise)
    images = max(n_rounds * float(by_unit.var(ddof=1)), noise)
    shared = _with_shared(n_rounds, overlap)
    total = shared * (rounds - noise) + images
    if total <= 0:
        return Spread(0.0, unit_freedom)
    parts = (shared * rounds) ** 2 / (n_rounds - 1) + images**2 / unit_freedom
    parts += (shared * noise) ** 2 / ((n_rounds - 1) * unit_freedom)
    # where rounds differ no more than noise does, the formula for a difference of variances breaks down
    freedom = max(total**2 / parts, min(n_rounds - 1.0, unit_freedom))
    few = _FEW_DRAWS_FACTOR**2 if clusters is None and n_units <= _FEW_IMAGES else 1.0
    fixed = few * shared * (rounds - noise) / units.size
    return Spread(few * total / units.size, freedom, fixed, n_rounds - 1.0)


def of_folds(values: Values, clusters: Codes | None = None) -> Spread:
    """Rounds of cross-validation with all labels: each round predicts every image once.

    The variance of the images' means over the rounds, or of clusters of them: more rounds average the noise of single
    predictions, but the images are the same in all of them. To this a quarter of the variance over images is added:
    the models of all folds learn from nearly the same images, and share what is good or bad about these, which no
    round shows (Bengio, Grandvalet. No Unbiased Estimator of the Variance of K-Fold Cross-Validation. JMLR 5, 2004).
    The quarter is from simulations and from real digits: docs/protocols/folds.md.
    """
    means = values.mean(axis=0, keepdims=True)
    n_images = means.shape[1]
    over_images = of_draws(means)
    if clusters is None:
        few = _FEW_FOLDS_FACTOR**2 if n_images <= _FEW_IMAGES else 1 + _SAME_TRAINING
        return replace(over_images, variance=few * over_images.variance)
    over_clusters = of_draws(means, clusters)
    shared, between = _SAME_TRAINING * over_images.variance, over_clusters.variance
    if shared <= 0:
        return over_clusters
    parts = between**2 / over_clusters.freedom + shared**2 / over_images.freedom
    return Spread(between + shared, (between + shared) ** 2 / parts)


def of_fold_draws(values: Values, folds: Codes, overlap: float = 0.0) -> Spread:
    """One round of folds, each with few labels of its own: draws of labels and of images.

    ``values`` (n_images,), ``folds`` the fold of each image; folds hold whole clusters; ``overlap`` as in `of_draws`.
    """
    sizes = np.bincount(folds)
    means = np.bincount(folds, weights=values) / sizes
    share = sizes / sizes.sum()
    deviation = means - float(values.mean())
    variance = float((share**2 * deviation**2 / (1 - share)).sum())
    # what images would explain, each fold's labels alone being responsible for the rest
    within = float(((values - means[folds]) ** 2).sum()) / max(len(values) - len(sizes), 1)
    fixed = max(variance - within / len(values), 0.0)
    more = fixed * (_with_shared(len(sizes), overlap) - 1)
    return Spread(variance + more, _freedom(share), fixed + more, len(sizes) - 1.0)


def with_networks(spread: Spread, by_network: Sequence[float]) -> Spread:
    """The same, if another random network was compared with in every round, for one more such network.

    ``by_network`` are the means of the rounds. A random network is one of many, and the question is whether the
    strategy could be another one of them.
    """
    n_networks = len(by_network)
    if n_networks < 2:
        return spread
    between = float(np.var(by_network, ddof=1)) * (1 + 1 / n_networks)
    total = spread.variance + between
    if total <= 0:
        return spread
    parts = spread.variance**2 / spread.freedom + between**2 / (n_networks - 1)
    return Spread(total, total**2 / parts, spread.fixed + between, n_networks - 1.0)


def _with_shared(n_rounds: int, overlap: float) -> float:
    """How many times the variance of a mean over rounds is what rounds of unshared images would have."""
    return 1 + n_rounds * overlap / (1 - overlap)


def _units(values: Values, clusters: Codes | None) -> tuple[Values, float]:
    """Contributions of images or clusters to the mean, (n_rounds, n_units), and their degrees of freedom.

    The mean over the units of a round is the mean of its values; deviations of clusters are scaled by CR2.
    """
    n_images = values.shape[1]
    if clusters is None:
        return values, max(n_images - 1.0, 1.0)
    codes = np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(codes)
    n_units, share = len(sizes), sizes / n_images
    if n_units == 1:
        return values.mean(axis=1, keepdims=True), 1.0
    mean = values.mean()
    deviations = np.stack([np.bincount(codes, weights=one - mean) for one in values]) * (n_units / n_images)
    # var(ddof=1) of n_units equal units multiplies by n_units / (n_units - 1), which is CR2 for equal sizes
    scale = np.sqrt((n_units - 1) / n_units / (1 - share))
    return mean + deviations * scale, _freedom(share)


def _freedom(share: NDArray[np.float64]) -> float:
    """Bell and McCaffrey's degrees of freedom for a mean: Satterthwaite's under equal variances."""
    leverage = share**2 / (1 - share)
    crossed = leverage.sum() ** 2 - (leverage**2).sum()
    return float(1 / ((share**2).sum() + crossed))
