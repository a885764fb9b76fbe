"""None of these: the graph says what NumPy says, the threshold keeps its rate, strangers are found."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from headstart.errors import DataError, SettingError
from headstart.evaluation.conformal import conformal_threshold
from headstart.evaluation.detection import auroc, detection
from headstart.graph import build
from headstart.graph.run import ReferenceRun, compile_graph
from headstart.heads.detectors import METHODS
from headstart.heads.novelty import Novelty, fit_novelty
from headstart.records import NONE_OF_THESE, Array, Codes, InputSpec, Prediction


def clouds(n: int, width: int, seed: int, where: float = 4.0) -> tuple[Array, Codes]:
    """Three clouds of points, one a class."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n) % 3)
    centres = np.random.default_rng(0).normal(size=(3, width)) * where / np.sqrt(width) * 3
    return (rng.normal(size=(n, width)) + centres[codes]).astype(np.float32), codes


def strangers(n: int, width: int) -> Array:
    rng = np.random.default_rng(9)
    return (rng.normal(size=(n, width)) * 1.2 - 9 / np.sqrt(width) * 2).astype(np.float32)


def in_graph(novelty: Novelty, rows: Array) -> Array:
    """The scores that a graph gives: rows stand for pixels, one value each, shifted back from uint8."""
    builder = build.GraphBuilder(input_spec=InputSpec(1, 1, 1))
    bank = builder.constant("rows", rows)
    places = builder.add("Cast", builder.add("Flatten", build.INPUT, axis=1), to=onnx.TensorProto.INT64)
    picked = builder.add("Gather", bank, builder.add("Flatten", places, axis=0), axis=0)
    picked = builder.add("Reshape", picked, builder.constant("shape", np.array([-1, rows.shape[1]])))
    novelty.append(builder, picked, build.NOVELTY)
    images = np.arange(len(rows), dtype=np.uint8)[:, None, None, None]
    return ReferenceRun(builder.model([build.NOVELTY]))(images)[0]


@pytest.mark.parametrize(("n", "width"), [(300, 20), (60, 200), (9, 40)])
def test_the_graph_says_what_numpy_says(n: int, width: int) -> None:
    novelty = fit_novelty(*clouds(n, width, 1))
    assert novelty is not None
    rows = np.concatenate([clouds(100, width, 2)[0], strangers(100, width)])
    wanted = novelty.scores(rows)
    assert wanted.shape == (200,) and wanted.dtype == np.float32
    np.testing.assert_allclose(in_graph(novelty, rows), wanted, atol=2e-3, rtol=2e-3)


def test_the_rate_of_false_rejections_is_kept_and_strangers_are_found() -> None:
    refused, found = [], []
    for seed in range(12):
        rows, codes = clouds(150, 16, seed)
        novelty = fit_novelty(rows, codes, rate=0.1, seed=seed)
        assert novelty is not None and novelty.n_held == 150
        refused.append((novelty.scores(clouds(400, 16, 100 + seed)[0]) > 1).mean())
        found.append((novelty.scores(strangers(200, 16)) > 1).mean())
    assert 0.03 < np.mean(refused) < 0.13, "conformal: at most a tenth, and not for free"
    assert np.mean(found) > 0.9


def test_images_held_out_set_the_threshold_where_there_are_any() -> None:
    rows, codes = clouds(200, 16, 0)
    held, _ = clouds(1_000, 16, 5)
    novelty = fit_novelty(rows, codes, held=held)
    assert novelty is not None and novelty.n_held == 1_000
    assert (novelty.scores(held) > 1).mean() == pytest.approx(0.05, abs=0.002)


def test_views_are_learnt_from_and_their_images_stay_together() -> None:
    rows, codes = clouds(30, 12, 3)
    rng = np.random.default_rng(0)
    copies = np.concatenate([rows, *(rows + 0.3 * rng.normal(size=rows.shape) for _ in range(5))])
    novelty = fit_novelty(copies.astype(np.float32), np.tile(codes, 6), np.tile(np.arange(30), 6))
    assert novelty is not None and novelty.n_held == 30
    # a copy of a held-out image among those fitted on would make every threshold tiny
    assert (novelty.scores(clouds(500, 12, 77)[0]) > 1).mean() < 0.15


