"""The scikit-learn estimator: its contract, images of every kind, labels as given, saved and opened."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.readers.load import from_arrays, load
from headstart.errors import (
    DataError,
    HeadstartError,
    ModelError,
    NotFittedError,
    SettingError,
    ShapeError,
    UnknownClassError,
)
from headstart.heads.registry import HEADS
from headstart.interfaces import sklearn as estimator
from headstart.interfaces.python import transfer
from headstart.interfaces.sklearn import TransferClassifier
from headstart.models.manifest import checksum
from headstart.models.model import open_model
from headstart.records import Source
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe

DIGITS = load("digits:0-2").subset(np.arange(200))
IMAGES = DIGITS.images.pixels[..., 0]  # (200, 8, 8)
CODES = DIGITS.codes()
FLAT = IMAGES.reshape(200, 64)


# the kernel head obeys too, and takes as long as all the others
@parametrize_with_checks(
    [TransferClassifier(head=head) for head in (None, *sorted({*HEADS} - {"kernel", "linear"}))]
)
def test_scikit_learns_contract_with_no_exception(estimator: TransferClassifier, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def fitted() -> TransferClassifier:
    return TransferClassifier(head="ridge", image_shape=(8, 8)).fit(FLAT, CODES)


@pytest.mark.parametrize(
    "names",
    [
        np.array([10, 9, -1]),
        np.array([2.0, 1.0, 7.0]),
        np.array(["b", "a", "ω"]),
        np.array(["b", "a", "c"], object),
        np.array([5, 200, 7], np.uint8),
    ],
    ids=["int", "float", "text", "object", "uint8"],
)
def test_labels_come_back_as_given_from_a_folder_too(names: np.ndarray, tmp_path: Path) -> None:
    labels = names[CODES]
    found = TransferClassifier(head="ridge").fit(IMAGES, labels)
    assert found.classes_.dtype == names.dtype and found.classes_.tolist() == sorted(names.tolist())
    assert found.score(IMAGES, labels) > 0.99 and found.predict(IMAGES).dtype == names.dtype
    opened = TransferClassifier.open(found.save(tmp_path / "model"))
    assert opened.classes_.dtype == found.classes_.dtype
    assert np.array_equal(opened.predict(IMAGES), found.predict(IMAGES))
    assert np.array_equal(opened.predict_proba(IMAGES), found.predict_proba(IMAGES))


def test_booleans_are_labels() -> None:
    found = TransferClassifier(head="ridge").fit(IMAGES, CODES == 1)
    assert found.classes_.tolist() == [False, True] and found.predict(IMAGES[:3]).dtype == np.bool_


def test_saved_booleans_are_booleans(tmp_path: Path) -> None:
    found = TransferClassifier(head="ridge").fit(IMAGES, CODES == 1)
    opened = TransferClassifier.open(found.save(tmp_path / "model"))
    assert np.array_equal(opened.predict(IMAGES), CODES == 1)


def test_images_in_rows_and_in_a_stack_are_the_same(fitted: TransferClassifier) -> None:
    stacked = TransferClassifier(head="ridge").fit(IMAGES[..., None], CODES)
    assert np.array_equal(stacked.predict_proba(IMAGES), fitted.predict_proba(FLAT))
    assert np.array_equal(fitted.predict_proba(IMAGES), fitted.predict_proba(FLAT.astype(float)))
    assert fitted.n_features_in_ == 64 and not hasattr(stacked, "n_features_in_")
    named = TransferClassifier(head="ridge", image_shape=(8, 8)).fit(
        pd.DataFrame(FLAT).add_prefix("p"), CODES
    )
    assert named.feature_names_in_[-1] == "p63"
    assert np.array_equal(named.predict_proba(pd.DataFrame(FLAT).add_prefix("p")), fitted.predict_proba(FLAT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for index, (image, name) in enumerate(zip(IMAGES[:60], DIGITS.labels[:60], strict=True)):
        (place / name).mkdir(exist_ok=True)
        Image.fromarray(image).save(place / name / f"{index:02}.png")
    return place


@pytest.mark.slow
def test_paths_a_folder_and_a_dataset_are_the_same(folder: Path) -> None:
    data = load(folder)
    from_folder = TransferClassifier(head="ridge").fit(folder)
    wanted = from_folder.predict_proba(folder)
    assert from_folder.score(data, data.labels) == 1.0
    paths = [str(path) for path in data.images.paths]
    for X in (paths, np.array(paths), pd.Series(paths), list(data.images.paths)):
        found = TransferClassifier(head="ridge").fit(X, data.labels)
        assert np.array_equal(found.predict_proba(X), wanted)
    whole = TransferClassifier(head="ridge").fit(data)
    assert np.array_equal(whole.predict_proba(str(folder)), wanted)


@pytest.mark.slow
def test_images_in_every_form_are_the_same(tmp_path: Path) -> None:
    some, codes = IMAGES[:60], CODES[:60]
    wanted = TransferClassifier(head="ridge").fit(some, codes).predict_proba(some)
    turned = Image.Exif()
    turned[0x0112] = 3  # to be turned by 180 degrees
    files = []
    for number, image in enumerate(some):
        Image.fromarray(image[::-1, ::-1]).save(tmp_path / f"{number:02}.png", exif=turned)
        files.append(tmp_path / f"{number:02}.png")
    forms: list[Any] = [
        some / 255,
        some[:, None],
        list(some),
        [Image.open(file) for file in files],
        [file.read_bytes() for file in files],
    ]
    for X in forms:
        found = TransferClassifier(head="ridge").fit(X, codes)
        np.testing.assert_allclose(found.predict_proba(X), wanted, atol=1e-6)
    paths = pd.DataFrame({"path": [str(file) for file in files]})
    for X in (paths, paths["path"], tmp_path, str(tmp_path)):
        np.testing.assert_allclose(found.predict_proba(X), wanted, atol=1e-6)
    np.testing.assert_allclose(found.predict_proba(str(files[7])), wanted[7:8], atol=1e-6)
    table = pd.DataFrame({"path": [str(file) for file in files], "label": codes})
    assert TransferClassifier(head="ridge").fit(table).classes_.tolist() == ["0", "1", "2"]


def test_images_in_memory_may_differ_in_size() -> None:
    images = [
        np.kron(image, np.ones((1 + place % 3,) * 2, np.uint8)) for place, image in enumerate(IMAGES[:60])
    ]
    found = TransferClassifier(head="ridge").fit(images, CODES[:60])
    assert (found.predict(images) == CODES[:60]).mean() > 0.95
    assert (found.predict(IMAGES[:60]) == CODES[:60]).mean() > 0.95


def test_classes_of_a_dataset_are_sorted_as_metrics_expect() -> None:
    names = np.array(["1", "2", "10"])[CODES]
    data = from_arrays(IMAGES, names)
    assert data.classes == ("1", "2", "10")
    found = TransferClassifier(head="ridge").fit(data)
    assert found.classes_.tolist() == ["1", "10", "2"]
    assert (found.predict(IMAGES) == names).mean() > 0.99


def test_classes_of_an_opened_model_are_sorted_whatever_its_own_order_is(tmp_path: Path) -> None:
    """Folders 1, 2 and 10 are in the order of numbers in a model; scikit-learn's metrics sort text."""
    names = np.array(["1", "2", "10"])[CODES]
    data = from_arrays(IMAGES, names)
    transfer("pixels", data, head="ridge").save(tmp_path / "m")
    found = TransferClassifier.open(tmp_path / "m")
    assert found.model_.classes == ("1", "2", "10") and found.classes_.tolist() == ["1", "10", "2"]
    assert log_loss(names, found.predict_proba(data)) < 0.2
    assert found.score(data, names) > 0.95
    again = TransferClassifier.open(found.save(tmp_path / "again"))
    assert np.array_equal(again.predict_proba(data), found.predict_proba(data))
    found.set_params(source="pixels", head="ridge").fit(data)
    assert log_loss(names, found.predict_proba(data)) < 0.2


