"""An export answers as the model does, or is not written; the programs beside it run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from headstart.data.readers.load import from_arrays, load
from headstart.errors import ModelError, SettingError
from headstart.graph.build import INPUT, PROBABILITIES, GraphBuilder
from headstart.graph.files import run_file
from headstart.graph.preparation import prepare
from headstart.models import agreement, export
from headstart.models.export import export_model
from headstart.models.manifest import Manifest
from headstart.models.model import Model
from headstart.records import InputSpec, Prediction
from synthetic_images import photo
from toy_graph import toy

ROOT = Path(__file__).parents[2]
CLASSES = ("ant", "bee", "Ω mega")


def model(spec: InputSpec, *, novelty: bool = False, samples: int = 12) -> Model:
    manifest = Manifest(
        name="toy",
        strategy="probe",
        classes=CLASSES,
        input=spec,
        layers={"pixels": (spec.channels, spec.height_px, spec.width_px)},
        default_layer="pixels",
        source_fingerprint="0" * 64,
        network=None,
        head={},
        source={"licence": "apache-2.0"},
        data={},
        settings={},
        scores={},
        seed=0,
        versions={},
        novelty={"kind": "toy"} if novelty else {},
    )
    pictures = tuple(
        np.clip(photo(20 + 7 * n, 30 + 3 * n, n).astype(int) + 20 * n - 100, 0, 255).astype(np.uint8)
        for n in range(samples)
    )
    return Model(manifest, toy(spec, novelty=novelty), {}, pictures)


COLOUR = InputSpec(20, 16, 3, policy="crop")
GREY = InputSpec(12, 12, 1, policy="letterbox")


@pytest.mark.parametrize("to", export.TARGETS)
@pytest.mark.parametrize("novelty", [False, True])
def test_every_target_answers_as_the_model(tmp_path, to, novelty):
    kept = model(COLOUR, novelty=novelty)
    done = export_model(kept, to, tmp_path / "out")
    assert done.to == to and done.n_checked == 12 and done.n_changed == 0 and done.largest_difference < 2e-4
    place = Path(done.path)
    graph = {"onnx": place, "openvino": place / "model.xml", "folder": place / "model.onnx"}[to]
    expected = kept.prediction(from_arrays(np.stack([kept.samples[3]]), ["ant"]))
    found = run_file(graph)(kept.samples[3])
    np.testing.assert_allclose(found[0], expected.probabilities[0], atol=2e-4)
    assert len(found) == 1 + novelty
    if novelty:
        np.testing.assert_allclose(found[1], expected.novelty, atol=1e-3)
        names = kept.predict(from_arrays(np.stack([kept.samples[3]]), ["ant"]))
        assert len(names) == 1
    assert "12 images" in done.sentence and str(place) in done.sentence


def test_novelty_is_looked_at_on_both_sides_of_its_threshold():
    kept = model(COLOUR, novelty=True)
    asked = [kept.prediction(from_arrays(one[None], ["ant"])).novelty[0] for one in kept.samples]
    assert min(asked) < 1 < max(asked)


def test_grey_models_take_colour_and_grey_images(tmp_path):
    kept = model(GREY)
    grey = tuple(one[..., :1] for one in kept.samples[:3])
    assert export_model(replace(kept, samples=kept.samples + grey), "onnx", tmp_path / "a").n_checked == 15


def test_metadata_tells_what_a_user_must_know(tmp_path):
    kept = model(COLOUR, novelty=True)
    done = export_model(kept, "onnx", tmp_path / "a.b")
    assert done.path == str(tmp_path / "a.b.onnx") and done.size_bytes == Path(done.path).stat().st_size
    told = {one.key: one.value for one in onnx.load(done.path).metadata_props}
    assert json.loads(told["classes"]) == list(CLASSES)
    assert told["none_of_these"] == "novelty > 1" and told["licence"] == "apache-2.0"
    assert told["fingerprint"] == hashlib.sha256(kept.graph).hexdigest()
    assert export_model(kept, "onnx", tmp_path / "c.onnx").path == str(tmp_path / "c.onnx")
    plain = export_model(
        replace(model(COLOUR), manifest=replace(model(COLOUR).manifest, source={})), "onnx", tmp_path / "d"
    )
    assert not {"licence", "none_of_these"} & {one.key for one in onnx.load(plain.path).metadata_props}


@pytest.mark.parametrize("to", export.TARGETS)
@pytest.mark.parametrize("spec", [COLOUR, GREY])
def test_broken_preparation_is_not_written(tmp_path, monkeypatch, to, spec):
    if spec is GREY:
        monkeypatch.setattr(prepare, "_LUMA", prepare._LUMA[::-1])
    else:
        monkeypatch.setattr(prepare, "_rounded", lambda upper, lower: upper * 0 + lower * 0 + 9)
    with pytest.raises(
        ModelError, match=r"prepares \d+ of 12 images with pixels that differ by .* levels on"
    ):
        export_model(model(spec), to, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_another_name_alone_is_enough(tmp_path, monkeypatch):
    """Probabilities agree, one picture crosses the threshold of novelty."""
    kept = model(COLOUR, novelty=True)

    def other(path, *tensors):
        run = run_file(path, *tensors)
        return lambda image: (run(image)[0], 2 - run(image)[1], run(image)[2])

    monkeypatch.setattr(agreement, "run_file", other)
    with pytest.raises(ModelError, match=r"is too far off for \d+ of 12 images\) and in the class of \d+,"):
        export_model(kept, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nan_is_no_agreement(tmp_path, monkeypatch):
    """Not even where the name is the same: NumPy takes NaN for the largest."""

    def broken(path, *tensors):
        run = run_file(path, *tensors)

        def nan(image):
            found, pixels = run(image)
            return np.where(found == found.max(), np.nan, found), pixels

        return nan

    monkeypatch.setattr(agreement, "run_file", broken)
    with pytest.raises(ModelError, match=r"for 12 of 12 images\) and in the class of 0,"):
        export_model(model(COLOUR), "onnx", tmp_path / "out")


def sharp(spec: InputSpec) -> bytes:
    """A model that two pixels decide: a level moves its probabilities by 0.3 and its class."""
    builder = GraphBuilder(input_spec=spec)
    flat = builder.add("Flatten", builder.add("Cast", INPUT, to=1), axis=1)
    weights = np.zeros((int(np.prod(spec.shape)), 3), np.float32)
    weights[300, 0], weights[301, 1] = 1.5, 1.5
    builder.add(
        "Softmax", builder.add("MatMul", flat, builder.constant("mix", weights)), name=PROBABILITIES, axis=1
    )
    return builder.model([PROBABILITIES]).SerializeToString()


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_pixel_that_rounding_decides_is_no_fault_and_a_wrong_network_is(tmp_path, monkeypatch, to):
    """An export whose predictions agreed for the same pixels was refused for a level in one of them."""
    kept = replace(model(COLOUR), graph=sharp(COLOUR))
    prepare_as_always = agreement.fit_image

    def a_level_off(image, spec):
        fitted = prepare_as_always(image, spec)
        fitted.ravel()[300] ^= 1
        return fitted

    monkeypatch.setattr(agreement, "fit_image", a_level_off)
    done = export_model(kept, to, tmp_path / "out")
    assert done.largest_difference > 0.1
    assert ("another class" in done.sentence) == (done.n_changed > 0)
    whole = export.with_preparation
    other = sharp(COLOUR).replace(np.float32(1.5).tobytes(), np.float32(1.25).tobytes())
    monkeypatch.setattr(export, "with_preparation", lambda graph, *args, **more: whole(other, *args, **more))
    with pytest.raises(ModelError, match=r"differs by up to .* in a probability"):
        export_model(kept, to, tmp_path / "out")


def test_two_classes_as_probable_may_change_places(tmp_path, monkeypatch):
    """Two equal copies in two classes: the last bit decides the name, which is no fault of the export."""
    flat = replace(model(COLOUR), graph=sharp(COLOUR), samples=(np.full((30, 30, 3), 9, np.uint8),) * 2)

    def other(path, *tensors):
        run = run_file(path, *tensors)

        def swapped(image):
            found, pixels = run(image)
            return found + np.float32([-1e-7, 1e-7, 0]), pixels

        return swapped

    monkeypatch.setattr(agreement, "run_file", other)
    assert export_model(flat, "onnx", tmp_path / "out").n_changed == 2


def test_an_older_export_stays_where_the_new_one_fails(tmp_path, monkeypatch):
    kept = model(COLOUR)
    for to in export.TARGETS:
        export_model(kept, to, tmp_path / to)
        assert export_model(kept, to, tmp_path / to).n_changed == 0, "and is replaced where it does not"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    pixels = np.zeros((1, *COLOUR.shape), np.uint8)
    monkeypatch.setattr(agreement, "run_file", lambda *_: lambda image: (np.zeros(3, np.float32), pixels))
    for to in export.TARGETS:
        with pytest.raises(ModelError):
            export_model(kept, to, tmp_path / to)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_images_of_a_dataset_are_spread_and_decoded_as_always(tmp_path):
    for number in range(70):
        folder = tmp_path / "data" / CLASSES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(9 + number % 5, 14, number)).save(folder / f"{number}.png")
    kept = model(COLOUR, samples=0)
    with pytest.raises(ModelError, match=r"has no sample images.*--check DATA"):
        export_model(kept, "onnx", tmp_path / "a")
    done = export_model(kept, "folder", tmp_path / "a", check=load(str(tmp_path / "data")))
    assert done.n_checked == 64 and len(list((tmp_path / "a").glob("check-*.png"))) == 8


def test_faults_of_the_place_and_target_come_before_the_work(tmp_path, monkeypatch):
    kept = model(COLOUR)
    monkeypatch.setattr(Model, "predict_prepared", lambda *_: pytest.fail("worked"))
    with pytest.raises(SettingError, match="expected one of onnx, openvino, folder; nearest are openvino"):
        export_model(kept, "openvin", tmp_path / "a")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    for to in ("openvino", "folder"):
        with pytest.raises(SettingError, match="expected a new or empty folder"):
            export_model(kept, to, tmp_path / "taken")
    (tmp_path / "b.onnx").mkdir()
    with pytest.raises(SettingError, match="is a folder, expected a file"):
        export_model(kept, "onnx", tmp_path / "b")


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=120)


def test_folder_and_its_program_in_python(tmp_path):
    kept = model(COLOUR, novelty=True)
    place = Path(export_model(kept, "folder", tmp_path / "out").path)
    assert {
        "model.onnx",
        "model.json",
        "predict.py",
        "predict.mjs",
        "package.json",
        "README.md",
        "check.json",
    } < {path.name for path in place.iterdir()}
    facts = json.loads((place / "model.json").read_text(encoding="utf-8"))
    assert facts["classes"] == list(CLASSES) and facts["none_of_these"]["when"] == "novelty > 1"
    page = (place / "README.md").read_text(encoding="utf-8")
    assert "Ω mega" in page and "apache-2.0" in page and "{" not in page
    for number in range(8):
        with Image.open(place / f"check-{number:02}.png") as stored:
            np.testing.assert_array_equal(np.asarray(stored), kept.samples[number])
    done = run(place, sys.executable, "predict.py", "--check")
    assert (done.returncode, done.stdout) == (0, "8 images are predicted as expected\n"), done.stderr
    done = run(place, sys.executable, "predict.py", "--json", "check-00.png", "check-07.png")
    told = json.loads((place / "check.json").read_text(encoding="utf-8"))["images"]
    for line, one in zip(done.stdout.splitlines(), (told[0], told[7]), strict=True):
        assert json.loads(line)["name"] == one["name"]
    told[2]["name"] = "wasp"
    (place / "check.json").write_text(json.dumps({"largest_difference": 1e-3, "images": told}))
    done = run(place, sys.executable, "predict.py", "--check")
    assert done.returncode == 1 and "expected wasp" in done.stderr


def test_folder_and_its_program_in_javascript(tmp_path):
    modules = os.environ.get("HEADSTART_NODE_MODULES")
    if not modules or shutil.which("node") is None:
        pytest.skip("needs node, and HEADSTART_NODE_MODULES: where npm installed models/shipped/package.json")
    for policy in ("squish", "crop", "letterbox", "ink"):
        spec = InputSpec(28, 28, 1, policy=policy)
        place = Path(export_model(model(spec, novelty=True), "folder", tmp_path / policy).path)
        (place / "node_modules").symlink_to(modules)
        done = run(place, "node", "predict.mjs", "--check")
        assert (done.returncode, done.stdout) == (0, "8 images are predicted as expected\n"), done.stderr


def test_novelties_near_zero_may_differ_by_rounding_and_others_not():
    """Near copies of training images have distance 0, and rounding counts in units of a small threshold."""
    kept = model(COLOUR, novelty=True)
    check = agreement.make_check(kept, [lambda one=one: one for one in kept.samples[:2]])
    probabilities = check.expected.probabilities

    def novel(*values: float) -> Prediction:
        return Prediction(probabilities, np.array(values, np.float32))

    check._check_outputs(novel(0.10, 0.7), novel(0.03, 0.7))
    check._check_outputs(novel(0.10, float("inf")), novel(-0.002, float("inf")))
    for found, expected in (((0.1, 0.6), (0.1, 0.7)), ((0.4, 0.7), (0.1, 0.7)), ((0.1, 1.3), (0.1, 0.9))):
        with pytest.raises(ModelError, match="novelty is too far off for 1 of 2 images"):
            check._check_outputs(novel(*found), novel(*expected))
