"""Answer sets: the rule, what is stored for it, and the files and answers that it reaches."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.errors import ModelError, SettingError
from headstart.models.answer_sets import AnswerSets, answer_sets, answer_sets_note
from headstart.models.manifest import Manifest, read_manifest, write_manifest
from headstart.models.model import Model, open_model
from headstart.models.predict import predict_files, to_table
from headstart.models.predict_csv import predict_to_file
from headstart.models.predict_job import PredictRequest
from tiny_model import picture, tiny_model


def drawn(n: int, seed: int, n_classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and codes that are drawn from them after they are made less sure: badly calibrated ones."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([0.3] * n_classes, n)
    flat = probs**0.5 / (probs**0.5).sum(axis=1, keepdims=True)
    codes = np.array([rng.choice(n_classes, p=row) for row in flat])
    return probs.astype(np.float32), codes


def manifest_with(note: object) -> Manifest:
    return replace(tiny_model().manifest, answer_sets=note)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [60, 400])
def test_sets_hold_the_true_class_as_often_as_the_level_says(n: int) -> None:
    held, sizes = [], []
    for seed in range(60):
        probs, codes = drawn(n, seed)
        rule = answer_sets(manifest_with(answer_sets_note(probs, codes, None, "held", crossed=False)), 0.9)
        new, truth = drawn(400, 1_000 + seed)
        sets = rule.codes(new)
        held.append(np.mean([code in one for code, one in zip(truth, sets, strict=True)]))
        sizes.append(np.mean([len(one) for one in sets]))
    assert np.mean(held) >= 0.9 - 3 * np.std(held) / math.sqrt(60) and np.mean(held) < 0.93
    assert np.mean(sizes) < 5.5


def test_few_left_out_images_give_all_classes_and_the_reason() -> None:
    probs, codes = drawn(18, 0)
    rule = answer_sets(manifest_with(answer_sets_note(probs, codes, None, "held", crossed=False)), 0.95)
    assert all(len(one) == 6 for one in rule.codes(probs))
    assert (
        rule.remark is not None and "18 independent images were left out, expected at least 19" in rule.remark
    )
    probs, codes = drawn(57, 0)
    copies = np.repeat(np.arange(19), 3)
    enough = answer_sets(manifest_with(answer_sets_note(probs, codes, copies, "held", crossed=False)), 0.95)
    assert enough.remark is None
    few = answer_sets(manifest_with(answer_sets_note(probs, codes, copies, "held", crossed=False)), 0.96)
    counted = "57 images of 19 groups, or copies of 19 images, were left out, expected at least 24"
    assert few.remark is not None and few.remark.startswith(counted)


def test_with_few_labels_sets_do_not_change_when_the_saved_model_is_surer() -> None:
    probs, codes = drawn(24, 3)
    note = answer_sets_note(probs, codes, None, "cross-validated", crossed=True)
    assert note["rule"] == "margin"
    rule, new = answer_sets(manifest_with(note), 0.8), drawn(50, 9)[0] * 0.9 + 0.1 / 6
    surer = new**3 / (new**3).sum(axis=1, keepdims=True)
    as_before = [one.tolist() for one in rule.codes(new)]
    assert [one.tolist() for one in rule.codes(surer)] == as_before
    assert len({len(one) for one in as_before}) > 1
    assert answer_sets_note(*drawn(30, 3), None, "cross-validated", crossed=True)["rule"] == "probability"


def test_a_set_is_never_empty_and_in_order() -> None:
    sure = AnswerSets(0.5, 0.01)
    probs = np.array([[0.2, 0.5, 0.3], [0.995, 0.005, 0]], np.float32)
    assert sure.names(probs, "abc") == [("b",), ("a",)]
    assert AnswerSets(0.9, 0.75).names(probs, "abc") == [("b", "c"), ("a",)]


def test_the_note_survives_the_manifest_and_a_damaged_one_is_refused() -> None:
    note = answer_sets_note(*drawn(30, 0), None, "validation", crossed=False)
    manifest = tiny_model().manifest
    text = write_manifest(replace(manifest, answer_sets=note, files={}))
    assert '"left_out"' in text
    for damage in ({"left_out": [0.3, 0.2]}, {"left_out": []}, {"rule": "guess"}, {"n_images": -1}):
        broken = write_manifest(replace(manifest, answer_sets={**note, **damage}, files={}))
        with pytest.raises(ModelError, match="missing or malformed field"):
            read_manifest(broken, "tiny")


@pytest.mark.parametrize("level", [0, 1, 95, -1, True, "0.95", float("nan")])
def test_a_level_is_a_share(level: object) -> None:
    note = answer_sets_note(*drawn(30, 0), None, "validation", crossed=False)
    with pytest.raises(SettingError, match=r"expected a share in \(0, 1\)"):
        answer_sets(manifest_with(note), level)  # type: ignore[arg-type]


def test_a_model_without_left_out_scores_says_so() -> None:
    with pytest.raises(ModelError, match="has no left-out scores for answer sets"):
        tiny_model().answer_sets(np.zeros((1, 8, 8), np.uint8))


@pytest.mark.parametrize(("patience", "n_left_out"), [(0, 180), (1, 90)])
def test_a_trained_network_has_sets_from_images_that_decided_nothing(patience: int, n_left_out: int) -> None:
    digits, settings = hs.load("digits"), hs.TrainSettings(epochs=2, patience=patience)
    model = hs.train(digits, network="mlp", engine="scratch", settings=settings)
    note = model.manifest.answer_sets
    assert note["images"] == "validation" and abs(note["n_images"] - n_left_out) <= 10
    assert all(model.answer_sets(digits.images.pixels[:3], 0.9))


def test_a_network_that_nothing_was_left_out_of_says_so() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # after one epoch it may be no better than the most frequent class
        model = hs.train("digits:0-1", network="mlp", engine="scratch", settings=hs.TrainSettings(epochs=1))
    with pytest.raises(ModelError, match="none were left out; make it again with headstart train"):
        model.answer_sets(np.zeros((1, 8, 8), np.uint8))
    older = replace(model.manifest, data={**model.manifest.data, "n_held": 50})
    with pytest.raises(ModelError, match="make it again with this version of headstart"):
        answer_sets(older, 0.9)


def test_sets_of_all_classes_are_a_warning_in_python(folder: Path) -> None:
    model = open_model(folder / "model")
    with pytest.warns(UserWarning, match="every set holds all classes") as told:
        found = model.answer_sets(str(folder / "dark.png"), 0.99)
    assert len(found[0]) == len(model.classes) and told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(model.answer_sets(str(folder / "dark.png"), 0.95)[0]) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose true class was as improbable as 0.4 once in twenty left-out images."""
    home, note = tmp_path_factory.mktemp("sets"), {"rule": "probability", "images": "validation"}
    scores = [0.1] * 18 + [0.6]
    model = tiny_model(novelty=True)
    noted = replace(
        model.manifest, answer_sets={**note, "left_out": scores, "n_images": 19, "n_clusters": 19}
    )
    for name, value in (("dark", 10), ("grey", 120), ("light", 250)):
        (home / f"{name}.png").write_bytes(picture(value))
    replace(model, manifest=noted).save(home / "model")
    return home