def test_rows_of_numbers_are_not_rounded_to_pixels() -> None:
    rows = (FLAT / 1e6 - 3e-5).astype(np.float64)  # a pixel's worth of nothing
    found = TransferClassifier(head="ridge").fit(rows, CODES)
    assert found.score(rows, CODES) > 0.99 and hasattr(found, "head_") and not hasattr(found, "model_")


def test_a_new_fit_forgets_the_old_one() -> None:
    found = TransferClassifier(head="ridge").fit(FLAT, CODES)
    assert found.n_features_in_ == 64
    found.fit(IMAGES, CODES)
    assert not hasattr(found, "head_") and not hasattr(found, "n_features_in_")
    found.fit(FLAT, CODES)
    assert not hasattr(found, "model_") and found.predict(FLAT[:1]).tolist() == [CODES[0]]


def test_parameters_take_effect(tmp_path: Path) -> None:
    made = TransferClassifier(
        "random:cnn",
        layer="conv1",
        pooling="grid2",
        head="ridge",
        balance=True,
        policy="ink",
        seed=3,
        cache=tmp_path / "kept",
    ).fit(IMAGES, CODES)
    manifest = made.model_.manifest
    assert manifest.source["name"] == "random:cnn" and manifest.head["name"] == "ridge"
    assert (manifest.source["tap"], manifest.source["pooling"]) == ("conv1", "grid2")
    assert manifest.input.policy == "ink" and manifest.seed == 3 and manifest.settings["balance"] is True
    assert list((tmp_path / "kept").glob("*.npy"))