def test_groups_are_held_out_whole() -> None:
    rng = np.random.default_rng(0)
    hands = np.repeat(np.arange(10), 12)
    rows, codes = clouds(120, 10, 4)
    rows = (rows + 3 * rng.normal(size=(10, 10))[hands]).astype(np.float32)
    other, _ = clouds(120, 10, 6)
    other = (other + 3 * rng.normal(size=(10, 10))[hands]).astype(np.float32)
    blind, seeing = fit_novelty(rows, codes), fit_novelty(rows, codes, groups=hands.astype(str))
    assert blind is not None and seeing is not None
    assert (seeing.scores(other) > 1).mean() < (blind.scores(other) > 1).mean()


def test_few_images_have_one_threshold_whatever_the_seed() -> None:
    """Five folds of 27 images refused 20, 45 and 34 % of other people's letters over three seeds."""
    rows, codes = clouds(27, 40, 2)
    found = [fit_novelty(rows, codes, seed=seed) for seed in range(4)]
    scores = [one.scores(clouds(50, 40, 8)[0]) for one in found if one is not None]
    assert len(scores) == 4
    for one in scores[1:]:
        np.testing.assert_allclose(one, scores[0], rtol=1e-5, atol=1e-5)


def test_stored_quantiles_give_the_threshold_of_every_rate() -> None:
    rows, codes = clouds(120, 16, 2)
    usual = fit_novelty(rows, codes)
    assert usual is not None and len(usual.left_out) == 120 and usual.note()["rule"] == "mean"
    assert conformal_threshold(usual.left_out, 0.95) == pytest.approx(1.0)
    new = clouds(300, 16, 9)[0]
    for rate in (0.02, 0.2, 0.5):
        other = fit_novelty(rows, codes, rate=rate)
        assert other is not None
        scaled = usual.scores(new) / conformal_threshold(usual.left_out, 1 - rate)
        np.testing.assert_allclose(scaled, other.scores(new), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n_groups", [2, 3, 4])
def test_few_groups_are_held_out_whole_too(n_groups: int) -> None:
    rng = np.random.default_rng(0)
    hands = np.arange(120) % n_groups
    shifts = 3 * rng.normal(size=(n_groups, 10))
    rows, codes = clouds(120, 10, 4)
    rows = (rows + shifts[hands]).astype(np.float32)
    blind, seeing = fit_novelty(rows, codes), fit_novelty(rows, codes, groups=hands)
    assert blind is not None and seeing is not None
    other = (clouds(200, 10, 6)[0] + 3 * rng.normal(size=10)).astype(np.float32)
    assert (seeing.scores(other) > 1).mean() < (blind.scores(other) > 1).mean()


def test_a_class_of_one_group_does_not_set_the_threshold_as_if_it_were_known() -> None:
    """Left out with its group the class is unknown, and its images would count as usual ones."""
    rows, codes = clouds(150, 16, 4, where=12.0)
    groups = np.where(codes == 2, 99, np.arange(150) % 10)
    novelty = fit_novelty(rows, codes, groups=groups)
    assert novelty is not None and novelty.n_held == (codes != 2).sum()
    assert (novelty.scores(strangers(200, 16)) > 1).mean() > 0.9


@pytest.mark.slow
def test_long_features_do_not_swell_the_model() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 20_000)).astype(np.float32) + np.repeat([0, 1], 150)[:, None]
    novelty = fit_novelty(rows, np.repeat([0, 1], 150))
    assert novelty is not None
    sizes = [value.size for one in novelty.detectors for value in vars(one).values() if np.ndim(value)]
    assert sum(sizes) < 10_000_000
    assert (novelty.scores(rows[::7]) > 1).mean() < 0.2


def test_too_few_images_say_nothing_and_a_wrong_rate_is_refused() -> None:
    rows, codes = clouds(7, 5, 0)
    assert fit_novelty(rows, codes) is None
    with pytest.raises(SettingError, match=r"rate is 1\.5"):
        fit_novelty(*clouds(30, 5, 0), rate=1.5)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_breaks_on_rows_that_are_all_alike(method: type) -> None:
    rows, codes = np.ones((20, 6), np.float32), np.arange(20) % 2
    assert np.isfinite(method.fit(rows, codes).scores(np.eye(6, dtype=np.float32))).all()


