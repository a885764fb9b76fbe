"""Galleries: the right images in the right order, with captions that match and occlusion maps on request."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.images.prepare import prepare
from headstart.data.images.thumbnails import png_address
from headstart.data.readers.load import from_arrays, load
from headstart.data.stores import ArrayImages
from headstart.errors import ShapeError
from headstart.models.model import Model
from headstart.records import Array, Images, InputSpec
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.workflows.gallery import EvaluatedImages, galleries, least_certain, mistakes


def predict_with(model: Model) -> Callable[[Images], Array]:
    """Asks a model about images that are prepared already."""
    # a picture of the right size passes this policy untouched
    plain = replace(model.manifest.input, policy="squish")
    prepared_model = Model(replace(model.manifest, input=plain), model.graph, model.weights)

    def predict(images: Images) -> Array:
        labels = np.full(len(images), model.classes[0])
        pictures = Dataset("pictures", ArrayImages(images), labels, model.classes)
        return prepared_model.probabilities(pictures, precision="fp32")

    return predict


PROBS = np.array(
    [
        [0.9, 0.06, 0.04],  # right
        [0.1, 0.7, 0.2],  # wrong, 0.7
        [0.05, 0.0, 0.95],  # wrong, 0.95
        [0.3, 0.36, 0.34],  # right, gap 0.02
        [0.0, 0.45, 0.55],  # wrong, gap 0.1
    ],
    np.float32,
)
TRUTH = ["cat", "cat", "dog", "dog", "dog"]
CLASSES = ("cat", "dog", "owl")


def dataset(size_px: int = 8) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (5, size_px, size_px)).astype(np.uint8)
    return replace(from_arrays(pixels, TRUTH), classes=CLASSES)


def predicted(**changes: object) -> EvaluatedImages:
    data = dataset()
    return replace(EvaluatedImages(data, PROBS, data.codes(), CLASSES), **changes)


def picture(address: str) -> Image.Image:
    head, _, text = address.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def by_brightness(images: Images) -> Array:
    bright = images.mean(axis=(1, 2, 3)) / 255
    return np.stack([bright / 2, 1 - bright, bright / 2], axis=1).astype(np.float32)


def test_most_confident_mistakes_come_first() -> None:
    found = mistakes(predicted())
    assert found.title == "The most confident mistakes"
    said = [(one.name, one.truth, one.called, one.second) for one in found.images]
    assert said == [
        ("image 2", "dog", "owl", "cat"),
        ("image 1", "cat", "dog", "owl"),
        ("image 4", "dog", "owl", "dog"),
    ]
    assert [round(one.probability, 2) for one in found.images] == [0.95, 0.7, 0.55]
    assert [round(one.second_probability, 2) for one in found.images] == [0.05, 0.2, 0.45]
    assert found.caption.startswith("3 of 5 images were assigned to another class")
    assert "surest" not in found.caption and all(not one.heat for one in found.images)
    some = mistakes(predicted(), most=2)
    assert [one.name for one in some.images] == ["image 2", "image 1"]
    assert "here are the 2 with the highest probability" in some.caption


def test_least_certain_come_first_right_or_wrong() -> None:
    found = least_certain(predicted(), most=3)
    assert found.title == "The least certain"
    assert [one.name for one in found.images] == ["image 3", "image 4", "image 1"]
    assert "1 of these 3 was classified correctly" in found.caption and "None" not in found.caption


def test_caption_without_mistakes() -> None:
    right = predicted(codes=PROBS.argmax(axis=1))
    assert mistakes(right).images == ()
    assert mistakes(right).caption == "None of 5 images was classified wrongly."
    (only,) = galleries(right)
    assert only.title == "The least certain"
    assert only.caption.startswith("None of 5 images was classified wrongly. ")


def test_at_most_eight_images_and_the_right_ones() -> None:
    data = load("digits:0-1").subset(np.arange(30))
    probs = np.full((30, 2), 0.5, np.float32)
    probs[np.arange(30), 1 - data.codes()] += np.linspace(0.0, 0.4, 30, dtype=np.float32)
    found = mistakes(EvaluatedImages(data, probs, data.codes(), data.classes))
    assert [one.name for one in found.images] == [f"image {index}" for index in range(29, 21, -1)]
    shown = np.asarray(picture(found.images[0].address))
    assert np.array_equal(shown, prepare(data, InputSpec(8, 8, 1))[29, ..., 0])


def test_six_maps_in_all_most_of_them_for_mistakes() -> None:
    prepared_model: list[int] = []

    def predict(images: Images) -> Array:
        prepared_model.append(len(images))
        return by_brightness(images)

    wrong, unsure = galleries(predicted(spec=InputSpec(8, 8, 1), predict=predict))
    assert [bool(one.heat) for one in wrong.images] == [True, True, True]
    assert [bool(one.heat) for one in unsure.images] == [True, True, True, False, False]
    assert prepared_model == [3 * 37, 3 * 37]
    assert "The maps of the first 3 show what the prediction depends on" in wrong.caption
    few = galleries(predicted(spec=InputSpec(8, 8, 1), predict=predict), heats=2)
    assert [sum(bool(one.heat) for one in each.images) for each in few] == [2, 0]
    assert "maps" not in few[1].caption
    none = galleries(predicted(spec=InputSpec(8, 8, 1), predict=predict), heats=0)
    assert not any(one.heat for each in none for one in each.images)
    many = mistakes(predicted(spec=InputSpec(8, 8, 1), predict=predict), most=1, heats=5)
    assert "The map of the first shows" in many.caption


def test_map_is_of_the_predicted_class() -> None:
    """Class 1 is darkness: covering the bright corner with black raises it, and lowers the others."""
    pixels = np.zeros((2, 14, 14), np.uint8)
    pixels[:, :4, :4] = 255
    data = replace(from_arrays(pixels, ["cat", "cat"]), classes=CLASSES)
    probs = np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], np.float32)  # dark, and bright
    spec = InputSpec(14, 14, 1)
    wrong = mistakes(EvaluatedImages(data, probs, data.codes(), CLASSES, spec, by_brightness), heats=2)
    dark, bright = (np.asarray(picture(one.heat).convert("RGB")).astype(int) for one in wrong.images)
    assert np.ptp(dark, axis=2).max() == 0  # covering lowers nothing: grey
    corner, rest = bright[:20, :20], bright[-40:, -40:]
    assert np.ptp(corner, axis=2).max() > 20 and np.ptp(rest, axis=2).max() == 0


def test_map_of_a_tiny_image_is_enlarged_in_the_same_shape() -> None:
    found = mistakes(predicted(spec=InputSpec(8, 16, 1), predict=by_brightness), heats=1).images[0]
    assert picture(found.address).size == (16, 8) and picture(found.heat).size == (96, 48)


def test_files_are_named_cropped_and_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index, name in enumerate(TRUTH):
        (tmp_path / name).mkdir(exist_ok=True)
        noise = rng.integers(0, 256, (200, 300, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / name / f"photo{index}.png")
    data = replace(load(tmp_path), classes=CLASSES)
    known = EvaluatedImages(data, PROBS, data.codes(), CLASSES)
    found = mistakes(known).images[0]
    assert found.name == "photo2.png"
    cut = prepare(data, InputSpec(144, 144, 3, policy="crop"))[2]
    shown = np.asarray(picture(found.address).convert("RGB"))
    assert shown.shape == (144, 144, 3) and np.abs(shown.astype(int) - cut).mean() < 12  # in 256 colours
    seen = mistakes(replace(known, spec=InputSpec(150, 300, 3), predict=by_brightness), heats=1).images[0]
    assert picture(seen.address).size == (144, 72) == picture(seen.heat).size


def test_images_are_shown_as_the_network_sees_them() -> None:
    data = load("digits:0-1").subset(np.arange(2))
    spec = InputSpec(12, 12, 1, policy="ink")
    known = EvaluatedImages(
        data, np.array([[0.4, 0.6], [0.6, 0.4]], np.float32), data.codes(), data.classes, spec
    )
    shown = [np.asarray(picture(one.address)) for one in mistakes(known).images]
    assert np.array_equal(np.stack(shown), prepare(data, spec)[..., 0])


@pytest.fixture(scope="module")
def model() -> Model:
    data = load("digits:0-1")
    source = open_source("pixels", data)
    source = replace(source, input=replace(source.input, policy="ink"))
    return learn_head(source, data, Probe(head="ridge")).model


def test_a_model_predicts_prepared_images_unchanged(model: Model) -> None:
    data = load("digits:0-1").subset(np.arange(40))
    predict = predict_with(model)
    prepared = prepare(data, model.manifest.input)
    assert np.allclose(predict(prepared), model.probabilities(data), atol=1e-6)
    moved = np.roll(prepared, 6, axis=2)  # the policy would centre it again
    assert np.abs(predict(moved) - predict(prepared)).max() > 0.1


def test_galleries_of_a_model(model: Model) -> None:
    data = load("digits:0-1").subset(np.arange(20))
    codes = data.codes()
    codes[:7] = 1 - codes[:7]  # as if labels were wrong
    answers = model.probabilities(data)
    known = EvaluatedImages(data, answers, codes, data.classes, model.manifest.input, predict_with(model))
    wrong, unsure = galleries(known)
    assert {one.name for one in wrong.images} == {f"image {index}" for index in range(7)}
    assert [sum(bool(one.heat) for one in each.images) for each in (wrong, unsure)] == [4, 2]
    assert galleries(known) == (wrong, unsure)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"probabilities": PROBS[:4]}, r"probabilities have shape \(4, 3\), expected \(5, 3\)"),
        ({"probabilities": PROBS[:, :2]}, r"probabilities have shape \(5, 2\), expected \(5, 3\)"),
        ({"codes": np.zeros(4, np.int64)}, r"codes have shape \(4,\), expected \(5,\)"),
        ({"classes": ("cat",), "probabilities": PROBS[:, :1]}, "classes are .'cat'., expected at least 2"),
        ({"predict": by_brightness}, "predict has no spec"),
        (
            {"probabilities": PROBS[:4], "codes": np.zeros(4, np.int64)},
            "probabilities have .* also codes have",
        ),
    ],
)
def test_inconsistent_arguments_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        predicted(**changes)


def test_png_keeps_grey_and_colours() -> None:
    rng = np.random.default_rng(0)
    grey, colour = (rng.integers(0, 256, (30, 20, n)).astype(np.uint8) for n in (1, 3))
    assert np.array_equal(np.asarray(picture(png_address(grey, colours=4))), grey[..., 0])
    assert np.array_equal(np.asarray(picture(png_address(colour))), colour)
    few = picture(png_address(colour, colours=16))
    assert len(few.convert("RGB").getcolors(600) or ()) == 16
    assert png_address(colour, colours=16) == png_address(colour, colours=16)
