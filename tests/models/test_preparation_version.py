"""Models that were saved before large JPEGs were decoded at a reduced size go on predicting what they predicted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.images.fit import fit_bytes, fit_image
from headstart.data.images.prepare import decode, prepare
from headstart.data.stores import FileImages
from headstart.interfaces.http.images import _prepared as uploaded
from headstart.models.manifest import checksum
from headstart.models.model import open_model
from headstart.models.predict import _prepared as predicted
from headstart.sources.features import Extraction, extract
from headstart.sources.registry import open_source
from headstart.system.cache import FolderCache
from tiny_model import SPEC, tiny_model

WIDE = replace(SPEC, height_px=16, width_px=24)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rough = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(rough).resize((403, 305)).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def saved_before(home: Path) -> Path:
    """A model folder as older versions wrote it: without a version of the preparation."""
    tiny_model(spec=WIDE).save(home)
    document = json.loads((home / "manifest.json").read_text())
    assert document["input"].pop("version") == 2
    document["checksum"] = checksum(document)
    (home / "manifest.json").write_text(json.dumps(document))
    return home


def test_an_older_model_decodes_at_full_size_everywhere(tmp_path: Path, photo: Path) -> None:
    model = open_model(saved_before(tmp_path / "model"))
    spec = model.manifest.input
    whole = fit_image(decode(photo), spec)
    assert spec.version == 1 and model.source().input.version == 1, "and passes its version on"
    assert not np.array_equal(fit_bytes(photo.read_bytes(), "x", WIDE), whole)
    assert np.array_equal(next(predicted([(str(photo), photo.read_bytes)], spec))[1], whole)
    assert np.array_equal(uploaded(photo.read_bytes(), "x", spec), whole)
    expected = model.predict_prepared([whole[None]]).probabilities
    for given in (photo, photo.read_bytes(), [str(photo)]):
        assert np.array_equal(model.probabilities(given), expected)
    again = open_model(model.save(tmp_path / "again"))
    assert again.manifest.input == spec, "saved once more, it is still of the first version"


def test_features_of_one_version_are_never_those_of_the_other(tmp_path: Path, photo: Path) -> None:
    now = open_source("random:cnn")
    before = replace(now, input=replace(now.input, version=1))
    data = Dataset("one", FileImages([photo]), np.array(["a"]), ("a", "b"))
    options = Extraction(FolderCache(tmp_path / "cache"))
    assert not np.array_equal(prepare(data, now.input), prepare(data, before.input))
    first, second = (np.array(extract(data, source, options=options)) for source in (before, now))
    assert not np.array_equal(first, second)
    for source, kept in ((before, first), (now, second)):
        assert np.array_equal(extract(data, source, options=options), kept)
        assert np.array_equal(extract(data, source), kept)
