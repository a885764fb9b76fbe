"""Inspecting: what a model, a dataset and a source are, in plain values under plain names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.errors import ModelError, UnknownDatasetError
from headstart.interfaces.cli.describe import describe_path, describe_source
from headstart.models.model import Model
from headstart.records import TrainSettings
from headstart.report.json import to_json
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.strategies.scratch import learn_network


@pytest.fixture(scope="module")
def trained() -> Model:
    settings = TrainSettings(epochs=1, batch_size=64)
    return learn_network(load("digits:0-4"), network="mlp", engine="scratch", settings=settings).model


def test_a_dataset_by_name(digits: Dataset) -> None:
    found = describe_path("digits:1,7")
    assert found["imbalance"] == 1.017 and found["remarks"] == ["no problems were found"]
    assert (
        found.items()
        >= {
            "dataset": "digits:1,7",
            "n_images": 361,
            "fingerprint": load("digits:1,7").fingerprint,
            "images_per_class": {"1": 182, "7": 179},
            "size": "8 x 8 x 1",
        }.items()
    )


def test_a_dataset_with_splits_groups_and_broken_files(tmp_path: Path) -> None:
    lines = ["path,label,split,writer"]
    for number in range(6):
        Image.fromarray(np.full((5, 4), number, np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]},{'test' if number > 3 else 'train'},w{number // 2}")
    (tmp_path / "torn.png").write_bytes(b"torn")
    (tmp_path / "table.csv").write_text("\n".join([*lines, "torn.png,a,train,w0"]))
    found = describe_path(str(tmp_path / "table.csv"))
    assert found["n_images"] == 6 and found["images_per_class"] == {"a": 3, "b": 3}
    assert found["splits"] == {"test": 2, "train": 4} and found["n_groups"] == 3
    ((path, reason),) = found["skipped"].items()
    assert path.endswith("torn.png") and reason == "it is a text file, not an image; leave it out"
    assert "size" not in found  # files of any size


def test_a_model_trained_whole(trained: Model, tmp_path: Path) -> None:
    found = describe_path(str(trained.save(tmp_path / "m")))
    assert found["model"] == "mlp on digits:0-4" and found["strategy"] == "scratch"
    assert found["classes"] == ["0", "1", "2", "3", "4"]
    assert found["source"] == "none: trained from scratch"
    assert found["settings"]["batch_size"] == 64 and found["settings"]["engine"] == "scratch"
    assert found["images_per_class"] == trained.manifest.data["counts"]
    assert sum(found["images_per_class"].values()) == found["data"]["n_images"]
    assert found["layers"]["hidden1"] == "128" and found["default_layer"] == "hidden2"
    assert found["files"]["model.onnx"].startswith(f"{len(trained.graph)} bytes, sha256 ")


def test_a_model_with_a_head_names_its_source(trained: Model, tmp_path: Path) -> None:
    source = trained.source("my-digits")
    learnt = learn_head(source, load("digits:0-4"), Probe(head="ridge", layer="hidden1"))
    found = describe_path(str(learnt.model.save(tmp_path / "m")))
    assert found["strategy"] == "probe" and found["head"].startswith("ridge (strength ")
    assert found["source"]["name"] == "my-digits" and found["source"]["tap"] == "hidden1"
    assert found["source"]["fingerprint"] == source.fingerprint


def test_everything_can_be_written_as_json(trained: Model, tmp_path: Path) -> None:
    for found in (
        describe_path("digits"),
        describe_path(str(trained.save(tmp_path / "m"))),
        describe_source(trained.source()),
    ):
        assert json.loads(to_json(found)).keys() == found.keys()


def test_sources_say_what_they_take_and_where_they_can_be_tapped(trained: Model, digits: Dataset) -> None:
    pixels = describe_source(open_source("pixels", digits))
    assert pixels["layers"] == {"values": "1 x 8 x 8"} and pixels["classes"] == "none"
    assert pixels["input"].startswith("8 x 8 px, 1 channel(s), squish")
    ours = describe_source(trained.source("m"))
    assert ours["source"] == "m" and ours["classes"] == ["0", "1", "2", "3", "4"]
    assert list(ours["layers"])[-1] == "output" and ours["default_layer"] == "hidden2"


def test_the_cost_of_a_source_is_said_in_both_units(digits: Dataset) -> None:
    facts = {"n_parameters": 4_231_976, "gflops": 1.13752, "licence": "mit", "checksum": "c"}
    found = describe_source(replace(open_source("pixels", digits), notes=facts))
    assert found["gflops_per_image"] == 1.14 and found["gmacs_per_image"] == 0.569


def test_what_is_neither() -> None:
    with pytest.raises(UnknownDatasetError, match=r"'digit' is unknown.*nearest are digits"):
        describe_path("digit")


def test_a_damaged_model_is_not_taken_for_a_dataset(trained: Model, tmp_path: Path) -> None:
    home = trained.save(tmp_path / "m")
    (home / "manifest.json").write_text("{}")
    with pytest.raises(ModelError, match="has no format"):
        describe_path(str(home))


def test_a_source_says_what_it_costs_here_and_how_it_could_cost_less(digits: Dataset) -> None:
    """Speed and size are measured; a smaller input is suggested where an image costs much."""
    source = open_source("hog", digits)
    described = describe_source(source)
    assert (
        described["images_per_second"] > 100 and described["megabytes"] < 1 and "suggestion" not in described
    )
    assert 20 < described["peak_memory_mb"] < 2_000 and "batches of 64" in described["peak_memory_means"]
    assert described["licence"].startswith("none needed")
    notes = {
        "n_parameters": 86_000_000,
        "gflops": 93.0,
        "gflops at 224 px": 12.2,
        "licence": "Apache-2.0",
        "licence from": "LICENSE",
        "checksum": "0",
        "size_px": 518,
    }
    dear = describe_source(replace(source, notes=notes))
    assert dear["suggestion"] == "518 px cost 93 GFLOPs an image; --size 224 costs about 12"
    assert (dear["licence"], dear["licence_from"]) == ("Apache-2.0", "LICENSE")
    fixed = {name: value for name, value in notes.items() if name != "gflops at 224 px"}
    assert "suggestion" not in describe_source(replace(source, notes=fixed)), "its size is fixed"
