"""A map of the features by t-SNE: images with similar features are near each other.

NumPy alone: scikit-learn's t-SNE takes two seconds to import, and its threads make it irreproducible in the
last digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.data.faults import Fault, raise_faults
from headstart.errors import DataError, SettingError, ShapeError
from headstart.records import Array, Codes
from headstart.report.records import Scatter

__all__ = ["feature_scatter"]

_DIMENSIONS = 30  # principal components in which neighbours are searched
_PERPLEXITY = 30.0
_FEW = 10  # images below which principal components are shown
_EXAGGERATED, _STEPS = 100, 350  # steps of early exaggeration, and in all
_EXAGGERATION = 12.0
_BLOCK = 131_072  # pairs per block: two blocks stay in the processor's cache
_DIGITS = 4  # decimals of a coordinate in a report

Points = NDArray[np.float32]
"""(n_images, 2)."""


def feature_scatter(
    title: str,
    features: Array,
    codes: Codes,
    classes: Sequence[str],
    right: NDArray[np.bool_],
    *,
    seed: int = 0,
    most: int = 1_500,
) -> Scatter:
    """Images as points of a plane in which neighbours have similar features.

    t-SNE of the first 30 principal components, initialised with the first two (Kobak and Berens), 100 steps
    of early exaggeration and 250 without, all pairs of images: time O(most ** 2), 0.9 s for 1,000 images of
    1,024 features and 1.8 s for 1,500 on one slow core (2026-11-21; scikit-learn takes 7.6 s for an equally
    good map of 1,000). Below 10 images the map is the first two principal components. Of more than ``most``
    images a stratified sample is shown, drawn by ``seed``. Coordinates are -1 to 1; labels do not influence
    them. Raises `ShapeError`, `DataError` or `SettingError` for invalid arguments.

    van der Maaten, Hinton. Visualizing Data using t-SNE. JMLR 9 (2008). Kobak, Berens. The art of using t-SNE
    for single-cell transcriptomics. Nature Communications 10 (2019), doi:10.1038/s41467-019-13056-x.
    Wattenberg, Viegas, Johnson. How to Use t-SNE Effectively. Distill (2016), doi:10.23915/distill.00002.
    """
    _check(features, codes, classes, right, most)
    chosen = _some(codes, most, seed)
    some = np.asarray(features[chosen], np.float32)
    values = _components(some, min(_DIMENSIONS, *some.shape))
    points = values[:, :2] if len(some) < _FEW else _tsne(values)
    x, y = _framed(points).T.tolist()
    return Scatter(
        title,
        _caption(len(chosen), len(features), features.shape[1]),
        tuple(str(name) for name in classes),
        tuple(x),
        tuple(y),
        tuple(codes[chosen].tolist()),
        tuple(np.asarray(right)[chosen].tolist()),
    )


def _check(
    features: Array, codes: Codes, classes: Sequence[str], right: NDArray[np.bool_], most: int
) -> None:
    faults: list[Fault] = []
    if features.ndim != 2 or 0 in features.shape:
        fault = (
            f"features have shape {features.shape}, expected (n_images, n_features) with at least 1 of each"
        )
        faults.append((ShapeError, f"{fault}; read them with headstart.sources.features.extract"))
    for name, column in (("codes", codes), ("right", right)):
        if np.shape(column) != features.shape[:1]:
            fault = f"{name} has shape {np.shape(column)}, expected {features.shape[:1]} to match features"
            faults.append((ShapeError, f"{fault}; pass one for each image"))
    if most < 1:
        faults.append((SettingError, f"most is {most!r}, expected at least 1; 1,000 suits most pages"))
    raise_faults(faults)
    if not np.isfinite(features).all():
        faults.append(
            (DataError, "features has values that are not finite, expected numbers; compute them again")
        )
    if codes.min() < 0 or codes.max() >= len(classes):
        fault = f"codes has values {codes.min()} to {codes.max()}, expected 0 to {len(classes) - 1}"
        faults.append((DataError, f"{fault}; pass the classes that they are of"))
    raise_faults(faults)


def _caption(n_shown: int, n_images: int, n_features: int) -> str:
    who = f"{n_shown:,} images" if n_shown == n_images else f"{n_shown:,} of {n_images:,} images"
    if n_shown < _FEW:
        return f"The first two principal components of {n_features:,} features, {who}."
    return (
        f"t-SNE of {n_features:,} features, {who}: images with similar features are near each other. "
        "Distances between groups and the sizes of groups mean little. Labels were not used "
        "to place the points."
    )


def _some(codes: Codes, most: int, seed: int) -> NDArray[np.intp]:
    """Indices of the images to show, every class in its proportion, ascending."""
    if len(codes) <= most:
        return np.arange(len(codes))
    drawn = np.random.default_rng(seed).permutation(len(codes))
    by_class = drawn[np.argsort(codes[drawn], kind="stable")]
    return np.sort(by_class[np.arange(most) * len(codes) // most])


def _components(features: Array, n_components: int) -> Array:
    """Principal components by randomised projection with power iterations, (n_images, >= 2).

    Halko, Martinsson, Tropp. Finding Structure with Randomness. SIAM Review 53 (2011), arXiv:0909.4061.
    """
    centred = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred /= float(np.abs(centred).max()) or 1.0  # squares of large features must not overflow
    n_tried = min(n_components + 10, *centred.shape)
    draw = np.random.default_rng(0).normal(size=(centred.shape[1], n_tried)).astype(np.float32)
    basis = np.linalg.qr(centred @ draw)[0]
    for _ in range(4):
        basis = np.linalg.qr(centred @ (centred.T @ basis))[0]
    left, sizes, _ = np.linalg.svd(basis.T @ centred, full_matrices=False)
    found = (basis @ left[:, :n_components]) * sizes[:n_components]
    heaviest = np.abs(found).argmax(axis=0)
    found *= np.where(found[heaviest, np.arange(found.shape[1])] < 0, -1, 1)  # the sign is arbitrary
    lacking = max(0, 2 - found.shape[1])
    points: Array = np.pad(found, ((0, 0), (0, lacking))).astype(np.float32)
    return points


def _tsne(values: Array) -> Points:
    """Exact t-SNE, (n_images, 2): every pair attracts and repels."""
    joint_probabilities, rate = _affinities(values), max(len(values) / _EXAGGERATION, 50.0)
    spread = float(values[:, 0].std()) or 1.0
    points = (values[:, :2] * (1e-2 / spread)).astype(np.float32)
    velocity, gains = np.zeros_like(points), np.ones_like(points)
    for step in range(_STEPS):
        early = step < _EXAGGERATED
        gradient = _gradient(points, joint_probabilities, _EXAGGERATION if early else 1.0)
        # adaptive gains (Jacobs 1988), as in the authors' implementation
        gains = np.where(gradient * velocity < 0, gains + 0.2, gains * 0.8).clip(0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        points = (points + velocity).astype(np.float32)
        points -= points.mean(axis=0)
    if np.ptp(points[:, 1]) > np.ptp(points[:, 0]):  # its rotation is arbitrary, and pages are wide
        points = points[:, ::-1]
    return points


def _gradient(points: Points, joint_probabilities: Array, exaggeration: float) -> Points:
    """4 sum_j (p_ij - q_ij) w_ij (y_i - y_j), for w = 1 / (1 + distance squared) and q its share of all w.

    Dense matrix products, a few rows at a time so that they stay in the processor's cache: gathering pairs of
    neighbours takes three times as long.
    """
    squares = (points * points).sum(axis=1)
    ones = np.ones_like(squares)
    left = np.column_stack([-2.0 * points, squares + 1.0, ones])
    right = np.column_stack([points, ones, squares]).T.copy()
    with_ones = np.column_stack([points, ones])
    pull, push, total = np.empty_like(with_ones), np.empty_like(with_ones), 0.0
    n_rows = max(1, _BLOCK // len(points))
    room = np.empty((2, n_rows, len(points)), np.float32)
    for start in range(0, len(points), n_rows):
        rows = slice(start, min(start + n_rows, len(points)))
        weights, pairs = room[:, : rows.stop - start]
        np.matmul(left[rows], right, out=weights)  # (block, n): 1 + distance squared
        np.reciprocal(weights, out=weights)
        total += float(weights.sum())
        pull[rows] = np.multiply(joint_probabilities[rows], weights, out=pairs) @ with_ones
        push[rows] = np.multiply(weights, weights, out=pairs) @ with_ones
    share = exaggeration * pull - push / (total - len(points))  # less each point's weight with itself
    gradient: Points = (4.0 * (share[:, 2:] * points - share[:, :2])).astype(np.float32, copy=False)
    return gradient


def _affinities(values: Array) -> Array:
    """Joint probabilities that two rows are neighbours, (n, n), zero beyond three times the perplexity."""
    n = len(values)
    perplexity = min(_PERPLEXITY, (n - 1) / 3)
    n_near = min(n - 1, int(3 * perplexity))
    squares = (values * values).sum(axis=1)
    distances = squares[:, None] + squares - 2.0 * values @ values.T
    np.fill_diagonal(distances, np.inf)
    near = np.argpartition(distances, n_near - 1, axis=1)[:, :n_near]
    found = _of_perplexity(np.take_along_axis(distances, near, axis=1), perplexity)
    joint = np.zeros((n, n), np.float32)
    np.put_along_axis(joint, near, found, axis=1)
    joint += joint.T.copy()
    joint /= joint.sum()
    return joint


def _of_perplexity(distances: Array, perplexity: float) -> Array:
    """Gaussian weights of each row's neighbours with this perplexity, by bisection."""
    gaps = (distances - distances.min(axis=1, keepdims=True)).astype(np.float64)
    gaps /= np.maximum(gaps.mean(axis=1, keepdims=True), 1e-12)
    low, high = np.full((len(gaps), 1), -12.0), np.full((len(gaps), 1), 12.0)  # log precision
    for _ in range(40):
        middle = (low + high) / 2
        weights = np.exp(-np.exp(middle) * gaps)
        weights /= weights.sum(axis=1, keepdims=True)
        entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum(axis=1, keepdims=True)
        narrow = entropy < np.log(perplexity)
        low, high = np.where(narrow, low, middle), np.where(narrow, middle, high)
    found: Array = weights.astype(np.float32)
    return found


def _framed(points: Points) -> NDArray[np.float64]:
    """Centred and scaled into the square from -1 to 1."""
    exact = points.astype(np.float64)
    exact -= (exact.min(axis=0) + exact.max(axis=0)) / 2
    framed: NDArray[np.float64] = (exact / (float(np.abs(exact).max()) or 1.0)).round(_DIGITS) + 0.0
    return framed
