"""A model predicts a single 16-bit file with the depth of its training images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.data import load
from headstart.errors import ModelError
from headstart.models.model import open_model
from headstart.models.predict import predict_files
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from image_files import deep_png
from tiny_model import SPEC, tiny_model

MOST = 4095


def whiteness(model: str, path: Path) -> float:
    (answer,) = predict_files(model, [str(path)], top=2).answers
    return dict(zip(answer.classes, answer.probabilities, strict=True))["light"]


def test_a_single_file_is_scaled_as_the_training_images_were(tmp_path: Path) -> None:
    dim = tmp_path / "dim.png"
    dim.write_bytes(deep_png(np.full((8, 8, 1), 819, np.uint16)))
    for depth, wanted in ((12, 51), (16, 3), (None, 204)):
        home = str(tiny_model(spec=replace(SPEC, depth_bits=depth)).save(tmp_path / f"model-{depth}"))
        assert open_model(home).manifest.input.depth_bits == depth
        assert whiteness(home, dim) == pytest.approx(wanted / 255, abs=1e-5)


def test_a_depth_that_cannot_be_is_refused(tmp_path: Path) -> None:
    home = tiny_model(spec=replace(SPEC, depth_bits=12)).save(tmp_path / "m")
    manifest = home / "manifest.json"
    text = manifest.read_text()
    assert '"depth_bits": 12' in text
    for value in ("13", '"12"', "true", "12.0", "1e9", "[12]"):
        manifest.write_text(text.replace('"depth_bits": 12', f'"depth_bits": {value}'))
        with pytest.raises(ModelError):
            open_model(home)


def test_training_records_it_and_evaluation_uses_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(24):
        values = np.zeros((16, 16, 1), np.uint16)
        values[4:12, 2:8] = MOST if number % 2 else rng.integers(300, 600)
        values[0, 0] = 40 * number
        place = tmp_path / "set" / ("dim", "bright")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(deep_png(values))
    dataset = load(tmp_path / "set")
    model = learn_head(open_source("pixels", dataset), dataset, Probe(head="ridge", layer="values")).model
    assert model.manifest.input.depth_bits == 12
    assert model.source().input.depth_bits is None, "other images have a depth of their own"
    dim = dataset.subset(dataset.labels == "dim")
    alone = load(tmp_path / "set").subset(dataset.labels == "dim")
    assert (model.predict(dim, refuse=False) == "dim").all()
    assert (model.predict(alone, refuse=False) == "dim").all()
    home = str(model.save(tmp_path / "m"))
    (tmp_path / "others").mkdir()
    for path in dim.images.paths or ():
        (tmp_path / "others" / path.name).write_bytes(path.read_bytes())
    answers = predict_files(home, [str(tmp_path / "others")]).answers
    assert len(answers) == 12 and all(one.classes[0] == "dim" for one in answers)
