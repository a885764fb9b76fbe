"""The Python face: one call from a name, a dataset or a model to a model."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.data.dataset import Dataset
from headstart.errors import SettingError, UnknownDatasetError, UnknownLayerError, UnknownSourceError
from headstart.system.cache import default_cache

FEW = hs.TrainSettings(epochs=3, learning_rate=3e-3)


@pytest.fixture(scope="module")
def odd() -> hs.Model:
    return hs.train("digits:odd", network="mlp", engine="scratch", settings=FEW)


def with_splits(dataset: Dataset) -> Dataset:
    """The first three quarters to learn from, the others to judge by."""
    place = np.arange(len(dataset)) < 0.75 * len(dataset)
    return replace(dataset, splits=np.where(place, "train", "test"))


def test_train_from_a_name(odd: hs.Model) -> None:
    assert isinstance(odd, hs.Model) and odd.classes == ("1", "3", "5", "7", "9")
    assert odd.manifest.settings["epochs"] == 3 and odd.manifest.settings["engine"] == "scratch"
    found = hs.load("digits:odd")
    assert (odd.predict(found) == found.labels).mean() > 0.8


def test_transfer_from_a_model_a_folder_and_a_name(odd: hs.Model, tmp_path: Path) -> None:
    even = hs.load("digits:even")
    from_model = hs.transfer(odd, even, head="ridge")
    from_folder = hs.transfer(str(odd.save(tmp_path / "odd")), "digits:even", head="ridge")
    assert from_model.classes == ("0", "2", "4", "6", "8")
    assert np.array_equal(from_model.probabilities(even), from_folder.probabilities(even))
    assert (from_model.predict(even) == even.labels).mean() > 0.9
    for name in ("pixels", "random:mlp"):
        assert hs.transfer(name, even, head="prototypes").manifest.source["name"] == name


def test_options_reach_the_model(odd: hs.Model) -> None:
    found = hs.transfer(odd, "digits:even", layer="hidden1", head="neighbours", seed=4).manifest
    assert found.source["tap"] == "hidden1" and found.head["name"] == "neighbours" and found.seed == 4


def test_a_name_is_that_of_the_model(odd: hs.Model) -> None:
    """As --name of the commands does; a wrong one is found before anything is read or learned."""
    assert hs.transfer(odd, "digits:even", head="ridge", judge=False, name="evens").manifest.name == "evens"
    learned = hs.train("digits:0-1", network="mlp", engine="scratch", settings=FEW, name="Zürich 0/1")
    assert learned.manifest.name == "Zürich 0/1"
    for wrong in ("", " ", "two\nlines", "x" * 201):
        for call in (
            lambda name: hs.train("nothing", name=name),
            lambda name: hs.transfer(odd, "x", name=name),
        ):
            with pytest.raises(SettingError, match=r"name is .*, expected 1 to 200 characters on one line"):
                call(wrong)


@pytest.mark.slow
def test_the_seed_decides_and_stands_above_the_settings() -> None:
    def weights(seed: int, settings: hs.TrainSettings) -> bytes:
        model = hs.train("digits:0-1", network="mlp", engine="scratch", settings=settings, seed=seed)
        assert model.manifest.seed == seed
        return model.graph

    first = weights(1, FEW)
    assert first == weights(1, FEW) == weights(1, replace(FEW, seed=9))
    assert first != weights(2, FEW)


@pytest.mark.slow
def test_the_test_split_is_not_looked_at(odd: hs.Model) -> None:
    whole = with_splits(hs.load("digits:odd"))
    test = whole.splits == "test"
    labels = whole.labels.copy()
    labels[test] = labels[test][::-1]
    spoilt = replace(whole, labels=labels)
    first, second = (
        hs.train(one, network="mlp", engine="scratch", settings=FEW).graph for one in (whole, spoilt)
    )
    assert first == second
    first, second = (hs.transfer(odd, one, head="ridge").graph for one in (whole, spoilt))
    assert first == second


def test_transfer_leaves_its_source_as_it_was_and_keeps_features(odd: hs.Model) -> None:
    before = odd.graph
    hs.transfer(odd, "digits:even", head="ridge")
    assert odd.graph == before
    # images learned from and held out, at both layers, which are averaged; both as HOG and as raw pixels
    assert len(default_cache().entries()) == 8


def test_a_saved_model_opens_and_says_the_same(odd: hs.Model, tmp_path: Path) -> None:
    again = hs.open(odd.save(tmp_path / "m"))
    found = hs.load("digits:odd")
    assert np.array_equal(again.probabilities(found), odd.probabilities(found))


def test_wrong_names_are_errors_of_ours(odd: hs.Model) -> None:
    for kind, call in (
        (UnknownDatasetError, lambda: hs.train("digit")),
        (SettingError, lambda: hs.train("digits", network="mpl", engine="scratch")),
        (SettingError, lambda: hs.train("digits", network="mlp", engine="scrach")),
        (UnknownSourceError, lambda: hs.transfer("pixel", "digits")),
        (UnknownLayerError, lambda: hs.transfer(odd, "digits:even", layer="hiden1")),
        (SettingError, lambda: hs.transfer(odd, "digits:even", head="rigde")),
        (SettingError, lambda: hs.transfer(odd, "digits:even", pooling="max")),
    ):
        with pytest.raises(kind) as found:
            call()
        assert isinstance(found.value, hs.HeadstartError) and "expected" in str(found.value)


def test_the_names_of_the_package_are_there_and_cost_nothing_until_used() -> None:
    for name in hs.__all__:
        assert getattr(hs, name) is not None
    assert sorted(hs.__all__) == dir(hs)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        hs.trian  # noqa: B018
    code = "import sys, headstart\nassert not {'numpy', 'onnx', 'torch', 'openvino'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tap_is_accepted_as_the_older_name_of_layer():
    source = hs.train("digits:odd", network="mlp", engine="scratch", settings=hs.TrainSettings(epochs=1))
    with pytest.warns(FutureWarning, match="tap is now called layer"):
        old = hs.transfer(source, "digits:0-1", tap="hidden1", head="ridge", judge=False)
    new = hs.transfer(source, "digits:0-1", layer="hidden1", head="ridge", judge=False)
    assert dict(old.manifest.source) == dict(new.manifest.source)
    with pytest.raises(SettingError, match="layer is given twice"):
        hs.transfer(source, "digits:0-1", layer="hidden1", tap="hidden1", judge=False)
