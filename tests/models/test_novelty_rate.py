"""Another share of refused images than that of a model: in its graph, in its manifest, saved and opened again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.errors import ModelError, SettingError
from headstart.models.model import Model, open_model
from headstart.models.novelty_rate import checked_rate, novelty_sentence
from tiny_model import tiny_model


@pytest.fixture(scope="module")
def model() -> Model:
    digits = hs.load("digits:0-1")
    return hs.transfer("pixels", digits.subset(np.arange(0, 360, 2)), head="ridge", judge=False)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Others than those that the model learned from."""
    return hs.load("digits:0-1").images.pixels[1::2]


def refused(model: Model, images: np.ndarray) -> float:
    return float((model.predict(images) == "none of these").mean())


def test_a_higher_rate_refuses_more_and_off_refuses_none(model: Model, digits: np.ndarray) -> None:
    shares = [refused(model.with_novelty_rate(rate), digits) for rate in ("off", 0.02, 0.05, 0.3, 0.6)]
    assert shares[0] == 0 and shares == sorted(shares)
    assert 0.15 < shares[3] < 0.45 and 0.4 < shares[4] < 0.75, "three standard errors of 180 images"
    assert model.with_novelty_rate(None).graph == model.graph
    assert refused(model.with_novelty_rate(0.05), digits) == refused(model, digits)


def test_the_rate_goes_with_the_saved_model(model: Model, digits: np.ndarray, tmp_path: Path) -> None:
    opened = open_model(model.with_novelty_rate(0.3).save(tmp_path / "often"))
    assert opened.manifest.novelty["false_rejection"] == 0.3
    back = opened.with_novelty_rate(0.05)
    found, wanted = (one.prediction(digits).novelty for one in (back, model))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    silent = open_model(model.with_novelty_rate("off").save(tmp_path / "off"))
    assert not silent.manifest.novelty and silent.prediction(digits[:3]).novelty is None
    assert "predicts one of its classes for any image" in (tmp_path / "off" / "card.md").read_text()
    with pytest.raises(ModelError, match="has no novelty detection, expected"):
        silent.with_novelty_rate(0.05)


def test_a_model_without_stored_scores_can_only_be_silenced() -> None:
    old = tiny_model(novelty=True)
    images = np.full((2, 8, 8), 250, np.uint8)
    assert old.predict(images).tolist() == ["none of these"] * 2
    assert old.with_novelty_rate("off").predict(images).tolist() == ["light"] * 2
    with pytest.raises(ModelError, match="has no left-out scores of its novelty"):
        old.with_novelty_rate(0.1)


@pytest.mark.parametrize("rate", [0, 1, 5, -0.1, float("nan"), True, "of", "", [0.1]])
def test_a_rate_is_a_share_or_off(rate: object) -> None:
    with pytest.raises(SettingError, match=r"expected a share in \(0, 1\), or off"):
        checked_rate(rate)  # type: ignore[arg-type]


def test_transfer_takes_a_rate() -> None:
    silent = hs.transfer("pixels", "digits:0-1", head="ridge", judge=False, novelty_rate="off")
    often = hs.transfer("pixels", "digits:0-1", head="ridge", judge=False, novelty_rate=0.2)
    assert not silent.manifest.novelty and often.manifest.novelty["false_rejection"] == 0.2
    with pytest.raises(SettingError, match="novelty rate is 2"):
        hs.transfer("pixels", "digits:0-1", novelty_rate=2)


@pytest.mark.parametrize(
    ("n_groups", "words"),
    [
        (0, "Which these are is not known"),
        (1, "All training images are of one group"),
        (4, "groups like the 4 of the training images"),
        (20, "also of new groups"),
    ],
)
def test_the_sentence_says_where_training_images_came_from(model: Model, n_groups: int, words: str) -> None:
    manifest = replace(model.manifest, data={**model.manifest.data, "n_groups": n_groups})
    sentence = novelty_sentence(manifest)
    assert sentence is not None and words in sentence and "5 %" in sentence
    few = replace(manifest, novelty={**manifest.novelty, "n_held": 10})
    assert "Only 10 images set the threshold: up to one in 11" in str(novelty_sentence(few))