def test_the_number_of_copies_takes_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def learn(source: Source, dataset: Dataset, probe: Probe, **options: Any) -> None:
        assert probe.augmentation == parse_augmentation("shift=0.1", 2)
        raise Asked

    monkeypatch.setattr(estimator, "learn_head", learn)
    with pytest.raises(Asked):
        TransferClassifier(augment="shift=0.1", n_copies=np.int64(2)).fit(IMAGES, CODES)


def test_a_source_may_be_given_itself_and_survives_clone() -> None:
    source = open_source("pixels", DIGITS)
    given = clone(TransferClassifier(source, head="ridge")).fit(IMAGES, CODES)
    named = TransferClassifier("pixels", head="ridge").fit(IMAGES, CODES)
    assert np.array_equal(given.predict_proba(IMAGES), named.predict_proba(IMAGES))
    with pytest.raises(SettingError, match="with a Source object"):
        TransferClassifier(source, policy="ink").fit(IMAGES, CODES)


def test_pickled_before_and_after_it_predicted(fitted: TransferClassifier) -> None:
    wanted = fitted.predict_proba(FLAT)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(FLAT), wanted)
    assert np.array_equal(fitted.predict_proba(FLAT), wanted)
    rows = TransferClassifier(head="kernel").fit(FLAT, CODES)
    assert np.array_equal(pickle.loads(pickle.dumps(rows)).predict(FLAT), rows.predict(FLAT))


@pytest.mark.slow
def test_grid_search_in_two_processes(tmp_path: Path) -> None:
    search = GridSearchCV(
        TransferClassifier(cache=tmp_path), {"head": ["ridge", "prototypes"]}, cv=2, n_jobs=2
    )
    search.fit(IMAGES, DIGITS.labels)
    assert search.best_score_ > 0.8 and search.predict(IMAGES[:3]).tolist() == DIGITS.labels[:3].tolist()


