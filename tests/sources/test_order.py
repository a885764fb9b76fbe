"""Names on the command line: swapped ones, networks without their prefix, mistyped folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.errors import SettingError, UnknownSourceError
from headstart.sources.order import check_model_first, check_order
from headstart.sources.registry import open_source
from tiny_model import tiny_model


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "labels.csv").write_text("path,label\n")
    tiny_model().save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("photos", "drawings"),
        ("digits:odd", "pixels"),
        ("labels.csv", "timm:resnet18"),
        ("photos", "model"),
        ("mistyped", "drawings"),
        ("digits", "cnn"),
    ],
)
def test_swapped_names_are_recognised(desk: Path, source: str, data: str) -> None:
    with pytest.raises(SettingError, match=f"expected the source first; swap them: {data} {source}"):
        check_order(source, data, ["cnn"])


def test_a_source_in_the_place_of_the_data(desk: Path) -> None:
    with pytest.raises(SettingError, match="data is 'pixels', which is a source, expected a dataset"):
        check_order("drawings", "pixels")


@pytest.mark.parametrize(
    ("source", "data"),
    [("drawings", "photos"), ("model", "digits"), ("mistyped", "photos"), ("pixels", "mistyped")],
)
def test_names_in_order_pass(desk: Path, source: str, data: str) -> None:
    check_order(source, data)


def test_a_folder_that_is_called_like_a_source_is_data(desk: Path) -> None:
    (desk / "drawings").mkdir()
    check_order("pixels", "drawings")


def test_a_model_after_the_data_is_recognised(desk: Path) -> None:
    with pytest.raises(
        SettingError, match="model is 'photos', and 'model' is a model folder, expected the model"
    ):
        check_model_first("photos", ["model"])
    check_model_first("model", ["photos"])
    check_model_first("mistyped", ["photos"])


def test_a_mistyped_model_folder_is_suggested_and_no_other_folder(desk: Path) -> None:
    with pytest.raises(UnknownSourceError, match="nearest are model/;"):
        open_source("modle")
    with pytest.raises(UnknownSourceError) as caught:
        open_source("photoss")
    assert "photos/" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", "timm:resnet50;"),
        ("ResNet50", "timm:resnet50;"),
        ("microsoft/resnet-50", "timm:resnet50;"),
        ("mobilenet_v3_small", "timm:mobilenetv3_small_100,"),
        ("efficientnet_b0", "timm:efficientnet_b0;"),
    ],
)
def test_a_network_of_timm_without_its_prefix_is_suggested(name: str, expected: str) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("torch")
    with pytest.raises(UnknownSourceError) as caught:
        open_source(name)
    assert f"nearest are {expected}" in str(caught.value)
