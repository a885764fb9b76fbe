"""A model made with torch opens and answers where torch is absent: same labels, same probabilities."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from headstart.data import load
from headstart.data.images.prepare import prepare
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture
from headstart.networks.training import fit
from headstart.records import InputSpec, TrainSettings
from headstart.strategies.scratch import learn_network

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "kornia", "ray", "gradio", "fastapi"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import numpy as np
import headstart as hs
model = hs.open(sys.argv[1])
np.save(sys.argv[2], model.probabilities(hs.load("digits")))
"""


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.mark.slow
def test_a_torch_model_answers_the_same_without_torch(digits, tmp_path):
    pytest.importorskip("torch")
    settings = TrainSettings(epochs=1, learning_rate=3e-3, precision="fp32")
    model = learn_network(digits, network="cnn", engine="torch", settings=settings).model
    model.save(tmp_path / "model")
    here = make_network(model.manifest.network, "torch")
    here.load_weights(model.weights)
    logits = here.logits(prepare(digits, model.manifest.input)).astype(np.float64)
    logits *= model.manifest.calibration["temperature"]
    trained = np.exp(logits - logits.max(axis=1, keepdims=True))
    trained /= trained.sum(axis=1, keepdims=True)
    answer = tmp_path / "probs.npy"
    subprocess.run(
        [sys.executable, "-c", WITHOUT, tmp_path / "model", answer], check=True, capture_output=True
    )
    elsewhere = np.load(answer)
    assert len(elsewhere) > 1_000
    assert np.abs(elsewhere - trained).max() <= 1e-4
    assert (elsewhere.argmax(axis=1) == trained.argmax(axis=1)).all()


@pytest.mark.slow
def test_the_torch_engine_repeats_itself_to_the_bit(digits):
    pytest.importorskip("torch")
    spec = architecture("cnn", InputSpec(28, 28, 1), 10)
    images, codes = prepare(digits, spec.input)[:400], digits.codes()[:400]
    found = []
    for _ in range(2):
        network = make_network(spec, "torch", 3)
        fit(network, images, codes, TrainSettings(epochs=2, seed=3))
        found.append(network.weights())
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
