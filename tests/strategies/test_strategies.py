"""Learning: which images are learnt from, that frozen is frozen, and that the model is what was learnt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from headstart.data.clusters import with_clusters
from headstart.data.dataset import Dataset
from headstart.data.images.prepare import prepare
from headstart.data.stores import ArrayImages, FileImages
from headstart.errors import DataError, HeadstartError, MissingDataError, SettingError
from headstart.heads.registry import HEADS, make_head
from headstart.models.model import open_model
from headstart.networks.engines.registry import make_network
from headstart.records import Source, TrainSettings
from headstart.sources.features import Extraction, extract
from headstart.sources.networks import native_input
from headstart.sources.registry import open_source
from headstart.strategies.assemble import versions
from headstart.strategies.judge import halves
from headstart.strategies.parts import training_parts
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.strategies.result import LearnedModel
from headstart.strategies.scratch import learn_network
from headstart.system.cache import FolderCache

QUICK = TrainSettings(epochs=2, precision="fp32")


def blank(labels: list[str] | np.ndarray, **columns: np.ndarray) -> Dataset:
    """A dataset of numbered images where only the labels matter."""
    names = np.asarray(labels)
    pixels = np.zeros((len(names), 1, 2), np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = np.divmod(np.arange(len(names)), 256)
    return Dataset("blank", ArrayImages(pixels), names, tuple(sorted(set(names.tolist()))), **columns)


def numbers(dataset: Dataset) -> set[int]:
    assert isinstance(dataset.images, ArrayImages)
    pixels = dataset.images.pixels.astype(int)
    return set((pixels[:, 0, 0, 0] * 256 + pixels[:, 0, 1, 0]).tolist())


@pytest.fixture(scope="module")
def split_digits(digits: Dataset) -> Dataset:
    splits = np.array(["train"] * 600 + ["test"] * 100)
    return replace(digits.subset(np.arange(700)), splits=splits)


@pytest.fixture(scope="module")
def source(digits: Dataset) -> Source:
    """A network trained on digits, as something to learn from."""
    return learn_network(
        digits.subset(np.arange(900)), network="mlp", engine="scratch", settings=QUICK
    ).model.source()


# ---- which images


def test_without_splits_a_stratified_tenth_is_watched() -> None:
    dataset = blank(np.repeat(["a", "b"], [800, 200]))
    parts = training_parts(dataset, 0)
    assert parts.held is not None
    assert (len(parts.fit), len(parts.held)) == (900, 100) and parts.held.counts() == {"a": 80, "b": 20}
    assert numbers(parts.fit) | numbers(parts.held) == set(range(1000))
    again, other = training_parts(dataset, 0), training_parts(dataset, 1)
    assert again.held is not None and other.held is not None
    assert numbers(again.held) == numbers(parts.held) != numbers(other.held)


def test_three_thousand_at_most_are_watched() -> None:
    parts = training_parts(blank(np.tile(["a", "b"], 20_000)), 0)
    assert parts.held is not None and len(parts.held) == 3_000 and len(parts.fit) == 37_000


@pytest.mark.parametrize(("n_images", "watched"), [(499, False), (500, True)])
def test_few_images_are_all_learnt_from(n_images: int, watched: bool) -> None:
    parts = training_parts(blank(np.resize(["a", "b"], n_images)), 0)
    assert (parts.held is not None) == watched
    assert len(parts.fit) + (len(parts.held) if parts.held else 0) == n_images


def test_a_class_of_one_image_is_learnt_from() -> None:
    parts = training_parts(blank(["a"] * 600 + ["b"]), 0)
    assert parts.held is None and len(parts.fit) == 601


def test_the_dataset_s_own_validation_split_is_watched() -> None:
    splits = np.array((["train"] * 8 + ["val", "test"]) * 100)
    dataset = blank(np.tile(np.repeat(["a", "b"], 10), 50), splits=splits)
    parts = training_parts(dataset, 0)
    assert parts.held is not None
    assert numbers(parts.fit) == set(np.flatnonzero(splits == "train"))
    assert numbers(parts.held) == set(np.flatnonzero(splits == "val"))


def test_the_test_split_is_in_neither_part() -> None:
    splits = np.array(["train", "test"] * 600)
    parts = training_parts(blank(np.tile(np.repeat(["a", "b"], 2), 300), splits=splits), 0)
    assert parts.held is not None and len(parts.held) == 60
    assert numbers(parts.fit) | numbers(parts.held) == set(range(0, 1200, 2))


def test_a_group_is_not_parted() -> None:
    groups = np.repeat(np.arange(60).astype(str), 10)
    parts = training_parts(blank(np.tile(["a", "b"], 300), groups=groups), 0)
    assert parts.held is not None and parts.held.groups is not None and parts.fit.groups is not None
    assert not set(parts.held.groups) & set(parts.fit.groups) and len(parts.held) == 60


def test_there_must_be_something_to_learn_from() -> None:
    with pytest.raises(DataError, match="split 'train' is not in dataset 'blank', expected one of test"):
        training_parts(blank(["a", "b"], splits=np.array(["test", "test"])), 0)
    with pytest.raises(DataError, match="expected at least 2 with images"):
        training_parts(blank(["a", "a"]), 0)
    with pytest.raises(DataError, match="expected at least 2 with images"):
        training_parts(blank(["a", "a", "b"], splits=np.array(["train", "train", "test"])), 0)


# ---- the test split is never touched


def by_head(dataset: Dataset) -> LearnedModel:
    return learn_head(open_source("pixels", dataset), dataset, Probe(head="ridge"))


def by_network(dataset: Dataset) -> LearnedModel:
    return learn_network(dataset, network="mlp", engine="scratch", settings=replace(QUICK, epochs=1))


@pytest.fixture
def poisoned(digits: Dataset, tmp_path: Path) -> Dataset:
    """Pictures whose test images are known by digest only: whoever reads one fails."""
    assert isinstance(digits.images, ArrayImages)
    paths, digests = [], []
    for number in range(40):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(digits.images.pixels[number, :, :, 0]).save(paths[-1])
        digests.append(hashlib.sha256(paths[-1].read_bytes()).digest())
    for path in paths[30:]:
        path.unlink()
    splits = np.array(["train"] * 30 + ["test"] * 10)
    return Dataset("poisoned", FileImages(paths, digests), digits.labels[:40], digits.classes, splits=splits)


@pytest.mark.parametrize("learn", [by_head, by_network])
def test_no_test_image_is_read(learn: Callable[[Dataset], LearnedModel], poisoned: Dataset) -> None:
    with pytest.raises(MissingDataError):
        prepare(poisoned.split("test"), native_input(poisoned))
    learnt = learn(poisoned)
    assert learnt.model.manifest.data["n_images"] == 30
    with pytest.raises(MissingDataError):
        learnt.model.predict(poisoned)


@pytest.mark.parametrize("learn", [by_head, by_network])
def test_no_test_label_or_pixel_has_a_say(
    learn: Callable[[Dataset], LearnedModel], split_digits: Dataset
) -> None:
    assert isinstance(split_digits.images, ArrayImages)
    pixels, labels = split_digits.images.pixels.copy(), split_digits.labels.copy()
    pixels[600:], labels[600:] = 255 - pixels[600:], labels[600:][::-1].copy()
    other = replace(split_digits, images=ArrayImages(pixels), labels=labels)
    one, two = learn(split_digits).model, learn(other).model
    assert one.graph == two.graph and one.manifest.scores == two.manifest.scores
    assert one.manifest.data["fingerprint"] != two.manifest.data["fingerprint"]


@pytest.mark.parametrize("learn", [by_head, by_network])
def test_no_watched_image_is_learnt_from(
    learn: Callable[[Dataset], LearnedModel], split_digits: Dataset
) -> None:
    held = training_parts(split_digits, 0).held
    assert held is not None and len(held) == 60
    assert isinstance(split_digits.images, ArrayImages) and isinstance(held.images, ArrayImages)
    known = {pixels.tobytes() for pixels in held.images.pixels}
    pixels = split_digits.images.pixels.copy()
    for one in pixels[:600]:
        if one.tobytes() in known:
            one[:] = 255 - one
    changed = replace(split_digits, images=ArrayImages(pixels))
    one, other = learn(changed).model.weights, learn(split_digits).model.weights
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# ---- frozen is frozen


def weights_of(graph: bytes) -> dict[str, bytes]:
    tensors = onnx.ModelProto.FromString(graph).graph.initializer
    return {one.name: one.SerializeToString(deterministic=True) for one in tensors}


@pytest.mark.parametrize("layer", ["hidden1", "hidden2"])
def test_the_source_is_the_same_to_the_bit_afterwards(
    source: Source, split_digits: Dataset, layer: str
) -> None:
    before = hashlib.sha256(source.graph).hexdigest()
    named = source.fingerprint
    learnt = learn_head(source, split_digits, Probe(layer=layer))
    assert hashlib.sha256(source.graph).hexdigest() == before and source.fingerprint == named
    theirs, ours = weights_of(source.graph), weights_of(learnt.model.graph)
    shared = {name for name in ours if not name.startswith(("head.", "novelty."))}
    assert {"dense1.weight", "dense1.bias", "input.scale"} <= shared
    assert all(ours[name] == theirs[name] for name in shared)
    assert ("dense2.weight" in shared) == (layer == "hidden2"), "nothing above the tap is carried along"
    assert not any(name.startswith("output.") for name in ours)
    part = split_digits.split("test")
    assert np.array_equal(
        extract(part, learnt.model.source(), layer=layer), extract(part, source, layer=layer)
    )


# ---- the model is what was learnt


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("layer", "pooling"), [("hidden2", "flat"), ("block3", "avg"), ("block1", "grid2")])
def test_the_model_answers_as_its_head(
    source: Source, split_digits: Dataset, tmp_path: Path, head: str, layer: str, pooling: str
) -> None:
    taken = source if layer in source.layers else open_source("random:cnn", split_digits)
    few = split_digits.subset(np.arange(60))
    learnt = learn_head(taken, few, Probe(layer=layer, pooling=pooling, head=head))
    rows = extract(few, taken, layer=layer, pooling=pooling)
    fitted = make_head(head).fit(rows, few.labels, classes=few.classes)
    test = split_digits.split("test")
    wanted = fitted.probabilities(extract(test, taken, layer=layer, pooling=pooling))
    model = open_model(learnt.model.save(tmp_path / "model"))
    for runtime_name in ("openvino", "onnxruntime"):
        got = model.probabilities(test, runtime_name=runtime_name)
        assert (np.abs(got - wanted).max(axis=1) <= 1e-3).mean() >= (0.97 if head == "neighbours" else 1.0)
    same = model.probabilities(test).argmax(axis=1) == wanted.argmax(axis=1)
    if head == "neighbours":
        assert same.mean() >= 0.97
    else:
        second, first = np.sort(wanted, axis=1)[:, -2:].T
        assert same[first - second > 2e-3].all()


@pytest.mark.parametrize("engine", ["scratch", "torch"])
def test_the_model_answers_as_its_network(engine: str, split_digits: Dataset, tmp_path: Path) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    learnt = learn_network(split_digits, network="mlp-wide", engine=engine, settings=QUICK)
    model = open_model(learnt.model.save(tmp_path / "model"))
    assert model.manifest.network is not None and model.manifest.settings["engine"] == engine
    network = make_network(model.manifest.network, engine)
    network.load_weights({name: value.copy() for name, value in model.weights.items()})
    test = split_digits.split("test")
    factor = model.manifest.calibration["temperature"]
    scores = np.exp(factor * network.logits(prepare(test, model.manifest.input)).astype(float))
    np.testing.assert_allclose(
        model.probabilities(test), scores / scores.sum(axis=1, keepdims=True), atol=1e-4
    )


@pytest.mark.parametrize("head", HEADS)
def test_a_model_of_a_model_is_a_model(split_digits: Dataset, tmp_path: Path, head: str) -> None:
    """The names of the first head, pooling and answer come again, and must not meet."""
    few, test = split_digits.subset(np.arange(60)), split_digits.split("test")
    first = learn_head(open_source("random:cnn", few), few, Probe(layer="block2", pooling="grid2", head=head))
    again = first.model.source()
    second = learn_head(again, few, Probe(layer="block1", pooling="grid2", head=head))
    model = open_model(second.model.save(tmp_path / "second"))
    onnx.checker.check_model(onnx.ModelProto.FromString(model.graph), full_check=True)
    assert set(model.manifest.layers) == {"conv1", "pool1", "block1"}
    rows = extract(few, again, layer="block1", pooling="grid2")
    assert np.array_equal(rows, extract(few, open_source("random:cnn", few), layer="block1", pooling="grid2"))
    fitted = make_head(head).fit(rows, few.labels, classes=few.classes)
    wanted = fitted.probabilities(extract(test, again, layer="block1", pooling="grid2"))
    for runtime_name in ("openvino", "onnxruntime"):
        got = model.probabilities(test, runtime_name=runtime_name)
        assert (np.abs(got - wanted).max(axis=1) <= 1e-3).mean() >= (0.97 if head == "neighbours" else 1.0)


def test_transfer_learns(source: Source, split_digits: Dataset) -> None:
    test = split_digits.split("test")
    learnt = learn_head(source, split_digits, Probe(head="linear"))
    assert (learnt.model.predict(test, refuse=False) == test.labels).mean() > 0.75
    assert learnt.curve is not None and learnt.curve.title == "linear head on digits" and learnt.seconds > 0


def test_the_manifest_says_what_was_done(source: Source, split_digits: Dataset) -> None:
    probe = learn_head(source, split_digits, Probe("hidden2", head="ridge"), seed=5).model.manifest
    assert (probe.strategy, probe.seed, probe.network) == ("probe", 5, None)
    assert probe.data["n_images"] == 540 and probe.data["n_held"] == 60
    assert sum(probe.data["counts"].values()) == 540 and probe.data["fingerprint"] == split_digits.fingerprint
    assert probe.source == {
        "name": source.name, "fingerprint": source.fingerprint, "tap": "hidden2", "pooling": "flat",
    }  # fmt: skip
    assert (
        set(probe.head["chosen"]) == {"strength", "temperature"} and 0.5 < probe.scores["val_accuracy"] <= 1
    )
    network = learn_network(split_digits, network="mlp", engine="scratch", settings=replace(QUICK, seed=5))
    manifest = network.model.manifest
    assert (manifest.strategy, manifest.seed, manifest.default_layer) == ("scratch", 5, "hidden2")
    assert manifest.source == {} and manifest.settings["epochs"] == 2
    assert network.curve is not None and network.curve.steps == (1.0, 2.0) and network.curve.best_step is None
    assert manifest.scores["val_accuracy"] == network.curve.val_accuracy[-1]
    assert manifest.versions == versions() and set(versions("torch")) == {*versions(), "torch"}


def test_with_patience_the_best_epoch_is_told(split_digits: Dataset) -> None:
    settings = replace(QUICK, epochs=4, patience=4)
    learnt = learn_network(split_digits, network="mlp", engine="scratch", settings=settings)
    assert learnt.curve is not None
    best = int(np.argmin(learnt.curve.val_loss))
    assert learnt.curve.best_step == best + 1
    assert learnt.predictions is not None and learnt.parts is not None and learnt.parts.held is not None
    found = learnt.predictions.evaluation().accuracy
    assert learnt.model.manifest.scores == {
        "val_loss": learnt.curve.val_loss[best],
        "val_accuracy": found.value,
    }
    n_held = len(learnt.parts.held)
    assert abs(found.n - n_held / 2) <= len(split_digits.classes), "the other half decided when to stop"


def test_images_that_decide_when_to_stop_do_not_judge() -> None:
    held = blank(["a", "b"] * 30)
    copies = with_clusters(held, [(2 * one, 2 * one + 20) for one in range(0, 10)])
    for dataset in (held, copies):
        deciding, judging = halves(dataset, 0)
        assert numbers(deciding) | numbers(judging) == set(range(60))
        assert not numbers(deciding) & numbers(judging)
    first, second = numbers(deciding), numbers(judging)
    assert all(
        {2 * one, 2 * one + 20} <= part or not {2 * one, 2 * one + 20} & part
        for one in range(10)
        for part in (first, second)
    )


@pytest.mark.parametrize("head", HEADS)
def test_same_seed_same_graph(source: Source, split_digits: Dataset, head: str) -> None:
    few = split_digits.subset(np.arange(100))
    one, other = (learn_head(source, few, Probe(head=head), seed=3).model for _ in range(2))
    assert one.graph == other.graph and one.manifest.source_fingerprint == other.manifest.source_fingerprint


def test_features_come_from_the_cache(source: Source, split_digits: Dataset, tmp_path: Path) -> None:
    cache = FolderCache(tmp_path)
    one = learn_head(source, split_digits, options=Extraction(cache))
    assert one.choice is not None and {trial.layer for trial in one.choice.selected} == {"hidden1", "hidden2"}
    assert len(cache.entries()) == 4  # the training images and the held-out images at both places
    assert learn_head(source, split_digits, options=Extraction(cache)).model.graph == one.model.graph
    assert len(cache.entries()) == 4


# ---- what cannot be learnt


def test_stopping_early_needs_images_to_spare(digits: Dataset) -> None:
    with pytest.raises(
        DataError, match=r"too few images to hold some out, expected 500 for early stopping; set patience"
    ):
        learn_network(
            digits.subset(np.arange(100)), network="mlp", engine="scratch", settings=TrainSettings(patience=2)
        )


@pytest.mark.parametrize(
    ("learn", "said"),
    [
        (
            lambda d: learn_network(d, network="cmm"),
            "network is 'cmm', expected one of best, cnn, mlp, mlp-wide",
        ),
        (
            lambda d: learn_network(d, network="mlp", engine="tensorflow"),
            "engine is 'tensorflow', expected one of",
        ),
        (
            lambda d: learn_head(open_source("pixels", d), d, Probe(head="svm")),
            "head 'svm' is unknown, expected one of kernel",
        ),
        (
            lambda d: learn_head(open_source("pixels", d), d, Probe(pooling="max")),
            "pooling 'max' is unknown, expected one of avg",
        ),
    ],
)
def test_a_wrong_name_is_one_sentence(
    learn: Callable[[Dataset], LearnedModel], said: str, digits: Dataset
) -> None:
    with pytest.raises(SettingError, match=said):
        learn(digits.subset(np.arange(60)))


@pytest.mark.parametrize("learn", [by_head, by_network])
def test_a_class_without_training_images_is_named(
    learn: Callable[[Dataset], LearnedModel], split_digits: Dataset
) -> None:
    kept = (split_digits.labels != "7") | (split_digits.splits == "test")
    with pytest.raises(HeadstartError, match="'7'"):
        learn(split_digits.subset(kept))