def test_predict_lists_the_sets_in_table_json_and_csv(folder: Path) -> None:
    paths = [str(folder / f"{name}.png") for name in ("dark", "grey", "light")]
    found = predict_files(folder / "model", paths, sets=0.95, novelty_rate="off")
    wanted = [("dark",), ("dark", "light"), ("light",)]
    assert [one.answer_set for one in found.answers] == wanted and found.remark is None
    assert "dark or light" in to_table(found) and "answer set" in to_table(found)
    plain = predict_files(folder / "model", paths)
    assert plain.answers[0].answer_set is None and "answer set" not in to_table(plain)
    out = folder / "out.csv"
    done = predict_to_file(PredictRequest(str(folder / "model"), tuple(paths), sets=0.99), out)
    assert done.remark is not None and "expected at least 99" in done.remark
    rows = out.read_text().splitlines()
    assert "answer_set" in rows[0] and json.dumps(["dark", "light"]).replace('"', '""') in rows[1]


def test_transfer_stores_what_sets_need(tmp_path: Path) -> None:
    digits = hs.load("digits:0-1")
    model = hs.transfer("pixels", digits, head="ridge")
    opened: Model = open_model(model.save(tmp_path / "model"))
    assert opened.manifest.answer_sets["images"] in ("cross-validated", "validation")
    assert opened.answer_sets(digits.images.pixels[:2], 0.9) == [("0",), ("1",)]
    card = (tmp_path / "model" / "card.md").read_text()
    assert "Answer sets" in card and "no groups are given" in card
