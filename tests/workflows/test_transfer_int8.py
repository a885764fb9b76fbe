"""The precision int8 in the workflows: calibrated on training images, compared with fp32, carried into the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from headstart.data.dataset import Dataset
from headstart.data.images.prepare import prepare
from headstart.data.readers.load import load
from headstart.errors import ModelError, SettingError
from headstart.graph.online import OnlineRun
from headstart.models import agreement
from headstart.models.agreement import Limits
from headstart.models.card import render_card
from headstart.models.export import export_model
from headstart.models.model import Model, open_model
from headstart.report.json import to_json
from headstart.report.page import render
from headstart.sources.features import Extraction
from headstart.sources.precision import in_int8
from headstart.sources.registry import open_source
from headstart.strategies.finetune.options import parse_transfer
from headstart.strategies.parts import training_parts
from headstart.strategies.places import Probe
from headstart.workflows.comparison.verdict import FLOAT, PROBE
from headstart.workflows.rank import run_ranking
from headstart.workflows.study import StudyRequest, run_study
from headstart.workflows.transfer import Transferred, run_transfer
from headstart.workflows.tune.request import Search
from headstart.workflows.tune.run import run_tuning

INT8 = Extraction(precision="int8")
FIXED = Probe("block3", "avg", "ridge")


@pytest.fixture(scope="module")
def few() -> Dataset:
    """200 digits of two classes, for a cross-validation."""
    return load("digits:8-9").subset(np.arange(200))


@pytest.fixture(scope="module")
def done(few: Dataset) -> Transferred:
    return run_transfer(open_source("drawings", few), few, FIXED, options=INT8)


@pytest.fixture
def model(done: Transferred, tmp_path: Path) -> Model:
    done.learned.model.save(tmp_path / "model", render(done.result))
    return open_model(tmp_path / "model")


def test_the_report_has_the_paired_difference_from_fp32(done: Transferred) -> None:
    rows = {row.strategy for row in done.result.rows}
    assert {PROBE, FLOAT, "HOG", "raw pixels", "majority"} <= rows
    (found,) = (one for one in done.result.comparisons if one.strategy == FLOAT)
    assert found.control == PROBE and found.difference.low <= found.difference.value <= found.difference.high
    assert "fp32 instead of int8: with all" in done.result.verdict
    assert done.result.facts["precision"] == "int8"
    assert "in int8, calibrated on 100 images" in done.result.facts["source"]
    assert "in int8" in done.result.summary
    assert "probe, fp32" in render(done.result)
    assert json.loads(to_json(done.result))["facts"]["precision"] == "int8"


def test_fp32_is_no_control_of_int8(done: Transferred) -> None:
    """The verdict is about transfer against its controls, and corrected for their number only."""
    controls = [one.control for one in done.result.comparisons if one.strategy == PROBE]
    assert FLOAT not in controls and "HOG" in controls
    assert f"({FLOAT})" not in done.result.verdict


def test_the_model_says_its_precision(model: Model) -> None:
    assert model.precision == "int8" and model.source().precision == "int8"
    assert "- Precision: int8, calibrated on 100 images of digits:8-9" in render_card(model.manifest)


def test_the_saved_graph_predicts_as_its_head_did(done: Transferred, few: Dataset, model: Model) -> None:
    """The heads learned from features of the graph in 8 bits, and the model computes the same ones."""
    right = (model.probabilities(few).argmax(axis=1) == few.codes()).mean()
    score = next(row.accuracy for row in done.result.rows if row.strategy == PROBE)
    assert right >= score.low
    served = OnlineRun(model.graph, precision="int8")
    pixels = prepare(few.subset(np.arange(3)), model.manifest.input)
    alone = model.predict_prepared([pixels]).probabilities
    np.testing.assert_allclose(served(pixels)[0], alone, atol=1e-3)


@pytest.mark.slow
def test_calibration_sees_no_held_out_image(digits: Dataset) -> None:
    """The network of a model is that of its training images alone."""
    source = open_source("drawings", digits)
    made = run_transfer(source, digits, FIXED, options=INT8, holdout=0.2).learned.model
    learned = run_transfer(source, digits, FIXED, options=INT8, holdout=0.2, judge=False).learned
    assert learned.parts is not None and learned.parts.held is not None
    expected = in_int8(source, learned.parts.fit, Extraction())
    assert made.manifest.source["fingerprint"] == expected.fingerprint
    everyone = in_int8(source, digits, Extraction())
    assert expected.fingerprint != everyone.fingerprint
    assert len(training_parts(digits, 0).fit) > len(learned.parts.fit)  # the test set is not in it


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow), "folder"])
def test_exports_carry_the_graph(model: Model, to: str, tmp_path: Path) -> None:
    found = export_model(model, to, tmp_path / "export")
    assert found.n_changed == 0 and found.n_checked == 8
    if to == "openvino":
        assert found.largest_difference < 1e-3
    if to == "folder":
        facts = json.loads((tmp_path / "export" / "model.json").read_text())
        check = json.loads((tmp_path / "export" / "check.json").read_text())
        assert facts["precision"] == "int8" and check["largest_difference"] == 0.1
        assert "were within 0.1" in (tmp_path / "export" / "README.md").read_text()


def test_a_wrong_export_in_int8_is_not_written(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is loose, but not so loose that another network passes."""
    other = replace(model, graph=_scaled(model.graph))
    monkeypatch.setattr(Model, "predict_prepared", lambda self, pixels: _ORIGINAL(other, pixels))
    with pytest.raises(ModelError, match=r"expected the same classes and at most 0\.1"):
        export_model(model, "onnx", tmp_path / "export")
    assert not (tmp_path / "export.onnx").exists()


