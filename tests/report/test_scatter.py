"""The feature map: neighbours stay neighbours, and the caption states what the map does not show."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE, trustworthiness

from headstart.errors import DataError, SettingError, ShapeError
from headstart.report.records import Scatter
from headstart.workflows import feature_map as scatter
from headstart.workflows.feature_map import feature_scatter

DIGITS = tuple("0123456789")


def digits(n_images: int) -> tuple[np.ndarray, np.ndarray]:
    rows, codes = load_digits(return_X_y=True)
    return rows[:n_images].astype(np.float32), codes[:n_images].astype(np.int64)


def mapped(rows: np.ndarray, codes: np.ndarray | None = None, **options: int) -> Scatter:
    codes = np.zeros(len(rows), np.int64) if codes is None else codes
    return feature_scatter("map", rows, codes, DIGITS, np.ones(len(rows), bool), **options)


def places(found: Scatter) -> np.ndarray:
    return np.column_stack([found.x, found.y])


@pytest.mark.slow
def test_neighbours_stay_neighbours_as_well_as_scikit_learn_keeps_them() -> None:
    rows, _ = digits(300)
    ours = trustworthiness(rows, places(mapped(rows)), n_neighbors=10)
    theirs = TSNE(init="pca", random_state=0, max_iter=500).fit_transform(rows)
    plain = trustworthiness(rows, scatter._components(rows, 2), n_neighbors=10)
    assert ours > trustworthiness(rows, theirs, n_neighbors=10) - 0.01
    assert ours > plain + 0.1


def divergence(points: np.ndarray, wanted: np.ndarray) -> float:
    """Kullback and Leibler's, in float64, as the paper has it."""
    weights = 1 / (1 + ((points[:, None] - points[None]) ** 2).sum(axis=2))
    np.fill_diagonal(weights, 0)
    shares, here = weights / weights.sum(), wanted > 0
    return float((wanted[here] * np.log(wanted[here] / shares[here])).sum())


@pytest.mark.parametrize("block", [60, 131_072])
def test_gradient_is_that_of_the_divergence(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scatter, "_BLOCK", block)
    rng = np.random.default_rng(0)
    wanted = scatter._affinities(rng.normal(size=(25, 4)).astype(np.float32))
    points = rng.normal(size=(25, 2))
    numeric, step = np.zeros_like(points), 1e-5
    for place in np.ndindex(points.shape):
        moved = [points.copy(), points.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        one, other = (divergence(each, wanted.astype(np.float64)) for each in moved)
        numeric[place] = (one - other) / (2 * step)
    found = scatter._gradient(points.astype(np.float32), wanted, 1.0)
    assert np.abs(found - numeric).max() < 1e-5
    assert np.abs(numeric).max() > 1e-2


def test_affinities_have_the_requested_perplexity() -> None:
    rng = np.random.default_rng(0)
    scales = 10.0 ** rng.uniform(-3, 3, (50, 1))
    weights = scatter._of_perplexity((rng.exponential(size=(50, 40)) * scales).astype(np.float32), 12.0)
    entropy = -(weights * np.log(weights + 1e-30)).sum(axis=1)
    assert np.allclose(np.exp(entropy), 12.0, rtol=1e-3)
    joint = scatter._affinities(digits(100)[0])
    assert np.array_equal(joint, joint.T) and not joint.diagonal().any()
    assert joint.sum() == pytest.approx(1.0, abs=1e-5)


def test_components_are_the_principal_ones() -> None:
    rows = digits(200)[0]
    centred = rows - rows.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    exact = left[:, :5] * sizes[:5] / np.abs(centred).max()
    found = scatter._components(rows, 30)
    assert found.shape == (200, 30)
    assert np.allclose(np.abs(found[:, :5]), np.abs(exact), atol=1e-3)
    assert np.allclose(scatter._components(rows * 1e30, 30), found, atol=1e-5)


def test_the_map_does_not_depend_on_labels() -> None:
    rows, codes = digits(120)
    first = mapped(rows, codes)
    assert mapped(rows, codes, seed=1) == first
    assert np.array_equal(places(mapped(rows, codes[::-1])), places(first))
    assert np.abs(places(first)).max() == 1.0
    assert np.array_equal(np.round(first.x, 4), first.x)


def test_map_is_wide_as_pages_are() -> None:
    rows, _ = digits(360)
    maps = [mapped(rows[start : start + 60]) for start in range(0, 360, 60)]
    assert all(np.ptp(one.x) >= np.ptp(one.y) for one in maps)


def test_many_images_are_sampled_by_class_in_order() -> None:
    rows, _ = digits(600)
    rare = np.where(np.arange(600) < 90, 1, 0)
    right = np.arange(600) % 3 == 0
    found = feature_scatter("map", rows, rare, ("many", "few"), right, most=60)
    assert np.bincount(found.codes).tolist() == [51, 9]
    assert found.codes == tuple(sorted(found.codes, reverse=True))
    assert "60 of 600 images" in found.caption
    again, other = (
        feature_scatter("map", rows, rare, ("many", "few"), right, most=60, seed=n) for n in (0, 1)
    )
    assert again == found != other
    chosen = scatter._some(rare, 60, 0)
    assert found.right == tuple(right[chosen].tolist()) and found.codes == tuple(rare[chosen].tolist())


def test_few_images_are_mapped_by_principal_components() -> None:
    rows, codes = digits(9)
    found = mapped(rows, codes)
    assert found.caption == "The first two principal components of 64 features, 9 images."
    exact = scatter._components(rows, 9)[:, :2]
    # framed, but not turned
    assert np.abs(np.corrcoef(exact[:, 0], found.x)[0, 1]) > 0.9999
    assert "t-SNE" in mapped(*digits(10)).caption


@pytest.mark.parametrize(
    "rows",
    [np.ones((1, 3)), np.array([[0.0], [1.0]]), np.ones((40, 5)), np.repeat(np.eye(3), 10, axis=0)],
    ids=["one image", "one feature", "constant", "duplicates"],
)
def test_degenerate_features_still_have_a_map(rows: np.ndarray) -> None:
    found = mapped(rows.astype(np.float32))
    assert np.isfinite(places(found)).all() and len(found.x) == len(rows)


def test_caption_states_what_the_map_does_not_show() -> None:
    caption = mapped(digits(20)[0]).caption
    assert "t-SNE of 64 features, 20 images" in caption
    assert "mean little" in caption and "Labels were not used" in caption


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"features": np.ones((3, 2, 2))}, ShapeError, r"features have shape \(3, 2, 2\)"),
        ({"features": np.ones((0, 2))}, ShapeError, "with at least 1 of each"),
        ({"codes": np.zeros(2, int)}, ShapeError, r"codes has shape \(2,\), expected \(3,\)"),
        ({"right": np.ones(4, bool)}, ShapeError, r"right has shape \(4,\), expected \(3,\)"),
        ({"most": 0}, SettingError, "most is 0"),
        ({"features": np.array([[1.0], [np.nan], [0.0]])}, DataError, "not finite"),
        ({"codes": np.array([0, 1, 2])}, DataError, "codes has values 0 to 2, expected 0 to 1"),
    ],
)
def test_invalid_arguments_are_refused(changes: dict[str, object], kind: type[Exception], said: str) -> None:
    given = {"features": np.ones((3, 2)), "codes": np.zeros(3, int), "right": np.ones(3, bool), "most": 5}
    given |= changes
    with pytest.raises(kind, match=said):
        feature_scatter("map", classes=["a", "b"], **given)