@pytest.mark.slow
def test_cross_validation_and_pipeline(folder: Path) -> None:
    scaled = make_pipeline(StandardScaler(), TransferClassifier(head="ridge"))
    assert cross_val_score(scaled, FLAT, CODES, cv=3).min() > 0.8
    data = load(folder)
    paths = [str(path) for path in data.images.paths]
    scores = cross_val_score(
        TransferClassifier(head="ridge"), paths, data.labels, cv=2, scoring="neg_log_loss"
    )
    assert scores.min() > -0.5


def test_saved_folder_is_an_ordinary_model(fitted: TransferClassifier, tmp_path: Path) -> None:
    model = open_model(fitted.save(tmp_path / "model"))
    assert model.predict(DIGITS, refuse=False).tolist() == fitted.predict(IMAGES).astype(str).tolist()
    opened = TransferClassifier.open(tmp_path / "model")
    assert opened.get_params() == fitted.get_params()
    assert opened.n_features_in_ == 64
    assert np.array_equal(opened.predict_proba(FLAT), fitted.predict_proba(FLAT))
    assert opened.fit(FLAT, CODES).score(FLAT, CODES) > 0.99


def test_names_of_columns_are_kept(tmp_path: Path) -> None:
    table = pd.DataFrame(FLAT).add_prefix("p")
    found = TransferClassifier(head="ridge", image_shape=(8, 8)).fit(table, CODES)
    opened = TransferClassifier.open(found.save(tmp_path / "model"))
    assert opened.predict(table).tolist() == found.predict(table).tolist()
    with pytest.raises(ValueError, match="feature names"):
        opened.predict(table[table.columns[::-1]])


def test_numpy_parameters_are_saved_as_plain_ones(tmp_path: Path) -> None:
    given = TransferClassifier(
        np.str_("pixels"), head=np.str_("ridge"), seed=np.int64(2), balance=np.bool_(True)
    )
    opened = TransferClassifier.open(given.fit(IMAGES, CODES).save(tmp_path / "model"))
    assert (opened.seed, opened.balance, opened.head) == (2, True, "ridge")


@pytest.mark.slow
def test_any_model_opens_and_can_be_fitted_again(tmp_path: Path) -> None:
    model = transfer("random:mlp", DIGITS, head="ridge")
    opened = TransferClassifier.open(model.save(tmp_path / "model"))
    assert opened.classes_.tolist() == ["0", "1", "2"] and opened.source == str(tmp_path / "model")
    assert opened.predict(IMAGES).tolist() == model.predict(DIGITS).tolist()
    learnt = clone(opened).set_params(head="ridge").fit(IMAGES, CODES == 1)
    assert learnt.score(IMAGES, CODES == 1) > 0.95


@pytest.mark.parametrize(
    "note",
    [
        [],
        {"labels": "int64"},
        {"parameters": 3},
        {"parameters": {}, "labels": "complex128"},
        {"parameters": {}, "labels": "bool"},
        {"parameters": {}, "labels": "int64", "n_features_in": "many"},
        {"parameters": {}, "feature_names_in": 3},
    ],
)
def test_altered_notes_are_refused(fitted: TransferClassifier, tmp_path: Path, note: Any) -> None:
    place = fitted.save(tmp_path / "model") / "manifest.json"
    document = json.loads(place.read_text())
    document["settings"]["estimator"] = note
    place.write_text(json.dumps({**document, "checksum": checksum(document)}))
    with pytest.raises(ModelError, match="malformed notes of a classifier"):
        TransferClassifier.open(tmp_path / "model")


def test_labels_that_text_cannot_restore_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="expected images for a model folder; fit it with image_shape"):
        TransferClassifier(head="ridge").fit(FLAT, CODES).save(tmp_path / "model")
    odd = TransferClassifier(head="ridge").fit(IMAGES, CODES)
    odd.classes_ = np.array([(1, 2), (3, 4), (5, 6)], "i,i")
    with pytest.raises(SettingError, match="labels are of type tuple"):
        odd.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_unfitted_is_our_error_and_that_of_scikit_learn(tmp_path: Path) -> None:
    for kind in (NotFittedError, SklearnNotFittedError, ValueError):
        with pytest.raises(kind, match="classifier is not fitted, expected fit"):
            TransferClassifier().predict(IMAGES)
    with pytest.raises(NotFittedError):
        TransferClassifier().save(tmp_path)


