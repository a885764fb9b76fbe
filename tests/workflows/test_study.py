"""Studies: leaks are found first, controls fit, selection is nested, the result is complete."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays, load
from headstart.errors import DataError, SettingError
from headstart.models.model import Model
from headstart.records import TrainSettings
from headstart.report.records import Report
from headstart.sources.registry import open_source
from headstart.strategies import fits
from headstart.strategies.places import Probe
from headstart.strategies.scratch import learn_network
from headstart.workflows.study import run as studies
from headstart.workflows.study.contestants import CONTROLS
from headstart.workflows.study.request import StudyRequest
from headstart.workflows.study.run import run_study

QUICK = (TrainSettings(epochs=1, batch_size=64), TrainSettings(epochs=1, batch_size=64))
RIDGE = StudyRequest(Probe(head="ridge"), labels_per_class=(), controls=("majority",), draws=2, scratch=QUICK)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits:0-3").subset(np.arange(0, 720, 6))


@pytest.fixture(scope="module")
def trained() -> Model:
    return learn_network(
        load("digits"), network="mlp", engine="scratch", settings=TrainSettings(epochs=2)
    ).model


@pytest.fixture(scope="module")
def studied(trained: Model) -> Report:
    """A whole study: ten digits learnt, odd and even taught."""
    parity = load("digits:parity")
    every = np.arange(0, len(parity), 12)
    asked = StudyRequest(Probe("hidden2", "flat", "ridge"), labels_per_class=(2, 5), draws=2, scratch=QUICK)
    return run_study(
        trained.source("digits"), parity.subset(every), asked, trained=trained, command="headstart study"
    )


def test_every_control_that_applies_is_in_the_table(studied: Report) -> None:
    names = {row.strategy for row in studied.rows}
    assert names == {"probe", *CONTROLS}
    assert {row.labels_per_class for row in studied.rows} == {2, 5, None}
    assert len(studied.comparisons) == 3 * len(CONTROLS)
    assert studied.judged_on == "cross-validated" and "10 folds" in studied.protocol


def test_the_verdict_includes_the_accuracy_of_the_probe(studied: Report) -> None:
    best = [row.accuracy for row in studied.rows if row.strategy == "probe"][-1]
    assert f"The probe gets {best.value:.1%} of the 150 cross-validated images right [" in studied.verdict


def test_images_that_the_source_has_seen_are_a_remark(studied: Report, digits: Dataset) -> None:
    """Rank and transfer said so, the study did not."""
    assert any(remark.startswith("the source saw 150 of these 150 images") for remark in studied.remarks)
    other = run_study(open_source("pixels", digits), digits, replace(RIDGE, controls=()))
    assert not any("saw" in remark for remark in other.remarks)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"margin": float("nan")}, "margin is nan points"),
        ({"margin": 1.0}, "margin is 100 points"),
        ({"draws": 0}, "draws is 0, expected a whole number"),
        ({"labels_per_class": (5, 0)}, "labels per class is 0, expected a whole number"),
        ({"labels_per_class": ("5",)}, "labels per class is '5'"),
        ({"labels_per_class": (2.5,)}, r"labels per class is 2\.5"),
    ],
)
def test_numbers_that_are_none_are_refused_before_anything_is_computed(
    digits: Dataset, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        run_study(open_source("pixels", digits), digits, replace(RIDGE, **wrong))


def test_without_controls_the_accuracy_is_printed_once(digits: Dataset) -> None:
    found = run_study(open_source("pixels", digits), digits, replace(RIDGE, controls=()))
    assert found.verdict.count("The probe gets") == 1 and "no control was run" in found.verdict


def test_few_folds_are_a_remark_and_the_metrics_name_their_round(digits: Dataset) -> None:
    few = digits.subset(
        np.sort(np.concatenate([np.flatnonzero(digits.labels == name)[:3] for name in "0123"]))
    )
    found = run_study(open_source("pixels", few), few, replace(RIDGE, draws=3))
    assert any("learned from about 67% of the images" in remark for remark in found.remarks)
    assert found.evaluations[0].title.endswith(", first of 3 rounds")


def test_the_report_has_all_its_parts(studied: Report) -> None:
    (evaluation,), (calibration,) = studied.evaluations, studied.calibrations
    assert evaluation.accuracy.n == calibration.n == 150
    best = next(row for row in studied.rows if (row.strategy, row.labels_per_class) == ("probe", None))
    assert abs(evaluation.accuracy.value - best.accuracy.value) < 0.05  # one round of the same folds
    assert studied.galleries[-1].title == "The least certain" and studied.galleries[-1].images[0].heat
    assert len(studied.scatters[0].x) == 150 and studied.facts["command"] == "headstart study"


def test_collapse_is_left_out_without_a_subset_of_the_sources_classes(trained: Model) -> None:
    some = load("digits:0-3").subset(np.arange(0, 720, 12))
    found = run_study(
        trained.source("digits"), some, replace(RIDGE, controls=("collapse", "majority")), trained=trained
    )
    assert {row.strategy for row in found.rows} == {"probe", "majority"}


def test_random_networks_are_several_and_their_spread_widens_the_interval(studied: Report) -> None:
    random = [row for row in studied.rows if row.strategy == "random frozen"]
    assert {row.labels_per_class: row.draws for row in random} == {2: 10, 5: 10, None: 2}
    found = {
        one.labels_per_class: one.difference for one in studied.comparisons if one.control == "random frozen"
    }
    for row in random:  # one more such network would fall within twice their spread
        difference = found[row.labels_per_class]
        assert difference.high - difference.low > 2 * row.spread > 0


def test_the_bundled_source_is_compared_with_its_layers_random_and_trained() -> None:
    """They were left out, without a word, and random weights are its strongest control."""
    wanted = replace(RIDGE, controls=("random frozen", "scratch"), scratch=QUICK)
    wanted = replace(wanted, labels_per_class=(5,), with_all=False, draws=2)
    some = load("digits:0-3").subset(np.arange(0, 720, 2))
    splits = ["train"] * 120 + ["test"] * 240  # a tenth of the networks that folds would train
    data = from_arrays(some.images.pixels, some.labels, splits=splits)
    found = run_study(open_source("drawings"), data, wanted)
    assert {row.strategy for row in found.rows} == {"probe", "random frozen", "scratch"}
    assert not any("scratch is a small" in remark for remark in found.remarks)


def leaking(n_copies: int) -> Dataset:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (600, 8, 8)).astype(np.uint8)
    pixels[300 : 300 + n_copies] = pixels[:n_copies]
    return from_arrays(pixels, ["a", "b"] * 300, splits=["train"] * 300 + ["test"] * 300)


def test_a_leak_is_reported_before_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "run_table", lambda *_, **__: pytest.fail("it computed"))
    with pytest.raises(DataError, match=r"20 image\(s\) in two splits.*--allow-leaks"):
        run_study(open_source("pixels", leaking(20)), leaking(20), RIDGE)


def test_a_leak_that_is_allowed_is_in_the_report() -> None:
    found = run_study(open_source("pixels", leaking(20)), leaking(20), replace(RIDGE, allow_leaks=True))
    assert any("20 pairs" in finding for finding in found.findings)


def test_a_test_set_with_copies_of_training_images_is_refused(digits: Dataset) -> None:
    test = load("digits:0-3").subset(np.arange(0, 720, 5))
    with pytest.raises(DataError, match=r"has 24 image\(s\) of 'digits:0-3' in it, such as"):
        run_study(open_source("pixels", digits), digits, RIDGE, external=test)
    allowed = replace(RIDGE, allow_leaks=True)
    found = run_study(open_source("pixels", digits), digits, allowed, external=test)
    assert found.findings[0] == "24 images of digits:0-3 are also training images: the metrics are too high."


def test_copies_within_stay_in_one_fold(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = digits.subset(np.concatenate([np.arange(120), np.arange(10)]))
    seen: list[Any] = []
    real = studies.decide

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(args[0].clusters)
        return real(*args, **kwargs)

    monkeypatch.setattr(studies, "decide", spy)
    run_study(open_source("pixels", digits), doubled, RIDGE)
    assert seen[0][:120].tolist() == list(range(120)) and seen[0][120:].tolist() == list(range(10))


def test_selection_sees_only_training_images(
    trained: Model, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = fits.choose

    def spy(features: Any, codes: Any, **rest: Any) -> Any:
        sizes.append(len(codes))
        return real(features, codes, **rest)

    monkeypatch.setattr(fits, "choose", spy)
    source = replace(trained.source("digits"), candidates=(("hidden1", "flat"), ("hidden2", "flat")))
    found = run_study(source, digits, replace(RIDGE, probe=Probe()))
    assert len(sizes) >= 10 and set(sizes[:10]) == {108}  # nine of ten folds of 120
    assert "selected in every fit" in found.protocol


def test_an_external_test_set_with_groups_counts_groups(digits: Dataset) -> None:
    rest = np.setdiff1d(np.arange(720), np.arange(0, 720, 6))[::10]
    strangers = load("digits:0-3").subset(rest)
    by_people = replace(strangers, groups=(np.arange(len(rest)) % 6).astype(str))
    alone, grouped = (
        run_study(open_source("pixels", digits), digits, RIDGE, external=one)
        for one in (strangers, by_people)
    )
    width = [one.rows[0].accuracy.high - one.rows[0].accuracy.low for one in (alone, grouped)]
    assert alone.rows[0].accuracy.value == grouped.rows[0].accuracy.value and width[1] > width[0]
    assert "6 groups" in grouped.protocol


def test_an_unknown_control_is_named_with_the_nearest(digits: Dataset) -> None:
    with pytest.raises(SettingError, match=r"control is 'pixel'.*nearest.*raw pixels"):
        run_study(open_source("pixels", digits), digits, replace(RIDGE, controls=("pixel",)))


def test_the_same_seed_gives_the_same_figures(digits: Dataset) -> None:
    first, second = (run_study(open_source("pixels", digits), digits, RIDGE) for _ in range(2))
    assert [row.accuracy for row in first.rows] == [row.accuracy for row in second.rows]
    assert first.comparisons == second.comparisons