def test_rows_that_are_all_alike_make_a_graph_that_every_runtime_reads() -> None:
    """Dead units of a network that learned nothing; a matrix without columns is none to OpenVINO."""
    rows, codes = np.ones((20, 6), np.float32), np.arange(20) % 2
    novelty = fit_novelty(rows, codes)
    assert novelty is not None
    builder = build.GraphBuilder(input_spec=InputSpec(1, 6, 1))
    pixels = builder.add("Flatten", builder.add("Cast", build.INPUT, to=onnx.TensorProto.FLOAT), axis=1)
    novelty.append(builder, pixels, build.NOVELTY)
    compiled = compile_graph(builder.model([build.NOVELTY]), precision="fp32")
    images = np.ones((3, 1, 6, 1), np.uint8)
    np.testing.assert_allclose(compiled.run([images], 3), novelty.scores(np.ones((3, 6), np.float32)))


def test_area_under_the_curve_is_that_of_counting_pairs() -> None:
    rng = np.random.default_rng(0)
    known, novel = rng.integers(0, 9, 80).astype(float), rng.integers(3, 12, 60).astype(float)
    pairs = (novel[:, None] > known).mean() + 0.5 * (novel[:, None] == known).mean()
    found = auroc(known, novel)
    assert found.value == pytest.approx(pairs) and found.low < pairs < found.high and found.n == 140


def test_delong_s_interval_covers() -> None:
    rng, inside = np.random.default_rng(1), 0
    truth = 0.7602  # of N(0, 1) against N(1, 1): Phi(1 / sqrt 2)
    for _ in range(300):
        found = auroc(rng.normal(size=60), rng.normal(1, 1, 40))
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 300 <= 0.98


def test_parted_wholly_still_has_an_interval() -> None:
    found = auroc(np.arange(10.0), np.arange(20.0, 25.0))
    assert found.value == 1 and 0.4 < found.low < 1 and found.high == 1
    with pytest.raises(DataError, match="expected at least 1 of each"):
        auroc(np.array([]), np.array([1.0]))


def test_detection_judges_novelty_and_the_largest_probability_beside_it() -> None:
    rng = np.random.default_rng(0)
    sure = rng.dirichlet([9, 1], 100).astype(np.float32)
    known = Prediction(sure, rng.uniform(0, 1.04, 100).astype(np.float32))
    novel = Prediction(sure[:50], rng.uniform(0.9, 3, 50).astype(np.float32))
    found = detection("toy", known, novel)
    assert found.auroc.value > 0.9 and found.baseline_auroc.value == pytest.approx(0.5, abs=0.1)
    assert found.detected.value == (novel.novelty > 1).mean()  # type: ignore[operator]
    assert found.falsely_rejected.value == (known.novelty > 1).mean()  # type: ignore[operator]
    with pytest.raises(DataError, match="has no novelty"):
        detection("toy", Prediction(sure), Prediction(sure))


def test_an_answer_names_what_is_known_and_refuses_the_rest() -> None:
    probs = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    assert Prediction(probs).names(["ant", "bee"]).tolist() == ["ant", "bee"]
    answered = Prediction(probs, np.array([0.5, 1.2], np.float32))
    assert answered.names(["ant", "bee"]).tolist() == ["ant", NONE_OF_THESE]
    assert answered.known.tolist() == [True, False]


@pytest.mark.parametrize("value", [0.0, 77 / 255, 1e4])
def test_constant_features_are_not_novel_and_others_are(value: float) -> None:
    rows = np.full((20, 64), value, np.float32)
    novelty = fit_novelty(rows, np.arange(20) % 2)
    assert novelty is not None
    rounded = rows * np.float32(1 + 1e-6)  # as another runtime or size of batch computes them
    assert (novelty.scores(np.concatenate([rows, rounded])) <= 1).all()
    others = rows + np.random.default_rng(0).normal(size=rows.shape).astype(np.float32) * max(1.0, value)
    assert (novelty.scores(others) > 1).all()


def test_copies_of_a_few_images_are_not_novel() -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(3, 64)).astype(np.float32)
    rows, codes = np.repeat(images, 10, axis=0), np.repeat(np.arange(3), 10)
    for groups in (None, codes):
        novelty = fit_novelty(rows, codes, groups=groups)
        assert novelty is not None
        assert (novelty.scores(images * np.float32(1 - 1e-6)) <= 1).all()
        if groups is None:
            assert (novelty.scores(rng.uniform(size=(9, 64)).astype(np.float32)) > 1).all()