_ORIGINAL = Model.predict_prepared


def _scaled(graph: bytes) -> bytes:
    """The same network with the weights of its last convolution negated."""

    changed = onnx.ModelProto.FromString(graph)
    kernel = [
        one
        for one in changed.graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4
    ][-1]
    kernel.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(kernel), kernel.name))
    return bytes(changed.SerializeToString())


def test_limits_of_int8_are_for_another_runtime_only(model: Model) -> None:
    strict, loose = agreement.limits_of(model, Path("a.xml")), agreement.limits_of(model, Path("a.onnx"))
    assert strict == Limits(1e-3, 1e-2) and loose == Limits(0.1, 0.3)
    plain = replace(model, manifest=replace(model.manifest, source={}))
    assert agreement.limits_of(plain, Path("a.onnx")) == strict


@pytest.mark.slow
def test_a_model_in_int8_is_a_source_in_int8(model: Model, few: Dataset) -> None:
    again = run_transfer(model.source(), few, Probe("block3", "avg", "ridge")).learned.model
    assert again.precision == "int8"
    assert again.manifest.source["calibrated_on"] == "100 images of digits:8-9"
    with pytest.raises(SettingError, match="was made in int8"):
        run_transfer(model.source(), few, options=Extraction(precision="fp32"))


def test_other_precisions_and_training_are_refused(few: Dataset) -> None:
    source = open_source("drawings", few)
    with pytest.raises(SettingError, match="precision is 'bf16', expected one of fp32, int8"):
        run_transfer(source, few, options=Extraction(precision="bf16"))
    with pytest.raises(SettingError, match="strategy is 'finetune' for source 'drawings' in int8"):
        run_transfer(source, few, options=INT8, finetune=parse_transfer("finetune", "auto"))


def test_a_study_in_int8(few: Dataset) -> None:
    request = StudyRequest(FIXED, controls=("majority",), labels_per_class=(5,))
    found = run_study(open_source("drawings", few), few, request, options=INT8)
    assert "in int8, calibrated on 100 images of digits:8-9" in found.facts["source"]
    assert {row.strategy for row in found.rows} == {PROBE, "majority"}


@pytest.mark.slow
def test_a_ranking_names_what_stays_in_fp32(few: Dataset) -> None:
    sources = [open_source(name, few) for name in ("drawings", "pixels", "hog")]
    found = run_ranking(sources, few, Probe(head="ridge"), options=INT8)
    assert {one.source: one.precision for one in found.ranked} == {
        "drawings": "int8",
        "pixels": "fp32",
        "hog": "fp32",
    }
    texts = [text for text in found.result.remarks if text.startswith("Computed in fp32, not in int8")]
    assert texts == [
        f"Computed in fp32, not in int8: {name}, which has no network." for name in ("pixels", "hog")
    ]


@pytest.mark.slow
def test_tuning_recommends_the_precision(few: Dataset) -> None:
    search = Search(policies=("squish",), augments=())
    found = run_tuning("drawings", few, search, options=INT8)
    assert "--precision int8" in found.command
    with pytest.raises(SettingError, match="precision is 'int8', expected it left out for a network"):
        run_tuning("mlp", few, options=INT8)
