"""Which network to take: several sources on the same folds, with accuracy, time and size."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from command import Run
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.errors import DataError, SettingError
from headstart.evaluation.intervals import wilson
from headstart.records import TrainSettings
from headstart.report.page import render
from headstart.report.trade_off import Point, trade_off
from headstart.sources.registry import open_source
from headstart.strategies.scratch import learn_network
from headstart.workflows.rank import Ranking, run_ranking
from headstart.workflows.rank.run import _front, _titles


@pytest.fixture(scope="module")
def found(digits: Dataset) -> Ranking:
    some = digits.subset(np.arange(150))
    return run_ranking([open_source(name, some) for name in ("random:mlp", "hog", "pixels")], some)


def test_all_sources_stand_in_order_with_paired_differences(found: Ranking) -> None:
    ranked = found.ranked
    accuracies = [one.accuracy.value for one in ranked]
    assert accuracies == sorted(accuracies, reverse=True) and {one.accuracy.n for one in ranked} == {150}
    assert (
        ranked[0].difference is None
        and ranked[0].verdict == "most accurate"
        and ranked[0].on_front is not None
    )
    for one in ranked[1:]:
        assert one.difference is not None and one.p_adjusted is not None
        assert one.difference.value == pytest.approx(one.accuracy.value - accuracies[0])
        assert (one.verdict == "less accurate") == (one.p_adjusted < 0.05)
    assert all(one.ms > 0 and one.megabytes >= 0 for one in ranked)


def test_the_report_shows_table_and_picture(found: Ranking) -> None:
    page = render(found.result)
    for words in ("Accuracy against time", "ms per image, log scale", "hog", "intervals hold together"):
        assert words in page
    assert found.result.verdict.startswith(f"{found.ranked[0].source.partition(':')[0]}")


def test_the_front_holds_what_nothing_is_superior_to() -> None:
    assert _front([0.9, 0.8, 0.95, 0.7], [5.0, 1.0, 9.0, 2.0]) == [True, True, True, False]
    assert _front([0.9, 0.9], [5.0, 5.0]) == [True, True]


def test_names_of_near_points_do_not_cover_each_other() -> None:
    points = [Point(f"source {i}", 5.0 + 0.01 * i, wilson(90 + i % 2, 100), i == 0) for i in range(6)]
    heights = [
        float(y)
        for y, name in re.findall(r'y="([\d.]+)" text-anchor="start">(source \d)<', trade_off(points))
    ]
    assert len(heights) == 6 and min(np.diff(sorted(heights))) >= 14


def test_differences_are_those_of_the_accuracies_beside_them_in_folds_of_unequal_size(
    digits: Dataset,
) -> None:
    two = load("digits:parity")
    some = two.subset(np.concatenate([np.flatnonzero(two.labels == name)[:8] for name in two.classes]))
    ranked = run_ranking([open_source(name, some) for name in ("hog", "pixels")], some).ranked
    assert ranked[1].difference is not None and ranked[0].accuracy.n == 16
    gap = ranked[1].accuracy.value - ranked[0].accuracy.value
    assert gap < 0 and ranked[1].difference.value == pytest.approx(gap)


def test_titles_are_short_and_tell_sources_apart() -> None:
    names = ("timm:vgg16.a", "timm:vgg16.b", "timm:vgg19.a", "runs/v1.0", "runs/v1.5", "a/x", "/b/x")
    assert list(_titles(names).values()) == ["vgg16.a", "vgg16.b", "vgg19", "v1.0", "v1.5", "a/x", "b/x"]
    assert list(_titles(["/home/ann/m/x", "/home/bob/m/x"]).values()) == ["x (1)", "x (2)"]


def test_the_test_split_is_not_used(digits: Dataset) -> None:
    from dataclasses import replace

    some = digits.subset(np.arange(120))
    splits = np.where(np.arange(120) < 80, "train", "test")
    sources = [open_source(name, some) for name in ("hog", "pixels")]
    assert run_ranking(sources, replace(some, splits=splits)).ranked[0].accuracy.n == 80


def test_what_cannot_be_ranked_is_one_sentence(digits: Dataset) -> None:
    with pytest.raises(SettingError, match="sources to rank are 1, expected two or more"):
        run_ranking([open_source("hog", digits)], digits)
    with pytest.raises(SettingError, match="source 'hog' is named twice, expected each once"):
        run_ranking([open_source(name, digits) for name in ("hog", "pixels", "hog")], digits)
    tiny = digits.subset([int(np.flatnonzero(digits.labels == name)[0]) for name in digits.classes])
    with pytest.raises(DataError, match="has 1 training image"):
        run_ranking([open_source(name, tiny) for name in ("hog", "pixels")], tiny)


def test_the_command_writes_a_report(run: Run, desk: Path) -> None:
    said = run("sources", "rank", "digits:0-1", "--sources", "hog,pixels", "-o", "out", "--head", "ridge")
    assert said.code == 0 and "most accurate" in said.out and (desk / "out" / "report.html").is_file()
    assert (desk / "out" / "result.json").is_file()
    said = run("sources", "rank", "digits:0-1", "--sources", "hog,pixles", "-o", "out2")
    assert said.code == 1 and "source 'pixles' is unknown" in said.err


def test_a_source_that_learned_from_the_same_images_gets_a_remark(digits: Dataset) -> None:
    first, others = digits.subset(np.arange(150)), digits.subset(np.arange(150, 250))
    settings = TrainSettings(epochs=1, seed=0)
    source = learn_network(first, network="mlp", settings=settings, engine="scratch").model.source(
        "runs/mine"
    )
    pair = [source, open_source("pixels", first)]
    (remark,) = (one for one in run_ranking(pair, first).result.remarks if "own training" in one)
    assert remark.startswith("mine saw 150 of these 150 images in its own training")
    assert not any("own training" in one for one in run_ranking(pair, others).result.remarks)


def test_random_weights_need_no_licence(digits: Dataset) -> None:
    some = digits.subset(np.arange(60))
    ranked = run_ranking([open_source(name, some) for name in ("random:mlp", "pixels")], some).ranked
    assert {one.licence for one in ranked} == {"none needed"}
