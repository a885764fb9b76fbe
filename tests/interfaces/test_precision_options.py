"""The precision int8 by Python, scikit-learn and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart import TransferClassifier
from headstart.errors import SettingError
from headstart.models.model import open_model

SOME = slice(0, 60)


def test_python(digits: hs.Dataset) -> None:
    few = hs.load("digits:8-9").subset(np.arange(60))
    model = hs.transfer(
        "drawings", few, layer="block2", pooling="avg", head="ridge", precision="int8", judge=False
    )
    assert model.precision == "int8"
    with pytest.raises(SettingError, match="precision is 'auto', expected one of fp32, int8"):
        hs.transfer("drawings", few, precision="auto")
    with pytest.raises(SettingError, match="strategies include finetune with a source in int8"):
        hs.study("drawings", few, strategies=["finetune"], precision="int8")


def test_classifier(digits: hs.Dataset) -> None:
    images, labels = digits.images.pixels[SOME], digits.labels[SOME]  # type: ignore[attr-defined]
    made = TransferClassifier("drawings", layer="block2", pooling="avg", head="ridge", precision="int8")
    fitted = made.fit(images, labels)
    assert fitted.model_.precision == "int8" and fitted.score(images, labels) > 0.9
    assert TransferClassifier(precision="int8").get_params()["precision"] == "int8"
    with pytest.raises(SettingError, match="precision is 'bf16'"):
        TransferClassifier("drawings", precision="bf16").fit(images, labels)
    rows = images.reshape(len(images), -1)
    with pytest.raises(SettingError, match="expected images for precision='int8'"):
        TransferClassifier(precision="int8").fit(rows, labels)


@pytest.mark.slow
def test_command(run, tmp_path: Path) -> None:
    """One JSON object and nothing else on stdout; the model says its precision."""
    place = tmp_path / "model"
    words = "--layer block2 --pooling avg --head ridge --precision int8 --json".split()
    done = run("transfer", "drawings", "digits:8-9", "-o", str(place), *words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["result"]["facts"]["precision"] == "int8"
    assert "pre-processing" not in done.err  # what onnxruntime.quantization would say
    assert open_model(place).precision == "int8"