@pytest.mark.parametrize(
    ("parameters", "X", "y", "kind", "said"),
    [
        (
            {"layer": "conv1"},
            FLAT,
            CODES,
            SettingError,
            "X has rows of numbers, expected images for layer='conv1'",
        ),
        (
            {"source": "random:cnn", "policy": "ink"},
            FLAT,
            CODES,
            SettingError,
            "source='random:cnn', policy='ink'",
        ),
        ({"image_shape": (8, 9)}, FLAT, CODES, ShapeError, r"image_shape is \(8, 9\), expected .* 64 values"),
        ({"image_shape": (64,)}, FLAT, CODES, ShapeError, r"image_shape is \(64,\)"),
        (
            {"image_shape": (8, 8)},
            FLAT / 255,
            CODES,
            ShapeError,
            "X has values 0 to 1, expected whole numbers",
        ),
        ({"image_shape": (8, 8)}, FLAT - 1.0, CODES, ShapeError, "X has values -1 to 254"),
        ({}, IMAGES / 16, CODES, ShapeError, "images has float64 values from 0 to 15.9375, expected 0 to 1"),
        ({}, np.repeat(IMAGES[0][..., None], 3, -1), CODES[:8], ShapeError, r"X\[None\] for one image"),
        ({}, pd.DataFrame({"file": ["a.png"]}), None, DataError, "expected path and label"),
        ({}, IMAGES, None, DataError, "y is None, expected the class of each of 200 images"),
        ({}, IMAGES, CODES[:3], ValueError, "inconsistent numbers of samples"),
        ({}, IMAGES, CODES + 0.5, ValueError, "continuous"),
        (
            {},
            IMAGES,
            np.zeros(200, int),
            UnknownClassError,
            "y has the class 0 only, expected at least 2 classes",
        ),
        ({}, "digits:0-1", CODES, DataError, "y is given with 'digits:0-1', expected None"),
        ({}, DIGITS, CODES, DataError, "y is given with 'digits:0-2', expected None"),
        ({"seed": None}, IMAGES, CODES, SettingError, "seed is None, expected a whole number"),
        ({"seed": -1}, FLAT, CODES, SettingError, "seed is -1"),
        ({"head": "rigde"}, IMAGES, CODES, SettingError, "nearest are ridge"),
        ({"source": "pixel"}, IMAGES, CODES, HeadstartError, "nearest are pixels"),
        ({}, ["no-such.png", "none.png"], ["a", "b"], DataError, "no-such.png"),
        ({}, "no-such-dataset", None, DataError, "no-such-dataset"),
        ({}, np.empty((0, 8, 8), np.uint8), [], DataError, "y is empty, expected at least 2 classes"),
    ],
)
def test_invalid_training_data_is_refused(
    parameters: dict[str, Any], X: Any, y: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        TransferClassifier(**parameters).fit(X, y)
    assert isinstance(caught.value, ValueError)


def test_other_input_than_at_fit_is_refused(fitted: TransferClassifier) -> None:
    rows = TransferClassifier(head="ridge").fit(FLAT, CODES)
    with pytest.raises(ShapeError, match="X has images, expected rows of numbers as at fit"):
        rows.predict(IMAGES)
    stacked = TransferClassifier(head="ridge").fit(IMAGES, CODES)
    with pytest.raises(ShapeError, match="X has rows of numbers, expected images as at fit"):
        stacked.predict(FLAT)
    with pytest.raises(ValueError, match="63 features"):
        fitted.predict(FLAT[:, :63])
