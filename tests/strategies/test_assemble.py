"""A model put together: calibrated on what was held out, knowing what is strange, with a few samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays, load
from headstart.data.stores import ArrayImages
from headstart.models.card import render_card
from headstart.models.model import Model, open_model
from headstart.records import NONE_OF_THESE, TrainSettings
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.strategies.scratch import learn_network

# long, on few images
SETTINGS = TrainSettings(epochs=30, learning_rate=5e-3)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits").subset(np.random.default_rng(0).permutation(1_797)[:700])


@pytest.fixture(scope="module")
def network(digits: Dataset) -> Model:
    return learn_network(digits, network="mlp", engine="scratch", settings=SETTINGS).model


@pytest.fixture(scope="module")
def misled(digits: Dataset) -> Model:
    """Of labels of which one in seven is wrong: surer than it is right."""
    rng = np.random.default_rng(1)
    labels, wrong = digits.labels.copy(), rng.random(len(digits)) < 0.15
    labels[wrong] = rng.permutation(labels[wrong])
    wronged = replace(digits, labels=labels)
    return learn_network(wronged, network="mlp", engine="scratch", settings=SETTINGS).model


def test_a_network_is_calibrated_on_images_held_out(misled: Model) -> None:
    noted = misled.manifest.calibration
    assert noted["before"]["n"] == noted["after"]["n"] == misled.manifest.data["n_held"]
    assert 0 < noted["temperature"] < 1, "it was too sure"
    assert noted["after"]["nll"] < noted["before"]["nll"]


def test_calibration_helps_on_images_nobody_used(misled: Model) -> None:
    rest = load("digits").subset(np.random.default_rng(0).permutation(1_797)[700:])
    rng = np.random.default_rng(2)
    labels, wrong = rest.labels.copy(), rng.random(len(rest)) < 0.15
    labels[wrong] = rng.permutation(labels[wrong])
    rest = replace(rest, labels=labels)
    factor = misled.manifest.calibration["temperature"]
    probs = misled.probabilities(rest).astype(np.float64)
    raw = probs ** (1 / factor)
    raw /= raw.sum(axis=1, keepdims=True)
    codes = rest.codes()
    loss = [-np.log(one[np.arange(len(codes)), codes] + 1e-12).mean() for one in (raw, probs)]
    assert loss[1] < loss[0]


@pytest.mark.parametrize("runtime_name", ["openvino", "onnxruntime"])
def test_noise_is_none_of_these_in_every_runtime(network: Model, digits: Dataset, runtime_name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    strange = network.prediction(from_arrays(noise, ["x"] * 60), runtime_name=runtime_name)
    usual = network.prediction(digits, runtime_name=runtime_name)
    assert (strange.names(network.classes) == NONE_OF_THESE).mean() > 0.9
    assert (usual.names(network.classes) == NONE_OF_THESE).mean() < 0.12


def test_a_probe_knows_what_is_strange_where_it_reads(digits: Dataset, tmp_path: Path) -> None:
    source = open_source("random:cnn", digits)
    model = learn_head(source, digits, Probe(layer="block2", pooling="grid2", head="ridge")).model
    assert model.manifest.novelty["tap"] == "block2" and model.manifest.novelty["pooling"] == "grid2"
    assert model.manifest.calibration["after"]["n"] == model.manifest.data["n_held"]
    opened = open_model(model.save(tmp_path / "model"))
    one, other = model.prediction(digits), opened.prediction(digits)
    assert one.novelty is not None and other.novelty is not None
    assert np.array_equal(one.novelty, other.novelty)
    again = learn_head(opened.source(), digits, Probe(layer="block1", pooling="grid2", head="ridge")).model
    assert again.manifest.novelty["tap"] == "block1", "a model of a model has its own"


def test_taps_read_side_by_side_are_read_once(digits: Dataset, tmp_path: Path) -> None:
    source = open_source("random:cnn", digits)
    model = learn_head(source, digits, Probe(layer="block2+block3", pooling="avg", head="ridge")).model
    assert open_model(model.save(tmp_path / "model")).prediction(digits).novelty is not None


def test_a_model_of_few_images_has_no_novelty_and_says_so(digits: Dataset) -> None:
    few = digits.subset(np.flatnonzero(np.isin(digits.labels, ["0", "1"]))[:6])
    few = replace(few, classes=("0", "1"))
    model = learn_head(open_source("pixels", few), few).model
    assert model.manifest.novelty == {} and model.prediction(few).novelty is None
    assert "one of its classes for any image" in render_card(model.manifest)


def test_samples_are_the_images_as_they_came_every_class_in_turn(network: Model, digits: Dataset) -> None:
    assert isinstance(digits.images, ArrayImages) and len(network.samples) == 8
    known = {
        pixels.tobytes(): label for pixels, label in zip(digits.images.pixels, digits.labels, strict=True)
    }
    assert len({known[one.tobytes()] for one in network.samples}) == 8


def test_the_card_says_how_far_to_trust_it(network: Model) -> None:
    card = render_card(network.manifest)
    assert "calibration error" in card and "Up to 5 % of the images" in card
